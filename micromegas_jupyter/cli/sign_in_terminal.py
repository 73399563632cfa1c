"""Signs a person in at a terminal: what they are told, the code's picture, the question for an address.

All of it goes to standard error. Which way is chosen and how it is carried out is `assembly`'s.
"""

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, TextIO

from micromegas_jupyter.cli.countdown import Countdown, waiting_line
from micromegas_jupyter.cli.hidden_input import HiddenInput
from micromegas_jupyter.cli.qr import can_show_qr, is_capable_terminal, terminal_columns
from micromegas_jupyter.redirect.terminal_qr import QR_CAPTION, terminal_qr
from micromegas_jupyter.seams import SYSTEM_CLOCK, Clock, process_variables

if TYPE_CHECKING:
    from micromegas_jupyter.auth import OidcAuthProvider, PendingLogin
    from micromegas_jupyter.auth.flow_choice import FlowChoice
    from micromegas_jupyter.auth.hub_token import HubTokenProvider
    from micromegas_jupyter.settings import ClientSettings

AUTOMATIC = "auto"
FLOW_CHOICES = (AUTOMATIC, "browser", "device", "paste", "hub")
FLOW_HELP = "how to sign in; auto leaves it to the surroundings and forgets an earlier choice"

_LONGEST_ANSWER_SECONDS = 600.0


def sign_in(
    settings: "ClientSettings",
    *,
    flow: str | None = None,
    store: bool = True,
    environ: Mapping[str, str] | None = None,
) -> "OidcAuthProvider | HubTokenProvider":
    """Choose how to sign in, and do it.

    Args:
        settings: Which provider, and as which application.
        flow: What an argument named; None leaves it to settings and surroundings.
        store: Whether the sign-in is kept, and the named flow remembered.
        environ: Stands in for the process environment.

    Raises:
        MicromegasError: What `assembly.login` raises, or nobody can sign in here.
    """
    from micromegas_jupyter import assembly
    from micromegas_jupyter.auth.graphical_browser import GraphicalBrowser
    from micromegas_jupyter.auth.hub_variables import HUB_TOKEN_VARIABLE
    from micromegas_jupyter.settings import Flow
    from micromegas_jupyter.settings.client import SECRET_VARIABLES

    environ = process_variables(environ)
    for name in (*SECRET_VARIABLES, HUB_TOKEN_VARIABLE):
        os.environ.pop(name, None)  # the settings hold it by now, and a browser would inherit it
    wanted = None if flow in {None, AUTOMATIC} else Flow(flow)
    choice = assembly.choose_flow(settings, wanted=wanted, is_automatic=flow == AUTOMATIC, environ=environ)
    chosen = assembly.require_flow(settings, choice)
    terminal = SignInTerminal(sys.stderr, environ=environ)
    if chosen is not Flow.BROWSER or choice.skipped:
        terminal.announce(why_line(choice))
    try:
        provider = assembly.login(
            settings,
            flow=chosen,
            fallbacks=choice.fallbacks,
            browser=GraphicalBrowser(environ),
            announce=terminal.announce,
            show=terminal.show,
            store=store,
            environ=environ,
            ask=terminal.ask,
        )
    finally:
        terminal.close()
    if store and wanted is not None:
        assembly.remember_flow(settings, wanted, environ)
        if settings.origin_of("flow") is not None:
            terminal.announce(f"Without --flow, {settings.origin_of('flow')} goes first.")
    elif store and flow == AUTOMATIC:
        assembly.remember_flow(settings, None, environ)
    return provider


def why_line(choice: "FlowChoice") -> str:
    """Return how a person signs in and why so, in one line."""
    skipped = "".join(f" Not {found.flow.value}: {found.reason}." for found in choice.skipped)
    return f"Sign-in by {choice.flow}. {choice.reason}{skipped}"


class SignInTerminal:
    """Shows a sign-in on a terminal, or as plain lines where there is none.

    Args:
        stream: Where the lines go.
        source: Where the person's answers come from; standard input when None.
        environ: What says how much the terminal can show.
        clock: Tells the time.
    """

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
        """Print what the person is to do, with the code's picture and the time left where they help."""
        from micromegas_jupyter.assembly import sentence_of
        from micromegas_jupyter.settings import Flow

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

    def ask(self, question: str) -> str:
        """Ask for the address that the person pastes; it is not shown."""
        return self._input.ask(question, timeout_seconds=_LONGEST_ANSWER_SECONDS)

    def close(self) -> None:
        """Give the terminal back as it was; safe to call twice."""
        self._input.close()

    def _show_picture(self, address: str | None) -> None:
        # Shown, never opened: whoever typed nothing has not looked at what they agree to (RFC 8628 section 5.4).
        if address is None or not can_show_qr(self._stream, self._environ):
            return
        lines = terminal_qr(address, columns=terminal_columns())
        for line in [QR_CAPTION, *lines] if lines else []:
            self.announce(line)
