"""The front's side of the executors: lent to one statement each, killed when no longer wanted, replaced at once.

Nothing here waits for an executor to stop, and new ones start ahead of demand. `statements` has a statement's life.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import InternalError, ResourcesExhausted
from micromegas_jupyter.executors import protocol
from micromegas_jupyter.executors.launcher import (
    CachedPlan,
    Ended,
    Executor,
    ExecutorEnded,
    Process,
    SpawnLauncher,
    ZygoteLauncher,
    run_in_thread,
)
from micromegas_jupyter.executors.scheduling import (
    LONG_SECONDS,
    CallerKey,
    Cause,
    EndedLimit,
    LongStatement,
    RunningLimit,
    choose_largest,
    choose_running,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from micromegas_jupyter.core.protocols import TableSnapshot, TableSource
    from micromegas_jupyter.executors.protocol import Statement
    from micromegas_jupyter.executors.settings import PoolSettings, WorkerOptions

_LOG: Final = logging.getLogger("micromegas_jupyter.executors")
_TICK_SECONDS: Final = 0.1
_FAST_TICK_SECONDS: Final = 0.02  # while much of the memory is in use
_FAST_SHARE: Final = 0.4
_KILL_SHARE: Final = 0.85  # a statement grows between two ticks
_NICENESS: Final = 5
_SHORT_SECONDS: Final = 0.1
_RETIRE_BYTES: Final = 64 * 1024 * 1024
_END_SECONDS: Final = 10.0
_START_SECONDS: Final = 60.0
_STALLED_UNDER_PRESSURE_SECONDS: Final = 30.0


class Running(Protocol):
    """A statement or an upload that has an executor, as far as the pool governs it."""

    caller_key: CallerKey
    executor: Executor | None
    is_upload: bool
    is_stopped: bool
    started_at: float
    slice_at: float
    waits_for_client_since: float | None
    peak_bytes: int

    def __hash__(self) -> int: ...

    def end(self, cause: Cause) -> None:
        """End it, wherever it is; its call raises the error for the cause."""

    def set_stopped(self, now: float, *, is_stopped: bool) -> None:
        """Stop the executor's process, or continue it."""


class Pool:
    """Keeps executors ready and lends them. Belongs to one event loop; the counts may be read from any thread.

    `on_denials_changed` is called when a statement has changed the denied queries, `on_end` with the cause when a
    statement's executor was ended.
    """

    def __init__(  # noqa: PLR0913 - what it is made of
        self,
        launcher: ZygoteLauncher | SpawnLauncher,
        tables: TableSource,
        *,
        settings: PoolSettings,
        options: WorkerOptions,
        clock: Clock = SYSTEM_CLOCK,
        on_denials_changed: Callable[[], None] = lambda: None,
        on_end: Callable[[Cause], None] = lambda _cause: None,
    ) -> None:
        self.settings = settings
        self.options = options
        self.clock = clock
        self.on_denials_changed = on_denials_changed
        self.on_end = on_end
        self.listing = Listing(tables)
        self.slots = RunningLimit(
            max_running=settings.max_executors,
            max_per_caller=settings.max_per_caller,
            queue_timeout_seconds=settings.queue_timeout_seconds,
        )
        self.ended_limit = EndedLimit(settings.max_ended_per_caller, clock=clock)
        self.running: set[Running] = set()
        self._launcher = launcher
        self._executors: dict[int, Executor] = {}
        self._idle: list[Executor] = []
        self._waiting: deque[asyncio.Future[Executor]] = deque()
        self._starting = 0
        self._plan_ids = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_open = False

    @property
    def executor_count(self) -> int:
        """How many executors there are."""
        return len(self._executors)

    @property
    def partitions(self) -> int:
        """In how many partitions a new statement runs: one per processor when it is alone, fewer beside others.

        Each partition costs memory and CPU time of its own, and with many statements at once there is nothing to gain.
        """
        now = self.clock.monotonic()
        working = sum(not one.is_upload and now - one.started_at > _SHORT_SECONDS for one in self.running)
        return max(1, self.settings.processors // (1 + working))

    @property
    def idle_count(self) -> int:
        """How many of them wait for a statement."""
        return len(self._idle)

    async def open(self) -> None:
        """Start the executors ahead of demand; returns when the first one is ready."""
        self._is_open = True
        await self._launcher.open(self._add, self._remove, self._note_failed_start)
        self._refill()
        async with asyncio.timeout(_START_SECONDS):
            self._put_idle(await self.take())
        self._run_in_background(self._govern())

    async def close(self) -> None:
        """End all executors."""
        self._is_open = False
        for task in self._tasks:
            task.cancel()
        for waiting in self._waiting:
            waiting.cancel()
        await self._launcher.close()
        for executor in self._executors.values():
            executor.close()

    def abandon(self) -> None:
        """End the processes of a pool that was never opened."""
        self._launcher.abandon()

    def next_plan_id(self) -> int:
        """Return a number that names a plan."""
        self._plan_ids += 1
        return self._plan_ids

    # Lending.

    def find_plan(self, statement: Statement) -> CachedPlan | None:
        """Return the plan that some idle executor has cached for a statement over the present tables."""
        now = self.clock.monotonic()
        wanted = (self.listing.version, statement)
        for executor in self._idle:
            plan = executor.plan
            if plan is not None and plan.expires_at > now and (plan.version, plan.statement) == wanted:
                return plan
        return None

    async def take(self, plan: CachedPlan | None = None) -> Executor:
        """Return an idle executor, perhaps a new one, until `release` or `discard`; preferably the one with `plan`."""
        executor = self._pick(plan)
        if executor is not None:
            self._refill()
            return executor
        waiting: asyncio.Future[Executor] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._refill()
        try:
            return await waiting
        except asyncio.CancelledError:
            if not waiting.done() or waiting.cancelled():
                with suppress(ValueError):
                    self._waiting.remove(waiting)
            elif waiting.exception() is None:
                self.release(waiting.result(), private_bytes=0)
            raise

    def release(self, executor: Executor, *, private_bytes: int) -> None:
        """Take back an executor that waits for its next request.

        One with lowered priority, much memory or an answer to nothing is ended.
        """
        if executor.is_gone:
            return
        if executor.is_reniced or private_bytes > _RETIRE_BYTES or executor.has_unread:
            self.discard(executor)
        else:
            self._put_idle(executor)

    def discard(self, executor: Executor, *, holds_upload: bool = False) -> None:
        """End an executor, whatever it does; one with an upload removes its rows if it can do so soon."""
        if holds_upload:
            executor.leave()
        else:
            executor.kill()
        self._refill()

    def _pick(self, plan: CachedPlan | None) -> Executor | None:
        if not self._idle:
            return None
        found = None
        if plan is not None:
            found = next((one for one in self._idle if one.plan is plan), None)
        if found is None:
            now = self.clock.monotonic()
            # The one that was used last has the most in its caches; those whose plan may be requested come last.
            free = (one for one in reversed(self._idle) if one.plan is None or one.plan.expires_at <= now)
            found = next(free, None) or min(self._idle, key=lambda one: one.plan.expires_at if one.plan else 0.0)
        self._idle.remove(found)
        if found.plan is not plan:
            found.plan = None
        return found

    def _put_idle(self, executor: Executor) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(executor)
                return
        if len(self._idle) >= max(self.settings.max_idle_executors, self.settings.spare_executors):
            executor.kill()
        else:
            self._idle.append(executor)

    # Processes.

    def _refill(self) -> None:
        if not self._is_open:
            return
        settings = self.settings
        living = sum(not one.is_gone for one in self._executors.values()) + self._starting
        wanted = settings.spare_executors + len(self._waiting) - len(self._idle) - self._starting
        max_living = settings.max_executors + settings.max_uploads + settings.spare_executors
        for _ in range(min(wanted, max_living - living)):
            self._starting += 1
            self._launcher.start_one()

    def _add(self, process: Process, connection: socket.socket) -> None:
        executor = self._executors[process.pid] = Executor(process, connection)
        self._run_in_background(self._welcome(executor))

    async def _welcome(self, executor: Executor) -> None:
        """Wait until a new executor is ready; one that does not get so is ended, and counted when its end is known."""
        try:
            async with asyncio.timeout(_START_SECONDS):
                kind, body = await executor.read()
            if kind != protocol.READY:
                raise ExecutorEnded  # noqa: TRY301 - as one that does not answer
            facts = protocol.parse_json(body)
            executor.baseline_bytes = int(facts.get("baseline_bytes", 0))
            executor.baseline_private_bytes = int(facts.get("private_bytes", 0))
        except (ExecutorEnded, InternalError, TimeoutError):
            executor.kill()
            return
        executor.is_ready = True
        self._starting -= 1
        self._put_idle(executor)

    def _remove(self, pid: int, ended: Ended) -> None:
        executor = self._executors.pop(pid, None)
        if executor is None:
            return
        executor.is_gone = True
        if not executor.ended.done():
            executor.ended.set_result(ended)
        executor.close()
        with suppress(ValueError):
            self._idle.remove(executor)
        if not executor.is_ready:
            self._starting -= 1
            _LOG.error("An executor ended before it was ready.", extra={"exit_code": ended.code, "stderr": ended.error})
        self._refill()

    def _note_failed_start(self) -> None:
        self._starting -= 1
        if not self._executors:
            while self._waiting:
                waiting = self._waiting.popleft()
                if not waiting.done():
                    waiting.set_exception(
                        ResourcesExhausted("The server cannot start a process for this statement.", remedy="Try later.")
                    )

    def _run_in_background(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def await_end(self, executor: Executor) -> Ended:
        """Return how an executor ended that has ended, or was discarded."""
        try:
            async with asyncio.timeout(_END_SECONDS):
                return await asyncio.shield(executor.ended)
        except TimeoutError:
            return Ended()

    # Long statements, memory, stalled clients.

    async def _govern(self) -> None:
        share = 0.0
        while True:
            await asyncio.sleep(_FAST_TICK_SECONDS if share > _FAST_SHARE else _TICK_SECONDS)
            try:
                share = self._govern_once()
            except Exception:  # noqa: BLE001 - the next round must come
                _LOG.exception("governing executors failed")

    def _govern_once(self) -> float:
        """Schedule and limit all running statements once; return the share of the memory that is in use."""
        now = self.clock.monotonic()
        self._schedule(now)
        self._end_stalled(now)
        used = {one: _private_bytes(one.executor) for one in self.running if one.executor is not None}
        limit_bytes = int(self.settings.memory_bytes * _KILL_SHARE)
        largest = choose_largest(used, limit_bytes=limit_bytes)
        if largest is not None:
            largest.end(Cause.MEMORY)
        for one, size in used.items():
            one.peak_bytes = max(one.peak_bytes, size)
        return sum(used.values()) / self.settings.memory_bytes

    def _schedule(self, now: float) -> None:
        working: dict[Running, LongStatement[Running]] = {}
        for one in self.running:
            if one.executor is None or one.is_upload or now - one.started_at < LONG_SECONDS:
                continue
            self._renice(one.executor)
            if one.waits_for_client_since is None:
                working[one] = LongStatement(
                    key=one, caller=one.caller_key, is_stopped=one.is_stopped, slice_at=one.slice_at
                )
            elif one.is_stopped:
                one.set_stopped(now, is_stopped=False)
        if not hasattr(signal, "SIGSTOP"):
            return
        chosen = choose_running(list(working.values()), slots=self.settings.processors, now=now)
        for one in working:
            one.set_stopped(now, is_stopped=one not in chosen)

    def _renice(self, executor: Executor) -> None:
        if executor.is_reniced:
            return
        executor.is_reniced = True
        if hasattr(os, "setpriority"):
            with suppress(OSError):
                os.setpriority(os.PRIO_PGRP, executor.process.pid, _NICENESS)

    def _end_stalled(self, now: float) -> None:
        limit = self.settings.write_timeout_seconds
        if self.slots.waiting_count:
            limit = min(limit, _STALLED_UNDER_PRESSURE_SECONDS)
        for one in self.running:
            if one.waits_for_client_since is not None and now - one.waits_for_client_since > limit:
                one.end(Cause.STALLED)


def _private_bytes(executor: Executor | None) -> int:
    """Return an executor's anonymous memory beyond what it had when it started; 0 where that is unknown."""
    if executor is None:
        return 0
    try:
        with open(f"/proc/{executor.process.pid}/statm", "rb") as stream:  # noqa: PTH123 - ten times a second for each
            _, resident, shared, *_ = stream.read().split()
    except (OSError, ValueError):
        return 0
    anonymous = (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
    return max(0, anonymous - executor.baseline_private_bytes)


# Every statement that reads or lists tables has one of these words.
_READS_TABLES: Final = re.compile(r"\b(?:from|table|show|describe|desc|explain)\b", re.IGNORECASE)


class Listing:
    """The tables, listed on a thread since storage may hang. Belongs to one event loop.

    A statement sees whatever was committed before it came in: it waits for a listing that begins after that. Those that
    come in during a listing share the next one.
    """

    def __init__(self, source: TableSource) -> None:
        self._source = source
        self._current: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None
        self.version = 0
        self.tables: Sequence[TableSnapshot] = ()

    async def refresh_for(self, sql: str) -> None:
        """Wait for a listing that begins after this call, unless the statement reads no table."""
        if not self.version or _READS_TABLES.search(sql) is not None:
            await self.refresh()

    async def refresh(self) -> None:
        """Wait for a listing that begins after this call; Unavailable when the tables cannot be listed."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._list(self._current))
            # Looks at a failure that nobody may wait for any more, so that asyncio does not log it.
            self._next.add_done_callback(lambda task: task.cancelled() or task.exception())
        # Shielded: others wait for the same listing.
        await asyncio.shield(self._next)

    async def _list(self, previous: asyncio.Task[None] | None) -> None:
        if previous is not None and not previous.done():
            await asyncio.wait({previous})
        self._current, self._next = self._next, None
        tables = tuple(await run_in_thread(self._source.snapshot, name="table-listing"))
        if tables != self.tables or not self.version:
            self.tables = tables
            self.version += 1
