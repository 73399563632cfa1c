"""Notices work that goes on although nobody waits for it any more: what was cancelled and does not stop.

Most operators stop at once. Cross joins and their like do not until their current step ends, which may be never; then
only ending the process helps, which whoever is told here decides.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from micromegas_jupyter.engine.thread_probe import ThreadProbe
from micromegas_jupyter.engine.thread_times import ThreadTime, read_thread_times
from micromegas_jupyter.seams import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from micromegas_jupyter.engine.pool import PlanningPool

GRACE_SECONDS: Final = 1.0
_SUSPICION_SECONDS: Final = 0.45
_LOOK_SECONDS: Final = 0.1
_SOON_SECONDS: Final = 0.3
_MERGED_SECONDS: Final = 0.2
_MOST_WATCHED: Final = 32
_BUSY_SHARE: Final = 0.6
_FEW_PAUSES: Final = 3
_FEWEST_SECONDS: Final = 0.5

#: Steps of a plan, and functions, that were seen to go on for long after they were dropped.
_LONG_STEPS: Final = re.compile(
    r"Join|Recursive|Unnest|Sort|Window|regexp|levenshtein|array|list_|repeat\(", re.IGNORECASE
)


class LeftoverEvents(Protocol):
    """Who is told; called on a thread of the engine's, and must not block long."""

    def suspect(self) -> None:
        """Something was cancelled and still runs."""
        ...

    def stuck(self, why: str) -> None:
        """It does not stop; said once."""
        ...


def goes_on_for_long(plan: str) -> bool:
    """Whether a plan has steps that may go on after they are dropped; it only helps to tell whose work goes on."""
    return _LONG_STEPS.search(plan) is not None


@dataclass(frozen=True, slots=True)
class _LetGo:
    """A query that nobody waits for: since when, whether its plan is of the long kind, the threads' times then."""

    at: float
    is_long: bool
    based_at: float
    base: dict[int, ThreadTime]


class Leftovers:
    """Watches what was let go, on a daemon thread that sleeps while there is nothing to watch.

    `_changed` covers the counts and the list.

    Args:
        pool: Where statements are planned.
        events: Who is told.
        clock: Measures.
        read: Tells how busy the engine's threads were.
    """

    def __init__(
        self,
        pool: PlanningPool,
        events: LeftoverEvents,
        *,
        clock: Clock = SYSTEM_CLOCK,
        read: Callable[[], dict[int, ThreadTime]] = read_thread_times,
    ) -> None:
        self._pool = pool
        self._events = events
        self._clock = clock
        self._read = read
        self._probe = ThreadProbe(clock)
        self._changed = threading.Condition()
        self._running = 0
        self._idle_since = clock.monotonic()
        self._let_go: list[_LetGo] = []
        self._suspected = self._is_told = False
        pool.on_abandoned, pool.on_abandoned_end = self._wake, self._note_abandoned_end
        threading.Thread(target=self._watch, name="leftovers", daemon=True).start()

    def begin(self) -> float:
        """Note that a query runs; return when it began, for `end`."""
        with self._changed:
            self._running += 1
        return self._clock.monotonic()

    def end(self, *, began: float, is_given_up: bool, is_long: bool) -> None:
        """Note that a query's stream was let go.

        Args:
            began: When it began.
            is_given_up: Whether it had more rows to give.
            is_long: Whether it was given up and its plan `goes_on_for_long`.
        """
        now = self._clock.monotonic()
        # What was over soon has left nothing behind; to look would take longer than such a query.
        is_watched = is_given_up or now - began > _SOON_SECONDS
        base = self._read() if is_watched else {}
        with self._changed:
            self._running -= 1
            if not self._running:
                self._idle_since = now
            if is_watched:
                self._add(_LetGo(at=now, is_long=is_long, based_at=self._clock.monotonic(), base=base))

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _note_abandoned_end(self) -> None:
        # It may have begun to run the query, whose stream nobody takes.
        base, now = self._read(), self._clock.monotonic()
        with self._changed:
            self._add(_LetGo(at=now, is_long=True, based_at=now, base=base))

    def _add(self, entry: _LetGo) -> None:
        newest = self._let_go[-1] if self._let_go else None
        is_same = newest is not None and newest.is_long == entry.is_long and entry.at - newest.at < _MERGED_SECONDS
        if not is_same and len(self._let_go) < _MOST_WATCHED:
            self._let_go.append(entry)
            self._changed.notify_all()

    def _watch(self) -> None:
        while True:
            with self._changed:
                if not self._let_go and self._pool.abandoned_since() is None:
                    self._probe.stop()
                    self._suspected = False
                    self._changed.wait()
                else:
                    self._changed.wait(_LOOK_SECONDS)
            self._look()

    def _look(self) -> None:
        times, now = self._read(), self._clock.monotonic()
        abandoned = self._pool.abandoned_since()
        if abandoned is not None and now - abandoned > GRACE_SECONDS:
            self._tell("The plan of a query that was cancelled does not come to an end.")
        with self._changed:
            self._let_go = [entry for entry in self._let_go if self._may_go_on(entry, times, now)]
            watched = tuple(self._let_go)
            idle_seconds = 0.0 if self._running else now - self._idle_since
        for entry in watched:
            seconds = now - entry.at
            culprits = self._culprits(entry, times, now)
            if not culprits or seconds < _SUSPICION_SECONDS:
                continue
            is_alone = idle_seconds > seconds * _BUSY_SHARE
            if not is_alone:
                self._probe.start(len(times))
            if is_alone or entry.is_long:
                self._suspect()
            if seconds > GRACE_SECONDS and (is_alone or (entry.is_long and self._is_any_silent(culprits, entry))):
                self._tell("A query that was cancelled does not stop.")

    def _may_go_on(self, entry: _LetGo, times: dict[int, ThreadTime], now: float) -> bool:
        return now - entry.based_at < _FEWEST_SECONDS or bool(self._culprits(entry, times, now))

    def _culprits(self, entry: _LetGo, times: dict[int, ThreadTime], now: float) -> list[int]:
        """Return the threads that have hardly paused since then."""
        enough = _BUSY_SHARE * (now - entry.based_at)
        return [
            thread
            for thread, before in entry.base.items()
            if thread in times and times[thread].busy_seconds - before.busy_seconds > enough
        ]

    def _is_any_silent(self, culprits: list[int], entry: _LetGo) -> bool:
        """Whether one of the threads has taken up no other work since then, although there was some."""
        now = self._read()
        return any(
            thread in now
            and now[thread].pauses - entry.base[thread].pauses <= _FEW_PAUSES
            and self._probe.answered_at.get(thread, 0.0) < entry.at
            for thread in culprits
        )

    def _suspect(self) -> None:
        if not self._suspected:
            self._suspected = True
            self._events.suspect()

    def _tell(self, why: str) -> None:
        if not self._is_told:
            self._is_told = True
            self._events.stuck(why)
