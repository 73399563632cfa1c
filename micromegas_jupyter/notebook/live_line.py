"""One line in a cell that is rewritten in place while something lasts; what it says is the caller's business."""

from __future__ import annotations

import contextvars
import html
from threading import Event, Thread
from typing import TYPE_CHECKING, Protocol, Self, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from micromegas_jupyter.notebook.ipython_names import Handle

REWRITE_SECONDS = 0.25
"""The pause between two rewrites: at most four a second."""

_JOIN_SECONDS = 2.0
_ERASE_LINE = "\r\x1b[2K"


class LiveLine(Protocol):
    """A line that can be rewritten."""

    @property
    def is_shown(self) -> bool:
        """Whether anything has been shown yet."""
        ...

    @property
    def outlives_cell(self) -> bool:
        """Whether it can still be rewritten when its cell has ended; else it can only be finished once more."""
        ...

    def rewrite(self, text: str, *, address: str = "") -> None:
        """Show `text` in place of what the line says now; `address`, which stands in it, can be followed."""
        ...

    def finish(self, text: str) -> None:
        """Show `text` as the line that stays."""
        ...

    def clear(self) -> None:
        """Take away what has been shown; what follows says it."""
        ...


class DisplayLine:
    """The line as a display of the cell, updated through its display id."""

    outlives_cell = True

    def __init__(self) -> None:
        self._handle: Handle | None = None

    @property
    def is_shown(self) -> bool:
        """Whether anything has been shown yet."""
        return self._handle is not None

    def rewrite(self, text: str, *, address: str = "") -> None:
        """Show `text` in place of what the line says now; `address`, which stands in it, becomes a link."""
        from micromegas_jupyter.notebook.ipython_names import new_display_handle

        bundle = {"text/plain": text, "text/html": _line_html(text, address)}
        if self._handle is None:
            self._handle = new_display_handle()
            self._handle.display(bundle, raw=True)
        else:
            self._handle.update(bundle, raw=True)

    finish = rewrite

    def clear(self) -> None:
        """Take away what has been shown; what follows says it."""
        if self._handle is not None:
            self._handle.update({"text/plain": "", "text/html": ""}, raw=True)


class TerminalLine:
    """The line on a terminal; where the output is a file or a pipe, only the last text is written.

    Args:
        stream: Where to write; it stays the caller's.
    """

    outlives_cell = False

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_shown = False

    @property
    def is_shown(self) -> bool:
        """Whether anything has been shown yet."""
        return self._is_shown

    def rewrite(self, text: str, *, address: str = "") -> None:  # noqa: ARG002 - a terminal finds it in the text
        """Show `text` in place of what the line says now."""
        if self._stream.isatty():
            self._is_shown = True
            self._stream.write(_ERASE_LINE + text)
            self._stream.flush()

    def finish(self, text: str) -> None:
        """Show `text` as the line that stays."""
        erase = _ERASE_LINE if self._stream.isatty() else ""
        self._is_shown = True
        self._stream.write(f"{erase}{text}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Take away what has been shown; what follows says it."""
        if self._is_shown:
            self._stream.write(_ERASE_LINE)
            self._stream.flush()


class LineTicker:
    """Rewrites a line at regular times while the `with` block runs, from a thread of its own.

    Args:
        line: The line; nothing else writes to it meanwhile.
        describe: Gives the text; called on the thread.
        pause_seconds: The pause before each rewrite.
    """

    def __init__(self, line: LiveLine, describe: Callable[[], str], *, pause_seconds: float = REWRITE_SECONDS) -> None:
        self._line = line
        self._describe = describe
        self._pause_seconds = pause_seconds
        self._over = Event()
        # ipykernel finds the cell that a display belongs to in a context variable.
        context = contextvars.copy_context()
        self._thread = Thread(target=context.run, args=(self._tick,), name="micromegas-live-line", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(_JOIN_SECONDS)

    def _tick(self) -> None:
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
