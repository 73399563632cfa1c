"""Converts a choice to panels of a Vega-Lite specification, each with its data."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from micromegas_jupyter.core.text import rows_text
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.plotting.choice import MAX_PANELS, MAX_SERIES, Choice
from micromegas_jupyter.notebook.plotting.columns import Column, Role, shown
from micromegas_jupyter.notebook.plotting.slots import (
    ADDITIVE,
    NUMBER_SLOTS,
    TIME_SLOTS,
    Slots,
    aggregate,
    m4,
    number_slots,
    one_per_spot,
    time_slots,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Spec = dict[str, Any]
    Data = dict[str, np.ndarray]

WIDTH: Final = 620
MAX_BARS: Final = 30
MAX_POINTS: Final = 2_500
HEAT_SLOTS: Final = (40, 24)
_MAX_DOTS, _MAX_CSV_BYTES = 150, 70_000
_BRUSH_SLOTS = 250
_LARGEST, _LATEST_MS = 1e290, 8.64e15  # sums of larger numbers are infinite; JavaScript doesn't support later times
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# Each color has a contrast of at least 3:1 with white and with the dark theme's gray (WCAG 2.2, 1.4.11).
_COLORS = (
    "#2f7ed8", "#d9661f", "#2b9a4b", "#c2549d", "#8a6fe0", "#1b95a0",
    "#dc4d4d", "#8c8419", "#a8703c", "#5f8f2a", "#7d8790", "#b565c9",
)  # fmt: skip
# Labels are as short as possible, with the date below the first one. Vega's own formats would use the viewer's time
# zone.
_TIME_LABELS = (
    "[utcFormat(datum.value, utcmilliseconds(datum.value) ? '%H:%M:%S.%L' : utcseconds(datum.value) ? '%H:%M:%S'"
    " : utchours(datum.value) + utcminutes(datum.value) ? '%H:%M' : utcmonth(datum.value) + utcdate(datum.value) > 1"
    " ? '%b %d' : '%Y'), datum.index ? '' : utcFormat(datum.value, '%Y-%m-%d')]"
)
# Use only well-known SI prefixes, because "5E" and "3m" would be misread.
_NUMBER_LABELS = (
    "abs(datum.value) >= 1e15 || (datum.value && abs(datum.value) < 1e-4) ? format(datum.value, '.6~e')"
    " : abs(datum.value) >= {si} ? replace(format(datum.value, '.9~s'), /([kMGT])$/, ' $1')"
    " : format(datum.value, ',.9~g')"
)
_TIME_AXIS: Spec = {"labelExpr": _TIME_LABELS, "tickCount": 8, "labelOverlap": "greedy", "labelSeparation": 8}
_TIME: Spec = {"type": "temporal", "scale": {"type": "utc"}, "axis": _TIME_AXIS}
_WHEN = {"calculate": "replace(utcFormat(datum.x, '%Y-%m-%d %H:%M:%S.%L'), '.000', '')", "as": "when"}
_TIPS: Spec = {"temporal": {"field": "when", "type": "nominal"}, "quantitative": {"format": ",.9~g"}}
_LINE = {"type": "line", "strokeWidth": 1.5, "strokeCap": "round", "strokeJoin": "round"}
POINT: Final = {"type": "point", "filled": True}
_BY_ROWS: Spec = {"field": "rows", "type": "quantitative", "legend": None, "scale": {"type": "log", "range": [0.3, 1]}}


class Axis(NamedTuple):
    """The values along an axis, with NaN for omitted ones, and their encoding."""

    values: np.ndarray
    encoding: Spec


class Groups(NamedTuple):
    """The group of each row, or -1; without a title, there is a single unlabeled group."""

    codes: np.ndarray
    labels: list[str]
    title: str = ""


class Drawn(NamedTuple):
    """The panels, their measures, the legend entries, and the axes of each panel.

    Axes without slots show each row.
    """

    panels: list[Spec]
    measures: list[Axis]
    series: Groups
    axes: Sequence[Mapping[str, tuple[Column, Slots | Groups | None]]]


def draw_panels(choice: Choice, width: int = WIDTH) -> Drawn:
    """Return a panel per measure, or per value of a unit column; lines have enough points for `width` pixels."""
    counted = _number_axis("rows", np.ones(len(choice.x.values)), is_count=True)
    if choice.kind == "heat":
        names = [{"x": choice.x, "y": y} for y in choice.y]
        axes = [{name: (each, _heat_slots(choice, name, each)) for name, each in both.items()} for both in names]
        return Drawn([_heat_panel(choice, each) for each in axes], [counted], Groups(np.empty(0), [""]), axes)
    if choice.kind == "hist":
        return _histograms(choice, counted)
    measures = [_measure(column, choice) for column in choice.y] or [counted]
    if choice.unit:
        values, (codes, labels, _) = measures[0].values, _group(choice.unit, counted, choice.notes, MAX_PANELS)
        titles = [f"{choice.y[0].title} ({label})" for label in labels]
        measures = [_number_axis(title, np.where(codes == at, values, np.nan)) for at, title in enumerate(titles)]
    adds_up = choice.aggregates == ("sum",) or (
        not choice.aggregates and all(column.role is Role.NUMBER for column in choice.y)
    )
    weights = measures[0] if adds_up else counted
    limit = max(MAX_SERIES // max(len(choice.aggregates), 1), 1)
    series = _group(choice.color, weights, choice.notes, limit, adds_up=bool(choice.aggregates))
    if not choice.aggregates:
        make, room = (_points, MAX_POINTS) if choice.kind == "point" else (_lines, _MAX_CSV_BYTES // len(series.labels))
        panels = [make(choice, y, series, room // len(measures), width) for y in measures]
        has_y = choice.kind == "point" and not choice.unit
        rows = [{"x": (choice.x, None)} | ({"y": (choice.y[at], None)} if has_y else {}) for at in range(len(panels))]
        return Drawn(panels, measures, series, rows)
    along = _choose_slots(choice, measures[0], lines=len(series.labels) * len(choice.aggregates))
    found = [_aggregated(choice, along, choice.x, y, series) for y in measures]
    return Drawn(found, measures, _lines_of(choice, series), [{"x": (choice.x, along)}] * len(found))


def _histograms(choice: Choice, counted: Axis) -> Drawn:
    series = _group(choice.color, counted, choice.notes, adds_up=True)
    columns = choice.y or [choice.x]
    slots = [_slots(column, choice, lines=len(series.labels)) for column in columns]
    panels = [_aggregated(choice, along, column, counted, series) for column, along in zip(columns, slots, strict=True)]
    axes = [{"x": each} for each in zip(columns, slots, strict=True)]
    return Drawn(panels, [_axis(column) for column in choice.y], series, axes)


def brush_slots(choice: Choice, column: Column, axis: str) -> Slots:
    """Return fine slots of an axis that shows each row."""
    return _slots(column, replace(choice, bins=_BRUSH_SLOTS, notes=[]), axis=axis)


def _measure(column: Column, choice: Choice) -> Axis:
    """Return a measure's values; if only counts are drawn, return whether values exist."""
    if choice.aggregates != ("count",) or column.role in {Role.NUMBER, Role.CODE, Role.IDENTIFIER}:
        return _axis(column)
    return _number_axis(column.title, np.where(column.values.is_valid().to_numpy(), 1.0, np.nan), is_count=True)


def _axis(column: Column) -> Axis:
    """Return times in milliseconds, durations in seconds, and other numbers unchanged."""
    values, kind, is_time = column.values, column.values.type, column.role is Role.TIME
    values = values.cast(pa.timestamp("s")) if types.is_date32(kind) else values
    unit = _PER_SECOND[getattr(values.type, "unit", "ms")] if types.is_temporal(kind) else 1
    values = values.cast(pa.int64()) if types.is_temporal(kind) else values
    numbers = values.cast(pa.float64(), safe=False).to_numpy() / (unit / 1e3 if is_time else unit)
    numbers[~(np.abs(numbers) <= (_LATEST_MS if is_time else _LARGEST))] = np.nan
    if not is_time:
        title = column.title + " (s)" * types.is_duration(kind)
        return _number_axis(title, numbers, is_count=types.is_integer(kind))
    if np.isnan(numbers).all():
        raise UsageError(
            f"There is nothing to plot: {column.title} has no times.", remedy="Choose another column for x."
        )
    zone = (" (UTC)" if kind.tz else " (no time zone)") if types.is_timestamp(kind) else ""
    return Axis(np.round(numbers, 3), _TIME | {"title": column.title + zone})


def _number_axis(title: str, values: np.ndarray, *, is_count: bool = False, is_log: bool = False) -> Axis:
    drawn = values[~np.isnan(values)]
    low, high = (float(drawn.min()), float(drawn.max())) if len(drawn) else (0.0, 0.0)
    # Start at zero if zero is near, or if the numbers are counts.
    zero = low == high or (low >= 0 and (low <= high / 2 or (is_count and high - low > high / 100)))
    si = "1e3" if max(-low, high) >= 10_000 else "1e4"  # noqa: PLR2004 - five digits
    axis: Spec = {"labelExpr": _NUMBER_LABELS.replace("{si}", si)}
    axis |= {"labelOverlap": "greedy", "labelSeparation": 8} if is_log else {}
    scale: Spec = {"type": "log", "nice": False} if is_log else {"zero": zero}
    return Axis(values, {"type": "quantitative", "title": title, "axis": axis, "scale": scale})


def _positive(axis: Axis, name: str, choice: Choice) -> Axis:
    """Return a logarithmic axis if the options require it; add a note that counts the values that it cannot show."""
    if name not in choice.log:
        return axis
    below = int(np.count_nonzero(axis.values <= 0))
    if below:
        title = axis.encoding["title"]
        choice.notes.append(f"Not drawn: {below:,} of {title} (zero or negative, on a logarithmic axis).")
    values = np.where(axis.values > 0, axis.values, np.nan)
    if np.isnan(values).all():
        what = f"There is nothing to plot: no value of {axis.encoding['title']} is above zero."
        raise UsageError(what, remedy="Leave log out.")
    return _number_axis(axis.encoding["title"], values, is_log=True)


def _group(
    columns: Sequence[Column], weights: Axis, notes: list[str], limit: int = MAX_SERIES, *, adds_up: bool = False
) -> Groups:
    """Return the combinations of values with the largest totals; add a note on what happens to the others.

    Series are in natural order. The bars of a text column are in row order if each row has its own bar, and otherwise
    ordered by total.
    """
    if not columns:
        return Groups(np.zeros(len(weights.values), np.int64), [""])
    # Use bytes, because a server may send invalid UTF-8.
    texts = [column.values.cast(pa.large_string()).cast(pa.large_binary()).fill_null(b"null") for column in columns]
    joined = texts[0] if len(texts) == 1 else pc.binary_join_element_wise(*texts, pa.scalar(b" / ", pa.large_binary()))
    encoded = joined.combine_chunks().dictionary_encode()
    codes, count = encoded.indices.to_numpy(), len(encoded.dictionary)
    totals = np.bincount(codes, np.nan_to_num(np.abs(weights.values)), count)
    adds_up = adds_up and count > limit
    chosen = np.argsort(-totals, kind="stable")[: limit - adds_up]
    chosen = np.sort(chosen) if count == len(codes) else chosen
    found = [value.decode("utf-8", "replace") for value in encoded.dictionary.take(pa.array(chosen)).to_pylist()]
    labels = [label + f" ({at})" * label.endswith("…") for at, label in enumerate(map(shown, found), 1)]
    if limit != MAX_BARS or columns[0].role is not Role.CATEGORY:  # host-9 before host-10
        natural = [re.sub(r"\d+", lambda number: number[0].zfill(9), label) for label in labels]
        order = sorted(range(len(labels)), key=natural.__getitem__)
        chosen, labels = chosen[order], [labels[at] for at in order]
    new_code = np.full(count, len(labels) if adds_up else -1)
    new_code[chosen] = np.arange(len(labels))
    title = ", ".join(column.title for column in columns)
    if count > limit:
        what = f"the {len(labels)} of {count:,} values of {title} with the largest total of {weights.encoding['title']}"
        notes.append(f"Drawn: {what}. The others are {'added up' if adds_up else 'not drawn'}.")
    return Groups(new_code[codes], labels + ["other"] * adds_up, title)


def _lines_of(choice: Choice, series: Groups) -> Groups:
    """Return the series of each aggregate."""
    if len(choice.aggregates) == 1:
        return series
    labels = [f"{label} {name}".strip() for label in series.labels for name in choice.aggregates]
    return Groups(series.codes, labels, series.title or "aggregate")


def _choose_slots(choice: Choice, weights: Axis, *, lines: int) -> Slots | Groups:
    """Return the slots of the x axis, or its bars."""
    x = choice.x
    is_binned = choice.kind != "bar" or choice.bins or "x" in choice.log or x.role is Role.TIME
    if is_binned or (x.role is Role.NUMBER and pc.count_distinct(x.values).as_py() > MAX_BARS):
        return _slots(x, choice, lines=lines)
    weights = weights if choice.aggregates == ("sum",) else _number_axis("rows", np.ones(len(x.values)))
    return _group([x], weights, choice.notes, MAX_BARS)


def _slots(column: Column, choice: Choice, *, lines: int = 1, max_points: int = MAX_POINTS, axis: str = "x") -> Slots:
    """Return time or number slots, limited so that `lines` lines have no more than `max_points` points in total."""
    usual = TIME_SLOTS if column.role is Role.TIME else NUMBER_SLOTS
    bins = min((choice.bins if axis == "x" else None) or usual, max(max_points // lines, 1))
    if column.role is not Role.TIME:
        values = _positive(_axis(column), axis, choice).values
        return number_slots(values, bins=bins, is_log=axis in choice.log)
    is_drawn = ~np.isnan(_axis(column).values)
    values = column.values.cast(pa.timestamp("s")) if types.is_date32(column.values.type) else column.values
    steps = values.cast(pa.int64()).fill_null(0).to_numpy()
    return time_slots(steps, is_drawn, _PER_SECOND[getattr(values.type, "unit", "ms")], bins=bins)


def _lines(choice: Choice, y: Axis, series: Groups, max_bytes: int, width: int) -> Spec:
    x, y = _positive(_axis(choice.x), "x", choice), _positive(y, "y", choice)
    order = np.argsort(x.values, kind="stable")[: np.count_nonzero(~np.isnan(x.values))]
    at, values, codes = x.values[order], y.values[order], series.codes[order]
    along = np.log10(at) if "x" in choice.log else at
    columns = min(max_bytes // (4 * (26 + max(map(len, series.labels)))), width)
    each = [np.flatnonzero(codes == code) for code in range(len(series.labels))]
    rows = np.concatenate([rows[m4(along[rows], values[rows], along[0], along[-1], columns)] for rows in each])
    data = {"x": at[rows], "y": values[rows], "series": np.array(series.labels)[codes[rows]]}
    encoding = _encoding(x.encoding, y.encoding, series)
    if choice.kind == "area":
        adds_up = "y" not in choice.log and all(column.role is Role.NUMBER for column in choice.y)
        is_stacked = adds_up and bool(series.title) and len(series.labels) * len(np.unique(at)) == len(at) == len(rows)
        return _area(data, encoding, series, is_stacked=is_stacked)
    return _panel(data, _LINE, encoding, *[{"mark": POINT | {"size": 16}}] * (len(rows) <= _MAX_DOTS))


def _area(data: Data, encoding: Spec, series: Groups, *, is_stacked: bool) -> Spec:
    if encoding["y"]["scale"].get("type") != "log":
        encoding["y"] |= {"scale": {"zero": True}}
    encoding["y"] |= {"stack": "zero" if is_stacked else None}
    if is_stacked:
        _stack_in_order(data, encoding, series)
    return _panel(data, {"type": "area", "orient": "vertical", "fillOpacity": 0.8 if is_stacked else 0.5}, encoding)


def _stack_in_order(data: Data, encoding: Spec, series: Groups) -> None:
    """Stack in the legend's order; Vega-Lite would use the opposite order."""
    if len(series.labels) > 1:
        places = {label: place for place, label in enumerate(series.labels)}
        data["place"] = np.array([float(places[label]) for label in data["series"].tolist()])
        encoding["order"] = {"field": "place", "type": "quantitative"}


def _points(choice: Choice, y: Axis, series: Groups, max_points: int, _width: int) -> Spec:
    x, y = _positive(_axis(choice.x), "x", choice), _positive(y, "y", choice)
    rows = np.flatnonzero(~np.isnan(x.values) & ~np.isnan(y.values) & (series.codes >= 0))
    codes = series.codes[rows]
    at_x, at_y = (
        np.log10(axis.values[rows]) if name in choice.log else axis.values[rows] for name, axis in (("x", x), ("y", y))
    )
    chosen, counts = one_per_spot(at_x, at_y, codes, max_points=max_points)
    data = {"x": x.values[rows[chosen]], "y": y.values[rows[chosen]], "series": np.array(series.labels)[codes[chosen]]}
    opacity, is_thinned = {"value": 0.6}, len(chosen) < len(rows)
    if is_thinned:
        choice.notes.append(f"One point for each spot: {len(chosen):,} for {rows_text(len(rows))}.")
        data, opacity = data | {"rows": counts}, _BY_ROWS
    encoding = _encoding(x.encoding, y.encoding, series, opacity)
    encoding["tooltip"] += [{"field": "rows", "type": "quantitative", "format": ","}] * is_thinned
    return _panel(data, POINT | {"size": 40 if len(rows) < MAX_POINTS // 4 else 16}, encoding)


def _aggregated(choice: Choice, along: Slots | Groups, column: Column, y: Axis, series: Groups) -> Spec:
    """Return a panel with a bar or point for each slot, series, and aggregate."""
    names, lines = choice.aggregates, _lines_of(choice, series)
    is_drawn = (along.codes >= 0) & (series.codes >= 0) & ~np.isnan(y.values)
    cells = along.codes[is_drawn] * len(series.labels) + series.codes[is_drawn]
    found = aggregate(cells, _count(along) * len(series.labels), y.values[is_drawn], names)
    is_line, is_log = choice.kind in {"line", "area"}, "y" in choice.log
    if is_line and "count" in found and not is_log:
        found["count"] = np.nan_to_num(found["count"])  # slots without rows, which a line shows as zero
    title = y.encoding["title"]
    is_single = names == ("sum",) and len(cells) == len(np.unique(cells))
    title = title if title == "rows" or is_single else f"{', '.join(names)} of {title}"
    values = np.stack([found[name] for name in names], axis=1).ravel()
    axis = _positive(_number_axis(title, values, is_count=set(names) <= {"count"}), "y", choice)
    at = np.flatnonzero(~np.isnan(axis.values))
    slot, line = at // len(lines.labels), at % len(lines.labels)
    data = {"y": axis.values[at], "series": np.array(lines.labels)[line]}
    x = _slot_encoding(along, column, choice)
    is_stacked = len(names) == 1 and set(names) <= ADDITIVE and not is_log
    if isinstance(along, Groups):
        data = {"x": np.array(along.labels)[slot]} | data
    elif is_line:
        data = {"x": along.middles[slot]} | data
    else:
        data = {"x": along.edges[slot], "x2": along.edges[slot + 1]} | data
    encoding = _encoding(x, axis.encoding, lines)
    if choice.kind == "area":
        return _area(data, encoding, lines, is_stacked=is_stacked)
    if is_line:
        return _panel(data, _LINE, encoding, *[{"mark": POINT | {"size": 16}}] * (len(at) <= _MAX_DOTS))
    return _bars(data, encoding, lines, line, is_stacked=is_stacked)


def _bars(data: Data, encoding: Spec, lines: Groups, line: np.ndarray, *, is_stacked: bool) -> Spec:
    """Return stacked bars, or side-by-side bars for means, percentiles, and logarithmic axes."""
    is_log, is_horizontal = encoding["y"]["scale"].get("type") == "log", "x2" not in data
    encoding["y"] |= {"stack": "zero" if is_stacked else None} | ({} if is_log else {"scale": {"zero": True}})
    beside = not is_stacked and len(lines.labels) > 1
    if is_stacked:
        _stack_in_order(data, encoding, lines)
    if is_log and len(data["y"]):
        # A logarithmic axis has no zero to start from, and bars without a start would have no size.
        data["base"] = np.full(len(data["y"]), _base(data["y"]))
        encoding["y"]["scale"] |= {"domainMin": data["base"][0]}
        encoding["x2" if is_horizontal else "y2"] = {"field": "base"}
    if is_horizontal:
        encoding |= {"x": encoding["y"], "y": encoding["x"]}
        encoding |= {"yOffset": {"field": "series", "type": "nominal", "sort": lines.labels}} if beside else {}
        return _panel(data, {"type": "bar", "orient": "horizontal"}, encoding) | {"height": _step(lines, beside)}
    if encoding["x"]["type"] == "quantitative":
        encoding["tooltip"].insert(1, {"field": "to", "type": "quantitative", "title": "to"} | _TIPS["quantitative"])
        encoding["tooltip"][0] |= {"field": "from"}
        data |= {"from": data["x"], "to": data["x2"]}
    if beside:
        data["x"], data["x2"] = _parts(data["x"], data["x2"], line, encoding, count=len(lines.labels))
    return _panel(data, {"type": "bar", "orient": "vertical"}, encoding | {"x2": {"field": "x2"}})


def _step(lines: Groups, beside: bool) -> Spec:  # noqa: FBT001 - of one caller
    return {"step": max(20, 8 * len(lines.labels)), "for": "position"} if beside else {"step": 20}


def _parts(x: np.ndarray, x2: np.ndarray, line: np.ndarray, encoding: Spec, *, count: int) -> tuple[np.ndarray, ...]:
    """Return the ends of each slot's stacked parts."""
    if encoding["x"]["scale"].get("type") == "log":
        ratio = (x2 / x) ** (1 / count)
        return x * ratio**line, x * ratio ** (line + 1)
    width = (x2 - x) / count
    return x + width * line, x + width * (line + 1)


def _base(values: np.ndarray) -> float:
    """Return a power of ten below all values."""
    return float(10.0 ** np.floor(np.log10(values.min()) - 1e-9))


def _slot_encoding(along: Slots | Groups, column: Column, choice: Choice, *, name: str = "x") -> Spec:
    if isinstance(along, Groups):
        return {"type": "nominal", "title": column.title, "sort": along.labels}
    encoding, is_log = _axis(column).encoding, name in choice.log
    if column.role is Role.TIME:
        return dict(encoding)
    found = _number_axis(encoding["title"], along.edges, is_log=is_log).encoding
    if is_log:
        return found
    # Rounded or padded ends would leave gaps before the first bin and after the last.
    return found | {"scale": {"zero": False, "nice": False, "padding": 0}}


def _heat_panel(choice: Choice, axes: dict[str, tuple[Column, Slots | Groups]]) -> Spec:
    """Return a panel with a rectangle for each nonempty slot of both axes, more opaque for more rows."""
    along = {name: slots for name, (_, slots) in axes.items()}
    is_drawn = (along["x"].codes >= 0) & (along["y"].codes >= 0)
    across = _count(along["y"])
    counts = np.bincount(along["x"].codes[is_drawn] * across + along["y"].codes[is_drawn], minlength=across)
    cells = np.flatnonzero(counts)
    data: Data = {}
    ends: Spec = {}
    for name, slot in (("x", cells // across), ("y", cells % across)):
        places = along[name]
        if isinstance(places, Groups):
            data[name] = np.array(places.labels)[slot]
            continue
        data |= {name: places.edges[slot], f"{name}2": places.edges[slot + 1]}
        ends[f"{name}2"] = {"field": f"{name}2"}
    data["rows"] = counts[cells].astype(float)
    x_end, y_end = (_slot_encoding(along[name], column, choice, name=name) for name, (column, _) in axes.items())
    rows: Spec = {"field": "rows", "type": "quantitative", "title": "rows"}
    scale = {"type": "log", "domain": [1, max(int(counts.max()), 2)], "range": [0.2, 1]}
    encoding = _encoding(x_end, y_end, Groups(cells, [""]), rows | {"scale": scale}) | ends
    encoding["tooltip"] += [rows | {"format": ","}]
    return _panel(data, {"type": "rect"}, encoding)


def _heat_slots(choice: Choice, name: str, column: Column) -> Slots | Groups:
    max_slots = HEAT_SLOTS[name == "y"]
    if column.role is not Role.CATEGORY:
        return _slots(column, choice, max_points=max_slots, axis=name)
    counted = _number_axis("rows", np.ones(len(column.values)))
    return _group([column], counted, choice.notes, min(max_slots, MAX_BARS), adds_up=True)


def _count(along: Slots | Groups) -> int:
    return len(along.labels) if isinstance(along, Groups) else len(along.middles)


def _encoding(x: Spec, y: Spec, series: Groups, opacity: Spec | None = None) -> Spec:
    ends = {"x": {"field": "x", **x}, "y": {"field": "y", **y}}
    shown_parts = [{name: each[name] for name in ("field", "type", "title")} for each in ends.values()]
    tips = [tip | _TIPS.get(tip["type"], {}) for tip in shown_parts]
    if not series.title:
        return {**ends, "tooltip": tips, "color": {"value": _COLORS[0]}, "opacity": opacity or {"value": 1}}
    by = {"field": "series", "type": "nominal", "title": series.title}
    color = by | {"scale": {"domain": series.labels, "range": list(_COLORS[: len(series.labels)])}}
    opacity = {"condition": {"param": "legend", **(opacity or {"value": 1})}, "value": 0.06}
    return {**ends, "tooltip": [*tips, by], "color": color, "opacity": opacity}


def _panel(data: Data, mark: Spec, encoding: Spec, *more: Spec) -> Spec:
    transform = [_WHEN] if encoding["x"]["type"] == "temporal" else []
    return {"data": data, "transform": transform, "encoding": encoding, "layer": [{"mark": mark}, *more]}


def csv_data(data: Data) -> Spec:
    """Return the rows as one string, because a notebook would write each value of an object on a separate line."""
    is_text = {name: values.dtype.kind == "U" for name, values in data.items()}
    digits = {name: "%.9g" if name in {"y", "rows"} else "%.16g" for name in data}
    texts = [values if is_text[name] else np.char.mod(digits[name], values) for name, values in data.items()]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([data, *zip(*texts, strict=True)])
    parse = {name: "string" if is_text[name] else "number" for name in data}
    return {"values": text.getvalue(), "format": {"type": "csv", "parse": parse}}
