"""Reads a line from the person without showing it: what is pasted here holds a code that signs in.

What the line means is the caller's business.
"""

import contextlib
import getpass
import os
import re
import select
import sys
from collections.abc import Iterator
from typing import TextIO

from micromegas_jupyter.errors import LoginFailed, LoginTimedOut
from micromegas_jupyter.seams import SYSTEM_CLOCK, Clock

MAX_LINE_BYTES = 16 * 1024

_READ_BYTES = 1024
_LONGEST_WAIT_SECONDS = 0.25
_LINE_END = re.compile(rb"[\r\n]+")
_END_OF_INPUT = b"\x04"  # Ctrl-D, which a terminal that is read byte by byte passes on


class HiddenInput:
    """Reads lines from a terminal, or from what stands in its place; keeps what came after a line for the next.

    A terminal is read byte by byte: read by lines it takes no more than 1,024 to 4,096 characters, and an address
    with a code in it may be longer.

    Args:
        source: Where answers come from.
        output: Where questions go.
        clock: Measures how long the person takes.
    """

    def __init__(self, source: TextIO, output: TextIO, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._source = source
        self._output = output
        self._clock = clock
        self._read = b""
        self._hiding = contextlib.ExitStack()

    def hide(self) -> None:
        """Show nothing that is typed from now on, between two questions neither, until `close`."""
        if sys.platform != "win32":
            with contextlib.suppress(OSError, ValueError):  # what stands in a terminal's place may have no descriptor
                self._hiding.enter_context(_byte_by_byte(self._source.fileno()))

    def close(self) -> None:
        """Give the terminal back as it was; safe to call twice."""
        self._hiding.close()

    def ask(self, prompt: str, *, timeout_seconds: float) -> str:
        """Ask for a line and wait for it.

        Raises:
            LoginTimedOut: Nobody answered in time.
            LoginFailed: There is no more input, or the line is too long.
        """
        if sys.platform == "win32" and self._source.isatty():
            return getpass.getpass(prompt, self._output)
        try:
            with _byte_by_byte(self._source.fileno()):
                # Not earlier: what is pasted as soon as the prompt appears would be shown.
                self._output.write(prompt)
                self._output.flush()
                return self._next_line(self._clock.monotonic() + timeout_seconds)
        finally:
            self._output.write("\n")
            self._output.flush()

    def _next_line(self, deadline: float) -> str:
        is_open = True
        while True:
            line, *rest = _LINE_END.split(self._read, maxsplit=1)
            if len(line) > MAX_LINE_BYTES:
                raise LoginFailed("What was pasted is too long for an address.")
            if rest or not is_open:
                self._read = rest[0] if rest else b""
                text = line.decode("utf-8", errors="replace").strip()
                if text:
                    return text
            if not rest:
                if not is_open:
                    raise LoginFailed("The sign-in was cancelled: there is no more input.")
                is_open = self._fill(deadline)

    def _fill(self, deadline: float) -> bool:
        """Read what there is, waiting for it; whether there may be more."""
        while not self._has_input(deadline):
            if self._clock.monotonic() >= deadline:
                raise LoginTimedOut("Nobody pasted an address in time.")
        chunk = os.read(self._source.fileno(), _READ_BYTES)
        if chunk == _END_OF_INPUT:
            return False
        self._read += chunk
        return bool(chunk)

    def _has_input(self, deadline: float) -> bool:
        # A Ctrl-C that comes in the instant before a wait is only noticed after it, so no wait is long.
        left_seconds = max(deadline - self._clock.monotonic(), 0.0)
        return bool(select.select([self._source], [], [], min(left_seconds, _LONGEST_WAIT_SECONDS))[0])


@contextlib.contextmanager
def _byte_by_byte(descriptor: int) -> Iterator[None]:
    if not os.isatty(descriptor):
        yield
        return
    import termios

    before = termios.tcgetattr(descriptor)
    changed = termios.tcgetattr(descriptor)
    changed[3] &= ~(termios.ICANON | termios.ECHO)  # Ctrl-C goes on working: ISIG stays
    termios.tcsetattr(descriptor, termios.TCSADRAIN, changed)
    try:
        yield
    finally:
        # What was pasted beyond the line would be read by the shell: throw it away.
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)
