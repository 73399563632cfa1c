"""One notebook's sign-in and its clients: what the magics share between cells.

How a sign-in is done and how a query travels are other rooms' jobs; what it looks like is the magics' and the widget's.
"""

from __future__ import annotations

import contextvars
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock, Thread
from typing import TYPE_CHECKING

from micromegas_jupyter.errors import LoginRequired, MicromegasError, UnsupportedRequest
from micromegas_jupyter.notebook.connections import Connections
from micromegas_jupyter.notebook.parts import PersonalProvider
from micromegas_jupyter.notebook.session_states import (
    after_answer,
    after_failure,
    after_success,
    failed_login_state,
    signed_in_state,
    signed_out_state,
    waiting_state,
)
from micromegas_jupyter.notebook.words import host_text, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from micromegas_jupyter.client import ServerIdentity
    from micromegas_jupyter.contracts import AuthProvider
    from micromegas_jupyter.notebook.connections import Connection
    from micromegas_jupyter.notebook.identity_state import IdentityState
    from micromegas_jupyter.notebook.parts import Login, Parts
    from micromegas_jupyter.settings import ClientSettings

# After the person came back: discovery, token, keys and the token file's lock, each with a deadline of its own.
_COMPLETION_SECONDS = 90.0


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _PendingLogin:
    settings: ClientSettings
    login: Login


class NotebookSession:
    """The sign-in that goes on, the connections, and what is shown about them.

    `_lock` guards `_pending`, `_profile`, `_shown` and `_listeners`; it is free during I/O and while listeners
    are told. `_telling` is held while they are, so that the last that each hears is the newest. `close` ends
    everything.

    Args:
        parts: What the session works with.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._connections = Connections(parts)
        self._lock = Lock()
        self._telling = Lock()
        self._pending: _PendingLogin | None = None
        self._profile: str | None = None
        self._shown: tuple[ClientSettings, IdentityState] | None = None
        self._listeners: list[Callable[[IdentityState], None]] = []

    def settings(self, profile: str | None = None) -> ClientSettings:
        """Return the settings of `profile`, else of the profile that was last chosen, else the configured ones.

        Raises:
            ConfigurationError: They cannot be read.
        """
        return self.parts.load_settings(profile or self._profile)

    def choose_profile(self, profile: str | None) -> None:
        """Make `profile` the one that later cells use; None leaves it."""
        with self._lock:
            self._profile = profile or self._profile

    @property
    def state(self) -> IdentityState | None:
        """What is shown about the sign-in; None before anything was asked."""
        with self._lock:
            return None if self._shown is None else self._shown[1]

    def subscribe(self, listener: Callable[[IdentityState], None]) -> None:
        """Have `listener` told of every change; it may be called on another thread."""
        with self._lock:
            self._listeners.append(listener)

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
        with self._lock:
            pending = self._pending
        if pending is not None and pending.settings == settings:
            if on_wait is not None and not pending.login.done:
                on_wait(pending.login)
            self._finish(pending)
        return self._connections.get(settings)

    def signed_in(self, settings: ClientSettings) -> IdentityState:
        """Return who is signed in, after making sure that the token is good.

        Raises:
            LoginRequired: A sign-in is configured and nobody is signed in, or the sign-in has ended.
            ProviderUnavailable: The token must be renewed and the provider does not answer.
            TokenStoreError: The token file cannot be used safely.
            ConfigurationError: The settings contradict each other or the key file cannot be read.
        """
        try:
            provider = self._connections.get(settings).provider
            if provider is not None:
                provider.get_token()
            return self._show(settings, signed_in_state(settings, provider))
        except MicromegasError as error:
            self.note_failure(settings, error)
            raise

    def begin_login(self, settings: ClientSettings) -> Login:
        """Start a sign-in in place of one that may be going on; returns at once, the session goes on by itself.

        Raises:
            ConfigurationError: No provider is configured.
            ProviderUnavailable: The provider does not answer.
            ProviderMisbehaved: The provider's answer breaks the protocol.
        """
        self.cancel_login()
        pending = _PendingLogin(settings=settings, login=self.parts.begin_login(settings))
        with self._lock:
            self._pending = pending
        self._show(settings, waiting_state(settings, pending.login))
        # ipykernel 7 finds the cell that a widget's message belongs to in a context variable.
        context = contextvars.copy_context()
        pending.login.on_done(lambda *_: context.run(self._finish_alone, pending))
        return pending.login

    def finish_login(self, login: Login) -> None:
        """Wait for the end of a sign-in that this session began.

        Raises:
            LoginFailed: It ended without a token.
            ProviderMisbehaved: The provider's answer breaks the protocol.
            ProviderUnavailable: The provider does not answer.
            TokenStoreError: The sign-in could not be stored.
        """
        with self._lock:
            pending = self._pending
        if pending is not None and pending.login is login:
            self._finish(pending)
        else:
            login.result(0.0)  # it has ended already; a failure is still news to the caller

    def cancel_login(self) -> None:
        """End a sign-in that goes on, if there is one."""
        with self._lock:
            pending, self._pending = self._pending, None
        if pending is not None:
            pending.login.cancel()

    def ask_server(self, settings: ClientSettings) -> IdentityState:
        """Ask the server whom it takes the caller for, and show its answer with the time it took.

        Raises:
            AuthenticationError: Nobody is signed in, or the server does not accept the token.
            Unavailable: The server, or the provider that it needs, does not answer.
        """
        try:
            connection = self._connections.get(settings)
            started = self.parts.clock.monotonic()
            answer = _answer_of(connection)
            seconds = self.parts.clock.monotonic() - started
            state = after_answer(signed_in_state(settings, connection.provider), answer, seconds)
        except MicromegasError as error:
            self.note_failure(settings, error)
            raise
        return self._show(settings, state)

    def ask_server_later(self, settings: ClientSettings) -> None:
        """Have the server asked on a thread of its own; what follows from its answer is shown."""

        def ask() -> None:
            # What follows from a failure is shown too.
            with suppress(MicromegasError):
                self.ask_server(settings)

        context = contextvars.copy_context()
        Thread(target=context.run, args=(ask,), name="micromegas-whoami", daemon=True).start()

    def logout(self, settings: ClientSettings) -> str:
        """End the sign-in of these settings, or the one that goes on, and say so in one line.

        Raises:
            TokenStoreError: The token file cannot be used safely.
        """
        self.cancel_login()
        issuer = host_text(settings.issuer or settings.uri)
        try:
            provider = self._connections.get(settings).provider
        except LoginRequired:
            self._show(settings, signed_out_state(settings))
            return f"Nobody was signed in to {issuer}."
        if not isinstance(provider, PersonalProvider):
            return "There is no sign-in to end: " + (
                "none is configured." if provider is None else "a key or service account is used."
            )
        report = printable(str(provider.logout()))
        self._connections.drop(settings)
        self._show(settings, signed_out_state(settings))
        return report

    def note_failure(self, settings: ClientSettings, error: MicromegasError) -> None:
        """Let what is shown follow from a call that failed; an ended sign-in is looked up afresh next time."""
        if isinstance(error, LoginRequired):
            self._connections.drop(settings)
        self._change(settings, lambda state: after_failure(state, error))

    def note_success(self, settings: ClientSettings, provider: AuthProvider | None) -> None:
        """Let what is shown follow from a call that worked: the token may have been renewed."""
        try:
            fresh = signed_in_state(settings, provider)
        except MicromegasError:
            return  # a query that worked does not fail for what is shown beside it
        self._change(settings, lambda state: after_success(state, fresh))

    def close(self) -> None:
        """End a sign-in that goes on and close all clients."""
        self.cancel_login()
        self._connections.close()

    def _finish_alone(self, pending: _PendingLogin) -> None:
        """Take what the sign-in gave, on its own thread: nobody is there to be told of an error but the widget."""
        try:
            self._finish(pending)
        except MicromegasError:
            return
        self.ask_server_later(pending.settings)

    def _finish(self, pending: _PendingLogin) -> None:
        """Wait for the end of a sign-in; the first of the waiting cell and the sign-in's thread takes what it gave."""
        remaining_seconds = (pending.login.expires_at - self.parts.clock.now()).total_seconds()
        try:
            provider = pending.login.result(max(remaining_seconds, 0.0) + _COMPLETION_SECONDS)
        except MicromegasError as error:
            if self._take(pending):
                self._show(pending.settings, failed_login_state(pending.settings, error))
            raise
        with self._lock:
            is_current = self._pending is pending
            if is_current:
                # Put before the sign-in counts as over, so that no cell makes a second connection meanwhile.
                self._connections.put(pending.settings, provider)
                self._pending = None
        if is_current:
            self._show(pending.settings, signed_in_state(pending.settings, provider))

    def _take(self, pending: _PendingLogin) -> bool:
        with self._lock:
            is_current = self._pending is pending
            if is_current:
                self._pending = None
        return is_current

    def _show(self, settings: ClientSettings, state: IdentityState) -> IdentityState:
        with self._lock:
            self._shown = (settings, state)
        self._tell()
        return state

    def _change(self, settings: ClientSettings, change: Callable[[IdentityState], IdentityState]) -> None:
        """Change what is shown, in one step, when it is about these settings."""
        with self._lock:
            if self._shown is None or self._shown[0] != settings:
                return
            self._shown = (settings, change(self._shown[1]))
        self._tell()

    def _tell(self) -> None:
        with self._telling:
            with self._lock:
                listeners = list(self._listeners)
                state = None if self._shown is None else self._shown[1]
            if state is not None:
                for listener in listeners:
                    listener(state)


def _answer_of(connection: Connection) -> ServerIdentity | None:
    try:
        return connection.client.whoami()
    except UnsupportedRequest:
        return None
