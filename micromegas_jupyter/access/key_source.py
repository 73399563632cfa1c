"""One issuer's keys: fetched when needed, shared by all callers, kept for a while when the provider is down.

Where they come from is `key_fetch`'s job, and how old they may grow is `key_policy`'s rule; which key verifies a token
is not decided here.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from micromegas_jupyter.access.key_events import KeyEvents
from micromegas_jupyter.access.key_fetch import KeyFetch, ProviderDocuments
from micromegas_jupyter.access.key_policy import KeyPolicy
from micromegas_jupyter.access.key_waits import KeysOnTheWay, KeyWait, current_key_wait
from micromegas_jupyter.access.metrics import AccessMetrics
from micromegas_jupyter.access.named_files import ReadFile, read_named_file
from micromegas_jupyter.config.access import IssuerSetting
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.oidc.keys import KeySet

# A fetch is two calls, each with `http`'s total deadline of ten seconds; nobody waits longer for somebody else's.
_JOIN_SECONDS = 30.0
# How often a key file is looked at.
_LOOK_SECONDS = 1.0
_LONG_AGO = float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """What a caller does next.

    Attributes:
        usable: The keys to use, unless a fetch brings others.
        flight: The fetch that the caller waits for, or starts in the background when it does not wait.
        waits: Whether it waits.
        is_mine: Whether it carries out the fetch that it waits for.
        is_late: Whether the keys are older than their refresh interval.
    """

    usable: KeySet | None
    flight: Future[KeySet | None] | None = None
    waits: bool = False
    is_mine: bool = False
    is_late: bool = False


def start_daemon(work: Callable[[], None]) -> None:
    """Run `work` on a thread that does not keep the process alive."""
    threading.Thread(target=work, name="micromegas-key-refresh", daemon=True).start()


class KeySource:
    """One issuer's keys for any number of threads.

    One lock guards the state and is free during I/O; whoever needs keys while a fetch is under way waits for that
    fetch, in the way that `key_waits` says. Nothing is fetched before the first call.

    Args:
        setting: Says where the keys are.
        http: The way to the provider; the caller closes it.
        clock: Tells the time.
        policy: How long keys are believed.
        metrics: Where fetches are counted and the keys' age is reported.
        read_file: Reads the files that the setting names.
        start_background: Starts what nobody waits for.
    """

    def __init__(  # noqa: PLR0913 - the outside world of one source
        self,
        setting: IssuerSetting,
        *,
        http: ProviderDocuments,
        clock: Clock,
        policy: KeyPolicy,
        metrics: AccessMetrics | None = None,
        read_file: ReadFile = read_named_file,
        start_background: Callable[[Callable[[], None]], None] = start_daemon,
    ) -> None:
        self._issuer = setting.issuer
        self._fetch = KeyFetch(setting, http=http, read_file=read_file)
        self._is_file = setting.jwks_file is not None
        self._clock = clock
        self._policy = policy
        self._metrics = metrics
        self._events = KeyEvents(setting.issuer, policy=policy, metrics=metrics)
        self._start_background = start_background
        self._lock = threading.Lock()
        self._keys: KeySet | None = None
        self._fetched_at = 0.0
        self._discovered_at = _LONG_AGO
        self._failures = 0
        # Until then nothing is asked for an unknown key id; after a failure, nothing at all.
        self._gate_opens_at = _LONG_AGO
        self._looked_at = _LONG_AGO
        self._flight: Future[KeySet | None] | None = None
        self.report_age()

    def report_age(self) -> None:
        """Let the metrics report the age of this source's keys, from now on and instead of another source's."""
        if self._metrics is not None:
            self._metrics.watch_keys(self._issuer, self.age_seconds)

    def age_seconds(self) -> float | None:
        """Return how old the keys are; None when there are none."""
        with self._lock:
            return None if self._keys is None else self._clock.monotonic() - self._fetched_at

    def current(self) -> KeySet:
        """Return keys that are fresh, or the last good ones while the provider does not answer.

        Raises:
            Unavailable: There are none, and none can be had now.
            KeysOnTheWay: They are being fetched, and the caller waits outside.
        """
        is_outdated = self._is_file and self._is_outdated()
        with self._lock:
            step = self._next_step(self._clock.monotonic(), is_outdated=is_outdated)
        if step.flight is not None:
            if not step.waits:
                self._fly_in_background(step.flight, rediscover=True)
            else:
                fetched = self._land(step.flight, is_mine=step.is_mine, rediscover=True)
                if fetched is not None:
                    return fetched
        if step.is_late:
            self._events.record_age(self.age_seconds() or 0.0)
        if step.usable is None:
            raise self._unavailable()
        return step.usable

    def newer_than(self, seen: KeySet) -> KeySet:
        """Return a set fetched after `seen`, or `seen` itself when it is too early to ask again.

        Raises:
            Unavailable: The provider does not answer, so whether it has newer keys is not known.
            KeysOnTheWay: It is being asked, and the caller waits outside.
        """
        with self._lock:
            if self._keys is not None and self._keys is not seen:
                return self._keys
            now = self._clock.monotonic()
            is_shut = self._flight is None and now < self._gate_opens_at
            # While the provider is known not to answer, nobody waits for the one who tries again.
            if self._failures and (is_shut or self._flight is not None):
                raise self._unavailable()
            if is_shut:
                return seen
            if self._flight is None and current_key_wait() is KeyWait.NOT_AT_ALL:
                raise self._unavailable()
            flight, is_mine = self._board()
            if is_mine:
                self._gate_opens_at = now + self._policy.cool_down_seconds
            rediscover = now >= self._discovered_at + self._policy.refresh_interval_seconds
        fetched = self._land(flight, is_mine=is_mine, rediscover=rediscover)
        if fetched is None:
            raise self._unavailable()
        return fetched

    def _next_step(self, now: float, *, is_outdated: bool) -> _Step:
        """Decide what a caller of `current` does; called with the lock held."""
        age = now - self._fetched_at
        usable = self._keys if age < self._policy.stale_limit_seconds else None
        if usable is not None and age < self._policy.refresh_ahead_seconds and not is_outdated:
            return _Step(usable=usable)
        is_late = self._keys is not None and age >= self._policy.refresh_interval_seconds
        is_open = not self._failures or now >= self._gate_opens_at or is_outdated
        may_fetch = self._flight is None and is_open and current_key_wait() is not KeyWait.NOT_AT_ALL
        # What was learnt two cool-downs ago says little about now; then somebody waits to see.
        is_known_down = self._failures > 0 and now < self._gate_opens_at + self._policy.cool_down_seconds
        if usable is not None and not is_outdated and (is_known_down or not is_late):
            return _Step(usable=usable, flight=self._board()[0] if may_fetch else None, is_late=is_late)
        if self._flight is None and not may_fetch:
            return _Step(usable=usable, is_late=is_late)
        flight, is_mine = self._board()
        return _Step(usable=usable, flight=flight, waits=True, is_mine=is_mine, is_late=is_late)

    def _is_outdated(self) -> bool:
        with self._lock:
            now = self._clock.monotonic()
            if now < self._looked_at + _LOOK_SECONDS:
                return False
            self._looked_at = now
        return self._fetch.is_outdated()

    def _board(self) -> tuple[Future[KeySet | None], bool]:
        """Return the fetch under way, or a new one and True; called with the lock held."""
        if self._flight is not None:
            return self._flight, False
        self._flight = Future()
        return self._flight, True

    def _land(self, flight: Future[KeySet | None], *, is_mine: bool, rediscover: bool) -> KeySet | None:
        how = current_key_wait()
        if how is not KeyWait.IN_THREAD:
            if is_mine:
                self._fly_in_background(flight, rediscover=rediscover)
            if flight.done():
                return flight.result()
            if how is KeyWait.OUTSIDE:
                raise KeysOnTheWay(flight)
            return None
        if is_mine:
            self._fly(flight, rediscover=rediscover)
        try:
            return flight.result(timeout=_JOIN_SECONDS)
        except TimeoutError:
            return None

    def _fly_in_background(self, flight: Future[KeySet | None], *, rediscover: bool) -> None:
        try:
            self._start_background(lambda: self._fly(flight, rediscover=rediscover))
        except RuntimeError as error:
            # No thread is left for it. Without an end, the flight would be waited for again and again.
            self._fail(error)
            flight.set_result(None)

    def _fly(self, flight: Future[KeySet | None], *, rediscover: bool) -> None:
        started_at = self._clock.monotonic()
        fetched: KeySet | None = None
        try:
            fetched = self._fetch.fetch(rediscover=rediscover)
            self._arrive(fetched, started_at, rediscover=rediscover)
        except BaseException as error:
            self._fail(error)
            # Whatever fails between here and the provider, the keys are not had; only an interrupt goes on.
            if not isinstance(error, Exception):
                raise
        finally:
            flight.set_result(fetched)

    def _arrive(self, fetched: KeySet, started_at: float, *, rediscover: bool) -> None:
        with self._lock:
            previous, previous_age = self._keys, self._clock.monotonic() - self._fetched_at
            self._keys, self._fetched_at, self._failures, self._flight = fetched, started_at, 0, None
            if rediscover:
                self._discovered_at = started_at
        self._events.record_arrival(fetched, previous=previous, previous_age_seconds=previous_age)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            now = self._clock.monotonic()
            has_keys = self._keys is not None and now - self._fetched_at < self._policy.stale_limit_seconds
            self._failures += 1
            self._gate_opens_at = now + self._policy.pause_seconds(failures=self._failures, has_keys=has_keys)
            self._flight = None
        self._events.record_failure(error)

    def _unavailable(self) -> Unavailable:
        return Unavailable(f"The keys of {self._issuer} cannot be fetched at the moment.")
