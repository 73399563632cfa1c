"""The one sign-in of a notebook that goes on: begun, waited for, replaced, overtaken by one in another program, ended.

Two notebooks that are run at once both offer a sign-in: the person follows one link, and both go on.
"""

from __future__ import annotations

import contextvars
import threading
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.notebook.login.dependencies import Parts, PersonalProvider
from micromegas_jupyter.notebook.login.state import (
    IdentityState,
    failed_login_state,
    signed_out_state,
    started_state,
    waiting_state,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from micromegas_jupyter.config.client import ClientSettings, Flow
    from micromegas_jupyter.core.protocols import AuthProvider
    from micromegas_jupyter.notebook.login.connections import Connections
    from micromegas_jupyter.notebook.login.dependencies import Login


# After the person came back: discovery, token, keys and the token file's lock, each with a deadline of its own.
_COMPLETION_SECONDS = 90.0
LOOK_SECONDS = 1.0
"""The pause between two looks at what is stored: a file of this machine, no call to anybody."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Pending:
    settings: ClientSettings
    login: Login
    on_signed_in: Callable[[], None]
    stands_in: bool


class WaitingSignIn:
    """The sign-in that goes on, if there is one.

    `_lock` guards `_pending` and `_overtaken` and is free while anybody waits.

    Args:
        parts: Begins sign-ins and reads stored ones.
        shown: Is told how it stands.
        connections: Takes what it gives.
        state_of: Gives what is shown of a provider that has just given a token.
        ask_server_later: Has the server asked whom it takes the caller for; returns at once.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        shown: ShownState,
        connections: Connections,
        state_of: Callable[[ClientSettings, AuthProvider | None], IdentityState],
        ask_server_later: Callable[[ClientSettings], None],
    ) -> None:
        self._parts = parts
        self._shown = shown
        self._connections = connections
        self._state_of = state_of
        self._ask_server_later = ask_server_later
        self._lock = Lock()
        self._pending: _Pending | None = None
        self._overtaken: Login | None = None

    @property
    def login(self) -> Login | None:
        """The sign-in that goes on; None when there is none."""
        with self._lock:
            return None if self._pending is None else self._pending.login

    def begin(
        self,
        settings: ClientSettings,
        flow: Flow,
        *,
        reason: str = "",
        on_signed_in: Callable[[], None] = lambda: None,
        stands_in: bool = False,
    ) -> Login:
        """Start a sign-in in place of one that may be going on; returns at once, it goes on by itself.

        Args:
            settings: At which provider, and as which application.
            flow: The way of signing in.
            reason: Why that one, for the person; empty when that is not worth a line.
            on_signed_in: Called once when it ends with a token.
            stands_in: Whether JupyterHub was to sign the person in and did not: cells ask it again before they wait.

        Raises:
            ConfigurationError: No provider is configured.
            ProviderUnavailable: The provider does not answer.
            ProviderMisbehaved: The provider's answer breaks the protocol, or it does not offer this flow.
        """
        self.cancel()
        login = self._parts.begin_login(settings, flow)
        pending = _Pending(settings=settings, login=login, on_signed_in=on_signed_in, stands_in=stands_in)
        with self._lock:
            self._pending = pending
        self._shown.show(settings, waiting_state(settings, login, reason=reason))
        # ipykernel 7 finds the cell that a widget's message belongs to in a context variable.
        context = contextvars.copy_context()
        login.on_done(lambda *_: context.run(self._finish_alone, pending))
        started = contextvars.copy_context()
        login.on_started(lambda redirect_uri: started.run(self._note_started, pending, redirect_uri))
        if stored_meanwhile(self._parts, settings) is None:  # or the person wants another one than there is
            watch_for_sign_in(login, lambda: self._overtake(pending, stored_meanwhile(self._parts, settings)))
        return login

    def wait_for(self, settings: ClientSettings, *, on_wait: Callable[[Login], None] | None) -> None:
        """Wait for the sign-in of these settings; returns at once when none goes on. Raises as the sign-in failed."""
        with self._lock:
            pending = self._pending
        if pending is not None and pending.settings == settings:
            if pending.stands_in and self._overtake(pending, given_now(self._parts, settings)):
                return
            if on_wait is not None and not pending.login.done:
                on_wait(pending.login)
            self._finish(pending)

    def finish(self, login: Login) -> None:
        """Wait for the end of a sign-in that was begun here. Raises as it failed."""
        with self._lock:
            pending = self._pending
        if pending is not None and pending.login is login:
            self._finish(pending)
        elif not self._is_overtaken(login):
            login.result(0.0)  # it has ended already; a failure is still news to the caller

    def cancel(self) -> None:
        """End the sign-in that goes on, if there is one, and show that it is over."""
        with self._lock:
            pending, self._pending = self._pending, None
        if pending is not None:
            pending.login.cancel()
            self._shown.show(pending.settings, signed_out_state(pending.settings))

    def leave(self, settings: ClientSettings) -> None:
        """End the sign-in of these settings, if one goes on: the person is signed in without it, which stays shown."""
        with self._lock:
            pending = self._pending
            if pending is None or pending.settings != settings:
                return
            self._pending, self._overtaken = None, pending.login
        pending.login.cancel()

    def _note_started(self, pending: _Pending, redirect_uri: str) -> None:
        """Say which address the provider has to know: one that does not says so to the browser, and never here."""
        with self._lock:
            is_current = self._pending is pending
        if is_current:
            self._shown.change(pending.settings, lambda state: started_state(state, redirect_uri))

    def _finish_alone(self, pending: _Pending) -> None:
        """Take what the sign-in gave, on its own thread: nobody is there to be told of an error but the widget."""
        try:
            self._finish(pending)
        except MicromegasError:
            return
        self._ask_server_later(pending.settings)

    def _finish(self, pending: _Pending) -> None:
        """Wait for the end of a sign-in; the first of the waiting cell and the sign-in's thread takes what it gave."""
        remaining_seconds = (pending.login.expires_at - self._parts.clock.now()).total_seconds()
        try:
            provider = pending.login.result(max(remaining_seconds, 0.0) + _COMPLETION_SECONDS)
        except MicromegasError as error:
            if self._is_overtaken(pending.login):
                return
            if self._take(pending):
                self._shown.show(pending.settings, failed_login_state(pending.settings, error))
            raise
        with self._lock:
            is_current = self._pending is pending
            if is_current:
                # Put before the sign-in counts as over, so that no cell makes a second connection meanwhile.
                self._connections.put(pending.settings, provider)
                self._pending = None
        if is_current:
            self._shown.show(pending.settings, self._state_of(pending.settings, provider))
            pending.on_signed_in()

    def _overtake(self, pending: _Pending, provider: AuthProvider | None) -> bool:
        """Take what signs the person in meanwhile, if anything does; whether this sign-in is over."""
        if provider is None or pending.login.done:
            return pending.login.done
        with self._lock:
            if self._pending is not pending:
                return True
            self._connections.put(pending.settings, provider)
            self._pending, self._overtaken = None, pending.login
        pending.login.cancel()
        self._shown.show(pending.settings, self._state_of(pending.settings, provider))
        self._ask_server_later(pending.settings)
        return True

    def _is_overtaken(self, login: Login) -> bool:
        with self._lock:
            return self._overtaken is login

    def _take(self, pending: _Pending) -> bool:
        with self._lock:
            is_current = self._pending is pending
            if is_current:
                self._pending = None
        return is_current


def watch_for_sign_in(login: Login, take: Callable[[], bool], *, pause_seconds: float = LOOK_SECONDS) -> None:
    """Call `take` from time to time, on a thread of its own, until it returns true or the sign-in has ended.

    Args:
        login: The sign-in that waits here.
        take: Looks, and takes what there is; whether there was something.
        pause_seconds: The pause before each look.
    """
    over = threading.Event()
    login.on_done(lambda *_: over.set())

    def look() -> None:
        while not over.wait(pause_seconds) and not take():
            pass

    # ipykernel finds the cell that a display belongs to in a context variable.
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(look,), name="micromegas-elsewhere", daemon=True).start()


def stored_meanwhile(parts: Parts, settings: ClientSettings) -> PersonalProvider | None:
    """Return a person's stored sign-in whose token is still good; asks nobody, and None for all that is in the way."""
    try:
        provider = parts.stored_provider(settings)
        if not isinstance(provider, PersonalProvider):
            return None
        ends_at = provider.identity().expires_at
    except MicromegasError:
        return None
    # One that had ended before this sign-in was begun is no news.
    return provider if ends_at > parts.clock.now() else None


def given_now(parts: Parts, settings: ClientSettings) -> PersonalProvider | None:
    """Return what signs the person in without a click, as JupyterHub does after a sign-in there; None when it does not.

    It is asked, which a cell that would have to wait may do.
    """
    try:
        provider = parts.stored_provider(settings)
        if provider is None or not getattr(provider, "through", ""):
            return None
        provider.get_token()
    except MicromegasError:
        return None
    return provider if isinstance(provider, PersonalProvider) else None


class ShownState:
    """The state of the settings that were last asked about.

    `_lock` guards `_shown` and `_listeners` and is free while listeners are told. `_telling` is held while they
    are, so that the last that each hears is the newest.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._telling = Lock()
        self._shown: tuple[ClientSettings, IdentityState] | None = None
        self._listeners: list[Callable[[IdentityState], None]] = []

    @property
    def state(self) -> IdentityState | None:
        """What is shown; None before anything was asked."""
        shown = self.shown
        return None if shown is None else shown[1]

    @property
    def shown(self) -> tuple[ClientSettings, IdentityState] | None:
        """What is shown, and about which settings; None before anything was asked."""
        with self._lock:
            return self._shown

    def subscribe(self, listener: Callable[[IdentityState], None]) -> None:
        """Have `listener` told of every change; it may be called on another thread."""
        with self._lock:
            self._listeners.append(listener)

    def show(self, settings: ClientSettings, state: IdentityState) -> IdentityState:
        """Show `state` of these settings from now on, and return it."""
        with self._lock:
            self._shown = (settings, state)
        self._tell()
        return state

    def change(self, settings: ClientSettings, change: Callable[[IdentityState], IdentityState]) -> None:
        """Change what is shown, in one step, when it is about these settings; nothing is told when all stays."""
        with self._lock:
            if self._shown is None or self._shown[0] != settings:
                return
            changed = change(self._shown[1])
            if changed == self._shown[1]:
                return
            self._shown = (settings, changed)
        self._tell()

    def _tell(self) -> None:
        with self._telling:
            with self._lock:
                listeners = list(self._listeners)
                state = None if self._shown is None else self._shown[1]
            if state is not None:
                for listener in listeners:
                    listener(state)
