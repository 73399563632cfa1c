"""Signs a person in from a cell or an IPython terminal: chooses the way, shows it, and asks for what must be pasted.

The sign-in itself is the session's; what it looks like is the display's.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from micromegas_jupyter.errors import (
    LoginFailed,
    LoginRequired,
    MicromegasError,
    ProviderMisbehaved,
    QueryCancelled,
    UsageError,
)
from micromegas_jupyter.notebook.asking import WaitEnded, ask_until
from micromegas_jupyter.notebook.error_lines import error_lines, show_as_lines
from micromegas_jupyter.notebook.ipython_names import clear_output
from micromegas_jupyter.notebook.surroundings import has_kernel, is_alone_in_cell, is_attended
from micromegas_jupyter.notebook.words import host_text, place_text
from micromegas_jupyter.settings import Flow

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.notebook.identity_display import IdentityDisplay
    from micromegas_jupyter.notebook.parts import FlowToUse, FlowWish, Login
    from micromegas_jupyter.notebook.session import NotebookSession
    from micromegas_jupyter.settings import ClientSettings

PROMPT = "Paste the address here (it is not shown): "

_MAX_TRIES = 5
_NO_BROWSER = "No browser opened here."


class SignIn:
    """Signs a person in.

    Args:
        shell: Where the magics run.
        session: Begins, ends and keeps the sign-in.
        display: Shows it.
    """

    def __init__(self, shell: InteractiveShell, session: NotebookSession, display: IdentityDisplay) -> None:
        self._shell = shell
        self._session = session
        self._display = display

    def run(self, settings: ClientSettings, wish: FlowWish, *, reason: MicromegasError | None = None) -> None:
        """Begin a sign-in; where nothing but a link or a code is to be shown, it goes on by itself.

        Args:
            settings: At which provider, and as which application.
            wish: Which way was asked for.
            reason: Why a person is needed; None when they want to sign in in another way than they are.

        Raises:
            LoginRequired: Nobody is here to sign in.
            UsageError: The way that was asked for is not possible here.
            ConfigurationError: No provider is configured, or the way that a setting names is not possible.
            QueryCancelled: The person interrupted it.
            LoginFailed: It ended without a token.
            ProviderMisbehaved: The provider's answer breaks the protocol.
            ProviderUnavailable: The provider does not answer.
        """
        if not is_attended(self._shell):
            if reason is not None and reason.giver is not None:
                raise reason  # it says what to do about what signs people in here by itself
            raise _nobody_here(settings) from reason
        chosen = self._session.parts.choose_flow(settings, self._shell, wish)
        try:
            login = self._begin(settings, chosen, wish)
            if login.flow is Flow.PASTE:
                self._take_pasted(login)
            elif has_kernel(self._shell):
                return
            self._session.finish_login(login)
        except (KeyboardInterrupt, EOFError) as interrupt:
            self._session.cancel_login()
            cancelled = QueryCancelled("The sign-in was cancelled.")
            show_as_lines(cancelled, ["✗ The sign-in was cancelled."])
            raise cancelled from interrupt
        if is_alone_in_cell(self._shell):
            # Front ends write each question into the cell, and nobody needs those and the wrong answers any more.
            clear_output(wait=True)
        elif has_kernel(self._shell):
            return
        self._display.show(self._session.signed_in(settings))

    def _begin(self, settings: ClientSettings, chosen: FlowToUse, wish: FlowWish) -> Login:
        from micromegas_jupyter.auth.flow_choice import may_go_on

        flows = [chosen.flow, *chosen.fallbacks]
        reason = chosen.reason
        while True:
            flow = flows.pop(0)
            try:
                login = self._session.begin_login(
                    settings,
                    flow,
                    reason=reason,
                    on_signed_in=lambda: self._remember(settings, wish),
                    stands_in=chosen.flow is Flow.HUB and flow is not Flow.HUB,
                )
            except MicromegasError as error:
                if not flows or not may_go_on(error):
                    raise
                reason = f"Not by {flow.value}: {error.what}"
                continue
            state = self._session.state
            if state is not None:
                self._display.show(state)
            if has_kernel(self._shell) or flow is not Flow.BROWSER:
                return login
            if self._session.parts.browser.open(login.start_url or "") or not flows:
                return login
            reason = _NO_BROWSER

    def _take_pasted(self, login: Login) -> None:
        """Ask until an address fits; why none did in the end is the sign-in's own result."""
        for _ in range(_MAX_TRIES):
            try:
                login.submit(ask_until(login, lambda: self._session.parts.ask(PROMPT)))
            except WaitEnded:
                return
            except (UsageError, ProviderMisbehaved) as error:
                if login.done:
                    return
                print("\n".join(error_lines(error)))  # noqa: T201 - the magic's output
            else:
                return
        self._session.cancel_login()
        raise LoginFailed("None of the pasted addresses belongs to this sign-in.")

    def _remember(self, settings: ClientSettings, wish: FlowWish) -> None:
        if wish.flow is None and not wish.is_automatic:
            return
        # Whoever is signed in does not care that the next sign-in may ask for the flow again.
        with suppress(MicromegasError):
            self._session.parts.remember_flow(settings, wish.flow)


def _nobody_here(settings: ClientSettings) -> LoginRequired:
    from micromegas_jupyter.auth.flow_choice import login_remedy
    from micromegas_jupyter.auth.surroundings import Surroundings

    where = place_text(host_text(settings.issuer or ""), host_text(settings.uri))
    return LoginRequired(
        f"Not signed in{where}, and nobody is here to sign in.",
        remedy=login_remedy(Surroundings.UNATTENDED, profile=settings.profile),
    )
