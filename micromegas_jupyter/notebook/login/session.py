"""One notebook's session: the sign-in that is under way, connections, and the state that is shown.

Two notebooks that run at once both offer a sign-in: the person follows one link, and both continue.
"""

from __future__ import annotations

import contextvars
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock, Thread
from typing import TYPE_CHECKING

from micromegas_jupyter.auth.flows.select import is_worth_another_flow
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.errors import LoginRequired, MicromegasError, QueryCancelled, UnsupportedRequest
from micromegas_jupyter.notebook.formatting import printable, provider_text, seconds_text, show_as_lines, time_text
from micromegas_jupyter.notebook.login.connections import Connection, Connections, NamedConnections, SettingsChoice
from micromegas_jupyter.notebook.login.dependencies import Dependencies, PersonalProvider
from micromegas_jupyter.notebook.login.state import (
    IdentityState,
    after_answer,
    after_failure,
    after_success,
    failed_login_state,
    offer_of,
    signed_in_state,
    signed_out_state,
    started_state,
    waiting_address,
    waiting_line,
    waiting_state,
    wrapped_state,
)
from micromegas_jupyter.notebook.results.rows import DisplayLine, LiveLine, TerminalLine
from micromegas_jupyter.notebook.shell import has_kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.config.client import ClientSettings
    from micromegas_jupyter.core.protocols import AuthProvider
    from micromegas_jupyter.notebook.login.dependencies import FlowToUse, Login


# After the browser came back: discovery, token, keys and the token file's lock, each with a deadline of its own.
_COMPLETION_SECONDS = 90.0
CHECK_SECONDS = 1.0
"""The pause between two looks at the stored sign-in: a file of this machine, no network."""

_NO_BROWSER = "No browser opened here."


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Pending:
    settings: ClientSettings
    login: Login
    on_signed_in: Callable[[], None]
    replaces_hub: bool


class PendingSignIn:
    """The sign-in that is under way, if there is one.

    `_lock` guards `_pending` and `_overtaken` and is free while anybody waits.

    Args:
        dependencies: Begin sign-ins and read stored ones.
        shown: The state that the notebook shows.
        connections: Get the provider of a finished sign-in.
        state_of: The state of a provider that has just given a token.
        on_signed_in_alone: Called when a sign-in has ended with a token and no cell waited for it.
    """

    def __init__(
        self,
        dependencies: Dependencies,
        *,
        shown: ShownState,
        connections: Connections,
        state_of: Callable[[ClientSettings, AuthProvider | None], IdentityState],
        on_signed_in_alone: Callable[[ClientSettings], None],
    ) -> None:
        self._dependencies = dependencies
        self._shown = shown
        self._connections = connections
        self._state_of = state_of
        self._on_signed_in_alone = on_signed_in_alone
        self._lock = Lock()
        self._pending: _Pending | None = None
        self._overtaken: Login | None = None

    @property
    def login(self) -> Login | None:
        """The sign-in that is under way; None when there is none."""
        pending = self._current()
        return None if pending is None else pending.login

    def begin(
        self,
        settings: ClientSettings,
        choice: FlowToUse,
        *,
        on_begun: Callable[[Login], bool] = lambda _: True,
        on_signed_in: Callable[[], None] = lambda: None,
    ) -> Login:
        """Start a sign-in in place of one that may be under way; returns at once, it continues by itself.

        Args:
            settings: At which provider, and as which application.
            choice: The flow, and the fallbacks to try after it.
            on_begun: Shows the sign-in; whether the person can use it, else the next fallback is tried.
            on_signed_in: Called once when it ends with a token.
        """
        flows, reason = [choice.flow, *choice.fallbacks], choice.reason
        while True:
            flow = flows.pop(0)
            # A Hub that should have signed the person in is asked again before a cell waits.
            replaces_hub = choice.flow is Flow.HUB and flow is not Flow.HUB
            try:
                login = self._begin(settings, flow, reason, on_signed_in=on_signed_in, replaces_hub=replaces_hub)
            except MicromegasError as error:
                if not flows or not is_worth_another_flow(error):
                    raise
                reason = f"Not by {flow.value}: {error.what}"
                continue
            if on_begun(login) or not flows:
                return login
            reason = _NO_BROWSER

    def _begin(
        self, settings: ClientSettings, flow: Flow, reason: str, *, on_signed_in: Callable[[], None], replaces_hub: bool
    ) -> Login:
        self.cancel()
        login = self._dependencies.begin_login(settings, flow)
        pending = _Pending(settings=settings, login=login, on_signed_in=on_signed_in, replaces_hub=replaces_hub)
        with self._lock:
            self._pending = pending
        self._shown.show(settings, waiting_state(settings, login, reason=reason))
        # ipykernel 7 finds the cell that a widget's message belongs to in a context variable.
        context = contextvars.copy_context()
        login.on_done(lambda *_: context.run(self._finish_alone, pending))
        started = contextvars.copy_context()
        login.on_started(lambda redirect_uri: started.run(self._note_started, pending, redirect_uri))
        if stored_meanwhile(self._dependencies, settings) is None:  # or the person wants another one than there is
            watch_for_sign_in(login, lambda: self._adopt(pending, stored_meanwhile(self._dependencies, settings)))
        return login

    def wait_for(self, settings: ClientSettings, *, on_wait: Callable[[Login], None] | None) -> None:
        """Wait for the sign-in of these settings; returns at once when there is none. Raises as the sign-in failed."""
        pending = self._current()
        if pending is None or pending.settings != settings:
            return
        if pending.replaces_hub and self._adopt(pending, hub_provider(self._dependencies, settings)):
            return
        if on_wait is not None and not pending.login.done:
            on_wait(pending.login)
        self._finish(pending)

    def finish(self, login: Login) -> None:
        """Wait for the end of a sign-in that was begun here. Raises as it failed."""
        pending = self._current()
        if pending is not None and pending.login is login:
            self._finish(pending)
        elif not self._is_overtaken(login):
            login.result(0.0)  # it has ended already; a failure is still news to the caller

    def cancel(self) -> None:
        """End the sign-in that is under way, if there is one, and show that it is over."""
        pending = self._current()
        if pending is not None and self._end(pending):
            pending.login.cancel()
            self._shown.show(pending.settings, signed_out_state(pending.settings))

    def leave(self, settings: ClientSettings) -> None:
        """End the sign-in of these settings, if there is one: the person is signed in without it, which stays shown."""
        pending = self._current()
        if pending is not None and pending.settings == settings and self._end(pending, is_overtaken=True):
            pending.login.cancel()

    def _current(self) -> _Pending | None:
        with self._lock:
            return self._pending

    def _end(self, pending: _Pending, provider: AuthProvider | None = None, *, is_overtaken: bool = False) -> bool:
        """End a sign-in, with what it gave, unless it has ended before; whether it had not."""
        with self._lock:
            if self._pending is not pending:
                return False
            if provider is not None:
                # Before the sign-in counts as over, so that no cell makes a second connection meanwhile.
                self._connections.put(pending.settings, provider)
            self._pending = None
            if is_overtaken:
                self._overtaken = pending.login
            return True

    def _is_overtaken(self, login: Login) -> bool:
        with self._lock:
            return self._overtaken is login

    def _note_started(self, pending: _Pending, redirect_uri: str) -> None:
        """Show which address the provider has to know: one that does not tells the browser, and never this kernel."""
        if self._current() is pending:
            self._shown.change(pending.settings, lambda state: started_state(state, redirect_uri))

    def _finish_alone(self, pending: _Pending) -> None:
        """Finish on the sign-in's own thread, where the widget shows an error."""
        try:
            self._finish(pending)
        except MicromegasError:
            return
        self._on_signed_in_alone(pending.settings)

    def _finish(self, pending: _Pending) -> None:
        """Wait for the end; the first of the waiting cell and the sign-in's thread takes what it gave."""
        remaining_seconds = (pending.login.expires_at - self._dependencies.clock.now()).total_seconds()
        try:
            provider = pending.login.result(max(remaining_seconds, 0.0) + _COMPLETION_SECONDS)
        except MicromegasError as error:
            if self._is_overtaken(pending.login):
                return
            if self._end(pending):
                self._shown.show(pending.settings, failed_login_state(pending.settings, error))
            raise
        if self._end(pending, provider):
            self._shown.show(pending.settings, self._state_of(pending.settings, provider))
            pending.on_signed_in()

    def _adopt(self, pending: _Pending, provider: AuthProvider | None) -> bool:
        """Use a provider that signs the person in meanwhile, if there is one; whether this sign-in is over."""
        if provider is None or pending.login.done:
            return pending.login.done
        if self._end(pending, provider, is_overtaken=True):
            pending.login.cancel()
            self._shown.show(pending.settings, self._state_of(pending.settings, provider))
            self._on_signed_in_alone(pending.settings)
        return True


def watch_for_sign_in(login: Login, adopt: Callable[[], bool], *, pause_seconds: float = CHECK_SECONDS) -> None:
    """Call `adopt` after each pause, on a thread of its own, until it returns true or the sign-in has ended."""
    over = threading.Event()
    login.on_done(lambda *_: over.set())

    def check() -> None:
        while not over.wait(pause_seconds) and not adopt():
            pass

    # ipykernel finds the cell that a display belongs to in a context variable.
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(check,), name="micromegas-elsewhere", daemon=True).start()


def stored_meanwhile(dependencies: Dependencies, settings: ClientSettings) -> PersonalProvider | None:
    """Return a person's stored sign-in whose token is still valid, without any network; None for any obstacle."""
    try:
        provider = dependencies.stored_provider(settings)
        if not isinstance(provider, PersonalProvider):
            return None
        ends_at = provider.identity().expires_at
    except MicromegasError:
        return None
    # One that had ended before this sign-in was begun is no news.
    return provider if ends_at > dependencies.clock.now() else None


def hub_provider(dependencies: Dependencies, settings: ClientSettings) -> PersonalProvider | None:
    """Return the provider that signs the person in without a click, as JupyterHub's does, after asking it for a token.

    None when there is none, or it has no token.
    """
    try:
        provider = dependencies.stored_provider(settings)
        if provider is None or not getattr(provider, "through", ""):
            return None
        provider.get_token()
    except MicromegasError:
        return None
    return provider if isinstance(provider, PersonalProvider) else None


class ShownState:
    """The state that is shown, and of which settings.

    `_lock` guards `_shown` and `_listeners` and is free while listeners are called. `_notifying` is held while they
    are, so that the last state that each gets is the newest.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._notifying = Lock()
        self._shown: tuple[ClientSettings, IdentityState] | None = None
        self._listeners: list[Callable[[IdentityState], None]] = []

    @property
    def state(self) -> IdentityState | None:
        """The state that is shown; None before there was any."""
        shown = self.shown
        return None if shown is None else shown[1]

    @property
    def shown(self) -> tuple[ClientSettings, IdentityState] | None:
        """The state that is shown, with its settings; None before there was any."""
        with self._lock:
            return self._shown

    def subscribe(self, listener: Callable[[IdentityState], None]) -> None:
        """Have `listener` called after every change; it may be on another thread."""
        with self._lock:
            self._listeners.append(listener)

    def show(self, settings: ClientSettings, state: IdentityState) -> IdentityState:
        """Show the state of these settings from now on, and return it."""
        with self._lock:
            self._shown = (settings, state)
        self._notify()
        return state

    def change(self, settings: ClientSettings, change: Callable[[IdentityState], IdentityState]) -> None:
        """Change the state in one step, if it is that of these settings; nobody is notified when it stays the same."""
        with self._lock:
            if self._shown is None or self._shown[0] != settings:
                return
            changed = change(self._shown[1])
            if changed == self._shown[1]:
                return
            self._shown = (settings, changed)
        self._notify()

    def _notify(self) -> None:
        with self._notifying:
            with self._lock:
                listeners = list(self._listeners)
                state = None if self._shown is None else self._shown[1]
            if state is not None:
                for listener in listeners:
                    listener(state)


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
