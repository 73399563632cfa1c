"""How a notebook shows a log: a widget while its kernel runs, and a small table without scripts everywhere else."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, Final

from micromegas_jupyter.core.text import cut
from micromegas_jupyter.notebook.logs.view import line_texts
from micromegas_jupyter.notebook.query_result import QueryResult
from micromegas_jupyter.notebook.shell import count_text
from micromegas_jupyter.notebook.widget import KernelWidget, shows_widgets, static_text, widget_bundle
from micromegas_jupyter.telemetry.levels import Level

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pyarrow as pa

    from micromegas_jupyter.notebook.logs.view import LogView

_MAX_STATIC_LINES: Final = 50
_MAX_STATIC_CHARACTERS: Final = 18_000
_MAX_CELL_CHARACTERS: Final = 160
_HEADERS: Final = ("time (UTC)", "level", "service", "target", "message")
#: Contrast of at least 4.5:1 with JupyterLab's light and dark backgrounds.
_COLORS: Final = {1: "#d32f2f", 2: "#d32f2f", 3: "#a86500"}


class LogWidget(KernelWidget):
    """The page's side of a view; no trait contains lines, so notebooks don't save them."""

    _esm = static_text("logs.js")
    _css = static_text("logs.css")

    def __init__(self, view: LogView) -> None:
        self._view = view
        super().__init__()
        view.on_news = self._send_news

    def reply(self, message: Mapping[str, Any]) -> tuple[object, list[bytes]]:
        """Return the view's response."""
        return self._view.respond(message), []

    def close(self) -> None:
        """Stop following, because a page can't report that it is closing once its widget is closed."""
        if self._view.on_news == self._send_news:  # no newer widget shows the view
            self._view.pause()
        super().close()

    def _send_news(self, state: dict[str, Any]) -> None:
        self.send({"news": state})
        self.let_requests_overtake_cells()


class LogResult(QueryResult):
    """The lines that `%micromegas_logs` returned, oldest first; `lines` returns those that the view currently holds."""

    def __init__(self, table: pa.Table, make_view: Callable[[pa.Table], LogView]) -> None:
        super().__init__(table)
        self._make_view = make_view
        self._log_view: LogView | None = None

    @property
    def lines(self) -> QueryResult:
        """Return the lines in the view, including any followed ones, with its filters applied."""
        return QueryResult(self._table if self._log_view is None else self._log_view.table())

    def __repr__(self) -> str:
        return saved_lines(self._table)["text/plain"]

    def _repr_mimebundle_(self, **_options: object) -> tuple[dict[str, Any], dict[str, Any]]:
        saved = saved_lines(self._table)
        if not shows_widgets():
            return saved, {}
        if self._log_view is None:
            self._log_view = self._make_view(self._table)
        return widget_bundle(LogWidget(self._log_view), saved)


def saved_lines(table: pa.Table) -> dict[str, str]:
    """Return the newest lines by MIME type: a table without scripts, and plain text."""
    count = min(table.num_rows, _MAX_STATIC_LINES)
    while True:
        rows = [
            (level, at, _level_name(level), cut(service, 40), cut(target, 40), cut(message, _MAX_CELL_CHARACTERS))
            for at, level, service, target, message in line_texts(table.slice(table.num_rows - count))
        ]
        body = "".join(_html_row(level, texts) for level, *texts in rows)
        if len(body) <= _MAX_STATIC_CHARACTERS or count <= 1:
            break
        count //= 2
    total = f"{count_text(table.num_rows)} line{'s' * (table.num_rows != 1)}"
    note = total if count == table.num_rows else f"last {count_text(count)} of {total}"
    head = "".join(f'<th scope="col" style="text-align:left">{name}</th>' for name in _HEADERS)
    as_html = (
        f'<div style="overflow-x:auto"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        f'<p style="margin:0.3em 0;opacity:0.8">{note}</p></div>'
    )
    lines = [f"{at} {level:<7} {service} {target}: {message}" for _, at, level, service, target, message in rows]
    return {"text/html": as_html, "text/plain": "\n".join([*lines, note])}


def _html_row(level: int, texts: Sequence[str]) -> str:
    color = f";color:{_COLORS[level]}" if level in _COLORS else ""
    # JupyterLab's style sheet overrides row styles.
    style = f'style="text-align:left;white-space:nowrap{color}"'
    return f"<tr>{''.join(f'<td {style}>{html.escape(text)}</td>' for text in texts)}</tr>"


def _level_name(level: int) -> str:
    return Level(level).name if level in list(Level) else str(level)
