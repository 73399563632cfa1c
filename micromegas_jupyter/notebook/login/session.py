"""One notebook's session, which its magics share: sign-in, connections, and the state that is shown."""

from __future__ import annotations

import contextvars
import sys
from contextlib import contextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING

from micromegas_jupyter.errors import LoginRequired, MicromegasError, QueryCancelled, UnsupportedRequest
from micromegas_jupyter.notebook.formatting import printable, provider_text, seconds_text, show_as_lines, time_text
from micromegas_jupyter.notebook.login.connections import Connection, Connections, NamedConnections, SettingsChoice
from micromegas_jupyter.notebook.login.dependencies import Dependencies, PersonalProvider
from micromegas_jupyter.notebook.login.pending import PendingSignIn, ShownState
from micromegas_jupyter.notebook.login.state import (
    IdentityState,
    after_answer,
    after_failure,
    after_success,
    offer_of,
    signed_in_state,
    signed_out_state,
    waiting_address,
    waiting_line,
    wrapped_state,
)
from micromegas_jupyter.notebook.results.progress import DisplayLine, LiveLine, TerminalLine
from micromegas_jupyter.notebook.shell import has_kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.config.client import ClientSettings
    from micromegas_jupyter.core.protocols import AuthProvider
    from micromegas_jupyter.notebook.login.dependencies import Login

_SIGNED_OUT_LOCALLY = (
    "This notebook has forgotten the token that {through} gave it. You stay signed in there until you log out of the "
    "Hub; %micromegas_login signs you in here again."
)


class NotebookSession:
    """The sign-in that is under way, the connections, and the state that is shown.

    Only cells, which run one after the other, choose settings. `close` ends everything.
    """

    def __init__(self, dependencies: Dependencies) -> None:
        self.dependencies = dependencies
        self.shown = ShownState()
        self.choice = SettingsChoice()
        self.connections = Connections(dependencies, self._note_renewal)
        self.sign_in = PendingSignIn(
            dependencies,
            shown=self.shown,
            connections=self.connections,
            state_of=self._state_of,
            on_signed_in_alone=self.fetch_identity_later,
        )

    def settings(self, profile: str | None = None) -> ClientSettings:
        """Return the settings of `profile`, else those that were last chosen, else the configured ones."""
        return self.choice.read(self.dependencies.load_settings, profile=profile)

    @property
    def state(self) -> IdentityState | None:
        """The state that is shown; None before there was any."""
        return self.shown.state

    def connection(self, settings: ClientSettings, *, on_wait: Callable[[Login], None] | None = None) -> Connection:
        """Return the connection of these settings; waits for their sign-in, if one is under way.

        Args:
            settings: Which server, and as whom.
            on_wait: Called with the sign-in once, before the wait.
        """
        self.sign_in.wait_for(settings, on_wait=on_wait)
        return self.connections.get(settings)

    def signed_in(self, settings: ClientSettings) -> IdentityState:
        """Return who is signed in, after renewing the token if needed; raises as `connection` and `renew` do."""
        try:
            provider = self.connections.get(settings).provider
            if provider is not None:
                provider.get_token()
            return self.shown.show(settings, self._state_of(settings, provider))
        except MicromegasError as error:
            self.note_failure(settings, error)
            raise

    def fetch_identity(self, settings: ClientSettings) -> IdentityState:
        """Ask the server who the caller is, and show its answer with the time it took."""
        clock = self.dependencies.clock
        try:
            connection = self.connections.get(settings)
            started = clock.monotonic()
            try:
                answer = connection.client.whoami()
            except UnsupportedRequest:
                answer = None
            seconds = clock.monotonic() - started
            state = after_answer(self._state_of(settings, connection.provider), answer, seconds)
        except MicromegasError as error:
            self.note_failure(settings, error)
            raise
        return self.shown.show(settings, state)

    def fetch_identity_later(self, settings: ClientSettings) -> None:
        """Ask the server who the caller is, on a thread; the answer or the failure is shown."""

        def fetch() -> None:
            with suppress(MicromegasError):
                self.fetch_identity(settings)

        context = contextvars.copy_context()
        Thread(target=context.run, args=(fetch,), name="micromegas-whoami", daemon=True).start()

    def renew(self, settings: ClientSettings) -> bool:
        """Renew the token of whoever is signed in; returns whether that brought a new one.

        A token that is still valid is used on when it cannot be renewed. API keys and service accounts have nothing
        that a person would renew.
        """
        try:
            provider = self.connection(settings).provider
        except LoginRequired as error:
            self.note_failure(settings, error)
            raise
        if not isinstance(provider, PersonalProvider):
            return False
        try:
            before = provider.get_token()
            provider.renew()
            is_new = provider.get_token() != before
        except MicromegasError as error:
            try:
                provider.get_token()
            except MicromegasError as worse:
                self.note_failure(settings, worse)
            else:
                if isinstance(error, LoginRequired):
                    self.note_success(settings, provider)  # shows that nothing renews the token any more
            raise
        self.note_success(settings, provider)
        return is_new

    def notice(self, settings: ClientSettings) -> str | None:
        """Return the server's last notice about the credential; None when there is none."""
        connection = self.connections.current(settings)
        return None if connection is None else connection.notices.newest()

    def logout(self, settings: ClientSettings, *, end_session: bool = False) -> str:
        """End the sign-ins of these settings' profile, and one under way, and return a report in one line.

        Args:
            settings: Whose sign-ins.
            end_session: Whether to end the person's session at the provider, too.
        """
        self.sign_in.cancel()
        through = ""
        with suppress(LoginRequired):
            provider = self.connections.get(settings).provider
            if not isinstance(provider, PersonalProvider):
                return f"There is no sign-in to end: {self._other_credential(provider)}."
            through = getattr(provider, "through", "")
        # First, so that no renewal runs beside it.
        self.connections.drop_profile(settings.profile)
        ended = self.dependencies.logout(settings, end_session)
        report = printable(str(ended))
        if through:
            self.connections.sign_out_locally(settings.profile)
            # A sign-in of the person's own was ended, too, and is worth a mention.
            other = f" {report}" if end_session or getattr(ended, "was_signed_in", False) else ""
            report = f"{_SIGNED_OUT_LOCALLY.format(through=through)}{other}"
        self.shown.show(settings, signed_out_state(settings, through=through))
        return report

    def note_failure(self, settings: ClientSettings, error: MicromegasError) -> None:
        """Update the shown state after a call that failed; an ended sign-in is looked up afresh next time."""
        if isinstance(error, LoginRequired):
            self.connections.drop(settings)
        self.shown.change(settings, lambda state: after_failure(state, error))

    def note_success(self, settings: ClientSettings, provider: AuthProvider | None) -> None:
        """Update the shown state after a call that worked: the token may have been renewed."""
        # A query that worked does not fail for what is shown beside it.
        with suppress(MicromegasError):
            fresh = self._state_of(settings, provider)
            self.shown.change(settings, lambda state: after_success(state, fresh))

    def close(self) -> None:
        """End a sign-in under way and close all clients."""
        self.sign_in.cancel()
        self.connections.close()

    def _note_renewal(self, settings: ClientSettings, provider: AuthProvider, error: MicromegasError | None) -> None:
        """Show the outcome of a renewal that no cell asked for."""
        connection = self.connections.current(settings)
        if connection is None or connection.provider is not provider:
            return  # it ended meanwhile
        if error is None:
            self.note_success(settings, provider)
        else:
            # The client stays open: a query that began with a valid token runs to its end.
            self.shown.change(settings, lambda state: after_failure(state, error))

    def _state_of(self, settings: ClientSettings, provider: AuthProvider | None) -> IdentityState:
        if self.dependencies.is_wrapped():
            return wrapped_state(settings)
        return signed_in_state(settings, provider)

    def _other_credential(self, provider: AuthProvider | None) -> str:
        if self.dependencies.is_wrapped():
            return "the wrapper's client is used"
        return "none is configured" if provider is None else "a key or service account is used"


class CellConnections:
    """The connections that cells name by `--connection` and `--profile`; without either, the one in use."""

    def __init__(self, shell: InteractiveShell, session: NotebookSession, named: NamedConnections) -> None:
        self._shell = shell
        self._session = session
        self._named = named

    def names(self) -> tuple[str, ...]:
        """Return the values of `--connection`."""
        return tuple(self._named.all())

    def settings(self, *, connection: str | None, profile: str | None) -> ClientSettings:
        """Return the settings of the connection that a cell names."""
        return self._session.settings(profile) if connection is None else self._named.settings(connection)

    @contextmanager
    def connected(
        self, *, connection: str | None, profile: str | None
    ) -> Iterator[tuple[ClientSettings, Connection, LiveLine]]:
        """Wait for the connection that a cell names; an error in the block counts as one of its server.

        The line shows the wait; the block finishes or clears it. An interrupt ends the wait (`QueryCancelled`), not
        the sign-in.
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
        clock = self._session.dependencies.clock
        started = clock.monotonic()

        def show_wait(login: Login) -> None:
            offer = offer_of(login)
            until = f" (until {time_text(login.expires_at, now=clock.now())})"
            waiting = waiting_line(offer, issuer=provider_text(settings.issuer), until=until)
            line.rewrite(f"⏳ {waiting} · interrupt to stop waiting", address=waiting_address(offer))

        try:
            return self._session.connection(settings, on_wait=show_wait)
        except KeyboardInterrupt as interrupt:
            stopped = QueryCancelled("The wait for the sign-in was stopped.")
            waited = seconds_text(clock.monotonic() - started)
            show_as_lines(stopped, [f"✗ stopped waiting for the sign-in after {waited}; it stays open"])
            line.clear()
            raise stopped from interrupt
        except MicromegasError:
            line.clear()
            raise
