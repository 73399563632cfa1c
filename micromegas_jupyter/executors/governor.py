"""Which statements have the processors, and which are ended: for memory, their deadline, or a client that stalls."""

import asyncio
import logging
import os
import signal
from collections.abc import Collection, Iterable
from typing import Final, Protocol, TypeVar

from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.executors.launcher import Executor
from micromegas_jupyter.executors.scheduling import CallerKey, Cause, ProcessorUse, RunningLimit
from micromegas_jupyter.executors.settings import PoolSettings

_LOG: Final = logging.getLogger("micromegas_jupyter.executors")
SHORT_SECONDS: Final = 0.1
LONG_NICENESS: Final = 10
_TICK_SECONDS: Final = 0.1
_FAST_TICK_SECONDS: Final = 0.02  # while much of the memory is in use
_FAST_SHARE: Final = 0.4
_KILL_SHARE: Final = 0.85  # a statement grows between two ticks
_LONG_SECONDS: Final = 1.0  # long statements share a few slots, each for a slice
_SLICE_SECONDS: Final = 1.0
_STALLED_UNDER_PRESSURE_SECONDS: Final = 30.0


class _Statement(Protocol):
    """A statement as its governor sees it; times are monotonic."""

    caller_key: CallerKey
    executor: Executor | None
    peak_bytes: int
    created_at: float
    started_at: float
    slice_at: float
    waits_for_client_since: float | None
    is_stopped: bool

    def set_stopped(self, now: float, *, is_stopped: bool) -> None: ...

    def charge(self) -> None: ...

    def end(self, cause: Cause) -> None: ...


S = TypeVar("S", bound=_Statement)


class Governor:
    """Looks at the statements of a pool several times a second: those that are `running`, and all `open_calls`."""

    def __init__(  # noqa: PLR0913 - the parts of a pool
        self,
        running: Collection[_Statement],
        open_calls: Iterable[_Statement],
        *,
        settings: PoolSettings,
        clock: Clock,
        use: ProcessorUse,
        limits: Collection[RunningLimit],
    ) -> None:
        self._running = running
        self._open_calls = open_calls
        self._settings = settings
        self._clock = clock
        self._use = use
        self._limits = limits  # of what readers that stall keep others from

    async def govern(self) -> None:
        """Govern all statements until the task is cancelled."""
        share = 0.0
        while True:
            await asyncio.sleep(_FAST_TICK_SECONDS if share > _FAST_SHARE else _TICK_SECONDS)
            try:
                share = self._govern_once()
            except Exception:  # noqa: BLE001 - the next round must come
                _LOG.exception("governing executors failed")

    def _govern_once(self) -> float:
        """Schedule and limit all running statements once; return the share of the memory that is in use."""
        now = self._clock.monotonic()
        for one in self._running:
            one.charge()
        self._schedule(now)
        self._end_overdue(now)
        self._end_stalled(now)
        used = {one: _private_bytes(one.executor) for one in self._running if one.executor is not None}
        share = sum(used.values()) / self._settings.memory_bytes
        if share > _KILL_SHARE:
            max(used, key=lambda one: used[one]).end(Cause.MEMORY)
        for one, size in used.items():
            one.peak_bytes = max(one.peak_bytes, size)
        return share

    def _schedule(self, now: float) -> None:
        working = []
        for one in self._running:
            seconds = now - one.started_at
            if one.executor is None or seconds < SHORT_SECONDS:
                continue
            if seconds >= _LONG_SECONDS:
                one.executor.renice(LONG_NICENESS)
            elif not self._use.is_heavy(one.caller_key):
                continue
            if one.waits_for_client_since is None:
                working.append(one)
            elif one.is_stopped:
                one.set_stopped(now, is_stopped=False)
        if hasattr(signal, "SIGSTOP"):
            chosen = choose_running(working, slots=self._settings.processors, now=now)
            for one in working:
                one.set_stopped(now, is_stopped=one not in chosen)

    def _end_overdue(self, now: float) -> None:
        limit = self._settings.statement_timeout_seconds
        for one in tuple(self._open_calls):
            if limit is None or now - one.created_at < limit:
                break
            one.end(Cause.DEADLINE)

    def continue_stopped(self) -> None:
        """Let a stopped statement take the place of one that has ended."""
        if any(one.is_stopped for one in self._running):
            self._schedule(self._clock.monotonic())

    def _end_stalled(self, now: float) -> None:
        limit = self._settings.write_timeout_seconds
        if any(one.waiting_count for one in self._limits):
            limit = min(limit, _STALLED_UNDER_PRESSURE_SECONDS)
        for one in self._running:
            if one.waits_for_client_since is not None and now - one.waits_for_client_since > limit:
                one.end(Cause.STALLED)


def choose_running(statements: Collection[S], *, slots: int, now: float) -> set[S]:
    """Return the long statements that run from now on, at most `slots`; each has work to do.

    The slice of a statement began at its `slice_at` (monotonic), or ended then when it is stopped.
    """
    if len(statements) <= slots:
        return set(statements)
    # A statement in the middle of a slice keeps running, the longest-running first where there are too many.
    in_slice = [one for one in statements if not one.is_stopped and now - one.slice_at < _SLICE_SECONDS]
    chosen = set(sorted(in_slice, key=lambda one: one.slice_at)[:slots])
    served = {one.caller_key for one in chosen}
    waiting = [one for one in statements if one not in chosen]
    last_ran_at = {one: one.slice_at if one.is_stopped else now for one in statements}
    last_served: dict[CallerKey, float] = {}
    for one, at in last_ran_at.items():
        last_served[one.caller_key] = max(at, last_served.get(one.caller_key, at))
    while len(chosen) < slots:
        # A caller without a slot comes first; then the caller, and the statement, that has waited longest.
        following = min(
            waiting, key=lambda one: (one.caller_key in served, last_served[one.caller_key], last_ran_at[one])
        )
        waiting.remove(following)
        chosen.add(following)
        served.add(following.caller_key)
        last_served[following.caller_key] = now
    return chosen


def _private_bytes(executor: Executor) -> int:
    """Return an executor's anonymous memory beyond what it had when it started; 0 where that is unknown."""
    try:
        with open(f"/proc/{executor.process.pid}/statm", "rb") as stream:  # noqa: PTH123 - ten times a second for each
            _, resident, shared, *_ = stream.read().split()
    except (OSError, ValueError):
        return 0
    anonymous = (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
    return max(0, anonymous - executor.baseline_private_bytes)
