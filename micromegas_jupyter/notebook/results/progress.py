"""The progress of a query, and the line in a cell that shows it, updated in place."""

from __future__ import annotations

import contextvars
import html
from enum import StrEnum
from threading import Event, Thread
from typing import TYPE_CHECKING, Self, TextIO

from micromegas_jupyter.notebook.formatting import bytes_text, remaining_text, rows_text, seconds_text, short_query_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from types import TracebackType

    from micromegas_jupyter.client.query_reader import QueryReader
    from micromegas_jupyter.core.system import Clock
    from micromegas_jupyter.notebook.shell import Handle

REWRITE_SECONDS = 0.25
"""The pause between two updates of a line."""

_JOIN_SECONDS = 2.0
_ERASE_LINE = "\r\x1b[2K"


class Ending(StrEnum):
    """How a query ended."""

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    """Its reader was closed or dropped before the last row."""


class Progress:
    """The progress of one query; written by the thread that reads its rows, read by the line's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started = clock.monotonic()
        self._first_seconds: float | None = None
        self._reader: QueryReader | None = None
        self._token_ends_at: datetime | None = None

    @property
    def query_id(self) -> str | None:
        """The server's id of the query; None before the server has begun to answer."""
        return None if self._reader is None else self._reader.query_id

    @property
    def rows(self) -> int:
        """The number of rows that have arrived."""
        return 0 if self._reader is None else self._reader.rows

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self._clock.monotonic() - self._started

    def note_opened(self, reader: QueryReader, *, token_ends_at: datetime | None) -> None:
        """The server has begun to answer; the query's token expires at this time."""
        self._reader = reader
        self._token_ends_at = token_ends_at

    def note_batch(self) -> None:
        """A batch has arrived."""
        if self._first_seconds is None:
            self._first_seconds = self.seconds

    def opened_line(self) -> str:
        """Return the line of a reader whose rows come on demand."""
        return _joined("▸ rows come as you iterate", self._query())

    def running_line(self) -> str:
        """Return the line of a running query, with how to cancel it."""
        return _joined(self.reading_line(), self._token(), "interrupt to cancel")

    def reading_line(self) -> str:
        """Return the line of a reader that is being read."""
        return _joined(f"⏳ {seconds_text(self.seconds)}", self._received(), self._query())

    def done_line(self) -> str:
        """Return the line of a query whose rows are all here."""
        first = "" if self._first_seconds is None else f" (first after {seconds_text(self._first_seconds)})"
        done = f"✓ {rows_text(self.rows)} in {seconds_text(self.seconds)}{first}"
        return _joined(done, bytes_text(0 if self._reader is None else self._reader.bytes_received), self._query())

    def ended_line(self, ending: Ending) -> str:
        """Return the line of a query that ended before the last row."""
        received = "" if self._reader is None else f", {rows_text(self.rows)} received"
        if self._reader is None and ending is Ending.CANCELLED:
            received = ", before the first row"
        elif self._reader is not None and ending is not Ending.FAILED:
            received += ", stopped on the server"
        sign = "■" if ending is Ending.STOPPED else "✗"
        return _joined(f"{sign} {ending} after {seconds_text(self.seconds)}{received}", self._query())

    def _received(self) -> str:
        if self._reader is None:
            return ""
        return f"{rows_text(self._reader.rows)} · {bytes_text(self._reader.bytes_received)}"

    def _query(self) -> str:
        return "" if self.query_id is None else f"query {short_query_id(self.query_id)}"

    def _token(self) -> str:
        if self._token_ends_at is None:
            return ""
        return f"token {remaining_text((self._token_ends_at - self._clock.now()).total_seconds())}"


def _joined(*parts: str) -> str:
    return " · ".join(part for part in parts if part)


class DisplayLine:
    """The line as a display of the cell, updated through its display id."""

    outlives_cell = True
    """Whether it can still be updated after its cell has ended; else it can only be finished once more."""

    def __init__(self) -> None:
        self._handle: Handle | None = None

    @property
    def is_shown(self) -> bool:
        """Whether anything has been shown yet."""
        return self._handle is not None

    def rewrite(self, text: str, *, address: str = "") -> None:
        """Replace the line by `text`; `address`, which is part of it, becomes a link."""
        from micromegas_jupyter.notebook.shell import new_display_handle

        bundle = {"text/plain": text, "text/html": _line_html(text, address)}
        if self._handle is None:
            self._handle = new_display_handle()
            self._handle.display(bundle, raw=True)
        else:
            self._handle.update(bundle, raw=True)

    finish = rewrite

    def clear(self) -> None:
        """Remove the line."""
        if self._handle is not None:
            self._handle.update({"text/plain": "", "text/html": ""}, raw=True)


class TerminalLine:
    """The line on a terminal; into a file or a pipe only the last text is written. The caller owns the stream."""

    outlives_cell = False

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_shown = False

    @property
    def is_shown(self) -> bool:
        """Whether anything has been shown yet."""
        return self._is_shown

    def rewrite(self, text: str, *, address: str = "") -> None:  # noqa: ARG002 - a terminal finds it in the text
        """Replace the line by `text`."""
        if self._stream.isatty():
            self._is_shown = True
            self._stream.write(_ERASE_LINE + text)
            self._stream.flush()

    def finish(self, text: str) -> None:
        """Show `text` as the final line."""
        erase = _ERASE_LINE if self._stream.isatty() else ""
        self._is_shown = True
        self._stream.write(f"{erase}{text}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Remove the line."""
        if self._is_shown:
            self._stream.write(_ERASE_LINE)
            self._stream.flush()


LiveLine = DisplayLine | TerminalLine
"""A line in a cell that can be updated."""


class LineUpdater:
    """Updates a line regularly while the `with` block runs, on a thread that calls `describe` for the text."""

    def __init__(self, line: LiveLine, describe: Callable[[], str], *, pause_seconds: float = REWRITE_SECONDS) -> None:
        self._line = line
        self._describe = describe
        self._pause_seconds = pause_seconds
        self._over = Event()
        # ipykernel finds the cell that a display belongs to in a context variable.
        context = contextvars.copy_context()
        self._thread = Thread(target=context.run, args=(self._update,), name="micromegas-live-line", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(_JOIN_SECONDS)

    def _update(self) -> None:
        while not self._over.wait(self._pause_seconds):
            self._line.rewrite(self._describe())


def _line_html(text: str, address: str) -> str:
    style = "font-family:var(--jp-code-font-family,monospace);font-size:var(--jp-code-font-size,13px)"
    style += ";overflow-wrap:anywhere"
    shown = html.escape(text)
    if address:
        escaped = html.escape(address)
        link = f'<a href="{escaped}" target="_blank" rel="noopener noreferrer">{escaped}</a>'
        shown = shown.replace(escaped, link, 1)
    return f'<div style="{style}">{shown}</div>'
