"""Signs a person in at a terminal: instructions, the QR code, the prompt for an address, all on standard error.

What is pasted is not shown: it holds a code that signs in.
"""

import contextlib
import getpass
import os
import re
import select
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, TextIO

from micromegas_jupyter.auth.flows.base import QR_CAPTION, shows_qr, terminal_qr
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock, process_variables
from micromegas_jupyter.errors import LoginFailed, LoginTimedOut

if TYPE_CHECKING:
    from micromegas_jupyter.auth.flows.hub import HubTokenProvider
    from micromegas_jupyter.auth.flows.select import FlowChoice
    from micromegas_jupyter.auth.provider import OidcAuthProvider, PendingLogin
    from micromegas_jupyter.config.client import ClientSettings


def can_show_qr(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether a stream is a terminal that shows block characters in colours."""
    return stream.isatty() and shows_qr(environ, encoding=stream.encoding)


def is_capable_terminal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether a stream is a terminal that can rewrite a line."""
    return stream.isatty() and environ.get("TERM", "") not in {"", "dumb"}


MAX_LINE_BYTES = 16 * 1024

_READ_BYTES = 1024
_MAX_WAIT_SECONDS = 0.25
_LINE_END = re.compile(rb"[\r\n]+")
_END_OF_INPUT = b"\x04"  # Ctrl-D, which a terminal that is read byte by byte passes on


class HiddenInput:
    """Reads lines from a terminal, or from what stands in its place; keeps what came after a line for the next.

    A terminal is read byte by byte: read by lines it takes no more than 1,024 to 4,096 characters, and an address
    with a code in it may be longer.
    """

    def __init__(self, source: TextIO, output: TextIO, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._source = source
        self._output = output
        self._clock = clock
        self._buffer = b""
        self._hiding = contextlib.ExitStack()

    def hide(self) -> None:
        """Show nothing that is typed from now on, between two questions neither, until `close`."""
        if sys.platform != "win32":
            with contextlib.suppress(OSError, ValueError):  # what stands in a terminal's place may have no descriptor
                self._hiding.enter_context(_byte_by_byte(self._source.fileno()))

    def close(self) -> None:
        """Restore the terminal; safe to call twice."""
        self._hiding.close()

    def prompt(self, prompt: str, *, timeout_seconds: float) -> str:
        """Prompt for a line and wait for it."""
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
        while True:
            line, *rest = _LINE_END.split(self._buffer, maxsplit=1)
            if len(line) > MAX_LINE_BYTES:
                raise LoginFailed("What was pasted is too long for an address.")
            chunk = b"" if rest else self._read_chunk(deadline)
            if chunk:
                self._buffer += chunk
                continue
            self._buffer = rest[0] if rest else b""
            if text := line.decode("utf-8", errors="replace").strip():
                return text
            if not rest:
                raise LoginFailed("The sign-in was cancelled: there is no more input.")

    def _read_chunk(self, deadline: float) -> bytes:
        """Return what there is, waiting for it; nothing at the end of the input."""
        while True:
            # A Ctrl-C that comes in the instant before a wait is only noticed after it, so no wait is long.
            left_seconds = max(deadline - self._clock.monotonic(), 0.0)
            if select.select([self._source], [], [], min(left_seconds, _MAX_WAIT_SECONDS))[0]:
                chunk = os.read(self._source.fileno(), _READ_BYTES)
                return b"" if chunk == _END_OF_INPUT else chunk
            if not left_seconds:
                raise LoginTimedOut("Nobody pasted an address in time.")


@contextlib.contextmanager
def _byte_by_byte(descriptor: int) -> Iterator[None]:
    if not os.isatty(descriptor):
        yield
        return
    import termios

    before = termios.tcgetattr(descriptor)
    changed = termios.tcgetattr(descriptor)
    changed[3] &= ~(termios.ICANON | termios.ECHO)  # Ctrl-C keeps working: ISIG stays
    termios.tcsetattr(descriptor, termios.TCSADRAIN, changed)
    try:
        yield
    finally:
        # What was pasted beyond the line would be read by the shell: throw it away.
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)


_TICK_SECONDS = 1.0
_CLEAR_LINE = "\r\x1b[K"


class Countdown:
    """Writes the line from a thread of its own until it is stopped, then takes it away."""

    def __init__(self, stream: TextIO, *, expires_at: datetime, clock: Clock) -> None:
        self._stream = stream
        self._expires_at = expires_at
        self._clock = clock
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="micromegas-countdown", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End and take the line away; safe to call twice."""
        self._stopped.set()
        self._thread.join(_TICK_SECONDS)

    def _run(self) -> None:
        try:
            while True:
                self._write(f"{_CLEAR_LINE}{waiting_line(self._expires_at, self._clock.now())}")
                if self._stopped.wait(_TICK_SECONDS):
                    break
            self._write(_CLEAR_LINE)
        except (OSError, ValueError):
            return  # the terminal is gone, and with it whoever would read this

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def waiting_line(expires_at: datetime, now: datetime) -> str:
    """Return how long an offer to sign in still holds, as `9:41`."""
    seconds = max(int((expires_at - now).total_seconds()), 0)
    return f"Waiting for you to sign in; {seconds // 60}:{seconds % 60:02d} left."


AUTOMATIC = "auto"
FLOW_CHOICES = (AUTOMATIC, "browser", "device", "paste", "hub")
FLOW_HELP = "how to sign in; auto lets the runtime environment decide and forgets an earlier choice"

_MAX_ANSWER_SECONDS = 600.0


def sign_in(
    settings: "ClientSettings",
    *,
    flow: str | None = None,
    store: bool = True,
    environ: Mapping[str, str] | None = None,
) -> "OidcAuthProvider | HubTokenProvider":
    """Choose how to sign in, and do it.

    `flow` is what an argument named; None leaves it to settings and runtime environment. With `store` the sign-in is
    kept, and the named flow remembered.
    """
    from micromegas_jupyter import wiring
    from micromegas_jupyter.auth.flows.select import HUB_TOKEN_VARIABLE, GraphicalBrowser
    from micromegas_jupyter.config.client import SECRET_VARIABLES, Flow

    environ = process_variables(environ)
    for name in (*SECRET_VARIABLES, HUB_TOKEN_VARIABLE):
        os.environ.pop(name, None)  # the settings hold it by now, and a browser would inherit it
    wanted = None if flow in {None, AUTOMATIC} else Flow(flow)
    choice = wiring.choose_flow(settings, wanted=wanted, is_automatic=flow == AUTOMATIC, environ=environ)
    chosen = wiring.require_flow(settings, choice)
    terminal = SignInTerminal(sys.stderr, environ=environ)
    if chosen is not Flow.BROWSER or choice.skipped:
        terminal.announce(why_line(choice))
    try:
        provider = wiring.login(
            settings,
            flow=chosen,
            fallbacks=choice.fallbacks,
            browser=GraphicalBrowser(environ),
            announce=terminal.announce,
            show=terminal.show,
            store=store,
            environ=environ,
            prompt=terminal.prompt,
        )
    finally:
        terminal.close()
    if store and wanted is not None:
        wiring.remember_flow(settings, wanted, environ)
        if settings.origin_of("flow") is not None:
            terminal.announce(f"Without --flow, {settings.origin_of('flow')} goes first.")
    elif store and flow == AUTOMATIC:
        wiring.remember_flow(settings, None, environ)
    return provider


def why_line(choice: "FlowChoice") -> str:
    """Return how a person signs in and why, in one line."""
    skipped = "".join(f" Not {found.flow.value}: {found.reason}." for found in choice.skipped)
    return f"Sign-in by {choice.flow}. {choice.reason}{skipped}"


class SignInTerminal:
    """Shows a sign-in on a terminal, or as plain lines where there is none."""

    def __init__(
        self,
        stream: TextIO,
        *,
        source: TextIO | None = None,
        environ: Mapping[str, str],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._stream = stream
        self._environ = environ
        self._clock = clock
        self._input = HiddenInput(sys.stdin if source is None else source, stream, clock=clock)

    def announce(self, sentence: str) -> None:
        """Print a sentence."""
        print(sentence, file=self._stream, flush=True)

    def show(self, pending: "PendingLogin") -> None:
        """Print the instructions, with a QR code and the time left where they help."""
        from micromegas_jupyter.config.client import Flow
        from micromegas_jupyter.wiring import sentence_of

        if pending.flow is Flow.PASTE:
            self._input.hide()
        self.announce(sentence_of(pending))
        if pending.flow is Flow.PASTE:
            return
        if pending.flow is Flow.DEVICE:
            self._show_picture(pending.verification_uri_complete)
        if not is_capable_terminal(self._stream, self._environ):
            if pending.flow is Flow.DEVICE:
                self.announce(waiting_line(pending.expires_at, self._clock.now()))
            return
        countdown = Countdown(self._stream, expires_at=pending.expires_at, clock=self._clock)
        countdown.start()
        pending.on_done(lambda _pending: countdown.stop())

    def prompt(self, question: str) -> str:
        """Prompt for the address that the person pastes; it is not shown."""
        return self._input.prompt(question, timeout_seconds=_MAX_ANSWER_SECONDS)

    def close(self) -> None:
        """Restore the terminal; safe to call twice."""
        self._input.close()

    def _show_picture(self, address: str | None) -> None:
        # Shown, never opened: whoever typed nothing has not looked at what they agree to (RFC 8628 section 5.4).
        if address is None or not can_show_qr(self._stream, self._environ):
            return
        lines = terminal_qr(address, columns=shutil.get_terminal_size().columns)
        for line in [QR_CAPTION, *lines] if lines else []:
            self.announce(line)
