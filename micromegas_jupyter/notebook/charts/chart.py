"""A chart of a result as the value of a cell: Vega-Lite where it is understood, a picture everywhere else.

The columns are named by a person, or chosen by their types.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from base64 import b64encode
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from micromegas_jupyter.client.json_columns import with_json
from micromegas_jupyter.core.text import cut, printable, rows_text
from micromegas_jupyter.errors import UsageError, extra
from micromegas_jupyter.notebook.charts import KINDS
from micromegas_jupyter.notebook.results.formats import decoded, sql_type
from micromegas_jupyter.telemetry.tables import ROLE_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

    Spec = dict[str, Any]
    Data = dict[str, np.ndarray]
    _Name = str | None
    _Names = str | Sequence[str] | None

_MIME_TYPE = "application/vnd.vegalite.v5+json"
_VEGA_LITE = "5.20"
MAX_SERIES, MAX_PANELS = 12, 8
_SAMPLE_ROWS, _MAX_CHARACTERS, _MAX_LISTED = 100_000, 50, 300
_IDENTIFIER = re.compile(r"(?:^|[\W_])(?i:ids?|[ptug]id|ppid|port|hash|key)$|[a-z](?:Id|Pid|Tid|Port|Hash)$")
_CODE = re.compile(r"(?:^|[\W_])(?i:levels?|status|codes?)$|[a-z](?:Level|Status|Code)$")
# XML has no place for two of these, and Vega-Lite puts titles into expressions without escaping a backslash, and before
# 5.8 a quotation mark.
_REPLACED = {0xFFFE: "\ufffd", 0xFFFF: "\ufffd", ord("\\"): "\u29f5"}
_REPLACED_IN_TITLES = {ord('"'): "\u201d"}
# Vega looks texts of expressions up in JavaScript objects, and draws nothing for those that every object has.
_OBJECT_PROPERTIES = frozenset(
    {
        "__defineGetter__", "__defineSetter__", "__lookupGetter__", "__lookupSetter__", "__proto__", "constructor",
        "hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable", "toLocaleString", "toString", "valueOf",
    }
)  # fmt: skip
_WIDTH, _MAX_POINTS, _MAX_BARS, _MAX_DOTS, _MAX_CSV_BYTES = 620, 2_500, 30, 150, 70_000
_LARGEST, _LATEST_MS = 1e290, 8.64e15  # the sums of larger numbers are infinite; JavaScript has no later times
_SECONDS = (1e-3, 5e-3, 0.02, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3_600, 10_800, 21_600, 43_200, 86_400)
_PER_SECOND = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}
# Each stands out from white and from the dark theme's grey by at least 3 to 1 (WCAG 2.2, 1.4.11).
_COLORS = (
    "#2f7ed8", "#d9661f", "#2b9a4b", "#c2549d", "#8a6fe0", "#1b95a0",
    "#dc4d4d", "#8c8419", "#a8703c", "#5f8f2a", "#7d8790", "#b565c9",
)  # fmt: skip
_CONFIG: Spec = {
    "font": "system-ui, sans-serif",
    "axis": {"gridOpacity": 0.35, "titleFontWeight": "normal", "labelLimit": 190, "titleLimit": 400, "tickCount": 6},
    "legend": {"titleFontWeight": "normal", "labelLimit": 170, "symbolOpacity": 1, "symbolStrokeWidth": 3},
    "title": {"anchor": "start", "fontSize": 13, "fontWeight": 600, "offset": 10, "subtitlePadding": 4},
}
# As short as each allows, with the date below the first. A format of Vega's own is in the zone of whoever looks.
_TIME_LABELS = (
    "[utcFormat(datum.value, utcmilliseconds(datum.value) ? '%H:%M:%S.%L' : utcseconds(datum.value) ? '%H:%M:%S'"
    " : utchours(datum.value) + utcminutes(datum.value) ? '%H:%M' : utcmonth(datum.value) + utcdate(datum.value) > 1"
    " ? '%b %d' : '%Y'), datum.index ? '' : utcFormat(datum.value, '%Y-%m-%d')]"
)
# SI prefixes as far as people know them: "5E" and "3m" would be read as something else.
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
_POINT = {"type": "point", "filled": True}
_BY_ROWS: Spec = {"field": "rows", "type": "quantitative", "legend": None, "scale": {"type": "log", "range": [0.3, 1]}}
_LEGEND: Spec = {"name": "legend", "select": {"type": "point", "fields": ["series"]}, "bind": "legend"}
_NEXT_TO_POINTER = {"type": "point", "on": "pointerover", "nearest": True, "clear": "pointerout"}


class Chart:
    """A chart of the rows, drawn as `kind` or as the columns' types suggest.

    `table` is an Arrow table, a DataFrame of pandas or polars, or a result. `x`, `y` (one or several) and `color` name
    columns; `spec` is the Vega-Lite specification (version 5), with the data in it. Raises `UsageError` when there is
    nothing to draw.
    """

    def __init__(
        self, table: object, *, kind: _Name = None, x: _Name = None, y: _Names = None, color: _Name = None
    ) -> None:
        self.spec, self._text = draw(choose(_arrow_table(table), kind=kind, x=x, y=y, color=color))

    def to_altair(self) -> Any:
        """Return the chart as one of Altair's, to change it."""
        with extra("charts"):
            import altair as alt

        return alt.Chart.from_dict(self.spec)

    def save(self, path: str | Path) -> None:
        """Write the chart: `.json` for the specification, `.svg` or `.png` for a picture."""
        suffix = Path(path).suffix.lower()
        if suffix not in {".json", ".svg", ".png"}:
            raise UsageError("A chart is saved as .json, .svg or .png.", remedy="End the file's name with one of them.")
        content = json.dumps(self.spec).encode() if suffix == ".json" else self._picture(suffix[1:], scale=2)
        Path(path).write_bytes(content)

    def __repr__(self) -> str:
        return self._text

    def _repr_mimebundle_(self, **_options: object) -> tuple[dict[str, Any], dict[str, Any]]:
        data: dict[str, Any] = {_MIME_TYPE: self.spec, "text/plain": self._text}
        panels, has_picture = self.spec["vconcat"], find_spec("vl_convert") is not None
        if has_picture and panels[0]["layer"][0]["mark"]["type"] == "point":
            data["image/png"] = b64encode(self._picture("png", scale=1 if len(panels) == 1 else 0.7)).decode()
        elif has_picture:
            data["image/svg+xml"] = self._picture("svg").decode()
        # JupyterLab saves a PNG of its own beside an SVG, which for dense lines would be larger than all else.
        scale = (10_000 if has_picture else 20_000) / sum(len(panel["data"]["values"]) for panel in panels)
        return data, {_MIME_TYPE: {"embed_options": {"scaleFactor": {"png": min(round(scale, 2), 1), "svg": 1}}}}

    def _picture(self, file_type: str, *, scale: float = 1) -> bytes:
        with extra("charts"):
            import vl_convert

        # Without the points that only a pointer shows, and without a description of each for screen readers.
        layers = [[layer for layer in panel["layer"] if "params" not in layer] for panel in self.spec["vconcat"]]
        panels = [panel | {"layer": drawn} for panel, drawn in zip(self.spec["vconcat"], layers, strict=True)]
        # In a font whose letters are as wide everywhere, as nothing moves aside once the picture is drawn.
        config = self.spec["config"] | {"aria": False, "font": "Arial, Helvetica, Liberation Sans, sans-serif"}
        still = self.spec | {"vconcat": panels, "background": "white", "config": config}
        if file_type == "svg":
            return str(vl_convert.vegalite_to_svg(still, vl_version=_VEGA_LITE)).encode()
        return bytes(vl_convert.vegalite_to_png(still, vl_version=_VEGA_LITE, scale=scale))


def _arrow_table(rows: object) -> pa.Table:
    try:
        return rows if isinstance(rows, pa.Table) else pa.table(rows)
    except (TypeError, ValueError, NotImplementedError):
        remedy = "Give a DataFrame whose columns hold values of one type each, an Arrow table, or a result of %%sql."
        raise UsageError("These rows cannot be read as a table.", remedy=remedy) from None


# Numbers of identifiers and codes are never added up; codes repeat, so they are categories unless named as an axis.
Role = StrEnum("Role", ["TIME", "NUMBER", "IDENTIFIER", "CATEGORY", "CODE", "NONE"])
_NUMBER_ROLES = {b"measure": Role.NUMBER, b"severity": Role.CODE, b"category": Role.CODE}


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """A column of the result, without dictionary encoding; its title is the name, fit to be shown."""

    name: str
    title: str
    values: pa.ChunkedArray
    role: Role


class Choice(NamedTuple):
    """What is drawn; without `y`, rows are counted. `notes` say what is left out."""

    kind: str
    x: Column
    y: list[Column]
    color: list[Column]
    unit: list[Column]
    notes: list[str]


class _Axis(NamedTuple):
    """The values along an axis, NaN for what is not drawn, and their encoding."""

    values: np.ndarray
    encoding: Spec


class _Groups(NamedTuple):
    """Which group each row belongs to, -1 for none; without a title there is one group without a label."""

    codes: np.ndarray
    labels: list[str]
    title: str = ""


def shown(text: str) -> str:
    """Return a name or value from elsewhere, short and without what would steer a terminal or a page."""
    found = cut(printable(cut(text, _MAX_CHARACTERS)), _MAX_CHARACTERS).translate(_REPLACED) or "(empty)"
    return found + "\u00a0" * (found in _OBJECT_PROPERTIES)


def choose(table: pa.Table, *, kind: _Name, x: _Name, y: _Names, color: _Name) -> Choice:
    """Return what is drawn of the table; what is not named follows from the columns' types."""
    if kind not in {None, *KINDS}:
        raise UsageError(f'"{shown(str(kind))}" is not a kind of chart.', remedy=f"The kinds are {', '.join(KINDS)}.")
    if not table.num_rows:
        raise UsageError("There is nothing to draw: the result has no rows.", remedy="Widen the time range or WHERE.")
    table = with_json(table, {x, color})
    rows, columns = min(table.num_rows, _SAMPLE_ROWS), _columns(table)
    if isinstance(y, str):
        y = [y] if y in table.column_names else [name.strip() for name in y.split(",")]
    along, color_by, named_y = (
        [_named(columns, name) for name in each or ()] for each in (x and [x], color and [color], y)
    )
    free = [column for column in columns if column not in [*along, *color_by, *named_y]]
    times, numbers, identifiers, categories, codes = ([c for c in free if c.role is role] for role in list(Role)[:5])
    categories += codes
    unit = [column for column in categories if column.name.lower() == "unit"]
    samples = {c: c.values.slice(0, rows).cast(pa.large_string()) for c in categories if c not in unit}
    counts = {column: pc.count_distinct(sample, mode="all").as_py() for column, sample in samples.items()}
    texts = sorted(counts, key=lambda column: counts[column] == 1)  # what varies first
    # Rows that their texts tell apart have been grouped by these.
    is_grouped = bool(texts) and math.prod(counts.values()) >= rows
    first = texts if is_grouped or (kind is None and not numbers) else []
    candidates = {
        None: [*times, *first, *numbers, *texts],
        "bar": [*first, *times, *texts, *identifiers, *numbers],
        "hist": [*named_y, *numbers, *times, *codes],
    }.get(kind, [*times, *numbers, *identifiers, *codes])
    chosen_x = next(iter([*along, *candidates, *named_y]), None)
    if chosen_x is None:
        raise _undrawable("There is nothing to draw", columns)
    fitting = numbers or codes if kind in {"line", "area", "point"} else numbers
    measures = named_y or [column for column in fitting if column is not chosen_x]
    if kind is None:
        kind = {Role.CATEGORY: "bar", Role.CODE: "bar", Role.TIME: "line"}.get(chosen_x.role, "point")
        kind = kind if kind == "bar" or measures not in ([], [chosen_x]) else "hist"
    counted = [column for column in measures if kind == "bar" and column.role in {Role.IDENTIFIER, Role.CODE}]
    measures = [column for column in measures if column not in counted]
    color_by = color_by or counted[:1]
    names = cut(", ".join(column.title for column in counted), _MAX_LISTED)
    notes = [f"Not summed: {names} (codes and identifiers are counted)."] * bool(counted)
    if kind == "hist":
        measures = [] if chosen_x.role is Role.TIME else named_y or along or numbers or [chosen_x]
    _check(kind, chosen_x, measures, color_by)
    limits = {"bar": MAX_SERIES, "hist": min(MAX_SERIES, rows // 2), "point": min(MAX_SERIES, rows // 2)}
    limit = limits.get(kind, max(MAX_SERIES, rows // 2))
    used = [chosen_x, *measures]
    series = [column for column, count in counts.items() if column not in used and 1 < count <= limit]
    if kind not in {"line", "area"}:  # bars of a column that tells the rows apart need no colors
        series = [] if kind == "bar" and counts.get(chosen_x) == rows else series[:1]
    panels = f"{MAX_PANELS} of {len(measures)} columns of numbers are drawn; y chooses others."
    notes += [panels] * (len(measures) > MAX_PANELS)
    if unused := [column.title for column in identifiers if column is not chosen_x and measures and not named_y]:
        notes.append(f"Not drawn: {cut(', '.join(unused), _MAX_LISTED)} (identifiers; y draws them).")
    if unused := [column.title for column, count in counts.items() if count > limit and kind in {"line", "area"}]:
        notes.append(f"{cut(', '.join(unused), _MAX_LISTED)} separates no lines: the values hardly repeat.")
    has_units = len(measures) == 1 and kind != "hist"
    return Choice(kind, chosen_x, measures[:MAX_PANELS], color_by or series, unit if has_units else [], notes)


def _columns(table: pa.Table) -> list[Column]:
    has_roles = any(ROLE_KEY in (field.metadata or {}) for field in table.schema)
    return [
        Column(one.name, shown(one.name).translate(_REPLACED_IN_TITLES), each, _role(each, one, has_roles=has_roles))
        for one, each in zip(table.schema, map(decoded, table.columns), strict=True)
    ]


def _role(values: pa.ChunkedArray, field: pa.Field, *, has_roles: bool) -> Role:
    """Return what a column is; if the server gave any column a role, numbers without one are no measures."""
    kind, name = values.type, field.name
    if types.is_timestamp(kind) or types.is_date(kind):
        return Role.TIME
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_duration(kind):
        if has_roles:
            return _NUMBER_ROLES.get((field.metadata or {}).get(ROLE_KEY, b""), Role.IDENTIFIER)
        role = Role.IDENTIFIER if _IDENTIFIER.search(name) else Role.CODE if _CODE.search(name) else Role.NUMBER
        return role if role is not Role.NUMBER and _are_whole(values) else Role.NUMBER
    return Role.CATEGORY if str(kind) in {"string", "large_string", "string_view", "bool"} else Role.NONE


def _are_whole(values: pa.ChunkedArray) -> bool:
    """Whether all numbers are whole; pandas makes floats of integers with nulls."""
    if types.is_floating(values.type):
        return pc.all(pc.equal(pc.floor(values), values)).as_py() is not False
    return bool(types.is_integer(values.type))


def _named(columns: Sequence[Column], name: str) -> Column:
    found = next((column for column in columns if column.name == name), None)
    if found is None:
        nearest = get_close_matches(name, [column.name for column in columns], n=1)
        names = cut(", ".join(column.title for column in columns), _MAX_LISTED)
        remedy = f"Did you mean {shown(nearest[0])}?" if nearest else f"The columns are {names}."
        raise UsageError(f'The result has no column "{shown(name)}".', remedy=remedy)
    if found.role is Role.NONE:
        raise _undrawable("This type cannot be drawn", [found])
    return found


def _check(kind: str, x: Column, measures: Sequence[Column], color: Sequence[Column]) -> None:
    is_wrong = {Role.CATEGORY: measures, Role.TIME: [*measures, *color]}
    if wrong := [column for role, columns in is_wrong.items() for column in columns if column.role is role]:
        raise _undrawable("The y axis needs numbers, and colors texts or numbers", wrong)
    if kind != "bar" and x.role is Role.CATEGORY:
        raise UsageError(f"{x.title} can only be drawn as bars.", remedy="Use the kind bar.")
    if kind in {"line", "area", "point"} and not measures:
        raise _undrawable("The y axis needs one more column of numbers", [x])


def _undrawable(why: str, columns: Sequence[Column]) -> UsageError:
    types = cut(", ".join(f"{each.title} {sql_type(each.values.type)}" for each in columns), _MAX_LISTED)
    remedy = "Select times, numbers or texts, for example: SELECT time, value FROM measures."
    return UsageError(f"{why} ({types or 'no columns'}).", remedy=remedy)


def draw(choice: Choice) -> tuple[Spec, str]:
    """Return the specification of what was chosen, and what it shows in words."""
    kind, notes, rows = choice.kind, choice.notes, len(choice.x.values)
    counted = _number_axis("rows", np.ones(rows), is_count=True)
    measures = [_axis(column) for column in choice.y] or [counted]
    if choice.unit:
        values, (codes, labels, _) = measures[0].values, _group(choice.unit, counted, notes, MAX_PANELS)
        titles = [f"{choice.y[0].title} ({label})" for label in labels]
        measures = [_number_axis(title, np.where(codes == at, values, np.nan)) for at, title in enumerate(titles)]
    adds_up = all(column.role is Role.NUMBER for column in choice.y)
    weights, is_time = measures[0] if kind != "hist" and adds_up else counted, choice.x.role is Role.TIME
    is_number = choice.x.role is Role.NUMBER
    is_binned = is_time or (is_number and pc.count_distinct(choice.x.values).as_py() > _MAX_BARS)
    series = _group(choice.color, weights, notes, adds_up=kind in {"bar", "hist"})
    if kind == "hist":
        panels = [_bars(*_bins(_axis(column)), counted, series) for column in choice.y or [choice.x]]
    elif kind == "bar" and is_binned:
        panels = [_bars(*_bins(_axis(choice.x)), y, series) for y in measures]
    elif kind == "bar":
        bars = _group([choice.x], measures[0], notes, _MAX_BARS)
        x = {"type": "nominal", "title": choice.x.title, "sort": bars.labels}
        panels = [_bars({"x": np.array(bars.labels)}, bars.codes, x, y, series) for y in measures]
    else:
        make, room = (_points, _MAX_POINTS) if kind == "point" else (_lines, _MAX_CSV_BYTES // len(series.labels))
        panels = [make(_axis(choice.x), y, series, room // len(measures), choice) for y in measures]
    panels = [panel for panel in panels if len(panel["data"]["y"])]
    if not panels:
        raise UsageError("There is nothing to draw: no row has a value for each axis.", remedy="Choose with x and y.")
    title = ", ".join(column.title for column in choice.y) or "rows"
    over = "over" if is_time else "by" if kind == "bar" else "against"
    title = title if kind == "hist" and choice.y else f"{title} {over} {choice.x.title}"
    title += f" {'and' if over == 'by' else 'by'} {series.title}" * bool(series.title)
    subtitle = {"subtitle": [line for note in notes for line in wrap(note, 100)]} if notes else {}
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "description": f"{kind} chart: {title}",
        "title": {"text": cut(title, 90), **subtitle},
        "config": _CONFIG,
        **_arrange(panels, kind, is_horizontal=kind == "bar" and not is_binned, legend=[series.title, *series.labels]),
    }
    drawn = [(y.encoding["title"], y.values[~np.isnan(y.values)]) for y in measures if choice.y]
    ranges = [f"  {name}: {values.min():,.6g} to {values.max():,.6g}" for name, values in drawn if len(values)]
    return spec, "\n".join([str(spec["description"]), *ranges, f"  {rows_text(rows)}", *notes])


def _arrange(panels: list[Spec], kind: str, *, is_horizontal: bool, legend: list[str]) -> Spec:
    """Return the panels, one below the other, with what moves them together; the legend's title comes first."""
    views, is_shared = [f"panel_{number}" for number, _ in enumerate(panels, 1)], kind in {"line", "area", "point"}
    # Long names stand beside horizontal bars and in the legend, and all fits beside JupyterLab's file browser.
    names = max(min(6 * max(map(len, legend)), _CONFIG["legend"]["labelLimit"]) - 60, 0) * bool(legend[0])
    width = _WIDTH - 150 * is_horizontal - names
    for view, panel in zip(views, panels, strict=True):
        panel["layer"][0]["name"] = view
        height = {"step": 20} if is_horizontal else 260 if len(panels) == 1 else max(90, 480 // len(panels))
        panel |= {"data": _csv(panel["data"]), "width": width, "height": height}
        if kind in {"line", "area"}:
            near = {"name": f"near_{view}", "select": _NEXT_TO_POINTER}
            opacity = {"condition": {"param": near["name"], "empty": False, "value": 1}, "value": 0}
            panel["layer"] += [{"mark": _POINT | {"size": 45}, "params": [near], "encoding": {"opacity": opacity}}]
        if is_shared and view != views[-1]:  # the axis below the last one is that of all
            axis = panel["encoding"]["x"]["axis"] | {"labels": False, "ticks": False}
            panel["encoding"]["x"] |= {"title": None, "axis": axis}
    encodings = ["x", "y"] if kind == "point" and len(panels) == 1 else ["x"]
    zoom = {"name": "zoom", "select": {"type": "interval", "encodings": encodings}, "bind": "scales", "views": views}
    has_zoom = not is_horizontal and (kind != "hist" or len(panels) == 1)
    params = [zoom] * has_zoom + [_LEGEND | {"views": views}] * bool(legend[0])
    scale = {"color": "shared", "x": "shared" if is_shared else "independent"}
    return {"params": params, "vconcat": panels, "resolve": {"scale": scale}}


def _axis(column: Column) -> _Axis:
    """Return times in milliseconds, durations in seconds, and other numbers as they are."""
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
        raise UsageError(f"There is nothing to draw: {column.title} holds no times.", remedy="Name another as x.")
    zone = (" (UTC)" if kind.tz else " (no time zone)") if types.is_timestamp(kind) else ""
    return _Axis(np.round(numbers, 3), _TIME | {"title": column.title + zone})


def _number_axis(title: str, values: np.ndarray, *, is_count: bool = False) -> _Axis:
    drawn = values[~np.isnan(values)]
    low, high = (float(drawn.min()), float(drawn.max())) if len(drawn) else (0.0, 0.0)
    # From zero when zero is near, and when the numbers are counts.
    zero = low == high or (low >= 0 and (low <= high / 2 or (is_count and high - low > high / 100)))
    si = "1e3" if max(-low, high) >= 10_000 else "1e4"  # noqa: PLR2004 - five digits
    axis = {"labelExpr": _NUMBER_LABELS.replace("{si}", si)}
    return _Axis(values, {"type": "quantitative", "title": title, "axis": axis, "scale": {"zero": zero}})


def _group(
    columns: Sequence[Column], weights: _Axis, notes: list[str], limit: int = MAX_SERIES, *, adds_up: bool = False
) -> _Groups:
    """Return the combinations of values with the largest totals; a note says what becomes of the others.

    Series are in natural order; the bars of a text column in the order of the rows if each has one, or of the totals.
    """
    if not columns:
        return _Groups(np.zeros(len(weights.values), np.int64), [""])
    # As bytes, because what a server sends as text need not be text.
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
    if limit != _MAX_BARS or columns[0].role is not Role.CATEGORY:  # host-9 before host-10
        natural = [re.sub(r"\d+", lambda number: number[0].zfill(9), label) for label in labels]
        order = sorted(range(len(labels)), key=natural.__getitem__)
        chosen, labels = chosen[order], [labels[at] for at in order]
    new_code = np.full(count, len(labels) if adds_up else -1)
    new_code[chosen] = np.arange(len(labels))
    title = ", ".join(column.title for column in columns)
    if count > limit:
        what = f"the {len(labels)} of {count:,} values of {title} with the largest total of {weights.encoding['title']}"
        notes.append(f"Drawn: {what}. The others are {'added up' if adds_up else 'not drawn'}.")
    return _Groups(new_code[codes], labels + ["other"] * adds_up, title)


def _lines(x: _Axis, y: _Axis, series: _Groups, max_bytes: int, choice: Choice) -> Spec:
    order = np.argsort(x.values, kind="stable")[: np.count_nonzero(~np.isnan(x.values))]
    at, values, codes = x.values[order], y.values[order], series.codes[order]
    columns = min(max_bytes // (4 * (26 + max(map(len, series.labels)))), _WIDTH)
    each = [np.flatnonzero(codes == code) for code in range(len(series.labels))]
    rows = np.concatenate([rows[m4(at[rows], values[rows], at[0], at[-1], columns)] for rows in each])
    data = {"x": at[rows], "y": values[rows], "series": np.array(series.labels)[codes[rows]]}
    encoding = _encoding(x.encoding, y.encoding, series)
    if choice.kind == "area":
        adds_up = all(column.role is Role.NUMBER for column in choice.y)
        is_stacked = adds_up and bool(series.title) and len(series.labels) * len(np.unique(at)) == len(at) == len(rows)
        encoding["y"] |= {"scale": {"zero": True}, "stack": "zero" if is_stacked else None}
        return _panel(data, {"type": "area", "fillOpacity": 0.8 if is_stacked else 0.5}, encoding)
    # Not the mark's own `point`: with it JupyterLab's Vega-Lite draws nothing.
    return _panel(data, _LINE, encoding, *[{"mark": _POINT | {"size": 16}}] * (len(rows) <= _MAX_DOTS))


def _points(x: _Axis, y: _Axis, series: _Groups, max_points: int, choice: Choice) -> Spec:
    rows = np.flatnonzero(~np.isnan(x.values) & ~np.isnan(y.values) & (series.codes >= 0))
    codes = series.codes[rows]
    chosen, counts = one_per_spot(x.values[rows], y.values[rows], codes, max_points=max_points)
    data = {"x": x.values[rows[chosen]], "y": y.values[rows[chosen]], "series": np.array(series.labels)[codes[chosen]]}
    opacity, is_thinned = {"value": 0.6}, len(chosen) < len(rows)
    if is_thinned:
        choice.notes.append(f"One point for each spot: {len(chosen):,} for {rows_text(len(rows))}.")
        data, opacity = data | {"rows": counts}, _BY_ROWS
    encoding = _encoding(x.encoding, y.encoding, series, opacity)
    encoding["tooltip"] += [{"field": "rows", "type": "quantitative", "format": ","}] * is_thinned
    return _panel(data, _POINT | {"size": 40 if len(rows) < _MAX_POINTS // 4 else 16}, encoding)


def _bins(x: _Axis) -> tuple[Data, np.ndarray, Spec]:
    """Return where bars begin and end, which of them each row belongs to, and the encoding."""
    is_time, drawn = x.encoding["type"] == "temporal", np.unique(x.values[~np.isnan(x.values)])
    low, high = (drawn[0], drawn[-1]) if len(drawn) else (0.0, 0.0)
    is_whole = not is_time and bool((drawn == np.floor(drawn)).all())
    if is_time:  # as far apart as the times are, or a step of clocks
        rough, spacing = (high - low) / 100, float(np.diff(drawn).min()) if len(drawn) > 1 else 1e3
        step = next((seconds * 1e3 for seconds in _SECONDS if seconds * 1e3 >= rough), np.ceil(rough / 864e5) * 864e5)
        width = spacing if spacing > rough else step
    else:  # 1, 2 or 5 times a power of ten
        rough = max((high - low) / 40, max(abs(low), abs(high)) * 1e-12, 1e-290)
        power = 10.0 ** np.floor(np.log10(rough))
        width = max(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough), float(is_whole))
    first = low // width - 0.5 * (is_whole and width == 1)  # whole numbers stand in the middle of their bars
    starts = (first + np.arange((high - first * width) // width + 1)) * width
    codes = np.where(np.isnan(x.values), -1, np.maximum(np.searchsorted(starts, x.values, side="right") - 1, 0))
    return {"x": starts, "x2": starts + width}, codes, x.encoding | ({} if is_time else {"scale": {"zero": False}})


def _bars(slots: Data, codes: np.ndarray, x: Spec, y: _Axis, series: _Groups) -> Spec:
    """Return a panel with a bar from zero for each slot and series: the sum of its rows."""
    count = len(series.labels)
    is_drawn = (codes >= 0) & ~np.isnan(y.values)
    cells = codes[is_drawn] * count + series.codes[is_drawn]
    rows, sums = np.bincount(cells), np.bincount(cells, y.values[is_drawn])
    drawn = np.flatnonzero(rows)
    data = {name: values[drawn // count] for name, values in slots.items()}
    data |= {"y": sums[drawn], "series": np.array(series.labels)[drawn % count]}
    title = "sum of " * bool(y.encoding["title"] != "rows" and (rows > 1).any()) + y.encoding["title"]
    # Vega-Lite before 5.8 draws bars with an `x2` over each other unless told to stack them.
    encoding = _encoding(x, y.encoding | {"title": title, "scale": {"zero": True}, "stack": "zero"}, series)
    if "x2" not in slots:
        return _panel(data, {"type": "bar"}, encoding | {"x": encoding["y"], "y": encoding["x"]})
    if x["type"] == "quantitative":
        encoding["tooltip"].insert(1, {"field": "x2", "type": "quantitative", "title": "to"} | _TIPS["quantitative"])
    return _panel(data, {"type": "bar", "orient": "vertical"}, encoding | {"x2": {"field": "x2"}})


def _encoding(x: Spec, y: Spec, series: _Groups, opacity: Spec | None = None) -> Spec:
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


def _csv(data: Data) -> Spec:
    """Return rows as one text: a notebook would write each value of an object on a line of its own."""
    is_text = {name: values.dtype.kind == "U" for name, values in data.items()}
    digits = {name: "%.15g" if name in {"x", "x2"} else "%.9g" for name in data}
    texts = [values if is_text[name] else np.char.mod(digits[name], values) for name, values in data.items()]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([data, *zip(*texts, strict=True)])
    parse = {name: "string" if is_text[name] else "number" for name in data}
    return {"values": text.getvalue(), "format": {"type": "csv", "parse": parse}}


def m4(x: np.ndarray, y: np.ndarray, begin: float, end: float, columns: int) -> np.ndarray:
    """Return the indices of points that draw the same line between `begin` and `end`, which are `columns` pixels apart.

    These are the first, last, lowest and highest of each column of pixels (Jugel et al., "M4: A Visualization-Oriented
    Time Series Data Aggregation", VLDB 2014), and one NaN for each gap that is at least a pixel wide. `x` ascends.
    """
    is_missing = np.isnan(y)
    chosen, missing, pixel = np.flatnonzero(~is_missing), np.flatnonzero(is_missing), 0.0
    if len(chosen) > 4 * columns:
        pixel = (end - begin) / columns
        column = np.minimum(((x[chosen] - begin) / (pixel or 1.0)).astype(np.int64), columns - 1)
        firsts = np.flatnonzero(np.diff(column, prepend=-1))
        counts = np.diff(firsts, append=len(column))
        picked = [firsts, firsts + counts - 1]
        for extreme in (np.minimum, np.maximum):
            hits = np.flatnonzero(y[chosen] == np.repeat(extreme.reduceat(y[chosen], firsts), counts))
            picked.append(hits[np.searchsorted(hits, firsts)])
        chosen = chosen[np.unique(np.concatenate(picked))]
    has_gap = (np.diff(np.searchsorted(missing, chosen)) > 0) & (np.diff(x[chosen]) >= pixel)
    gaps = missing[np.searchsorted(missing, chosen[:-1][has_gap])]
    return np.sort(np.concatenate((chosen, gaps)))


def one_per_spot(x: np.ndarray, y: np.ndarray, groups: np.ndarray, *, max_points: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of one point of each group in each spot, and how many points each stands for."""
    chosen: np.ndarray = np.arange(len(x))
    counts: np.ndarray = np.ones(len(x))
    cells = 250.0
    while len(chosen) > max_points:
        spots = groups[chosen]
        for values in (x, y):
            at = (values[chosen] - values.min()) / (np.ptp(values) or 1.0)
            spots = spots * (int(cells) + 1) + (at * cells).astype(np.int64)
        first, total = np.empty(spots.max() + 1, np.int64), np.bincount(spots, counts)
        first[spots[::-1]] = chosen[::-1]
        chosen, counts, cells = first[total > 0], total[total > 0], cells * 0.8
    return chosen, counts
