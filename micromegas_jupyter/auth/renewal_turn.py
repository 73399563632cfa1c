"""Lets one thread at a time renew a token: late callers share its failure, and failures are spaced out.

What renewing means is the caller's.
"""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import MicromegasError, Unavailable

TURN_WAIT_SECONDS = 60.0
# In an outage: twice a second while a token is needed, twice a minute while the old one still serves.
NEEDED_PAUSE_SECONDS = 0.5
OPTIONAL_PAUSE_SECONDS = 30.0

T = TypeVar("T")


class RenewalTurn(Generic[T]):
    """Runs renewals one after another. Its lock is held during a renewal, and waiting for it is bounded.

    Args:
        clock: Tells the monotonic time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._turn = threading.Lock()
        self._never = threading.Event()
        self._failure: MicromegasError | None = None
        self._failed_subject: object = None
        self._failed_at = 0.0
        self._failure_count = 0

    def run(self, renew: Callable[[], T], *, is_optional: bool, subject: object = None) -> T | None:
        """Return the result of `renew`.

        Args:
            renew: Renews, or finds that another has; raises a `MicromegasError` when it cannot.
            is_optional: Whether the caller can do without now: it then neither waits for another thread nor tries
                again soon after a failure.
            subject: What is renewed; an optional call is not left out for the failure of another subject, such as a
                sign-in before this one.

        Returns:
            None only for an optional call that was left out.

        Raises:
            Unavailable: Another thread renews and does not finish.
            MicromegasError: What `renew` raised, here or in the thread that was waited for.
        """
        failures_seen = self._failure_count
        if is_optional and self._failed_subject == subject and self._pause_left(OPTIONAL_PAUSE_SECONDS) > 0:
            return None
        if not self._turn.acquire(timeout=0 if is_optional else TURN_WAIT_SECONDS):
            if is_optional:
                return None
            raise Unavailable("The token is being renewed and that does not finish.")
        try:
            if self._failure is not None and self._failure_count != failures_seen:
                raise self._failure
            self._never.wait(self._pause_left(NEEDED_PAUSE_SECONDS))
            return self._attempt(renew, subject)
        finally:
            self._turn.release()

    def _attempt(self, renew: Callable[[], T], subject: object) -> T:
        try:
            result = renew()
        except MicromegasError as error:
            self._failure, self._failed_subject = error, subject
            self._failed_at = self._clock.monotonic()
            self._failure_count += 1
            raise
        self._failure = None
        return result

    def _pause_left(self, pause_seconds: float) -> float:
        if self._failure is None:
            return 0.0
        return min(pause_seconds, max(0.0, self._failed_at + pause_seconds - self._clock.monotonic()))
