"""Notices work that goes on although nobody waits for it any more: what was cancelled and does not stop.

Most operators stop at once. Cross joins and their like do not until their current step ends, which may be never; then
only ending the process helps, which whoever is told here decides.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from micromegas_jupyter.engine.thread_probe import ThreadProbe
from micromegas_jupyter.engine.thread_times import ThreadTime, read_thread_times
from micromegas_jupyter.seams import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from micromegas_jupyter.engine.owner import QueryOwner
    from micromegas_jupyter.engine.pool import PlanningPool

GRACE_SECONDS: Final = 1.0
_SUSPICION_SECONDS: Final = 0.45
_LOOK_SECONDS: Final = 0.1
_RARE_LOOK_SECONDS: Final = 0.5
_LATE_SECONDS: Final = 0.2
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

    def stuck(self, why: str, owners: Sequence[QueryOwner]) -> None:
        """It does not stop; said once, with the queries that it may be, the likeliest first."""
        ...


def goes_on_for_long(plan: str) -> bool:
    """Whether a plan has steps that may go on after they are dropped; it only helps to tell whose work goes on."""
    return _LONG_STEPS.search(plan) is not None


@dataclass(frozen=True, slots=True)
class _LetGo:
    """A query that nobody waits for.

    Attributes:
        at: Since when.
        is_long: Whether its plan is of the long kind, and no thread is known yet to have gone on to other work.
        based_at: When `base` was read.
        base: The threads' times then.
        owner: Whose it was.
    """

    at: float
    is_long: bool
    based_at: float
    base: dict[int, ThreadTime]
    owner: QueryOwner | None = None


class Leftovers:
    """Watches what was let go, on a daemon thread that sleeps while there is nothing to watch.

    `_changed` covers the counts and the list.

    Args:
        pool: Where statements are planned.
        events: Who is told.
        clock: Measures.
        read: Tells how busy the engine's threads were.
        probe: Finds out which of them take up work; one of its own when left out.
    """

    def __init__(
        self,
        pool: PlanningPool,
        events: LeftoverEvents,
        *,
        clock: Clock = SYSTEM_CLOCK,
        read: Callable[[], dict[int, ThreadTime]] = read_thread_times,
        probe: ThreadProbe | None = None,
    ) -> None:
        self._pool = pool
        self._events = events
        self._clock = clock
        self._read = read
        self._probe = probe or ThreadProbe(clock)
        self._changed = threading.Condition()
        self._running = 0
        self._owners: list[QueryOwner] = []
        self._idle_since = clock.monotonic()
        self._let_go: list[_LetGo] = []
        self._looked_at = clock.monotonic()
        self._suspected = self._is_told = False
        pool.on_abandoned, pool.on_abandoned_end = self._wake, self._note_abandoned_end
        threading.Thread(target=self._watch, name="leftovers", daemon=True).start()

    def running_queries(self) -> tuple[QueryOwner, ...]:
        """Return the queries that run, those of nobody left out."""
        with self._changed:
            return tuple(self._owners)

    def begin(self, owner: QueryOwner | None = None) -> float:
        """Note that a query runs, and whose it is; return when it began, for `end`."""
        with self._changed:
            self._running += 1
            if owner is not None:
                self._owners.append(owner)
        return self._clock.monotonic()

    def end(self, *, began: float, is_given_up: bool, is_long: bool, owner: QueryOwner | None = None) -> None:
        """Note that a query's stream was let go.

        Args:
            began: When it began.
            is_given_up: Whether it had more rows to give.
            is_long: Whether it was given up and its plan `goes_on_for_long`.
            owner: Whose it is, as `begin` was told.
        """
        now = self._clock.monotonic()
        # What was over soon has left nothing behind; to look would take longer than such a query.
        is_watched = is_given_up or now - began > _SOON_SECONDS
        base = self._read() if is_watched else {}
        with self._changed:
            self._running -= 1
            if owner in self._owners:
                self._owners.remove(owner)
            if not self._running:
                self._idle_since = now
            if is_watched:
                self._add(_LetGo(at=now, is_long=is_long, based_at=self._clock.monotonic(), base=base, owner=owner))

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
        if is_same and not entry.is_long:
            return
        if len(self._let_go) >= _MOST_WATCHED:
            # What was left behind early would show in the newer ones as well.
            oldest = next((one for one in self._let_go if not one.is_long), None)
            if oldest is None:
                return
            self._let_go.remove(oldest)
        self._let_go.append(entry)
        self._changed.notify_all()

    def _watch(self) -> None:
        while True:
            pause = 0.0
            with self._changed:
                if not self._let_go and self._pool.abandoned_since() is None:
                    self._probe.stop()
                    self._suspected = False
                    self._changed.wait()
                else:
                    # While other queries run, busy threads say nothing of what was not of the long kind.
                    is_urgent = not self._running or any(entry.is_long for entry in self._let_go)
                    pause = _LOOK_SECONDS if is_urgent else _RARE_LOOK_SECONDS
                    self._changed.wait(pause)
            self._look(pause)

    def _look(self, pause: float) -> None:
        times, now = self._read(), self._clock.monotonic()
        abandoned = self._pool.abandoned_since()
        if abandoned is not None and now - abandoned > GRACE_SECONDS:
            self._tell(
                "The plan of a query that was cancelled does not come to an end.", [self._pool.abandoned_owner()]
            )
        with self._changed:
            followed = [self._follow(entry, times, now, late_after=pause + _LATE_SECONDS) for entry in self._let_go]
            self._let_go = [entry for entry in followed if entry is not None]
            self._looked_at = now
            watched = tuple(self._let_go)
            idle_seconds = 0.0 if self._running else now - self._idle_since
        is_suspicious = needs_probe = False
        suspects: list[QueryOwner | None] = []
        # Of several that are suspected, one with slow steps is the likeliest.
        for entry in sorted(watched, key=lambda found: not found.is_long):
            seconds = now - entry.at
            culprits = self._culprits(entry, times, now)
            if not culprits or seconds < _SUSPICION_SECONDS:
                continue
            is_alone = idle_seconds > seconds * _BUSY_SHARE
            if not is_alone and entry.is_long:
                # Probes take time of the threads, which small queries need: only where nothing else tells.
                if not self._is_any_silent(culprits, times, entry):
                    self._settle(entry)
                    continue
                needs_probe = True
            if is_alone or entry.is_long:
                is_suspicious = True
                if seconds > GRACE_SECONDS and (is_alone or self._has_probed(entry, seconds)):
                    suspects.append(entry.owner)
        if suspects:
            # Threads do not tell whose work they do: it may be any that was given up and is not accounted for.
            suspects += [entry.owner for entry in watched if entry.is_long and self._culprits(entry, times, now)]
            self._tell("A query that was cancelled does not stop.", suspects)
        if needs_probe:
            self._probe.start(len(times))
        else:
            self._probe.stop()
        self._suspect(is_suspicious=is_suspicious)

    def _settle(self, entry: _LetGo) -> None:
        """Note that the busy threads do other work by now; what may still go on shows when no query runs."""
        with self._changed:
            self._let_go = [replace(one, is_long=False) if one is entry else one for one in self._let_go]

    def _follow(self, entry: _LetGo, times: dict[int, ThreadTime], now: float, *, late_after: float) -> _LetGo | None:
        """Return the entry, as it is to be watched from now on; None when nothing of it goes on."""
        if self._culprits(entry, times, now):
            return entry
        if now - max(self._looked_at, entry.based_at) > late_after:
            # This process stood still, perhaps with the whole machine, and no thread was busy then: begin anew.
            return replace(entry, at=now, based_at=now, base=times)
        is_young = now - entry.based_at < _FEWEST_SECONDS
        return entry if is_young or _has_unpaused(entry.base, times) else None

    def _culprits(self, entry: _LetGo, times: dict[int, ThreadTime], now: float) -> list[int]:
        """Return the threads that have hardly paused since then."""
        enough = _BUSY_SHARE * (now - entry.based_at)
        return [
            thread
            for thread, before in entry.base.items()
            if thread in times and times[thread].busy_seconds - before.busy_seconds > enough
        ]

    def _is_any_silent(self, culprits: list[int], times: dict[int, ThreadTime], entry: _LetGo) -> bool:
        """Whether one of the threads has taken up no other work since then; once it has, it stays so."""
        return any(
            times[thread].pauses - entry.base[thread].pauses <= _FEW_PAUSES
            and self._probe.answered_at.get(thread, 0.0) < entry.at
            for thread in culprits
        )

    def _has_probed(self, entry: _LetGo, seconds: float) -> bool:
        """Whether threads took up probes since then, so that silence says something; or all of them had time to."""
        return seconds > 2 * GRACE_SECONDS or max(self._probe.answered_at.values(), default=0.0) >= entry.at

    def _suspect(self, *, is_suspicious: bool) -> None:
        if is_suspicious and not self._suspected:
            self._events.suspect()
        self._suspected = is_suspicious

    def _tell(self, why: str, owners: Sequence[QueryOwner | None]) -> None:
        if not self._is_told:
            self._is_told = True
            known = {owner.query_id: owner for owner in owners if owner is not None}
            self._events.stuck(why, tuple(known.values()))


def _has_unpaused(base: dict[int, ThreadTime], times: dict[int, ThreadTime]) -> bool:
    """Whether a thread has run since then and not paused: how long it has to wait now is told when it runs again."""
    return any(
        times[thread].pauses == before.pauses and times[thread].busy_seconds > before.busy_seconds
        for thread, before in base.items()
        if thread in times
    )
