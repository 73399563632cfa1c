"""Draws a time series as SVG that is complete by itself and takes a page's colours when it stands in one.

Everything that came from the server is escaped. What is drawn is `plot_series`', where the marks are `plot_axes`' job.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from micromegas_jupyter.notebook.plot_axes import time_marks, value_marks, value_range
from micromegas_jupyter.notebook.plot_points import MAX_POINTS, thinned
from micromegas_jupyter.notebook.words import cut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from micromegas_jupyter.notebook.plot_axes import Mark
    from micromegas_jupyter.notebook.plot_series import Line, TimeSeries

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
    """Return the drawing.

    Args:
        series: What to draw.
        title: What it shows, in a few words.
        description: The same in a sentence or two, for those who cannot see it.
    """
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
