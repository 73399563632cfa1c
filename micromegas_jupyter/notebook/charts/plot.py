"""A result as a plot over time: a picture that needs no script, and its statistics.

Where scripts run, the picture takes the page's colours. Everything that came from the server is escaped.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np

from micromegas_jupyter.notebook.charts.series import MAX_POINTS, Line, PlotZone, TimeSeries, thinned, time_series
from micromegas_jupyter.notebook.formatting import count_text, cut
from micromegas_jupyter.notebook.results.table import static_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa


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
_MAX_NAME_CHARACTERS = 24
_MAX_POINTS_OF_ALL_LINES = 8_000
_INK = "var(--jp-ui-font-color1, #333)"
_GRID = "var(--jp-border-color2, #ddd)"
_PAPER = "var(--jp-layout-color0, #fff)"
_HEADINGS = ("line", "points", "first", "last", "lowest", "highest", "mean")
_MAX_TITLE_LINES = 3
_UNQUOTED_CHARACTERS = ",/:;=()!*-._~@?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A mark of an axis.

    Attributes:
        at: Where it stands, in the axis' own unit.
        text: What is written beside it.
        below: A second line, such as the date; empty when there is none.
    """

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
        *(_line(frame, line, colour, len(series.lines)) for line, colour in zip(series.lines, COLOURS, strict=False)),
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


def _line(frame: _Frame, line: Line, colour: str, lines: int) -> str:
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
            f'<text x="{frame.right + 26:.1f}" y="{place + 4:.1f}">{_escaped(cut(line.name, _MAX_NAME_CHARACTERS))}'
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
        f"</details><script>{static_text('plot.js')}</script></figure>"
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
