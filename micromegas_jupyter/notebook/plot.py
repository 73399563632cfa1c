"""A result as a plot over time: a picture that needs no script, and the same in figures.

Where scripts run, the picture takes the page's colours. Finding the lines is `plot_series`', drawing `plot_svg`'s job.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING
from urllib.parse import quote

from micromegas_jupyter.notebook.plot_series import TimeSeries, time_series
from micromegas_jupyter.notebook.plot_svg import max_points, plot_svg
from micromegas_jupyter.notebook.result_html import static_text
from micromegas_jupyter.notebook.words import count_text, cut

if TYPE_CHECKING:
    import pyarrow as pa

    from micromegas_jupyter.notebook.plot_series import Line
    from micromegas_jupyter.notebook.plot_zone import PlotZone

_HEADINGS = ("line", "points", "first", "last", "lowest", "highest", "mean")
_MAX_TITLE_LINES = 3
_HARMLESS_IN_ADDRESS = ",/:;=()!*-._~@?"


def plot_bundle(table: pa.Table) -> dict[str, str]:
    """Return a plot of the result by MIME type.

    Raises:
        UsageError: It is no time series.
    """
    series = time_series(table)
    rows = [_figures(line, series.zone) for line in series.lines]
    return {"text/plain": _plain(series, rows), "text/html": _html(series, rows)}


def _html(series: TimeSeries, rows: list[tuple[str, ...]]) -> str:
    title = _title(series)
    svg = plot_svg(series, title=title, description=_span(series))
    # Almost all of it is digits, commas and letters, which percent-encoding leaves alone, unlike base64.
    address = "data:image/svg+xml," + quote(svg, safe=_HARMLESS_IN_ADDRESS)
    head = "".join(f'<th scope="col">{heading}</th>' for heading in _HEADINGS)
    body = "".join(f"<tr>{''.join(map(_cell, row, _HEADINGS))}</tr>" for row in rows)
    return (
        '<figure class="micromegas-plot" style="margin:0;max-width:860px">'
        f'<img alt="{html.escape(f"{title}. {_span(series)}")}" src="{address}" style="width:100%">'
        f'<figcaption style="opacity:0.8">{html.escape(_note(series))}</figcaption>'
        "<details><summary>The plot in figures</summary>"
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
    return f"From {_moment(begin, series.zone)} to {_moment(end, series.zone)} ({series.zone.label})."


def _note(series: TimeSeries) -> str:
    points = sum(len(line.times) for line in series.lines)
    most = max_points(len(series.lines))
    note = "1 point" if points == 1 else f"{count_text(points)} points"
    if any(len(line.times) > most for line in series.lines):
        note += f"; of each line at most {count_text(most)} are drawn, among them every stretch's lowest and highest"
    return note


def _figures(line: Line, zone: PlotZone) -> tuple[str, ...]:
    first, last = (_moment(int(line.times[place]), zone) for place in (0, -1))
    values = (line.values.min(), line.values.max(), line.values.mean())
    return (cut(line.name, 60), count_text(len(line.times)), first, last, *(f"{value:,.6g}" for value in values))


def _moment(microseconds: int, zone: PlotZone) -> str:
    text = zone.moment(microseconds).strftime("%Y-%m-%d %H:%M:%S.%f")
    return text.removesuffix(".000000")
