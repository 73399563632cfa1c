"""One notebook's session: the sign-in that is under way, connections, and the state that is shown."""

from __future__ import annotations

import contextvars
import re
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from threading import Lock
from typing import TYPE_CHECKING

from micromegas_jupyter.auth.flows.select import is_worth_another_flow
from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.errors import LoginRequired, MicromegasError, QueryCancelled, UnsupportedRequest, UsageError
from micromegas_jupyter.notebook.login.connections import Connection, Connections, PersonalProvider, SettingsChoice
from micromegas_jupyter.notebook.login.state import (
    IdentityState,
    IdentityStatus,
    after_answer,
    after_failure,
    after_success,
    offer_of,
    shown_detail,
    signed_in_state,
    signed_out_state,
)
from micromegas_jupyter.notebook.results.rows import DisplayLine, LiveLine, TerminalLine
from micromegas_jupyter.notebook.shell import (
    cut,
    has_kernel,
    host_text,
    is_attended,
    printable,
    provider_text,
    seconds_text,
    show_as_lines,
    start_thread,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.core.protocols import AuthProvider
    from micromegas_jupyter.notebook.login.connections import Dependencies, FlowToUse, Login
    from micromegas_jupyter.notebook.login.display import IdentityDisplay

CHECK_SECONDS = 1.0
"""The pause between two looks at the stored sign-in: a file of this machine, no network."""

MAX_NAMES = 32
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")
_MAX_SHOWN_CHARACTERS = 64
_ATTEMPT_ENDED = "Run %micromegas_login to try again."
# After the browser came back: discovery, token, keys and the token file's lock, each with a deadline of its own.
_COMPLETION_SECONDS = 90.0
_NO_BROWSER = "No browser opened here."
_SIGNED_OUT_LOCALLY = (
    "This notebook has forgotten the token that {through} gave it. You stay signed in there until you log out of the "
    "Hub; %micromegas_login signs you in here again."
)


class ShownState:
    """The state that is shown, and of which settings; each change goes to `listener`, on any thread, in order."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._notifying = Lock()
        self.listener: Callable[[IdentityState], None] = lambda _: None
        self.shown: tuple[ClientSettings, IdentityState] | None = None

    def show(self, settings: ClientSettings, state: IdentityState) -> IdentityState:
        """Show the state of these settings from now on, and return it."""
        with self._lock:
            self.shown = (settings, state)
        self._notify()
        return state

    def change(self, settings: ClientSettings, change: Callable[[IdentityState], IdentityState]) -> None:
        """Change the state in one step, if it is that of these settings; nobody is notified when it stays the same."""
        with self._lock:
            before = self.shown
            if before is None or before[0] != settings:
                return
            self.shown = (settings, change(before[1]))
            if self.shown == before:
                return
        self._notify()

    def _notify(self) -> None:
        with self._notifying:  # so that the last state that is passed on is the newest
            if self.shown is not None:
                self.listener(self.shown[1])


@dataclass(slots=True, eq=False, kw_only=True)
class _Attempt:
    settings: ClientSettings
    login: Login
    on_signed_in: Callable[[], None]
    is_over: bool = False
    is_overtaken: bool = False  # the person was signed in by something else meanwhile


class PendingSignIn:
    """The session's sign-in under way, if any; `_lock` guards `_newest` and the flags, and is free during waits."""

    def __init__(self, session: NotebookSession) -> None:
        self._session = session
        self._dependencies = session.dependencies
        self._lock = Lock()
        self._beginning = Lock()  # held while one sign-in replaces another
        self._newest: _Attempt | None = None

    @property
    def login(self) -> Login | None:
        """The sign-in that is under way; None when there is none."""
        return None if self._newest is None or self._newest.is_over else self._newest.login

    def begin(
        self,
        settings: ClientSettings,
        choice: FlowToUse,
        *,
        on_begun: Callable[[Login], bool] = lambda _: True,
        on_signed_in: Callable[[], None] = lambda: None,
    ) -> Login:
        """Start a sign-in in place of one that may be under way; returns at once, it continues by itself.

        `on_begun` shows it and says whether the person can use it, else the next fallback is tried. `on_signed_in` is
        called once when it ends with a token.
        """
        flows, reason = [choice.flow, *choice.fallbacks], choice.reason
        while True:
            flow = flows.pop(0)
            with self._beginning:
                self.cancel()
                try:
                    login = self._dependencies.begin_login(settings, flow)
                except MicromegasError as error:
                    if not flows or not is_worth_another_flow(error):
                        raise
                    reason = f"Not by {flow.value}: {error.what}"
                    continue
                self._follow(_Attempt(settings=settings, login=login, on_signed_in=on_signed_in), reason)
            if on_begun(login) or not flows:
                return login
            reason = _NO_BROWSER

    def _follow(self, attempt: _Attempt, reason: str) -> None:
        settings, login = attempt.settings, attempt.login
        with self._lock:
            self._newest = attempt
        waiting = IdentityState(
            status=IdentityStatus.WAITING,
            server=host_text(settings.uri),
            issuer=provider_text(settings.issuer),
            ends_at=login.expires_at,
            offer=offer_of(login),
            detail=shown_detail(reason),
        )
        self._session.shown.show(settings, waiting)
        # ipykernel 7 finds the cell that a widget's message belongs to in a context variable.
        context, started = contextvars.copy_context(), contextvars.copy_context()
        login.on_done(lambda *_: context.run(self._finish_alone, attempt))
        login.on_started(lambda redirect_uri: started.run(self._note_started, attempt, redirect_uri))
        if self.stored_meanwhile(settings) is None:  # or the person wants another one than there is
            over = threading.Event()
            login.on_done(lambda *_: over.set())
            start_thread(self._watch, attempt, over, name="micromegas-elsewhere")

    def wait_for(self, settings: ClientSettings, *, on_wait: Callable[[], None] | None) -> None:
        """Wait for the sign-in of these settings; returns at once when there is none. Raises as the sign-in failed."""
        attempt = self._current(settings)
        while attempt is not None:
            if on_wait is not None and not attempt.login.done:
                self._note_awaited(attempt, is_awaited=True)
                on_wait()
            try:
                self._finish(attempt)
            except MicromegasError:
                with self._beginning:  # another flow may just be replacing it
                    attempt = self._current(settings)
                if attempt is None:
                    raise
            else:
                return
            finally:
                if attempt is not None:
                    self._note_awaited(attempt, is_awaited=False)

    def finish(self, login: Login) -> None:
        """Wait for the end of a sign-in that was begun here. Raises as it failed."""
        attempt = self._newest
        if attempt is not None and attempt.login is login:
            self._finish(attempt)
        else:
            login.result(0.0)  # it has ended already; a failure is still news to the caller

    def is_pending(self, settings: ClientSettings) -> bool:
        """Whether somebody is signing in with these settings."""
        return self._current(settings) is not None

    def cancel(self) -> None:
        """End the sign-in that is under way, if there is one, and show that it is over."""
        attempt = self._newest
        if attempt is not None and self._end(attempt):
            attempt.login.cancel()
            self._session.shown.show(attempt.settings, signed_out_state(attempt.settings))

    def leave(self, settings: ClientSettings) -> None:
        """End the sign-in of these settings, if there is one: the person is signed in without it, which stays shown."""
        attempt = self._current(settings)
        if attempt is not None and self._end(attempt, is_overtaken=True):
            attempt.login.cancel()

    def stored_meanwhile(self, settings: ClientSettings) -> PersonalProvider | None:
        """Return a person's stored sign-in whose token is still valid, without any network; None for any obstacle."""
        with suppress(MicromegasError):
            provider, now = self._dependencies.stored_provider(settings), self._dependencies.clock.now()
            # One that had ended before this sign-in was begun is no news.
            if isinstance(provider, PersonalProvider) and provider.identity().expires_at > now:
                return provider
        return None

    def _current(self, settings: ClientSettings) -> _Attempt | None:
        attempt = self._newest
        return attempt if attempt is not None and not attempt.is_over and attempt.settings == settings else None

    def _end(self, attempt: _Attempt, provider: AuthProvider | None = None, *, is_overtaken: bool = False) -> bool:
        """End a sign-in, with what it gave, unless it has ended before; whether it had not."""
        with self._lock:
            if attempt.is_over:
                return False
            if provider is not None:
                # Before the sign-in counts as over, so that no cell makes a second connection meanwhile.
                self._session.connections.put(attempt.settings, provider)
            attempt.is_over, attempt.is_overtaken = True, is_overtaken
            return True

    def _note_started(self, attempt: _Attempt, redirect_uri: str) -> None:
        """Note which address the provider has to know: one that does not tells the browser, and never this kernel."""
        issuer = provider_text(attempt.settings.issuer)
        text = (
            f"The browser returns to {redirect_uri}. If {issuer} rejects that address, have it registered there, or "
            "sign in with a code."
        )
        self._change_waiting(attempt, lambda state: replace(state, help=shown_detail(text)))

    def _note_awaited(self, attempt: _Attempt, *, is_awaited: bool) -> None:
        self._change_waiting(attempt, lambda state: replace(state, is_awaited=is_awaited))

    def _change_waiting(self, attempt: _Attempt, change: Callable[[IdentityState], IdentityState]) -> None:
        if not attempt.is_over:
            self._session.shown.change(
                attempt.settings, lambda state: change(state) if state.status is IdentityStatus.WAITING else state
            )

    def _finish_alone(self, attempt: _Attempt) -> None:
        """Finish on the sign-in's own thread, where the widget shows an error."""
        with suppress(MicromegasError):
            self._finish(attempt)
            self._session.fetch_identity_later(attempt.settings)

    def _finish(self, attempt: _Attempt) -> None:
        """Wait for the end; the first of the waiting cell and the sign-in's thread takes what it gave."""
        settings = attempt.settings
        remaining_seconds = (attempt.login.expires_at - self._dependencies.clock.now()).total_seconds()
        try:
            provider = attempt.login.result(max(remaining_seconds, 0.0) + _COMPLETION_SECONDS)
        except MicromegasError as error:
            if attempt.is_overtaken:
                return
            if self._end(attempt):
                state = signed_out_state(settings, detail=f"{error.what} {_ATTEMPT_ENDED}")
                self._session.shown.show(settings, state)
            raise
        if self._end(attempt, provider):
            self._session.shown.show(settings, self._session.state_of(settings, provider))
            attempt.on_signed_in()

    def _watch(self, attempt: _Attempt, over: threading.Event) -> None:
        """Look for a sign-in in another notebook or terminal, until there is one or this one has ended."""
        while not over.wait(CHECK_SECONDS) and not self._adopt(attempt, self.stored_meanwhile(attempt.settings)):
            # A page that has just drawn the card may have missed it, and cannot ask while a cell waits (ipykernel 6).
            self._session.send_address()

    def _adopt(self, attempt: _Attempt, provider: AuthProvider | None) -> bool:
        """Use a provider that signs the person in meanwhile, if there is one; whether this sign-in is over."""
        if provider is None or attempt.login.done:
            return attempt.login.done
        if self._end(attempt, provider, is_overtaken=True):
            attempt.login.cancel()
            self._session.shown.show(attempt.settings, self._session.state_of(attempt.settings, provider))
            self._session.fetch_identity_later(attempt.settings)
        return True


class NotebookSession:
    """The sign-in that is under way, the connections, and the state that is shown; `close` ends everything."""

    def __init__(self, dependencies: Dependencies) -> None:
        self.dependencies = dependencies
        self.shown = ShownState()
        self.choice = SettingsChoice()
        self.connections = Connections(dependencies, self._note_renewal)
        self.sign_in = PendingSignIn(self)
        self._display: IdentityDisplay | None = None

    def display(self, shell: InteractiveShell) -> IdentityDisplay:
        """Return what shows the state in the shell's cells."""
        if self._display is None:
            from micromegas_jupyter.notebook.login.display import IdentityDisplay  # with anywidget

            self._display = IdentityDisplay(shell, self)
        return self._display

    def send_address(self) -> None:
        """Send the card the address to sign in at once more."""
        if self._display is not None:
            self._display.send_address()

    def settings(self, profile: str | None = None) -> ClientSettings:
        """Return the settings of `profile`, else those that were last chosen, else the configured ones."""
        return self.choice.read(self.dependencies, profile=profile)

    @property
    def state(self) -> IdentityState | None:
        """The state that is shown; None before there was any."""
        shown = self.shown.shown
        return None if shown is None else shown[1]

    def connection(self, settings: ClientSettings, *, on_wait: Callable[[], None] | None = None) -> Connection:
        """Return the connection of these settings; calls `on_wait` and waits for a sign-in that is under way."""
        self.sign_in.wait_for(settings, on_wait=on_wait)
        return self.connections.get(settings)

    def begin_sign_in(self, settings: ClientSettings, shell: object, preference: str | None = None) -> None:
        """Start a sign-in for a button or a query, neither of which can ask for an address to be pasted."""
        choice = self.dependencies.choose_flow(settings, shell, preference)
        if choice.flow is Flow.PASTE:
            raise LoginRequired(
                "Signing in here takes an address that you paste.", remedy="Run %micromegas_login in a cell of its own."
            )
        fallbacks = tuple(flow for flow in choice.fallbacks if flow is not Flow.PASTE)
        self.sign_in.begin(settings, replace(choice, fallbacks=fallbacks))

    def signed_in(self, settings: ClientSettings) -> IdentityState:
        """Return who is signed in, after renewing the token if needed; raises as `connection` and `renew` do."""
        try:
            provider = self.connections.get(settings).provider
            if provider is not None:
                provider.get_token()
            return self.shown.show(settings, self.state_of(settings, provider))
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
            state = after_answer(self.state_of(settings, connection.provider), answer, seconds)
        except MicromegasError as error:
            self.note_failure(settings, error)
            raise
        return self.shown.show(settings, state)

    def fetch_identity_later(self, settings: ClientSettings) -> None:
        """Ask the server who the caller is, on a thread; the answer or the failure is shown."""

        def fetch() -> None:
            with suppress(MicromegasError):
                self.fetch_identity(settings)

        start_thread(fetch, name="micromegas-whoami")

    def renew(self, settings: ClientSettings) -> bool:
        """Renew the token of the person who is signed in; returns whether that brought a new one."""
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

    def logout(self, settings: ClientSettings, *, end_session: bool = False) -> str:
        """End the sign-ins of these settings' profile, and one under way, and return a report in one line."""
        self.sign_in.cancel()
        through = ""
        with suppress(LoginRequired):
            provider = self.connections.get(settings).provider
            if not isinstance(provider, PersonalProvider):
                other = "none is configured" if provider is None else "a key or service account is used"
                if self.dependencies.is_wrapped():
                    other = "the wrapper's client is used"
                return f"There is no sign-in to end: {other}."
            through = getattr(provider, "through", "")
        # First, so that no renewal runs beside it.
        self.connections.drop_profile(settings.profile)
        ended = self.dependencies.logout(settings, end_session=end_session)
        report = printable(str(ended))
        if through:
            self.connections.signed_out.add(settings.profile)
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
            fresh = self.state_of(settings, provider)
            self.shown.change(settings, lambda state: after_success(state, fresh))

    def state_of(self, settings: ClientSettings, provider: AuthProvider | None) -> IdentityState:
        """Return the state of a provider that has just given a token."""
        if self.dependencies.is_wrapped():
            return IdentityState(status=IdentityStatus.WRAPPED, server=host_text(settings.uri))
        return signed_in_state(settings, provider)

    def close(self) -> None:
        """End a sign-in under way, close all clients, and put text in place of the card."""
        self.sign_in.cancel()
        self.connections.close()
        if self._display is not None:
            self._display.close()

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


class CellConnections:
    """The connections that cells name: each name stands for the settings that were read when it was given."""

    def __init__(self, shell: InteractiveShell, session: NotebookSession) -> None:
        self._shell = shell
        self._session = session
        self._by_name: dict[str, SettingsChoice] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def put(self, name: str, choice: SettingsChoice, settings: ClientSettings) -> bool:
        """Give a name to settings; returns whether it named others before."""
        if not _NAME.fullmatch(name):
            raise UsageError(
                f'"{_shown(name)}" is not a valid connection name.', remedy="Use letters, digits, _ and -, at most 63."
            )
        known = self._by_name.get(name)
        if known is None and len(self._by_name) >= MAX_NAMES:
            raise UsageError(f"There are {MAX_NAMES} named connections already.", remedy="Reuse one of the names.")
        self._by_name[name] = replace(choice, settings=settings)
        return known is not None and known.settings != settings

    def forget(self, name: str) -> None:
        """Remove a name, if there is one."""
        self._by_name.pop(name, None)

    def choice(self, name: str) -> SettingsChoice:
        """Return the choice with this name."""
        known = self._by_name.get(name)
        if known is not None:
            return known
        nearest = get_close_matches(name, self._by_name, n=1)
        what = f'There is no connection named "{_shown(name)}".'
        if nearest:
            raise UsageError(what, remedy=f'Did you mean "{nearest[0]}"?')
        names = f"The named ones: {', '.join(self._by_name)}. " if self._by_name else ""
        raise UsageError(what, remedy=f"{names}%micromegas_connect URI --as NAME names one.")

    def all(self) -> dict[str, ClientSettings]:
        """Return the settings of every name, in the order in which the names were given."""
        return {name: choice.settings for name, choice in self._by_name.items() if choice.settings is not None}

    def settings(self, *, connection: str | None, profile: str | None) -> ClientSettings:
        """Return the settings of the connection that a cell names."""
        if connection is None:
            return self._session.settings(profile)
        return self.choice(connection).read(self._session.dependencies)

    @contextmanager
    def connected(
        self, *, connection: str | None, profile: str | None
    ) -> Iterator[tuple[ClientSettings, Connection, LiveLine]]:
        """Wait for the connection that a cell names; the block finishes or clears the line, which shows the wait."""
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
        session, clock = self._session, self._session.dependencies.clock
        if isinstance(line, DisplayLine) and is_attended(self._shell):
            self._begin_sign_in_if_needed(settings)
        started = clock.monotonic()

        def show_card() -> None:
            if isinstance(line, DisplayLine) and session.state is not None:
                line.show(*session.display(self._shell).notice(session.state))

        try:
            return session.connection(settings, on_wait=show_card)
        except KeyboardInterrupt as interrupt:
            stopped = QueryCancelled("The wait for the sign-in was stopped.")
            waited = seconds_text(clock.monotonic() - started)
            show_as_lines(stopped, [f"✗ stopped waiting for the sign-in after {waited}; it stays open"])
            line.clear()
            raise stopped from interrupt
        except MicromegasError:
            line.clear()
            raise

    def _begin_sign_in_if_needed(self, settings: ClientSettings) -> None:
        """Start a sign-in, which the cell then waits for, if a person is here and not signed in."""
        session = self._session
        if session.sign_in.is_pending(settings):
            return
        try:
            provider = session.connections.get(settings).provider
            if isinstance(provider, PersonalProvider):
                provider.get_token()
        except LoginRequired as error:
            session.note_failure(settings, error)
            if settings.as_service_account or settings.profile in session.connections.signed_out:
                raise
            session.begin_sign_in(settings, self._shell)


def _shown(name: str) -> str:
    return cut(printable(name), _MAX_SHOWN_CHARACTERS)
