"""A sign-in that waits for its person: started, then carried to its end by a thread of its own.

How a person is waited for is `browser_login`'s, `redirect_login`'s, `device_login`'s and `paste_login`'s.
"""

import contextvars
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, Protocol, Self, TypeVar

from micromegas_jupyter.auth.identity import Identity
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.errors import (
    InternalError,
    LoginFailed,
    LoginTimedOut,
    MicromegasError,
    UsageError,
)
from micromegas_jupyter.oidc.tokens import TokenSet
from micromegas_jupyter.redirect import Ending

# For a browser that is slow to ask for the last page; nearly all ask at once.
LINGER_SECONDS = 10.0
# After the person: discovery, token and keys of ten seconds each, and the wait for the token file's lock.
COMPLETION_SECONDS = 90.0

_WAIT_SLICE_SECONDS = 0.2

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginPrompt:
    """What a person is shown, and for how long it holds.

    Attributes:
        flow: The way of signing in.
        timeout_seconds: How long the person is waited for.
        expires_at: When that ends (aware UTC).
        start_url: The address to open.
        user_code: The code to type.
        verification_uri: Where to type it.
        verification_uri_complete: The same with the code in it, for a picture that a telephone reads.
    """

    flow: Flow
    timeout_seconds: float
    expires_at: datetime
    start_url: str | None = field(default=None, repr=False)
    user_code: str | None = field(default=None, repr=False)
    verification_uri: str | None = None
    verification_uri_complete: str | None = field(default=None, repr=False)


class RunningFlow(ABC):
    """One way of waiting for a person, under way. Used by one `PendingSignIn`, from several threads.

    Args:
        prompt: What the person is shown.
    """

    def __init__(self, prompt: LoginPrompt) -> None:
        self.prompt = prompt

    @abstractmethod
    def tokens(self) -> TokenSet | None:
        """Wait for the person and return what the provider gave, its ID token checked.

        Returns:
            None when nobody came in time or the wait was ended by `stop`.

        Raises:
            MicromegasError: The sign-in ended without tokens.
        """

    @abstractmethod
    def stop(self) -> None:
        """End the wait for the person."""

    def submit(self, text: str | Secret) -> None:  # noqa: ARG002 - only one flow takes it
        """Take what the person pasted.

        Raises:
            UsageError: Nothing is to be pasted here.
        """
        raise UsageError(
            "This sign-in does not wait for a pasted address.", remedy="Start one with the flow `paste` for that."
        )

    def on_started(self, callback: Callable[[str], None]) -> None:  # noqa: B027 - only one flow tells
        """Have `callback` told the redirect URI when a browser is sent to the provider, where only then it is known."""

    def show(self, ending: Ending) -> None:  # noqa: B027 - a flow without a page of its own shows nothing
        """Show the person how it ended."""

    def close(self, *, linger_seconds: float = 0.0) -> None:  # noqa: B027 - a flow may hold nothing
        """Let go of what is held, when the page was seen or after `linger_seconds` at most; safe to call twice."""


class SignedIn(Protocol):
    """What a sign-in leads to, as far as its last page says it."""

    def identity(self) -> Identity:
        """Return who signed in."""
        ...


P = TypeVar("P", bound=SignedIn)


class PendingSignIn(Generic[P]):
    """A running sign-in; safe to use from several threads.

    Its lock covers the outcome and the callbacks, and is free while they run.

    Args:
        running: Waits for the person; owned, and closed at the end.
        keep: Makes the provider of the tokens, and stores them where there is a place. Calls its second argument at
            the last moment at which nothing is stored yet; that raises when the sign-in was cancelled.
        discard: Has tokens ended that were not kept; called after everybody has learned of the end.
    """

    def __init__(
        self,
        running: RunningFlow,
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
        """The way of signing in."""
        return self._running.prompt.flow

    @property
    def start_url(self) -> str | None:
        """The address to open; None for a device sign-in.

        In the browser flow it is on loopback, in the redirect flow the Jupyter server's, and holds no state and no
        challenge; the latter is a path where this process does not know the server's address. In the paste flow it is
        the provider's own page, so the address should not be kept where others read it.
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
        """The same with the code in it, where the provider has that; show it, never open it by itself."""
        return self._running.prompt.verification_uri_complete

    @property
    def expires_at(self) -> datetime:
        """When the sign-in gives up waiting for the person (aware UTC)."""
        return self._running.prompt.expires_at

    @property
    def done(self) -> bool:
        """Whether the sign-in has ended, one way or the other."""
        return self._settled.is_set()

    def result(self, timeout_seconds: float | None = None) -> P:
        """Wait for the end and return the provider.

        Args:
            timeout_seconds: How long to wait; None waits until the sign-in itself gives up.

        Raises:
            LoginTimedOut: Nobody came back in time, or not within `timeout_seconds` (the sign-in then goes on).
            LoginRefused: The provider or the person said no.
            LoginFailed: It was cancelled, or the provider gave no token.
            ProviderMisbehaved: The provider's answer breaks the protocol or does not fit this sign-in.
            ProviderUnavailable: The provider does not answer.
            TokenStoreError: The sign-in could not be stored.
        """
        longest = self._running.prompt.timeout_seconds + COMPLETION_SECONDS
        _wait_in_slices(self._settled, longest if timeout_seconds is None else timeout_seconds)
        with self._lock:
            outcome = self._outcome
        if outcome is None:
            raise LoginTimedOut("The sign-in has not come to an end yet.", remedy="Finish it, or start another one.")
        if isinstance(outcome, MicromegasError):
            raise outcome
        return outcome

    def on_done(self, callback: Callable[[Self], None]) -> None:
        """Have `callback` called once, on the sign-in's thread, when it has ended; at once when it already has."""
        with self._lock:
            if self._outcome is None:
                self._callbacks.append(lambda: callback(self))
                return
        _call(lambda: callback(self))

    def on_started(self, callback: Callable[[str], None]) -> None:
        """Have `callback` told the redirect URI when a browser is sent to the provider; in the redirect flow only.

        It is called on the thread that answers the Jupyter server, so it must not wait.
        """
        self._running.on_started(lambda redirect_uri: _call(lambda: callback(redirect_uri)))

    def submit(self, text: str | Secret) -> None:
        """Take the address that the person's browser ended at; for a sign-in by pasting only.

        One that fits goes on by itself, to the tokens or, when the provider refused, to `LoginRefused`: `result`
        tells. Nothing of the text is kept, shown or logged.

        Raises:
            UsageError: It is not this sign-in's address, which may be tried again, or nothing is to be pasted any
                more.
            ProviderMisbehaved: It is from another provider or malformed; it may be tried again.
        """
        text = Secret(text) if isinstance(text, str) else text  # or a traceback would show it
        self._running.submit(text)

    def cancel(self) -> None:
        """End the sign-in; without effect once it is kept. Safe to call twice.

        Whoever then holds the lock of the place that keeps sign-ins sees it kept, or never.
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
            self._running.show(_ending_of(outcome))
            self._settle(outcome)
            self._discard_unkept()
            self._running.close(linger_seconds=LINGER_SECONDS)
        finally:
            self._running.close()

    def _run(self) -> P | MicromegasError:
        try:
            tokens = self._running.tokens()
            return self._absence() if tokens is None else self._kept(tokens)
        except MicromegasError as error:
            return error
        except Exception:  # noqa: BLE001 - a thread's end is its outcome: whoever waits must learn of it
            _log.exception("A sign-in ended with a defect.")
            return InternalError("The sign-in ended with a defect of this program.")

    def _kept(self, tokens: TokenSet) -> P:
        try:
            self._check_not_cancelled()
            return self._keep(tokens, self._check_not_cancelled)
        except MicromegasError:
            self._unkept = tokens
            raise

    def _discard_unkept(self) -> None:
        tokens, self._unkept = self._unkept, None
        if tokens is not None:
            _call(lambda: self._discard(tokens))

    def _check_not_cancelled(self) -> None:
        with self._lock:
            is_cancelled = self._is_cancelled
        if is_cancelled:
            raise LoginFailed("The sign-in was cancelled.")

    def _absence(self) -> MicromegasError:
        self._check_not_cancelled()
        return LoginTimedOut(f"Nobody signed in within {self._running.prompt.timeout_seconds:g} seconds.")

    def _settle(self, outcome: P | MicromegasError) -> None:
        with self._lock:
            self._outcome = outcome
            callbacks, self._callbacks = self._callbacks, []
        self._settled.set()
        for callback in callbacks:
            _call(callback)


def _wait_in_slices(event: threading.Event, timeout_seconds: float) -> None:
    """Wait for an event: a Ctrl-C that comes in the instant before a wait is only noticed when that wait ends."""
    left_seconds = timeout_seconds
    while not event.wait(min(max(left_seconds, 0.0), _WAIT_SLICE_SECONDS)) and left_seconds > 0:
        left_seconds -= _WAIT_SLICE_SECONDS


def _call(callback: Callable[[], None]) -> None:
    try:
        callback()
    except Exception:  # noqa: BLE001 - one callback's defect must not cost the others
        _log.exception("What was to follow a sign-in failed.")


def _ending_of(outcome: SignedIn | MicromegasError) -> Ending:
    if isinstance(outcome, MicromegasError):
        return Ending.failed(what=outcome.what, remedy=outcome.remedy)
    try:
        identity = outcome.identity()
    except MicromegasError:
        return Ending.signed_in(None)  # the tokens say nothing about their person, or the store has just been emptied
    return Ending.signed_in(identity.name or identity.email or identity.subject)
