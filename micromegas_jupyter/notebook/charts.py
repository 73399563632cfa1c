"""A result as a plot over time: a picture that needs no script, and its statistics. Everything is escaped."""

from __future__ import annotations

import html
import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.results.formats import Kind, column_kind, decoded, sql_type
from micromegas_jupyter.notebook.shell import count_text, cut, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

_SECOND = 1_000_000
_MINUTE, _HOUR, _DAY = 60 * _SECOND, 3_600 * _SECOND, 86_400 * _SECOND
_TIME_STEPS = (
    *(factor * power for power in (1, 10, 100, 1_000, 10_000, 100_000) for factor in (1, 2, 5)),
    *(factor * _SECOND for factor in (1, 2, 5, 10, 15, 30)),
    *(factor * _MINUTE for factor in (1, 2, 5, 10, 15, 30)),
    *(factor * _HOUR for factor in (1, 2, 3, 6, 12)),
    *(factor * _DAY for factor in (1, 2, 7, 14, 30, 91, 182)),
    *(factor * power * 365 * _DAY for power in (1, 10, 100, 1_000) for factor in (1, 2, 5)),
)
_SCRIPT = Path(__file__).parent / "static" / "plot.js"
_SCALES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1.0, ""))
_SMALLEST_PLAIN, _LARGEST_PLAIN = 1e-4, 1e15
# Below this share of the values, a range is rounding, not a difference.
_SMALLEST_SHARE = 1e-12
_SMALLEST = 1e-290
# Each stands out from white and from JupyterLab's dark page by at least 3 to 1 (WCAG 2.2, 1.4.11).
COLOURS = (
    "#2f7ed8", "#d9661f", "#2b9a4b", "#c2549d", "#8a6fe0", "#1b95a0",
    "#dc4d4d", "#8c8419", "#a8703c", "#5f8f2a", "#7d8790", "#b565c9",
)  # fmt: skip
_WIDTH, _HEIGHT = 860, 320
_TOP, _BOTTOM, _LEFT = 34, 52, 44
_RIGHT, _RIGHT_WITH_NAMES = 44, 190
_CHARACTER_WIDTH = 7
_LINE_HEIGHT = 15
_MAX_LEGEND_CHARACTERS = 24
_MAX_POINTS_OF_ALL_LINES = 8_000
_INK = "var(--jp-ui-font-color1, #333)"
_GRID = "var(--jp-border-color2, #ddd)"
_PAPER = "var(--jp-layout-color0, #fff)"
_HEADINGS = ("line", "points", "first", "last", "lowest", "highest", "mean")
_MAX_TITLE_LINES = 3
_UNQUOTED_CHARACTERS = ",/:;=()!*-._~@?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A mark of an axis, at a place in its unit, with what is written beside it and on a second line."""

    at: float
    text: str
    below: str = ""


def value_range(low: float, high: float) -> tuple[float, float]:
    """Return what a value axis covers: a little more than the values, from zero when that is near."""
    size = max(abs(low), abs(high))
    if size < _SMALLEST:
        return -1.0, 1.0
    if high - low < size * _SMALLEST_SHARE:
        return low - 0.1 * size, high + 0.1 * size
    if 0 <= low <= high / 2:
        return 0.0, high * 1.05
    margin = 0.05 * (high - low)
    return low - margin, high + margin


def value_marks(low: float, high: float, *, max_marks: int = 6) -> list[Mark]:
    """Return marks at round numbers from `low` to `high`."""
    rough = (high - low) / max_marks
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10, 20) if factor * power >= rough)
    places = range(math.ceil(low / step), math.floor(high / step) + 1)
    return [Mark(at=place * step, text=_number_text(place * step, step, max(abs(low), abs(high)))) for place in places]


def time_marks(begin: int, end: int, zone: PlotZone, *, max_marks: int = 7) -> list[Mark]:
    """Return marks at round times of the zone, from `begin` to `end` in microseconds since 1970, UTC."""
    rough = (end - begin) / max_marks
    step = next((step for step in _TIME_STEPS if step >= rough), _TIME_STEPS[-1])
    ahead = zone.local_time(begin).utcoffset()
    shift = 0 if ahead is None else round(ahead.total_seconds()) * _SECOND
    marks: list[Mark] = []
    date = ""
    for at in range(-(-(begin + shift) // step) * step - shift, end + 1, step):
        moment = zone.local_time(at)
        text, today = _clock_text(zone, at, step), moment.strftime("%Y-%m-%d")
        below = "" if step >= _DAY or today == date else today
        date = today
        marks.append(Mark(at=at, text=text, below=below))
    return marks


def _clock_text(zone: PlotZone, at: int, step: int) -> str:
    moment = zone.local_time(at)
    if step >= _DAY:
        return moment.strftime("%Y-%m-%d")
    if step >= _MINUTE:
        return moment.strftime("%H:%M")
    if step >= _SECOND:
        return moment.strftime("%H:%M:%S")
    digits = 3 if step >= _SECOND // 1_000 else 6
    return f"{moment:%H:%M:%S}.{moment.microsecond:06d}"[: len("12:34:56.") + digits]


def _number_text(value: float, step: float, largest: float) -> str:
    if not _SMALLEST_PLAIN <= largest < _LARGEST_PLAIN:
        return f"{value:.3g}"
    scale, suffix = next((scale, suffix) for scale, suffix in _SCALES if largest >= scale or scale == 1.0)
    digits = max(0, -math.floor(math.log10(step / scale) + 1e-9))
    return f"{value / scale + 0.0:,.{digits}f}{suffix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """The drawing's inner rectangle and what it stands for."""

    left: float
    right: float
    begin: int
    end: int
    low: float
    high: float

    def x(self, times: np.ndarray) -> np.ndarray:
        return self.left + (times - self.begin) / (self.end - self.begin) * (self.right - self.left)

    def y(self, values: np.ndarray) -> np.ndarray:
        share = (values - self.low) / (self.high - self.low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP)


def plot_svg(series: TimeSeries, *, title: str, description: str) -> str:
    """Return the drawing."""
    low, high = value_range(
        min(float(line.values.min()) for line in series.lines), max(float(line.values.max()) for line in series.lines)
    )
    begin = min(int(line.times[0]) for line in series.lines)
    end = max(int(line.times[-1]) for line in series.lines)
    if begin == end:
        begin, end = begin - 1_000_000, end + 1_000_000
    values = value_marks(low, high)
    frame = _Frame(
        left=max(_LEFT, 12 + _CHARACTER_WIDTH * max(len(mark.text) for mark in values)),
        right=_WIDTH - (_RIGHT_WITH_NAMES if len(series.lines) > 1 else _RIGHT),
        begin=begin,
        end=end,
        low=low,
        high=high,
    )
    drawn = (
        f"<title>{_escaped(title)}</title><desc>{_escaped(description)}</desc>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" style="fill:{_PAPER}"/>',
        _value_axis(frame, values, series.value_name),
        _time_axis(frame, time_marks(begin, end, series.zone), f"{series.time_name} ({series.zone.label})"),
        *(
            _line_path(frame, line, colour, len(series.lines))
            for line, colour in zip(series.lines, COLOURS, strict=False)
        ),
        _names(frame, series.lines) if len(series.lines) > 1 else "",
    )
    style = f"display:block;width:100%;max-width:{_WIDTH}px;font:12px system-ui,sans-serif;fill:{_INK}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{_escaped(title)}" style="{style}">{"".join(drawn)}</svg>'
    )


def max_points(lines: int) -> int:
    """Return how many points each of so many lines is drawn with at most."""
    return min(MAX_POINTS, _MAX_POINTS_OF_ALL_LINES // lines)


def _value_axis(frame: _Frame, marks: Sequence[Mark], name: str) -> str:
    ys = frame.y(np.array([mark.at for mark in marks]))
    grid = "".join(f"M{frame.left:.1f},{y:.1f}H{frame.right:.1f}" for y in ys)
    texts = "".join(
        f'<text x="{frame.left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{_escaped(mark.text)}</text>'
        for mark, y in zip(marks, ys, strict=True)
    )
    return f'<path d="{grid}" style="stroke:{_GRID};fill:none"/>{texts}<text x="4" y="16">{_escaped(name)}</text>'


def _time_axis(frame: _Frame, marks: Sequence[Mark], name: str) -> str:
    base = _HEIGHT - _BOTTOM
    xs = frame.x(np.array([mark.at for mark in marks]))
    ticks = "".join(f"M{x:.1f},{base}v5" for x in xs)
    texts = "".join(
        f'<text x="{x:.1f}" y="{base + 18}" text-anchor="middle">{_escaped(mark.text)}</text>'
        + (
            f'<text x="{x:.1f}" y="{base + 32}" text-anchor="middle">{_escaped(mark.below)}</text>'
            if mark.below
            else ""
        )
        for mark, x in zip(marks, xs, strict=True)
    )
    return (
        f'<path d="M{frame.left:.1f},{base}H{frame.right:.1f}{ticks}" style="stroke:{_INK};fill:none"/>{texts}'
        f'<text x="{frame.right:.1f}" y="{base + 48}" text-anchor="end">{_escaped(name)}</text>'
    )


def _escaped(text: str) -> str:
    # Two characters that `printable` leaves are none in XML, and a drawing that holds them is not shown.
    return html.escape(text.replace("\ufffe", "\ufffd").replace("\uffff", "\ufffd"))


def _line_path(frame: _Frame, line: Line, colour: str, lines: int) -> str:
    kept = thinned(line.times, line.values, begin=frame.begin, end=frame.end, max_points=max_points(lines))
    begins = np.diff(line.stretches[kept], prepend=-1) != 0
    # A point that nothing joins is a line without length, which its round ends make a dot.
    is_alone = begins & np.append(begins[1:], True)
    points = [f"{x:.1f},{y:.1f}" for x, y in zip(frame.x(line.times[kept]), frame.y(line.values[kept]), strict=True)]
    joined = "".join(
        f"{'M' if is_begin else 'L'}{point}"
        for point, is_begin, is_dot in zip(points, begins, is_alone, strict=True)
        if not is_dot
    )
    dots = "".join(f"M{point}h0" for point, is_dot in zip(points, is_alone, strict=True) if is_dot)
    return "".join(
        f'<path d="{path}" style="stroke:{colour};stroke-width:{width};stroke-linejoin:round;stroke-linecap:round;'
        f'fill:none"><title>{_escaped(line.name)}</title></path>'
        for path, width in ((joined, 1.5), (dots, 4))
        if path
    )


def _names(frame: _Frame, lines: Sequence[Line]) -> str:
    """Return the lines' names at the right, each as near to the end of its line as the others allow."""
    ends = frame.y(np.array([line.values[-1] for line in lines]))
    places = _spread([float(y) for y in ends])
    drawn = []
    for line, colour, y, place in zip(lines, COLOURS, ends, places, strict=False):
        leader = f"M{frame.right + 3:.1f},{y:.1f}L{frame.right + 16:.1f},{place:.1f}h6"
        drawn.append(
            f'<path d="{leader}" style="stroke:{colour};stroke-width:2;fill:none"/>'
            f'<text x="{frame.right + 26:.1f}" y="{place + 4:.1f}">{_escaped(cut(line.name, _MAX_LEGEND_CHARACTERS))}'
            f"<title>{_escaped(line.name)}</title></text>"
        )
    return "".join(drawn)


def _spread(wanted: Sequence[float]) -> list[float]:
    """Return places in the wanted order that are a line's height apart and inside of the drawing."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    places = [0.0] * len(wanted)
    lowest = float(_TOP - _LINE_HEIGHT)
    for index in order:
        lowest = places[index] = max(wanted[index], lowest + _LINE_HEIGHT)
    highest = float(_HEIGHT - _BOTTOM + _LINE_HEIGHT)
    for index in reversed(order):
        highest = places[index] = min(places[index], highest - _LINE_HEIGHT)
    return places


def plot_bundle(table: pa.Table) -> dict[str, str]:
    """Return a plot of the result by MIME type."""
    series = time_series(table)
    rows = [_statistics(line, series.zone) for line in series.lines]
    return {"text/plain": _plain(series, rows), "text/html": _html(series, rows)}


def _html(series: TimeSeries, rows: list[tuple[str, ...]]) -> str:
    title = _title(series)
    svg = plot_svg(series, title=title, description=_span(series))
    # Almost all of it is digits, commas and letters, which percent-encoding leaves alone, unlike base64.
    address = "data:image/svg+xml," + quote(svg, safe=_UNQUOTED_CHARACTERS)
    head = "".join(f'<th scope="col">{heading}</th>' for heading in _HEADINGS)
    body = "".join(f"<tr>{''.join(map(_cell, row, _HEADINGS))}</tr>" for row in rows)
    return (
        '<figure class="micromegas-plot" style="margin:0;max-width:860px">'
        f'<img alt="{html.escape(f"{title}. {_span(series)}")}" src="{address}" style="width:100%">'
        f'<figcaption style="opacity:0.8">{html.escape(_note(series))}</figcaption>'
        "<details><summary>Summary statistics</summary>"
        f'<div style="overflow-x:auto"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        f"</details><script>{_SCRIPT.read_text(encoding='utf-8')}</script></figure>"
    )


def _cell(text: str, heading: str) -> str:
    return f'<td style="text-align:{"left" if heading == "line" else "right"}">{html.escape(text)}</td>'


def _plain(series: TimeSeries, rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (_HEADINGS, *rows)]
    return "\n".join([f"{_title(series)}. {_span(series)}", *lines])


def _title(series: TimeSeries) -> str:
    names = ", ".join(line.name for line in series.lines[:_MAX_TITLE_LINES])
    more = f" and {len(series.lines) - _MAX_TITLE_LINES} more" if len(series.lines) > _MAX_TITLE_LINES else ""
    of = "" if names == series.value_name else f": {names}{more}"
    return f"{series.value_name} over {series.time_name}{of}"


def _span(series: TimeSeries) -> str:
    begin = min(int(line.times[0]) for line in series.lines)
    end = max(int(line.times[-1]) for line in series.lines)
    return f"From {_time_text(begin, series.zone)} to {_time_text(end, series.zone)} ({series.zone.label})."


def _note(series: TimeSeries) -> str:
    points = sum(len(line.times) for line in series.lines)
    most = max_points(len(series.lines))
    note = "1 point" if points == 1 else f"{count_text(points)} points"
    if any(len(line.times) > most for line in series.lines):
        note += f"; of each line at most {count_text(most)} are drawn, among them every stretch's lowest and highest"
    return note


def _statistics(line: Line, zone: PlotZone) -> tuple[str, ...]:
    first, last = (_time_text(int(line.times[place]), zone) for place in (0, -1))
    values = (line.values.min(), line.values.max(), line.values.mean())
    return (cut(line.name, 60), count_text(len(line.times)), first, last, *(f"{value:,.6g}" for value in values))


def _time_text(microseconds: int, zone: PlotZone) -> str:
    text = zone.local_time(microseconds).strftime("%Y-%m-%d %H:%M:%S.%f")
    return text.removesuffix(".000000")


_OFFSET = re.compile(r"([+-])([01][0-9]|2[0-3]):([0-5][0-9])")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_ZONE_CHARACTERS = 40
MAX_POINTS = 2_000
_POINTS_OF_A_STRETCH = 4
MAX_LINES = 12
_MICROSECONDS = {"s": 1_000_000.0, "ms": 1_000.0, "us": 1.0, "ns": 0.001}
# A time of the years 2 to 9998 has its place in every zone.
_EARLIEST, _LATEST = -62_104_060_800_000_000, 253_370_764_800_000_000
_LARGEST_VALUE = 1e290  # sums of larger ones are no numbers any more
_MAX_NAME_CHARACTERS = 80
_MAX_LISTED_COLUMNS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PlotZone:
    """A time zone and what a person is told of it."""

    zone: tzinfo
    label: str

    def local_time(self, microseconds: int) -> datetime:
        """Return so many microseconds since the beginning of 1970, UTC, as a time in this zone."""
        return (_EPOCH + timedelta(microseconds=microseconds)).astimezone(self.zone)


def plot_zone(name: str | None) -> PlotZone:
    """Return the zone of that name; times without one, and of one that nobody knows, are labelled as in UTC."""
    if name is None:
        return PlotZone(zone=UTC, label="no time zone")
    if offset := _OFFSET.fullmatch(name):
        sign, hours, minutes = offset.groups()
        ahead = timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1)
        return PlotZone(zone=timezone(ahead), label=f"UTC{name}" if ahead else "UTC")
    shown = cut(printable(name), _MAX_ZONE_CHARACTERS)
    try:
        return PlotZone(zone=ZoneInfo(name), label=shown)
    except (ValueError, LookupError, OSError):
        return PlotZone(zone=UTC, label=f"UTC, for {shown} is not known here")


def thinned(times: np.ndarray, values: np.ndarray, *, begin: int, end: int, max_points: int) -> np.ndarray:
    """Return the indices, ascending, of at most `max_points` (at least four) points between `begin` and `end`."""
    if len(times) <= max_points:
        return np.arange(len(times))
    stretches = max_points // _POINTS_OF_A_STRETCH
    share = (times - begin).astype(np.float64) / (float(end - begin) or 1.0)
    stretch = np.minimum((share * stretches).astype(np.int64), stretches - 1)
    by_value = np.lexsort((values, stretch))
    # Both orders have the stretches one after the other, at the same places.
    firsts = np.flatnonzero(np.diff(stretch, prepend=-1))
    lasts = np.append(firsts[1:], len(stretch)) - 1
    return np.unique(np.concatenate((firsts, lasts, by_value[firsts], by_value[lasts])))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a plot: ascending microseconds since 1970, UTC, and a finite number for each."""

    name: str
    times: np.ndarray = field(repr=False)
    values: np.ndarray = field(repr=False)
    stretches: np.ndarray = field(repr=False)  # grows where a null or no number lies between: nothing joins these


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSeries:
    """What a plot shows: its lines, what the values are called, and the column of times with its zone."""

    lines: tuple[Line, ...]
    value_name: str
    time_name: str
    zone: PlotZone


def time_series(table: pa.Table) -> TimeSeries:
    """Return the lines of a result.

    The first column of times counts. Each column of numbers makes a line for each combination of the values of the text
    columns; a text column of one value only names no line, and one that is called `unit` is the values' unit.
    """
    columns = [(field.name, decoded(table.column(index))) for index, field in enumerate(table.schema)]
    times = [(name, column) for name, column in columns if _is_time(column.type)]
    numbers = [(name, column) for name, column in columns if _is_number(column.type)]
    if not times:
        raise _missing("a column of times", table)
    if not numbers:
        raise _missing("a column of numbers", table)
    if not table.num_rows:
        raise UsageError("There is nothing to plot: the result has no rows.")
    time_name, time_column = times[0]
    varying, unit = _text_columns([(name, column) for name, column in columns if _is_text(column.type)])
    labels, which = _combinations(varying, table.num_rows)
    if len(labels) * len(numbers) > MAX_LINES:
        raise _too_many_lines([name for name, _ in varying], len(labels), len(numbers))
    at = _microseconds(time_column)
    lines = [
        _line(_line_name(name, label, alone=len(numbers) == 1), at[which == index], values[which == index])
        for name, values in ((name, _values(column)) for name, column in numbers)
        for index, label in enumerate(labels)
    ]
    drawn = tuple(line for line in lines if len(line.times))
    if not drawn:
        raise UsageError("There is nothing to plot: no row has both a time and a number.")
    value_name = _shown(numbers[0][0]) if len(numbers) == 1 else "value"
    unit = unit or ("s" if all(pa.types.is_duration(column.type) for _, column in numbers) else "")
    zone = plot_zone(time_column.type.tz if pa.types.is_timestamp(time_column.type) else None)
    return TimeSeries(
        lines=drawn, value_name=f"{value_name} ({unit})" if unit else value_name, time_name=_shown(time_name), zone=zone
    )


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _is_number(kind: pa.DataType) -> bool:
    return column_kind(kind) is Kind.NUMBER


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _text_columns(columns: Sequence[tuple[str, pa.ChunkedArray]]) -> tuple[list[tuple[str, pa.ChunkedArray]], str]:
    """Return the text columns that vary, as bytes and encoded, and the unit that a column without variation states."""
    varying, unit = [], ""
    for name, column in columns:
        # Bytes, because what a server sends as text need not be text.
        encoded = column.cast(pa.large_string()).cast(pa.large_binary()).combine_chunks()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = pa.concat_arrays(encoded.chunks) if encoded.num_chunks else pa.array([], pa.large_binary())
        encoded = pc.dictionary_encode(encoded, null_encoding="encode")
        values = len(encoded.dictionary)
        if values > MAX_LINES:
            raise _too_many_lines([name], values, 1)
        if values > 1:
            varying.append((name, encoded))
        elif values == 1 and name.lower() == "unit":
            unit = _label(encoded.dictionary[0])
    return varying, unit


def _combinations(columns: Sequence[tuple[str, pa.Array]], rows: int) -> tuple[list[str], np.ndarray]:
    """Return the names of the combinations that occur, and for each row which of them it has."""
    if not columns:
        return [""], np.zeros(rows, np.int64)
    codes = np.zeros(rows, np.int64)
    for _, encoded in columns:
        # Numbered anew each time: many columns would make numbers too large.
        codes = codes * len(encoded.dictionary) + encoded.indices.to_numpy(zero_copy_only=False)
        codes = np.unique(codes, return_inverse=True)[1]
    firsts = np.unique(codes, return_index=True)[1]
    labels = [
        " · ".join(_label(encoded.dictionary[encoded.indices[int(row)].as_py()]) for _, encoded in columns)
        for row in firsts
    ]
    return labels, codes


def _label(value: pa.Scalar) -> str:
    text: bytes | None = value.as_py()
    return "null" if text is None else _shown(text.decode("utf-8", "replace"))


def _shown(name: str) -> str:
    return cut(printable(cut(name, _MAX_NAME_CHARACTERS)), _MAX_NAME_CHARACTERS)


def _line_name(column: str, label: str, *, alone: bool) -> str:
    if not label:
        return _shown(column)
    return label if alone else f"{label} · {_shown(column)}"


def _microseconds(column: pa.ChunkedArray) -> np.ndarray:
    """Return times as floating microseconds, NaN for null and for what no calendar has."""
    kind = column.type
    if pa.types.is_date32(kind):
        column, factor = column.cast(pa.timestamp("s")), _MICROSECONDS["s"]
    elif pa.types.is_date64(kind):
        factor = _MICROSECONDS["ms"]
    else:
        factor = _MICROSECONDS[kind.unit]
    times = _floats(column.cast(pa.int64())) * factor
    times[~((times >= _EARLIEST) & (times <= _LATEST))] = np.nan
    return times


def _values(column: pa.ChunkedArray) -> np.ndarray:
    """Return numbers, NaN for null and for what cannot be drawn; durations in seconds."""
    if pa.types.is_duration(column.type):
        return _floats(column.cast(pa.int64())) * (_MICROSECONDS[column.type.unit] / _MICROSECONDS["s"])
    if pa.types.is_decimal(column.type):
        column = pa.chunked_array(
            [[None if value is None else float(value) for value in column.to_pylist()]], pa.float64()
        )
    values = _floats(column)
    values[~(np.abs(values) <= _LARGEST_VALUE)] = np.nan
    return values


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return np.array(column.cast(pa.float64(), safe=False).to_numpy(), np.float64)


def _line(name: str, times: np.ndarray, values: np.ndarray) -> Line:
    known = ~np.isnan(times)
    order = np.argsort(times[known], kind="stable")
    times, values = times[known][order], values[known][order]
    drawn = ~np.isnan(values)
    stretches = np.cumsum(~drawn)
    return Line(name=name, times=times[drawn].astype(np.int64), values=values[drawn], stretches=stretches[drawn])


def _missing(what: str, table: pa.Table) -> UsageError:
    listed = [f"{_shown(column.name)} {sql_type(column.type)}" for column in list(table.schema)[:_MAX_LISTED_COLUMNS]]
    more = ", …" if table.num_columns > _MAX_LISTED_COLUMNS else ""
    return UsageError(
        f"--plot needs {what}, and this result has none ({', '.join(listed) or 'no columns'}{more}).",
        remedy="Select a time and a number, for example: SELECT time, value FROM measures.",
    )


def _too_many_lines(names: Sequence[str], values: int, numbers: int) -> UsageError:
    columns = " and ".join(_shown(name) for name in names) or "the columns of numbers"
    what = f"{columns} would make {count_text(values * numbers)} lines, and --plot draws at most {MAX_LINES}."
    return UsageError(what, remedy="Keep fewer with WHERE, group them, or leave the column out.")
