"""One notebook's sign-in and its clients: what the magics share between cells, and the connection that a cell names."""

from __future__ import annotations

import contextvars
import sys
from contextlib import contextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING

from micromegas_jupyter.errors import LoginRequired, MicromegasError, QueryCancelled, UnsupportedRequest
from micromegas_jupyter.notebook.formatting import moment_text, printable, provider_text, seconds_text, show_as_lines
from micromegas_jupyter.notebook.login.connection_settings import NamedConnections, SettingsChoice
from micromegas_jupyter.notebook.login.connections import Connection, Connections
from micromegas_jupyter.notebook.login.dependencies import Parts, PersonalProvider
from micromegas_jupyter.notebook.login.pending import ShownState, WaitingSignIn
from micromegas_jupyter.notebook.login.state import (
    IdentityState,
    after_answer,
    after_failure,
    after_success,
    offer_of,
    signed_in_state,
    signed_out_state,
    unnamed_state,
    waiting_address,
    waiting_line,
    wrapped_state,
)
from micromegas_jupyter.notebook.results.progress import DisplayLine, LiveLine, TerminalLine
from micromegas_jupyter.notebook.shell import has_kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.client.server_identity import ServerIdentity
    from micromegas_jupyter.config.client import ClientSettings
    from micromegas_jupyter.core.protocols import AuthProvider
    from micromegas_jupyter.notebook.login.dependencies import Login


_LEFT = (
    "This notebook has forgotten the token that {through} gave it. Your sign-in there goes on until you log out of the "
    "Hub; %micromegas_login takes it up again here."
)


class NotebookSession:
    """The sign-in that goes on, the connections, and what is shown about them.

    Only cells, which run one after the other, choose settings. `close` ends everything.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.shown = ShownState()
        self.choice = SettingsChoice()
        self.connections = Connections(parts, self._note_renewal)
        self.sign_in = WaitingSignIn(
            parts,
            shown=self.shown,
            connections=self.connections,
            state_of=self.state_of,
            ask_server_later=self.ask_server_later,
        )

    def settings(self, profile: str | None = None) -> ClientSettings:
        """Return the settings of `profile`, else those that were last chosen, else the configured ones."""
        return self.choice.read(self.parts.load_settings, profile=profile)

    @property
    def state(self) -> IdentityState | None:
        """What is shown about the sign-in; None before anything was asked."""
        return self.shown.state

    def connection(self, settings: ClientSettings, *, on_wait: Callable[[Login], None] | None = None) -> Connection:
        """Return the connection of these settings; waits for a sign-in that goes on for them.

        Args:
            settings: Which server, and as whom.
            on_wait: Told what is waited for, once, before the wait.

        Raises:
            LoginRequired: A sign-in is configured and nobody is signed in.
            LoginFailed: The sign-in that was waited for ended without a token.
            TokenStoreError: The token file cannot be used safely.
            ConfigurationError: The settings contradict each other or the key file cannot be read.
        """
        self.sign_in.wait_for(settings, on_wait=on_wait)
        return self.connections.get(settings)

    def signed_in(self, settings: ClientSettings) -> IdentityState:
        """Return who is signed in, after making sure that the token is good.

        Raises:
            LoginRequired: A sign-in is configured and nobody is signed in, or the sign-in has ended.
            ProviderUnavailable: The token must be renewed and the provider does not answer.
            TokenStoreError: The token file cannot be used safely.
            ConfigurationError: The settings contradict each other or the key file cannot be read.
        """
        try:
            provider = self.connections.get(settings).provider
            if provider is not None:
                provider.get_token()
            return self.shown.show(settings, self.state_of(settings, provider))
        except MicromegasError as error:
            self.note_failure(settings, error)
            raise

    def ask_server(self, settings: ClientSettings) -> IdentityState:
        """Ask the server whom it takes the caller for, and show its answer with the time it took.

        Raises:
            AuthenticationError: Nobody is signed in, or the server does not accept the token.
            Unavailable: The server, or the provider that it needs, does not answer.
        """
        try:
            connection = self.connections.get(settings)
            started = self.parts.clock.monotonic()
            answer = _answer_of(connection)
            seconds = self.parts.clock.monotonic() - started
            state = after_answer(self.state_of(settings, connection.provider), answer, seconds)
        except MicromegasError as error:
            self.note_failure(settings, error)
            raise
        return self.shown.show(settings, state)

    def ask_server_later(self, settings: ClientSettings) -> None:
        """Have the server asked on a thread of its own; what follows from its answer is shown."""

        def ask() -> None:
            # What follows from a failure is shown too.
            with suppress(MicromegasError):
                self.ask_server(settings)

        context = contextvars.copy_context()
        Thread(target=context.run, args=(ask,), name="micromegas-whoami", daemon=True).start()

    def notice(self, settings: ClientSettings) -> str | None:
        """Return what the server said last about the credential; None when it said nothing."""
        connection = self.connections.current(settings)
        return None if connection is None else connection.notices.newest()

    def logout(self, settings: ClientSettings, *, end_session: bool = False) -> str:
        """End the sign-ins of these settings' profile, and one that goes on, and say so in one line.

        Args:
            settings: Whose sign-ins.
            end_session: Whether the person's session at the provider is to end, too.

        Raises:
            TokenStoreError: What is stored cannot be removed safely.
            Unavailable: Another program uses what is stored.
        """
        self.sign_in.cancel()
        try:
            provider = self.connections.get(settings).provider
        except LoginRequired:
            provider = None
        else:
            if not isinstance(provider, PersonalProvider):
                return f"There is no sign-in to end: {self._what_else(provider)}."
        through = getattr(provider, "through", "")
        # First, so that no renewal runs beside it.
        self.connections.drop_profile(settings.profile)
        ended = self.parts.logout(settings, end_session)
        report = printable(str(ended))
        if through:
            self.connections.leave(settings.profile)
            # What a person signed in to themselves was ended, too, and is worth a word.
            other = f" {report}" if end_session or getattr(ended, "was_signed_in", False) else ""
            report = f"{_LEFT.format(through=through)}{other}"
        self.shown.show(settings, signed_out_state(settings, through=through))
        return report

    def come_back(self, settings: ClientSettings) -> None:
        """Let JupyterHub sign the person in again who signed out here."""
        self.connections.come_back(settings.profile)

    def note_failure(self, settings: ClientSettings, error: MicromegasError) -> None:
        """Let what is shown follow from a call that failed; an ended sign-in is looked up afresh next time."""
        if isinstance(error, LoginRequired):
            self.connections.drop(settings)
        self.shown.change(settings, lambda state: after_failure(state, error))

    def note_success(self, settings: ClientSettings, provider: AuthProvider | None) -> None:
        """Let what is shown follow from a call that worked: the token may have been renewed."""
        try:
            fresh = self.state_of(settings, provider)
        except MicromegasError:
            return  # a query that worked does not fail for what is shown beside it
        self.shown.change(settings, lambda state: after_success(state, fresh))

    def close(self) -> None:
        """End a sign-in that goes on and close all clients."""
        self.sign_in.cancel()
        self.connections.close()

    def _note_renewal(self, settings: ClientSettings, provider: AuthProvider, error: MicromegasError | None) -> None:
        """Show what became of a renewal that no cell asked for."""
        connection = self.connections.current(settings)
        if connection is None or connection.provider is not provider:
            return  # it ended meanwhile
        if error is None:
            self.note_success(settings, provider)
        else:
            # The client stays open: a query that began with a good token goes on to its end.
            self.shown.change(settings, lambda state: after_failure(state, error))

    def state_of(self, settings: ClientSettings, provider: AuthProvider | None) -> IdentityState:
        """Return the state of a provider that has just given a token."""
        if self.parts.is_wrapped():
            return wrapped_state(settings)
        try:
            return signed_in_state(settings, provider)
        except LoginRequired:
            return unnamed_state(settings)

    def _what_else(self, provider: AuthProvider | None) -> str:
        if self.parts.is_wrapped():
            return "the wrapper's client is used"
        return "none is configured" if provider is None else "a key or service account is used"


def _answer_of(connection: Connection) -> ServerIdentity | None:
    try:
        return connection.client.whoami()
    except UnsupportedRequest:
        return None


class CellConnections:
    """The connections that cells name by `--connection` and `--profile`; without either, the one in use."""

    def __init__(self, shell: InteractiveShell, session: NotebookSession, named: NamedConnections) -> None:
        self._shell = shell
        self._session = session
        self._named = named

    def names(self) -> tuple[str, ...]:
        """Return what `--connection` may name."""
        return tuple(self._named.all())

    def settings(self, *, connection: str | None, profile: str | None) -> ClientSettings:
        """Return the settings of the connection that a cell names."""
        return self._session.settings(profile) if connection is None else self._named.settings(connection)

    @contextmanager
    def connected(
        self, *, connection: str | None, profile: str | None
    ) -> Iterator[tuple[ClientSettings, Connection, LiveLine]]:
        """Wait for the connection that a cell names; an error in the block counts as one of its server's.

        The line says what is waited for; it is left for the block to finish or to clear. An interrupt ends the wait
        (`QueryCancelled`), not the sign-in.
        """
        settings = self.settings(connection=connection, profile=profile)
        line: LiveLine = DisplayLine() if has_kernel(self._shell) else TerminalLine(sys.stdout)
        try:
            yield settings, self._wait(settings, line), line
        except MicromegasError as error:
            self._session.note_failure(settings, error)
            if isinstance(error, LoginRequired) and connection is not None:
                # A sign-in is for the connection in use.
                error.remedy = f"Run %micromegas_connect {connection}, then %micromegas_login."
            raise

    def _wait(self, settings: ClientSettings, line: LiveLine) -> Connection:
        clock = self._session.parts.clock
        started = clock.monotonic()

        def say_what_for(login: Login) -> None:
            offer = offer_of(login)
            until = f" (until {moment_text(login.expires_at, now=clock.now())})"
            waiting = waiting_line(offer, issuer=provider_text(settings.issuer), until=until)
            line.rewrite(f"⏳ {waiting} · interrupt to stop waiting", address=waiting_address(offer))

        try:
            return self._session.connection(settings, on_wait=say_what_for)
        except KeyboardInterrupt as interrupt:
            stopped = QueryCancelled("The wait for the sign-in was stopped.")
            waited = seconds_text(clock.monotonic() - started)
            show_as_lines(stopped, [f"✗ stopped waiting for the sign-in after {waited}; it stays open"])
            line.clear()
            raise stopped from interrupt
        except MicromegasError:
            line.clear()
            raise
