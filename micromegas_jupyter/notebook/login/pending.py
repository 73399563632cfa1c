"""The sign-in that a notebook waits for, and the state that it shows.

Two notebooks that run at once both offer a sign-in: the person follows one link, and both continue.
"""

from __future__ import annotations

import contextvars
import threading
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from micromegas_jupyter.auth.flow_choice import may_go_on
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.notebook.login.dependencies import Dependencies, PersonalProvider
from micromegas_jupyter.notebook.login.state import (
    IdentityState,
    failed_login_state,
    signed_out_state,
    started_state,
    waiting_state,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from micromegas_jupyter.config.client import ClientSettings
    from micromegas_jupyter.core.protocols import AuthProvider
    from micromegas_jupyter.notebook.login.connections import Connections
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
                if not flows or not may_go_on(error):
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
