"""When a token is due for renewal, and the lock that lets one thread at a time renew it."""

import enum
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import MicromegasError, Unavailable

# Tokens are renewed within the last five minutes or the last quarter of their life, whichever is shorter, so that
# those that live for a few minutes only are usable, too.
MAX_MARGIN = timedelta(minutes=5)
MARGIN_SHARE = 4
# A server that refuses every token must not make a program renew again and again.
FORCED_PAUSE_SECONDS = 10.0
LOCK_WAIT_SECONDS = 60.0
# In an outage: twice a second while a token is needed, twice a minute while the old one is still valid.
NEEDED_PAUSE_SECONDS = 0.5
OPTIONAL_PAUSE_SECONDS = 30.0

T = TypeVar("T")


class Freshness(enum.Enum):
    """How much of a token's life is left."""

    FRESH = enum.auto()
    ENDING = enum.auto()
    ENDED = enum.auto()


def freshness_of(begins_at: datetime | None, ends_at: datetime | None, now: datetime) -> Freshness:
    """Judge a token's life; one without a known end is fresh."""
    if ends_at is None:
        return Freshness.FRESH
    if now >= ends_at:
        return Freshness.ENDED
    return Freshness.ENDING if now >= due_at(begins_at, ends_at) else Freshness.FRESH


def due_at(begins_at: datetime | None, ends_at: datetime) -> datetime:
    """Return when a token should be renewed."""
    margin = MAX_MARGIN if begins_at is None else min(MAX_MARGIN, (ends_at - begins_at) / MARGIN_SHARE)
    return ends_at - margin


class RefreshLock(Generic[T]):
    """Runs renewals one after another: late callers share the failure that they waited for, and failures are spaced.

    Args:
        clock: Tells the monotonic time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failure: MicromegasError | None = None
        self._failed_at = 0.0
        self._failure_count = 0

    def run(self, renew: Callable[[], T], *, is_optional: bool) -> T | None:
        """Return the result of `renew`; None only for an optional call that was left out.

        Args:
            renew: Renews, or finds that another thread has; raises a `MicromegasError` when it cannot.
            is_optional: Whether the caller has a valid token: it then neither waits for another thread nor tries
                again soon after a failure.
        """
        failures_seen = self._failure_count
        if is_optional and self._pause_left(OPTIONAL_PAUSE_SECONDS) > 0:
            return None
        if not self._lock.acquire(timeout=0 if is_optional else LOCK_WAIT_SECONDS):
            if is_optional:
                return None
            raise Unavailable("The token is being renewed, and that does not finish.")
        try:
            if self._failure is not None and self._failure_count != failures_seen:
                raise self._failure
            threading.Event().wait(self._pause_left(NEEDED_PAUSE_SECONDS))
            result = renew()
        except MicromegasError as error:
            if error is not self._failure:
                self._failure, self._failed_at = error, self._clock.monotonic()
                self._failure_count += 1
            raise
        else:
            self._failure = None
            return result
        finally:
            self._lock.release()

    def _pause_left(self, pause_seconds: float) -> float:
        if self._failure is None:
            return 0.0
        return min(pause_seconds, max(0.0, self._failed_at + pause_seconds - self._clock.monotonic()))
