"""A sign-in that waits for its person: started, then carried to its end by a thread of its own.

Requests and checks are `oidc`'s and `provider_connection`'s; listening is `loopback_receiver`'s.
"""

import contextvars
import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Generic, Protocol, Self, TypeVar

from micromegas_jupyter.auth.identity import Identity
from micromegas_jupyter.auth.loopback_receiver import LoopbackReceiver
from micromegas_jupyter.errors import InternalError, LoginFailed, LoginTimedOut, MicromegasError
from micromegas_jupyter.redirect import Page, failure_page, success_page
from micromegas_jupyter.seams import Clock

LINGER_SECONDS = 2.0
# After the callback: discovery, token and keys of ten seconds each, and the wait for the token file's lock.
COMPLETION_SECONDS = 90.0

_log = logging.getLogger(__name__)


class SignedIn(Protocol):
    """What a sign-in leads to, as far as its last page says it."""

    def identity(self) -> Identity:
        """Return who signed in."""
        ...


P = TypeVar("P", bound=SignedIn)


class PendingSignIn(Generic[P]):
    """A running sign-in; safe to use from several threads.

    Its lock covers the outcome and the callbacks, and is free while they run.

    Attributes:
        start_url: A loopback address that leads to the provider's page; it holds no state and no challenge.
        expires_at: When the sign-in gives up waiting for the person (aware UTC).
    """

    def __init__(
        self,
        receiver: LoopbackReceiver,
        complete: Callable[[str], P],
        *,
        timeout_seconds: float,
        clock: Clock,
    ) -> None:
        self.start_url = receiver.start_url
        self.expires_at: datetime = clock.now() + timedelta(seconds=timeout_seconds)
        self._receiver = receiver
        self._complete = complete
        self._timeout_seconds = timeout_seconds
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
        longest = self._timeout_seconds + COMPLETION_SECONDS
        self._settled.wait(longest if timeout_seconds is None else timeout_seconds)
        with self._lock:
            outcome = self._outcome
        if outcome is None:
            raise LoginTimedOut("The sign-in has not come to an end yet.", remedy="Finish it in the browser.")
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

    def cancel(self) -> None:
        """Stop waiting for the person; without effect once the browser has come back. Safe to call twice."""
        with self._lock:
            self._is_cancelled = True
        self._receiver.stop_waiting()

    def wait_closed(self, timeout_seconds: float) -> bool:
        """Wait until the person has seen the last page and the listener is closed; whether that happened in time."""
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def __repr__(self) -> str:
        return f"PendingLogin(done={self.done}, expires_at={self.expires_at.isoformat()})"

    def _work(self) -> None:
        try:
            query = self._receiver.wait(self._timeout_seconds)
            outcome = self._outcome_of(query)
            self._receiver.finish(_page_of(outcome))
            self._settle(outcome)
            self._receiver.close(linger_seconds=LINGER_SECONDS if query is not None else 0.0)
        finally:
            self._receiver.close()

    def _outcome_of(self, query: str | None) -> P | MicromegasError:
        if query is None:
            if self._is_cancelled:
                return LoginFailed("The sign-in was cancelled.")
            return LoginTimedOut(f"Nobody signed in within {self._timeout_seconds:g} seconds.")
        try:
            return self._complete(query)
        except MicromegasError as error:
            return error
        except Exception:  # noqa: BLE001 - a thread's end is its outcome: whoever waits must learn of it
            _log.exception("A sign-in ended with a defect.")
            return InternalError("The sign-in ended with a defect of this program.")

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
        _log.exception("What was to follow a sign-in failed.")


def _page_of(outcome: SignedIn | MicromegasError) -> Page:
    if isinstance(outcome, MicromegasError):
        return failure_page(what=outcome.what, remedy=outcome.remedy)
    identity = outcome.identity()
    return success_page(who=identity.name or identity.email or identity.subject)
