"""A sign-in that is waiting for its person: started, then completed by a thread of its own."""

import contextvars
import logging
import threading
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

from micromegas_jupyter.auth.flows.base import LoginContext, LoginFlow
from micromegas_jupyter.auth.flows.pages import LoginOutcome
from micromegas_jupyter.auth.identity import Identity
from micromegas_jupyter.auth.logout import RevocationCalls
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.tokens.store import TokenStore
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.core.system import Clock, Secret
from micromegas_jupyter.errors import (
    InternalError,
    LoginFailed,
    LoginTimedOut,
    MicromegasError,
    TokenStoreError,
    UsageError,
)
from micromegas_jupyter.oidc.authorization import TokenSet

if TYPE_CHECKING:
    from micromegas_jupyter.auth.flows.hub import HubService
    from micromegas_jupyter.auth.flows.jupyter import RedirectLogins

# For a browser that is slow to fetch the last page; nearly all fetch it at once.
LINGER_SECONDS = 10.0
# After the person: discovery, token and keys of ten seconds each, and the wait for the token file's lock.
COMPLETION_SECONDS = 90.0

_WAIT_SLICE_SECONDS = 0.2

_log = logging.getLogger(__name__)


def start_flow(
    flow: Flow, context: LoginContext, *, redirects: "RedirectLogins | None" = None, hub: "HubService | None" = None
) -> LoginFlow:
    """Start a flow; returns as soon as there is something to show to the person.

    A redirect needs `redirects`, where a Jupyter server's requests come in, or `hub`, the service of a Hub that has one
    redirect for all; the Hub goes first.
    """
    match flow:
        case Flow.DEVICE:
            from micromegas_jupyter.auth.flows.device import start_device

            return start_device(context)
        case Flow.BROWSER:
            from micromegas_jupyter.auth.flows.loopback import start_loopback

            return start_loopback(context)
        case Flow.PASTE:
            from micromegas_jupyter.auth.flows.paste import start_paste

            return start_paste(context)
        case Flow.REDIRECT if hub is not None:
            from micromegas_jupyter.auth.flows.hub import start_hub_redirect

            return start_hub_redirect(context, hub)
        case Flow.REDIRECT if redirects is not None:
            return redirects.start(context)
    raise UsageError(f"The flow {flow.value!r} cannot be started here.", remedy="Use browser, device or paste.")


class StoreWatch:
    """Remembers whether a sign-in was stored when another one was started; `store` is None for one in memory."""

    def __init__(self, store: TokenStore | None) -> None:
        self._store = store
        self._was_filled = self._is_filled()

    def check_not_emptied(self) -> None:
        """Check that nobody has signed out since; only for the holder of the store's lock.

        A sign-in that another program has stored meanwhile is replaced. Where nothing was stored at the beginning, a
        sign-out by another program leaves no trace and is not seen.
        """
        if self._was_filled and not self._is_filled():
            raise LoginFailed("You signed out meanwhile, so this sign-in was not kept.")

    def discard(self, tokens: TokenSet, connection: ProviderConnection, *, clock: Clock) -> None:
        """Revoke tokens that were not kept, as far as the provider does so within a logout's deadline.

        Some providers end everything that a person has given the application as soon as one of its tokens is revoked
        (Google). So while a sign-in is stored, the new tokens are only forgotten, which leaves nobody who has them.
        """
        try:
            if self._is_filled():
                return
        except TokenStoreError:
            return  # it cannot be known
        problem = RevocationCalls(clock).revoke(tokens, connection).problem
        if problem is not None:
            _log.warning("The tokens of a sign-in that was not kept could not be revoked.", extra={"problem": problem})

    def _is_filled(self) -> bool:
        return self._store is not None and self._store.mark() is not None


class SignedIn(Protocol):
    """What a sign-in leads to, as far as its last page shows it."""

    def identity(self) -> Identity:
        """Return who signed in."""
        ...


P = TypeVar("P", bound=SignedIn)


class PendingSignIn(Generic[P]):
    """A running sign-in; safe to use from several threads.

    Its lock covers the outcome and the callbacks, and is free while they run.

    Args:
        running: Waits for the person; owned, and closed at the end.
        keep: Makes the provider of the tokens and stores them. Calls its second argument at the last moment at which
            nothing is stored yet; that raises when the sign-in was cancelled.
        discard: Revokes tokens that were not kept; called after everybody has learned of the end.
    """

    def __init__(
        self,
        running: LoginFlow,
        keep: Callable[[TokenSet, Callable[[], None]], P],
        *,
        discard: Callable[[TokenSet], None] = lambda _tokens: None,
    ) -> None:
        self._running = running
        self._keep = keep
        self._discard = discard
        self._unkept: TokenSet | None = None
        self._lock = threading.Lock()
        self._outcome: P | MicromegasError | None = None
        self._settled = threading.Event()
        self._callbacks: list[Callable[[], None]] = []
        self._is_cancelled = False
        # The caller's context comes along, so that what a callback prints lands in the caller's notebook cell.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._work,), name="micromegas-login", daemon=True)
        self._thread.start()

    @property
    def flow(self) -> Flow:
        """The flow."""
        return self._running.prompt.flow

    @property
    def start_url(self) -> str | None:
        """The address to open; None for a device sign-in.

        In the browser flow it is on loopback, in the redirect flow the Jupyter server's (a path where this process
        does not know the server's address); both hold no state and no challenge. In the paste flow it is the
        provider's own page, so do not store the address where others can read it.
        """
        return self._running.prompt.start_url

    @property
    def user_code(self) -> str | None:
        """The code that the person types; None except for a device sign-in."""
        return self._running.prompt.user_code

    @property
    def verification_uri(self) -> str | None:
        """Where the person types it, on any device; None except for a device sign-in."""
        return self._running.prompt.verification_uri

    @property
    def verification_uri_complete(self) -> str | None:
        """The same with the code in it, where the provider has that; show it, never open it automatically."""
        return self._running.prompt.verification_uri_complete

    @property
    def expires_at(self) -> datetime:
        """When the sign-in stops waiting for the person (aware UTC)."""
        return self._running.prompt.expires_at

    @property
    def done(self) -> bool:
        """Whether the sign-in has ended, successfully or not."""
        return self._settled.is_set()

    def result(self, timeout_seconds: float | None = None) -> P:
        """Wait for the end and return the provider.

        Args:
            timeout_seconds: How long to wait; None waits until the sign-in itself gives up.

        Raises:
            LoginTimedOut: Nobody came back in time, or not within `timeout_seconds` (the sign-in then continues).
            LoginRefused: The provider or the person said no.
            LoginFailed: It was cancelled, or the provider gave no token.
            ProviderMisbehaved: The provider's answer breaks the protocol or does not fit this sign-in.
            ProviderUnavailable: The provider does not answer.
            TokenStoreError: The sign-in could not be stored.
        """
        longest = self._running.prompt.timeout_seconds + COMPLETION_SECONDS
        left_seconds = longest if timeout_seconds is None else timeout_seconds
        # In slices: a Ctrl-C that comes in the instant before a wait is only noticed when that wait ends.
        while not self._settled.wait(min(max(left_seconds, 0.0), _WAIT_SLICE_SECONDS)) and left_seconds > 0:
            left_seconds -= _WAIT_SLICE_SECONDS
        with self._lock:
            outcome = self._outcome
        if outcome is None:
            raise LoginTimedOut("The sign-in has not finished yet.", remedy="Finish it, or start another one.")
        if isinstance(outcome, MicromegasError):
            raise outcome
        return outcome

    def on_done(self, callback: Callable[[Self], None]) -> None:
        """Call `callback` once, on the sign-in's thread, when it has ended; at once when it already has."""
        with self._lock:
            if self._outcome is None:
                self._callbacks.append(lambda: callback(self))
                return
        _call(lambda: callback(self))

    def on_started(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with the redirect URI when a browser is sent to the provider; in the redirect flow only.

        It is called on the thread that answers the Jupyter server, so it must not wait.
        """
        self._running.on_started(lambda redirect_uri: _call(lambda: callback(redirect_uri)))

    def submit(self, text: str | Secret) -> None:
        """Take the address that the person's browser ended at; for the paste flow only.

        The sign-in then continues by itself, and `result` returns or raises. Nothing of the text is kept, shown or
        logged.

        Raises:
            UsageError: It is not this sign-in's address, which may be tried again, or no address is expected any more.
            ProviderMisbehaved: It is from another provider or malformed; it may be tried again.
        """
        text = Secret(text) if isinstance(text, str) else text  # or a traceback would show it
        self._running.submit(text)

    def cancel(self) -> None:
        """End the sign-in; without effect once it is kept. Safe to call twice.

        Whoever then holds the lock of the store sees the sign-in kept, or never.
        """
        with self._lock:
            self._is_cancelled = True
        self._running.stop()

    def wait_closed(self, timeout_seconds: float) -> bool:
        """Wait until the person has seen the last page and all is closed; whether that happened in time."""
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def __repr__(self) -> str:
        return f"PendingLogin(done={self.done}, expires_at={self.expires_at.isoformat()})"

    def _work(self) -> None:
        try:
            outcome = self._run()
            self._running.show(_shown_outcome(outcome))
            self._settle(outcome)
            if self._unkept is not None:
                tokens, self._unkept = self._unkept, None
                _call(lambda: self._discard(tokens))
            self._running.close(linger_seconds=LINGER_SECONDS)
        finally:
            self._running.close()

    def _run(self) -> P | MicromegasError:
        try:
            tokens = self._running.tokens()
            if tokens is None:
                self._check_not_cancelled()
                return LoginTimedOut(f"Nobody signed in within {self._running.prompt.timeout_seconds:g} seconds.")
            try:
                self._check_not_cancelled()
                return self._keep(tokens, self._check_not_cancelled)
            except MicromegasError:
                self._unkept = tokens
                raise
        except MicromegasError as error:
            return error
        except Exception:  # noqa: BLE001 - a thread's end is its outcome: whoever waits must learn of it
            _log.exception("A sign-in failed unexpectedly.")
            return InternalError("The sign-in failed because of a defect in this program.")

    def _check_not_cancelled(self) -> None:
        with self._lock:
            is_cancelled = self._is_cancelled
        if is_cancelled:
            raise LoginFailed("The sign-in was cancelled.")

    def _settle(self, outcome: P | MicromegasError) -> None:
        with self._lock:
            self._outcome = outcome
            callbacks, self._callbacks = self._callbacks, []
        self._settled.set()
        for callback in callbacks:
            _call(callback)


def _call(callback: Callable[[], None]) -> None:
    try:
        callback()
    except Exception:  # noqa: BLE001 - one callback's defect must not cost the others
        _log.exception("A callback of a sign-in failed.")


def _shown_outcome(outcome: SignedIn | MicromegasError) -> LoginOutcome:
    if isinstance(outcome, MicromegasError):
        return LoginOutcome(is_signed_in=False, what=outcome.what, remedy=outcome.remedy)
    try:
        identity = outcome.identity()
    except MicromegasError:
        # The tokens say nothing about their person, or the store has just been emptied.
        return LoginOutcome(is_signed_in=True)
    return LoginOutcome(is_signed_in=True, who=identity.name or identity.email or identity.subject)
