"""A chart's Vega-Lite specification and the sentences that describe it."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.charts.columns import MAX_BARS, MAX_SERIES, Choice, Column, Role, shown
from micromegas_jupyter.notebook.charts.sampling import m4, number_step, one_per_spot, time_step
from micromegas_jupyter.notebook.shell import count_text, cut, rows_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Spec = dict[str, Any]
    Data = dict[str, list[Any]]

WIDTH: Final = 620
MAX_POINTS: Final = 2_500
_MAX_TIMES, _MAX_TEXTS, _MAX_DOTS = 400, 24, 150
_MAX_CSV_BYTES = 90_000
_LARGEST = 1e290  # the sums of larger numbers are infinite
_NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_DURATIONS = ((86_400e9, "days"), (3_600e9, "h"), (60e9, "min"), (1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns"))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST_MS, _LATEST_MS = -62_104_060_800_000, 253_370_764_800_000  # years that exist in every zone
_WEEK_MS, _MONTHS_MS = 7 * 86_400_000, 120 * 86_400_000
_FINE_MS = 200  # of less, a browser's times show too little
_OFFSET = re.compile(r"([+-])([01][0-9]|2[0-3]):([0-5][0-9])")
# Each stands out from white and from the dark theme's grey by at least 3 to 1 (WCAG 2.2, 1.4.11).
_COLORS = (
    "#2f7ed8", "#d9661f", "#2b9a4b", "#c2549d", "#8a6fe0", "#1b95a0",
    "#dc4d4d", "#8c8419", "#a8703c", "#5f8f2a", "#7d8790", "#b565c9",
)  # fmt: skip
_CONFIG: Final = {
    "font": "system-ui, sans-serif",
    "axis": {"gridOpacity": 0.35, "titleFontWeight": "normal", "labelLimit": 220, "titleLimit": 400, "tickCount": 6},
    "legend": {"titleFontWeight": "normal", "labelLimit": 170, "symbolOpacity": 1, "symbolStrokeWidth": 3},
    "title": {"anchor": "start", "fontSize": 13, "fontWeight": 600, "offset": 10, "subtitlePadding": 4},
    "concat": {"spacing": 14},
}
# The date below the first label, and where a clock's times turn to the next day.
_TIME_LABELS = (
    "[utcmilliseconds(datum.value) ? utcFormat(datum.value, '%H:%M:%S.%L')"
    " : utcseconds(datum.value) ? utcFormat(datum.value, '%H:%M:%S')"
    " : utchours(datum.value) + utcminutes(datum.value) ? utcFormat(datum.value, '%H:%M')"
    " : utcFormat(datum.value, '{day}'), datum.index ? ''"
    " : utcFormat(datum.value, utchours(datum.value) + utcminutes(datum.value) ? '%Y-%m-%d' : '%Y')]"
)
# SI prefixes as far as people know them: "5E" and "3m" would be read as something else.
_NUMBER_LABELS = (
    "abs(datum.value) >= 1e15 || (datum.value && abs(datum.value) < 1e-4) ? format(datum.value, '.6~e')"
    " : abs(datum.value) >= {si} ? replace(format(datum.value, '.9~s'), /([kMGT])$/, ' $1')"
    " : format(datum.value, ',.9~g')"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A specification, what it shows in words, and how many points its lines or its scatter plot have."""

    spec: Spec
    text: str
    points: int
    is_scatter: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """The values along an axis, NaN for what is not drawn, and their encoding."""

    values: np.ndarray
    encoding: Spec

    @property
    def field(self) -> str:
        return str(self.encoding["field"])

    @property
    def title(self) -> str:
        return str(self.encoding["title"])


@dataclass(slots=True, kw_only=True)
class _Series:
    """Which series each row belongs to, -1 for none; without a title there is one series without a label."""

    codes: np.ndarray
    labels: list[str]
    title: str = ""


@dataclass(slots=True, kw_only=True)
class _Parts:
    """A chart in the making: its panels, what they show in words, and what is left out."""

    choice: Choice
    series: _Series
    notes: list[str]
    panels: list[Spec] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    points: int = 0

    def add(self, data: Data, mark: Spec, encoding: Spec, *more: Spec, height: Spec | None = None) -> None:
        layer = {"name": f"panel_{len(self.panels) + 1}", "mark": mark, "encoding": encoding}
        transform: list[Spec] = []
        if encoding["x"]["type"] == "temporal":
            # A tooltip's own format would be in the zone of whoever looks.
            shown_time = f"utcFormat(datum['{encoding['x']['field']}'], '%Y-%m-%d %H:%M:%S.%L')"
            transform.append({"calculate": f"replace({shown_time}, '.000', '')", "as": "when"})
        if data["series"]:
            width = WIDTH - 150 if height else WIDTH  # horizontal bars have long names beside them
            panel = {"width": width, "height": height, "data": _csv(data), "transform": transform}
            self.panels.append({**panel, "layer": [layer, *more]})

    def describe(self, y: _Axis) -> None:
        """Say in words what each series holds."""
        for code, label in enumerate(self.series.labels):
            values = y.values[(self.series.codes == code) & ~np.isnan(y.values)]
            if len(values):
                name = f"{label}, {y.title}" if label else y.title
                self.texts.append(f"  {name}: {values.min():,.6g} to {values.max():,.6g}")


def draw(choice: Choice) -> Drawing:
    """Return the specification of what was chosen."""
    rows = len(choice.x.values)
    measures = [_axis(column) for column in choice.y]
    if choice.unit is not None:
        units = _series_of((choice.unit,))
        measures = [
            _axis(choice.y[0], unit=label, is_drawn=units.codes == code) for code, label in enumerate(units.labels)
        ]
    counted = _Axis(values=np.ones(rows), encoding=_number_encoding("rows", "rows", np.array([rows])))
    series, notes = _Series(codes=np.zeros(rows, np.int64), labels=[""]), list(choice.notes)
    if choice.color:
        weights = counted if choice.kind == "hist" else [*measures, counted][0]
        adds_up = choice.kind in {"bar", "hist"}
        series = _largest(_series_of(choice.color), weights, MAX_SERIES, notes, adds_up=adds_up)
    parts = _Parts(choice=choice, series=series, notes=notes)
    match choice.kind:
        case "bar":
            _add_bars(parts, measures or [counted])
        case "hist":
            for axis in measures or [_axis(choice.x)]:
                _add_histogram(parts, axis, counted)
        case "point":
            for y in measures:
                _add_points(parts, _axis(choice.x), y, max_points=MAX_POINTS // len(measures))
        case _:
            _add_lines(parts, _axis(choice.x), measures)
    return _drawing(parts, ", ".join(dict.fromkeys(column.title for column in choice.y)) or "rows")


def zone_of(name: str | None) -> tuple[tzinfo, str]:
    """Return a column's time zone and its label; times without a zone are drawn as they are written."""
    if name is None:
        return UTC, "no time zone"
    if offset := _OFFSET.fullmatch(name):
        sign, hours, minutes = offset.groups()
        ahead = timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1)
        return timezone(ahead), f"UTC{name}" if ahead else "UTC"
    try:
        return ZoneInfo(name), shown(name)
    except (ValueError, LookupError, OSError):
        return UTC, f"UTC, as {shown(name)} is not a known time zone"


def _axis(column: Column, *, unit: str = "", is_drawn: np.ndarray | None = None) -> _Axis:
    if column.role is Role.TIME:
        return _time_axis(column)
    numbers, kind = column.values, column.values.type
    if pa.types.is_duration(kind):
        values = _floats(numbers.cast(pa.int64())) * _NS[kind.unit]
        largest = np.nanmax(np.abs(values), initial=0.0)
        size, unit = next((step for step in _DURATIONS if largest >= 2 * step[0]), _DURATIONS[-1])
        values /= size
    elif pa.types.is_decimal(kind):
        values = np.array([np.nan if value is None else float(value) for value in numbers.to_pylist()])
    else:
        values = _floats(numbers)
    values[~(np.abs(values) <= _LARGEST)] = np.nan
    if is_drawn is not None:
        values[~is_drawn] = np.nan
    title = f"{column.title} ({unit})" if unit else column.title
    return _Axis(values=values, encoding=_number_encoding(column.field, title, values, kind))


def _floats(values: pa.ChunkedArray) -> np.ndarray:
    return np.array(values.cast(pa.float64(), safe=False).to_numpy(), np.float64)


def _number_encoding(name: str, title: str, values: np.ndarray, kind: pa.DataType | None = None) -> Spec:
    drawn = values[~np.isnan(values)]
    low, high = (float(drawn.min()), float(drawn.max())) if len(drawn) else (0.0, 0.0)
    is_count = kind is not None and pa.types.is_integer(kind) and high - low > high / 100
    # From zero when zero is near, and when the numbers are counts.
    zero = low == high or (low >= 0 and (is_count or low <= high / 2))
    si = "1e3" if max(-low, high) >= 10_000 else "1e4"  # noqa: PLR2004 - five digits
    axis = {"labelExpr": _NUMBER_LABELS.replace("{si}", si)}
    return {"field": name, "type": "quantitative", "title": title, "axis": axis, "scale": {"zero": zero}}


def _time_axis(column: Column) -> _Axis:
    """Return times by the clocks of the column's zone; by UTC when these change in between.

    Vega draws in UTC or in the zone of whoever looks. Local times drawn as UTC are the same for everybody.
    """
    times = column.values.cast(pa.timestamp("s")) if pa.types.is_date32(column.values.type) else column.values
    unit_ns = _NS["ms" if pa.types.is_date64(times.type) else times.type.unit]
    numbers = times.cast(pa.int64())
    counts = numbers.fill_null(0).to_numpy()
    ms = counts * (unit_ns / 1e6)
    is_drawn = numbers.is_valid().to_numpy() & (ms >= _EARLIEST_MS) & (ms <= _LATEST_MS)
    if not is_drawn.any():
        raise UsageError(f"There is nothing to draw: {column.title} holds no times.", remedy="Name another as x.")
    begin, end = float(ms[is_drawn].min()), float(ms[is_drawn].max())
    title, ahead = column.title, timedelta()
    if not pa.types.is_date(column.values.type):
        zone, label = zone_of(column.values.type.tz)
        instants = [*np.arange(begin, end, max(_WEEK_MS, (end - begin) / 3_000)), end]
        aheads = {(_EPOCH + timedelta(milliseconds=at)).astimezone(zone).utcoffset() or timedelta() for at in instants}
        ahead = aheads.pop() if len(aheads) == 1 else timedelta()
        if aheads:
            label = f"UTC, as the clocks of {label} change in between"
        elif ahead and not label.startswith("UTC"):
            label = f"{label}, {timezone(ahead)}"
        title = f"{title} ({label})"
    if 0 < end - begin < _FINE_MS and unit_ns < _NS["ms"]:
        first = counts[is_drawn].min()
        clock = str(np.datetime64(int(first * unit_ns) + ahead // timedelta(microseconds=1) * 1_000, "ns"))
        values = np.where(is_drawn, (counts - first) * (unit_ns / 1e3), np.nan)
        title = f"µs after {clock.replace('T', ' ')}, {title}"
        return _Axis(values=values, encoding=_number_encoding(column.field, title, values))
    labels = _TIME_LABELS.replace("{day}", "%b %d" if end - begin < _MONTHS_MS else "%Y-%m-%d")
    axis = {"labelExpr": labels, "tickCount": 8, "labelOverlap": "greedy", "labelSeparation": 8}
    encoding = {"field": column.field, "type": "temporal", "title": title, "scale": {"type": "utc"}, "axis": axis}
    return _Axis(values=np.where(is_drawn, np.round(ms) + ahead / timedelta(milliseconds=1), np.nan), encoding=encoding)


def _series_of(columns: Sequence[Column]) -> _Series:
    """Return the combinations of the columns' values, in natural order."""
    codes, labels = np.zeros(len(columns[0].values), np.int64), [""]
    for column in columns:
        values = column.values if column.is_text else column.values.cast(pa.string())
        encoded = values.combine_chunks().dictionary_encode(null_encoding="encode")
        names = ["null" if value is None else _text(value) for value in encoded.dictionary.to_pylist()]
        codes = codes * len(names) + encoded.indices.to_numpy(zero_copy_only=False)
        present, codes = np.unique(codes, return_inverse=True)
        labels = [" · ".join(filter(None, (labels[code // len(names)], names[code % len(names)]))) for code in present]
    seen: Counter[str] = Counter()
    for index, label in enumerate(labels):
        seen[label] += 1
        labels[index] = label if seen[label] == 1 else f"{label} ({seen[label]})"
    order = sorted(range(len(labels)), key=lambda code: _natural(labels[code]))
    new_code = np.argsort(order)
    return _Series(
        codes=new_code[codes], labels=[labels[code] for code in order], title=", ".join(each.title for each in columns)
    )


def _text(value: str | bytes) -> str:
    return shown(value.decode("utf-8", "replace") if isinstance(value, bytes) else value)


def _natural(label: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d{1,18})", label)
    return [(int(part), "") if index % 2 else (0, part) for index, part in enumerate(parts)]


def _largest(series: _Series, y: _Axis, limit: int, notes: list[str], *, adds_up: bool = False) -> _Series:
    """Return the series with the largest totals; the others are added up, or left out, which a note says."""
    count = len(series.labels)
    if count <= limit:
        return series
    totals = np.bincount(series.codes, np.nan_to_num(np.abs(y.values)), count)
    chosen = np.sort(np.argsort(-totals, kind="stable")[: limit - adds_up])
    new_code = np.full(count, len(chosen) if adds_up else -1)
    new_code[chosen] = np.arange(len(chosen))
    what = "The others are added up." if adds_up else "The others are not drawn."
    of = f"{len(chosen)} of {count_text(count)} values of {series.title}"
    notes.append(f"Drawn: the {of} with the largest total of {y.title}. {what}")
    labels = [series.labels[code] for code in chosen] + ["other"] * adds_up
    return _Series(codes=new_code[series.codes], labels=labels, title=series.title)


def _add_lines(parts: _Parts, x: _Axis, measures: list[_Axis]) -> None:
    """Add a panel for each measure, with a line for each series."""
    labels, is_area = parts.series.labels, parts.choice.kind == "area"
    order = np.argsort(x.values, kind="stable")[: np.count_nonzero(~np.isnan(x.values))]
    at, codes = x.values[order], parts.series.codes[order]
    bytes_per_line = _MAX_CSV_BYTES // (len(labels) * len(measures))
    columns = min(bytes_per_line // (4 * (26 + max(map(len, labels)))), WIDTH)
    points, drawn = 0, 0
    for y in measures:
        values = y.values[order]
        data: Data = {x.field: [], y.field: [], "series": []}
        for code, label in enumerate(labels):
            rows = np.flatnonzero(codes == code)
            rows = rows[m4(at[rows], values[rows], begin=at[0], end=at[-1], columns=columns)]
            ends = np.concatenate(([True], np.isnan(values[rows]), [True]))
            # What nothing joins becomes a short line, as one without length is not drawn.
            rows = np.repeat(rows, 1 + (ends[:-2] & ends[2:] & ~ends[1:-1]))
            shift = np.diff(rows, prepend=-1) == 0
            data[x.field] += (at[rows] + shift * ((at[-1] - at[0]) / WIDTH / 10)).tolist()
            data[y.field] += values[rows].tolist()
            data["series"] += [label] * len(rows)
        points, drawn = points + int(np.count_nonzero(~np.isnan(values))), drawn + len(data["series"])
        encoding = {"x": x.encoding, "y": y.encoding, **_color(parts.series)}
        mark: Spec = {"type": "line", "strokeWidth": 1.5, "strokeCap": "round", "strokeJoin": "round"}
        if is_area:
            is_aligned = len(labels) * len(np.unique(at)) == len(at) == len(data["series"])
            is_stacked = len(labels) > 1 and is_aligned and not (values < 0).any()
            encoding["y"] = {**y.encoding, "scale": {"zero": True}, "stack": "zero" if is_stacked else None}
            mark = {"type": "area", "fillOpacity": 0.8 if is_stacked else 0.5}
        # Not the mark's own `point` and `line`: with these JupyterLab's Vega-Lite draws nothing.
        has_dots = len(data["series"]) <= _MAX_DOTS and not is_area
        dots = {"mark": {"type": "point", "filled": True, "size": 16}, "encoding": encoding}
        nearest = _nearest(f"near_{len(parts.panels) + 1}", encoding, x, y, parts.series)
        parts.add(data, mark, encoding, *[dots] * has_dots, nearest)
        parts.describe(y)
    parts.points = drawn
    if drawn < points // 2:
        parts.texts.append(f"{count_text(drawn)} of {count_text(points)} points draw the same lines, with every peak.")


def _nearest(name: str, encoding: Spec, x: _Axis, y: _Axis, series: _Series) -> Spec:
    """Return a layer that shows the point next to the pointer."""
    select = {"type": "point", "on": "pointerover", "nearest": True, "clear": "pointerout"}
    opacity = {"condition": {"param": name, "empty": False, "value": 1}, "value": 0}
    return {
        "name": f"{name}_points",
        "mark": {"type": "point", "filled": True, "size": 45},
        "params": [{"name": name, "select": select}],
        "encoding": {**encoding, "opacity": opacity, "tooltip": _tips(series, x.encoding, y.encoding)},
    }


def _add_points(parts: _Parts, x: _Axis, y: _Axis, *, max_points: int) -> None:
    """Add a panel with a point for each row; of those that cover each other one, more opaque."""
    rows = np.flatnonzero(~np.isnan(x.values) & ~np.isnan(y.values) & (parts.series.codes >= 0))
    if not len(rows):
        return
    codes = parts.series.codes[rows]
    chosen, counts = one_per_spot(x.values[rows], y.values[rows], codes, max_points=max_points)
    data: Data = {
        x.field: x.values[rows[chosen]].tolist(),
        y.field: y.values[rows[chosen]].tolist(),
        "series": [parts.series.labels[code] for code in codes[chosen]],
    }
    tips = _tips(parts.series, x.encoding, y.encoding)
    opacity: Spec = {"value": 0.6}
    if len(chosen) < len(rows):
        parts.notes.append(f"One point for each spot: {count_text(len(chosen))} for {rows_text(len(rows))}.")
        data["rows"] = counts.tolist()
        opacity = {"field": "rows", "type": "quantitative", "scale": {"type": "log", "range": [0.3, 1]}, "legend": None}
        tips.append({"field": "rows", "type": "quantitative", "format": ","})
    encoding = {"x": x.encoding, "y": y.encoding, **_color(parts.series, opacity), "tooltip": tips}
    parts.add(data, {"type": "point", "filled": True, "size": 40 if len(rows) < MAX_POINTS // 4 else 16}, encoding)
    parts.points += len(chosen)
    parts.describe(y)


def _add_bars(parts: _Parts, measures: list[_Axis]) -> None:
    """Add a panel for each measure, with a bar from zero for each value of x: the sum of its rows."""
    column = parts.choice.x
    if column.role is Role.TIME:
        x = _time_axis(column)
        starts, codes = np.unique(x.values, return_inverse=True)
        starts = starts[~np.isnan(starts)]
        if len(starts) > _MAX_TIMES:
            what = f"{column.title} would make {count_text(len(starts))} bars, and at most {_MAX_TIMES} are drawn."
            raise UsageError(what, remedy="Group by date_bin(…), or draw a line or hist.")
        width = float(np.diff(starts).min()) if len(starts) > 1 else 1_000.0
        slots, encoding = _bins(starts, width, x)
        codes = np.where(codes < len(starts), codes, -1)
    else:
        bars = _largest(_series_of((column,)), measures[0], MAX_BARS, parts.notes)
        slots, codes = {column.field: bars.labels}, bars.codes
        y = {"field": column.field, "type": "nominal", "title": column.title}
        encoding = {"y": {**y, "sort": _bar_order(column, bars, measures[0].values)}}
    for measure in measures:
        _add_bar_panel(parts, measure, codes, slots, encoding)
        parts.describe(measure)


def _bar_order(column: Column, bars: _Series, values: np.ndarray) -> list[str]:
    """Return the order of numbers; of texts that of the rows, where it is an order, or of the sums."""
    if not column.is_text:
        return bars.labels
    is_ordered = any((np.diff(each) * sign >= 0).all() for each in (bars.codes, values) for sign in (1, -1))
    if is_ordered and len(values) == len(bars.labels):
        return [bars.labels[code] for code in bars.codes]
    is_drawn = bars.codes >= 0
    totals = np.bincount(bars.codes[is_drawn], np.nan_to_num(values[is_drawn]), len(bars.labels))
    return [bars.labels[code] for code in np.argsort(-totals, kind="stable")]


def _add_histogram(parts: _Parts, x: _Axis, counted: _Axis) -> None:
    """Add a panel that shows how many rows lie in each range of a number or of time."""
    drawn = x.values[~np.isnan(x.values)]
    if not len(drawn):
        return
    low, high = float(drawn.min()), float(drawn.max())
    is_time, is_whole = x.encoding["type"] == "temporal", bool((drawn == np.floor(drawn)).all())
    step = time_step(low, high) if is_time else number_step(low, high, is_whole=is_whole)
    first = np.floor(low / step)
    codes = np.nan_to_num(np.floor(x.values / step) - first, nan=-1).astype(np.int64)
    # Whole numbers stand in the middle of their bars.
    starts = (first + np.arange(codes.max() + 1)) * step - (0.5 if is_whole and step == 1 and not is_time else 0)
    slots, encoding = _bins(starts, step, x)
    _add_bar_panel(parts, counted, codes, slots, encoding)
    begin, end = slots["range"][0].partition(" to ")[0], slots["range"][-1].partition(" to ")[2]
    parts.texts.append(f"  {x.title}: {rows_text(len(drawn))} from {begin} to {end}")


def _bins(starts: np.ndarray, width: float, x: _Axis) -> tuple[Data, Spec]:
    """Return bars' ends with their texts, and the encoding."""
    edges = (starts, starts + width)
    if x.encoding["type"] == "temporal":
        clocks = (np.datetime_as_string(each.astype("datetime64[ms]")) for each in edges)
        texts = [[clock.replace("T", " ").removesuffix(".000") for clock in each] for each in clocks]
        scale: Spec = {"type": "utc"}
    else:
        texts = [[f"{value:,.6g}" for value in each] for each in edges]
        scale = {"zero": False}
    ranges = [f"{start} to {end}" for start, end in zip(*texts, strict=True)]
    encoding = {"x": {**x.encoding, "field": "start", "scale": scale}, "x2": {"field": "end"}}
    return {"start": edges[0].tolist(), "end": edges[1].tolist(), "range": ranges}, encoding


def _add_bar_panel(parts: _Parts, y: _Axis, codes: np.ndarray, slots: Data, encoding: Spec) -> None:
    count = len(parts.series.labels)
    is_drawn = (codes >= 0) & ~np.isnan(y.values)
    cells = codes[is_drawn] * count + parts.series.codes[is_drawn]
    rows, sums = np.bincount(cells), np.bincount(cells, y.values[is_drawn])
    drawn = np.flatnonzero(rows)
    data: Data = {name: [texts[cell // count] for cell in drawn] for name, texts in slots.items()}
    data |= {y.field: sums[drawn].tolist(), "series": [parts.series.labels[cell % count] for cell in drawn]}
    title = f"sum of {y.title}" if y.field != "rows" and (rows > 1).any() else y.title
    measure = {**y.encoding, "title": title, "scale": {"zero": True}}
    is_horizontal = "y" in encoding
    category = encoding["y"] if is_horizontal else {**encoding["x"], "field": "range", "type": "nominal"}
    tips = _tips(parts.series, category, measure)
    encoding = {**encoding, "x" if is_horizontal else "y": measure, **_color(parts.series), "tooltip": tips}
    mark = {"type": "bar", "orient": "horizontal" if is_horizontal else "vertical"}
    parts.add(data, mark, encoding, height={"step": 20} if is_horizontal else None)


def _color(series: _Series, opacity: Spec | None = None) -> Spec:
    opacity = opacity or {"value": 1}
    if not series.title:
        return {"color": {"value": _COLORS[0]}, "opacity": opacity}
    scale = {"domain": series.labels, "range": list(_COLORS[: len(series.labels)])}
    isolated = {name: value for name, value in opacity.items() if name != "legend"}
    return {
        "color": {"field": "series", "type": "nominal", "title": series.title, "scale": scale},
        "opacity": {"condition": {"param": "legend", **isolated}, "value": 0.06},
    }


def _tips(series: _Series, *encodings: Spec) -> list[Spec]:
    tips = [{name: each[name] for name in ("field", "type", "title")} for each in encodings]
    for tip in tips:
        if tip["type"] == "temporal":
            tip |= {"field": "when", "type": "nominal"}
        elif tip["type"] == "quantitative":
            tip["format"] = ",.9~g"
    return tips + ([{"field": "series", "type": "nominal", "title": series.title}] if series.title else [])


def _csv(data: Mapping[str, list[Any]]) -> Spec:
    """Return rows as one text: a notebook would write each value of an object on a line of its own."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(data)
    writer.writerows(zip(*(map(_csv_value, values) for values in data.values()), strict=True))
    parse = {name: "string" if isinstance(values[0], str) else "number" for name, values in data.items()}
    return {"values": text.getvalue(), "format": {"type": "csv", "parse": parse}}


def _csv_value(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return "" if value != value else f"{value:.15g}" if abs(value) >= 1e9 else f"{value:.9g}"  # noqa: PLR0124, PLR2004


def _drawing(parts: _Parts, measures: str) -> Drawing:
    choice, series, panels = parts.choice, parts.series, parts.panels
    if not panels:
        raise UsageError("There is nothing to draw: no row has a value for each axis.", remedy="Choose with x and y.")
    preposition = "over" if choice.x.role is Role.TIME else "by" if choice.kind == "bar" else "against"
    title = measures if choice.kind == "hist" and choice.y else f"{measures} {preposition} {choice.x.title}"
    title += f"{' and' if preposition == 'by' else ' by'} {series.title}" if series.title else ""
    for panel in panels:
        panel["height"] = panel["height"] or (260 if len(panels) == 1 else max(90, 480 // len(panels)))
    for panel in panels[:-1]:
        if choice.kind in {"line", "area", "point"}:  # the axis below the last one is that of all
            for layer in panel["layer"]:
                x = layer["encoding"]["x"]
                layer["encoding"]["x"] = {**x, "title": None, "axis": {**x["axis"], "labels": False, "ticks": False}}
    views = [panel["layer"][0]["name"] for panel in panels]
    params: list[Spec] = []
    if choice.kind != "bar" or choice.x.role is Role.TIME:
        select = {"type": "interval", "encodings": ["x", "y"] if choice.kind == "point" else ["x"]}
        params.append({"name": "zoom", "select": select, "bind": "scales", "views": views})
    if series.title:
        select = {"type": "point", "fields": ["series"]}
        params.append({"name": "legend", "select": select, "bind": "legend", "views": views})
    subtitle = [line for note in parts.notes for line in wrap(note, 100)]
    stacked: Spec = {"vconcat": panels, "resolve": {"scale": {"color": "shared"}}}
    spec: Spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "description": f"{choice.kind} chart: {title}",
        "title": {"text": cut(title, 90), **({"subtitle": subtitle} if subtitle else {})},
        "config": _CONFIG,
        "params": params,
        **(panels[0] if len(panels) == 1 else stacked),
    }
    texts = parts.texts[:_MAX_TEXTS] + ["  …"] * (len(parts.texts) > _MAX_TEXTS)
    text = "\n".join([spec["description"], *texts, *parts.notes])
    return Drawing(spec=spec, text=text, points=parts.points, is_scatter=choice.kind == "point")
