"""A pool of executors, and the life cycle of one statement or upload.

Whatever a call's outcome, its executor is released if it waits for the next request, and killed otherwise.
"""

import asyncio
import json
import logging
import signal
import socket
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from cachetools import TTLCache

from micromegas_jupyter.core.protocols import AuthContext, TableSource
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.engine.contract import ANY, Reads, ScanProgress, TableFiles
from micromegas_jupyter.engine.partition_calls import PartitionCall
from micromegas_jupyter.errors import InternalError, MicromegasError, ResourcesExhausted, StatementRefused, Unavailable
from micromegas_jupyter.executors import protocol
from micromegas_jupyter.executors.launcher import (
    CachedPlan,
    Ended,
    Executor,
    ExecutorEnded,
    Process,
    SpawnLauncher,
    ZygoteLauncher,
    await_shared,
)
from micromegas_jupyter.executors.listing import Listing
from micromegas_jupyter.executors.protocol import Output, Statement
from micromegas_jupyter.executors.scheduling import (
    CHARGED,
    LONG_NICENESS,
    SHORT_SECONDS,
    CallerKey,
    Cause,
    EndedLimit,
    Governor,
    ProcessorUse,
    RunningLimit,
    StartQueue,
    build_error,
    find_cause,
    queue_full,
)
from micromegas_jupyter.executors.settings import PoolSettings, WorkerOptions
from micromegas_jupyter.flightsql.framing import ParameterLimits

_LOG: Final = logging.getLogger("micromegas_jupyter.executors")
_HEAVY_NICENESS: Final = 5  # for statements whose callers use a lot of CPU time
_BUCKET_STARTS: Final = 4  # per processor: statements that read a bucket spend most of their time waiting
_RETIRE_BYTES: Final = 64 * 1024 * 1024
_END_SECONDS: Final = 10.0
_START_SECONDS: Final = 60.0
_START_AGAIN_SECONDS: Final = 1.0  # after a failed start, while statements wait for an executor
# The front end has two copies of a result frame until its client receives it. Large rows or dictionaries (up to 64 MiB)
# are therefore limited to a few at a time.
_LARGE_FRAME_BYTES: Final = 4 * 1024 * 1024
_MAX_LARGE_FRAMES: Final = 8
_MAX_LARGE_FRAMES_PER_CALLER: Final = 2
_PLAN_SECONDS: Final = 2.0
_SCHEMAS_SECONDS: Final = 60.0
_MAX_SCHEMAS: Final = 256
_MAX_SCHEMAS_BYTES: Final = 16 * 1024  # per statement
_LISTING_SECONDS: Final = 0.25
_REPORTED: Final = (
    "planning_seconds", "context_init_seconds", "execution_seconds", "cpu_seconds", "peak_memory_bytes",
    "files_total", "files_read", "rows_scanned", "bytes_scanned", "spilled_bytes", "spill_count",
)  # fmt: skip
_MAX_NUMBER: Final = 2**63
# Executors send at most 16 KiB. Measured as ASCII JSON, because a character takes up to twelve bytes of an audit line.
_MAX_READS_BYTES: Final = 24 * 1024
_TOGETHER_BYTES: Final = 64 * 1024
_MAX_READS: Final = ParameterLimits().max_rows + 1  # one per row of parameters
_MAX_LOGGED_STDERR: Final = 300
_LOGGED: Final = frozenset({"micromegas_jupyter.engine", "micromegas_jupyter.lake", "micromegas_jupyter.server"})
_MAX_CACHED_SQL_CHARACTERS: Final = 16 * 1024


class Pool:
    """Keeps executors ready for statements. Belongs to one event loop; any thread may read the counts."""

    def __init__(
        self,
        launcher: ZygoteLauncher | SpawnLauncher,
        tables: TableSource,
        *,
        settings: PoolSettings,
        options: WorkerOptions,
    ) -> None:
        self.settings = settings
        self.options = options
        self.clock = SYSTEM_CLOCK
        self.on_denials_changed: Callable[[], None] = lambda: None
        self.on_end: Callable[[Cause], None] = lambda _cause: None  # called for a killed statement
        self.listing = Listing(tables)
        self.slots = RunningLimit(
            max_running=settings.max_executors,
            max_per_caller=settings.max_per_caller,
            queue_timeout_seconds=settings.queue_timeout_seconds,
        )
        self.large_frames = RunningLimit(
            max_running=_MAX_LARGE_FRAMES,
            max_per_caller=_MAX_LARGE_FRAMES_PER_CALLER,
            queue_timeout_seconds=settings.write_timeout_seconds,
        )
        self.ended_limit = EndedLimit(settings.max_ended_per_caller, clock=self.clock)
        self.use = ProcessorUse(processors=settings.processors, clock=self.clock)
        starts = settings.processors * (_BUCKET_STARTS if options.uses_bucket else 1)
        self.starts = StartQueue(self.use, max_starts=starts, clock=self.clock)
        self.running: set[RunningStatement] = set()
        self.open_calls: dict[RunningStatement, None] = {}  # including those that are waiting to run, oldest first
        self.plan_ids = count(1)
        #: The schemas of planned statements, by table version, statement, and caller.
        self.schemas: TTLCache[tuple[int, Statement], tuple[bytes, bytes]] = TTLCache(
            _MAX_SCHEMAS, _SCHEMAS_SECONDS, self.clock.monotonic
        )
        self.governor = Governor(
            self.running,
            self.open_calls,
            settings=settings,
            clock=self.clock,
            use=self.use,
            limits=(self.slots, self.large_frames),
        )
        self._launcher = launcher
        self._executors: dict[int, Executor] = {}
        self._idle: list[Executor] = []
        self._detached: set[Executor] = set()
        self._waiting: deque[asyncio.Future[Executor]] = deque()
        self._starting = 0
        self._next_start: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_open = False

    @property
    def executor_count(self) -> int:
        """The number of executors for statements."""
        return len(self._executors) - len(self._detached)

    @property
    def partitions(self) -> int:
        """The number of partitions for a new statement: one per processor if it runs alone, otherwise fewer."""
        now = self.clock.monotonic()
        working = sum(now - one.started_at > SHORT_SECONDS for one in self.running)
        return max(1, self.settings.processors // (1 + working))

    @property
    def idle_count(self) -> int:
        """The number of idle executors."""
        return len(self._idle)

    async def open(self) -> None:
        """Start executors ahead of demand; return once the first one is known to work."""
        self._is_open = True
        await self._launcher.open(self._add, self._remove, self._note_failed_start)
        self._refill()
        async with asyncio.timeout(_START_SECONDS):
            executor = await self.take()
            await executor.send(protocol.CHECK, b"")
            kind, body = await executor.read()
            if kind == protocol.ERROR:
                raise protocol.parse_error(protocol.parse_json(body))
            self._put_idle(executor)
        self.run_in_background(self.governor.govern())

    async def close(self) -> None:
        """Stop all executors."""
        self._is_open = False
        if self._next_start is not None:
            self._next_start.cancel()
        for task in self._tasks:
            task.cancel()
        for waiting in self._waiting:
            waiting.cancel()
        await self._launcher.close()
        for executor in self._executors.values():
            executor.close()

    def abandon(self) -> None:
        """Stop the processes of a pool that has never been opened."""
        self._launcher.abandon()

    # Assigning executors.

    def find_plan(self, statement: Statement) -> CachedPlan | None:
        """Return an idle executor's cached plan for a statement over the current tables, or None."""
        now = self.clock.monotonic()
        wanted = (self.listing.version, statement)
        for executor in self._idle:
            plan = executor.plan
            if plan is not None and plan.expires_at > now and (plan.version, plan.statement) == wanted:
                return plan
        return None

    def try_take(self, plan: CachedPlan | None = None, *, niceness: int = 0) -> Executor | None:
        """Return an idle executor like `take`, or None."""
        while (executor := self._pick(plan, niceness)) is not None:
            if not executor.has_unread:
                self._refill()
                break
            self.discard(executor)
        return executor

    async def take(self, plan: CachedPlan | None = None, *, niceness: int = 0) -> Executor:
        """Return an idle or new executor, preferably the one with `plan`, until `release` or `discard`.

        It has the priority `niceness`, or its priority can still be lowered to that.
        """
        executor = self.try_take(plan, niceness=niceness)
        if executor is not None:
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

    async def detach(self) -> Executor:
        """Return an executor for work other than statements; it isn't counted as an executor, and stops with the pool.

        Raises ResourcesExhausted if none is available in time.
        """
        try:
            async with asyncio.timeout(_START_SECONDS):
                executor = await self.take()
        except TimeoutError:
            raise _no_process() from None
        executor.plan = None
        self._detached.add(executor)
        self._refill()
        return executor

    def release(self, executor: Executor, *, private_bytes: int) -> None:
        """Return an executor that is waiting for a request, or kill it if it is old, large, or has unread data."""
        if executor.is_gone:
            return
        if executor.niceness == LONG_NICENESS or private_bytes > _RETIRE_BYTES or executor.has_unread:
            self.discard(executor)
        else:
            self._put_idle(executor)

    def discard(self, executor: Executor) -> None:
        """Kill an executor, even while it is working."""
        executor.kill()
        self._refill()

    def _pick(self, plan: CachedPlan | None, niceness: int) -> Executor | None:
        found = next((one for one in self._idle if plan is not None and one.plan is plan), None)
        if found is None:
            idle = [one for one in self._idle if one.niceness == niceness] or self._idle_at_full_priority()
            now = self.clock.monotonic()
            # Prefer the most recently used one, which has the warmest caches; use those with a useful plan last.
            free = (one for one in reversed(idle) if one.plan is None or one.plan.expires_at <= now)
            found = next(free, None) or min(
                idle, key=lambda one: one.plan.expires_at if one.plan else 0.0, default=None
            )
            if found is None:
                return None
        self._idle.remove(found)
        if found.plan is not plan:
            found.plan = None
        return found

    def _put_idle(self, executor: Executor) -> None:
        max_idle = self.settings.spare_executors
        if not executor.niceness:
            if (waiting := self._next_waiting()) is not None:
                waiting.set_result(executor)
                return
            max_idle = max(max_idle, self.settings.max_idle_executors)
        if sum(one.niceness == executor.niceness for one in self._idle) < max_idle:
            self._idle.append(executor)
        else:
            executor.kill()
        if executor.niceness:
            self._refill()  # if statements are waiting for an executor with full priority, one is started

    def _idle_at_full_priority(self) -> list[Executor]:
        return [one for one in self._idle if not one.niceness]

    def _next_waiting(self) -> asyncio.Future[Executor] | None:
        while self._waiting:
            if not (waiting := self._waiting.popleft()).done():
                return waiting
        return None

    # Managing processes.

    def _refill(self) -> None:
        if not self._is_open:
            return
        settings = self.settings
        wanted = settings.spare_executors + len(self._waiting) - len(self._idle_at_full_priority()) - self._starting
        if wanted <= 0:
            return
        living = sum(not one.is_gone for one in self._executors.values()) + self._starting - len(self._detached)
        room = settings.max_executors + settings.spare_executors - living
        for one in [one for one in self._idle if one.niceness][: max(0, wanted - room)]:
            self._idle.remove(one)
            one.kill()
            room += 1
        for _ in range(min(wanted, room)):
            self._starting += 1
            self._launcher.start_one()

    def _add(self, process: Process, connection: socket.socket) -> None:
        executor = self._executors[process.pid] = Executor(process, connection)
        self.run_in_background(self._welcome(executor))

    async def _welcome(self, executor: Executor) -> None:
        """Wait until a new executor is ready; if it fails, kill it, and count it once it has exited."""
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
        if executor in self._detached and not executor.is_gone:
            _LOG.error(
                "A process of the lake has ended.",
                extra={"exit_code": ended.code, "stderr": ended.error[-_MAX_LOGGED_STDERR:].strip()},
            )
        executor.is_gone = True
        self._detached.discard(executor)
        if not executor.ended.done():
            executor.ended.set_result(ended)
        executor.close()
        with suppress(ValueError):
            self._idle.remove(executor)
        if not executor.is_ready:
            self._starting -= 1
            _LOG.error("An executor exited before being ready.", extra={"exit_code": ended.code, "stderr": ended.error})
        self._refill()

    def _note_failed_start(self) -> None:
        self._starting -= 1
        if self._starting or any(not one.is_gone for one in self._executors.values() if one not in self._detached):
            if self._waiting and self._next_start is None:
                # The busy executors may take longer than the callers are willing to wait.
                self._next_start = asyncio.get_running_loop().call_later(_START_AGAIN_SECONDS, self._start_again)
            return
        while (waiting := self._next_waiting()) is not None:
            waiting.set_exception(_no_process())

    def _start_again(self) -> None:
        self._next_start = None
        self._refill()

    def run_in_background(self, work: Any) -> asyncio.Task[None]:
        """Run work until it finishes or the pool is closed."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def await_end(self, executor: Executor) -> Ended:
        """Return how an executor exited, whether discarded or on its own; a cancellation doesn't interrupt the wait."""
        try:
            await asyncio.wait({executor.ended}, timeout=_END_SECONDS)
        except asyncio.CancelledError:  # the client's call is often canceled after a failed write
            await asyncio.wait({executor.ended}, timeout=_END_SECONDS)
        return executor.ended.result() if executor.ended.done() else Ended()


def _no_process() -> ResourcesExhausted:
    return ResourcesExhausted(
        "The server cannot start a process for this call.", remedy="Try again later.", limit="queue"
    )


def tables_not_listed() -> Unavailable:
    """Return the error for a statement that waited too long for a listing."""
    return Unavailable(
        "The tables could not be listed in time.",
        remedy="Try again in a moment. If this persists, contact the server's administrator.",
    )


class ClientGone(Exception):
    """The client disconnected while rows were being sent to it."""


@dataclass(slots=True, kw_only=True)
class StatementReport:
    """A statement's resource usage so far; unknown values are None."""

    rows: int = 0
    waiting_seconds: float = 0.0  # until it had an executor
    planning_seconds: float | None = None  # until it was planned, including the creation of the session
    context_init_seconds: float = 0.0  # listing and registering tables
    execution_seconds: float = 0.0  # physical planning and starting the streams
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None  # of the executor, in addition to its memory at startup
    files_total: int | None = None  # in the tables that it reads
    files_read: int | None = None
    rows_scanned: int | None = None
    bytes_scanned: int | None = None
    spilled_bytes: int | None = None
    spill_count: int | None = None
    cause: Cause | None = None  # why it was killed
    ended_by: str | None = None  # who canceled it by its ID
    reads: Reads | None = None  # the columns that it reads, by table; set once it is planned
    shows_counts: bool = False  # to its caller, if none of its tables hides rows from them
    explained: Sequence[TableFiles] = ()  # for the tables of an EXPLAIN
    progress: ScanProgress | None = None  # for a running statement that `shows_counts`
    reached: tuple[int, int] | None = None  # for a read of a follow: the next file and the offset in it
    change: PartitionCall | None = None  # made before it runs; set once it is planned


def _number(facts: dict[str, Any], name: str) -> float | None:
    """Return a number from an executor, or None for anything else, because the audit and metrics require numbers."""
    found = facts.get(name)
    if not isinstance(found, int | float) or isinstance(found, bool):
        return None
    return found if 0 <= found < _MAX_NUMBER else None


def parse_reads(found: object) -> Reads:
    """Return an executor's columns by table; for invalid data, return any column of any table."""
    if isinstance(found, dict) and all(isinstance(columns, list) for columns in found.values()):
        names = [name for columns in found.values() for name in columns]
        if all(isinstance(name, str) for name in names) and len(json.dumps(found)) <= _MAX_READS_BYTES:
            return found
    return {ANY: (ANY,)}


def log_records(facts: dict[str, Any]) -> None:
    """Log the records that an executor sent with a response."""
    if "log" not in facts:
        return
    try:
        records = msgspec.convert(facts["log"], list[tuple[int, str, str]])
    except msgspec.ValidationError:
        return
    for level, name, text in records[: protocol.MAX_LOG_RECORDS]:
        # A compromised executor cannot write other components' records, such as the audit's.
        part = ".".join(name.split(".")[:2])
        log = logging.getLogger(part if part in _LOGGED else "micromegas_jupyter.executors")
        log.log(max(0, min(level, logging.CRITICAL)), "%s", text[: protocol.MAX_LOG_CHARACTERS])


class RunningStatement:
    """One call's use of the pool; an async context manager. Belongs to one event loop.

    `report` is complete after the `async with` block.
    """

    def __init__(self, pool: Pool, caller_key: CallerKey, *, query_id: str = "") -> None:
        self.caller_key = caller_key
        self.executor: Executor | None = None
        self.report = StatementReport()
        self.has_ended = asyncio.Event()
        self.started_at = self.slice_at = pool.clock.monotonic()
        self.waits_for_client_since: float | None = None
        self.is_stopped = False
        self.peak_bytes = 0
        self._pool = pool
        self._query_id = query_id
        self.created_at = self.started_at
        self._has_slot = self._has_large_frame = False
        self._is_idle = self._is_elsewhere = False
        self._private_bytes = self._progress_count = 0
        self._facts: dict[str, Any] = {}  # from the executor's last response
        self._cause: Cause | None = None
        self._slots = pool.slots
        self._queue_seconds = pool.settings.queue_timeout_seconds
        self._timeout = asyncio.timeout(None)  # the pool stops statements that take too long

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._pool.open_calls[self] = None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pool = self._pool
        pool.running.discard(self)
        pool.open_calls.pop(self, None)
        pool.starts.leave(self)
        try:
            # Whether it failed because its executor sent invalid data.
            is_fault = isinstance(error, Exception) and not isinstance(error, MicromegasError)
            self.end_use(is_sound=not is_fault and not isinstance(error, InternalError))
            pool.governor.continue_stopped()
            await self._finish(kind, error, traceback)
        finally:
            self._drop_frame()
            if self._has_slot:
                self._slots.release(self.caller_key)
            self.has_ended.set()

    async def _finish(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raise the caller's error, unless it is `error` itself."""
        timed_out = False
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError:
            timed_out = True
        if timed_out:
            self._cause = self._cause or Cause.DEADLINE
        elif isinstance(error, asyncio.CancelledError | ClientGone):
            self._cause = self._cause or getattr(error, "cause", Cause.DISCONNECTED)
        elif not isinstance(error, ExecutorEnded):
            return
        if self.executor is None:
            cause = self._cause or Cause.LOST
            if self._is_elsewhere:
                self._note_end(cause)
            else:  # no statement was killed, so no caller is charged
                self.report.waiting_seconds = self._pool.clock.monotonic() - self.created_at
        elif not self.executor.is_gone:
            cause = self._cause or Cause.LOST  # it has finished, and another statement has its executor
        else:
            ended = await self._pool.await_end(self.executor)
            used_bytes = (ended.max_resident_bytes or 0) - self.executor.baseline_bytes
            cause = find_cause(ended, self._cause, is_large=used_bytes > self._pool.options.large_bytes)
            self._note_end_of_executor(cause, ended, self.executor)
        if timed_out or isinstance(error, ExecutorEnded):
            raise build_error(cause, settings=self._pool.settings, options=self._pool.options) from None

    def _note_end(self, cause: Cause) -> None:
        self._pool.on_end(cause)
        self.report.cause = cause
        if cause in CHARGED:
            self._pool.ended_limit.note(self.caller_key)

    def _note_end_of_executor(self, cause: Cause, ended: Ended, executor: Executor) -> None:
        self._note_end(cause)
        report = self.report
        report.cpu_seconds = report.peak_memory_bytes = None
        if ended.cpu_seconds is not None:
            report.cpu_seconds = max(0.0, ended.cpu_seconds - executor.cpu_seconds)
        if ended.max_resident_bytes is not None:
            report.peak_memory_bytes = max(self.peak_bytes, ended.max_resident_bytes - executor.baseline_bytes)
        if cause in CHARGED or cause is Cause.LOST:
            _LOG.warning(
                "A statement's executor was ended.",
                extra={
                    "query_id": self._query_id,
                    "cause": cause.value,
                    "caller": self.caller_key[1],
                    "exit_code": ended.code,
                    "stderr": ended.error[-_MAX_LOGGED_STDERR:].strip(),
                },
            )

    def end(self, cause: Cause) -> None:
        """Stop the statement in any state; its call raises the error for the cause."""
        if self._cause is not None or self.has_ended.is_set():
            return
        self._cause = cause
        self.charge()
        if self.executor is not None:
            self.executor.kill()
        # The call may wait for a slot, an executor, or its client; the timeout interrupts any of these.
        with suppress(RuntimeError):  # it has just finished
            self._timeout.reschedule(asyncio.get_running_loop().time())

    @property
    def is_running(self) -> bool:
        """Whether it is no longer waiting: an executor, or an engine behind this server, is running it."""
        return self._is_elsewhere or self.executor is not None

    async def continue_elsewhere(self) -> None:
        """Release the executor but keep or take a slot, because an engine behind this server now runs the statement."""
        if self.executor is None:
            await self.take_slot()
            self.note_start()
        self.end_use(is_sound=True)
        self.executor = None
        self._is_elsewhere = True

    def charge(self) -> None:
        """Charge the caller for the executor's CPU time since the last call."""
        if self.executor is not None and (seconds := self.executor.measure_cpu()):
            self._pool.use.charge(self.caller_key, seconds)

    def set_stopped(self, now: float, *, is_stopped: bool) -> None:
        """Suspend or resume the executor's process."""
        if is_stopped == self.is_stopped or self.executor is None:
            return
        self.is_stopped = is_stopped
        self.slice_at = now
        self.executor.process.send_signal(signal.SIGSTOP if is_stopped else signal.SIGCONT)

    def end_use(self, *, is_sound: bool) -> None:
        """Release the executor if it is sound and waiting for its next request; otherwise, kill it."""
        executor = self.executor
        if executor is None:
            return
        self.charge()
        if is_sound and self._is_idle:
            self.set_stopped(self._pool.clock.monotonic(), is_stopped=False)  # it may have sent its last response
            self._pool.release(executor, private_bytes=self._private_bytes)
        else:
            self._pool.discard(executor)

    @asynccontextmanager
    async def in_queue(self, build_late_error: Callable[[], MicromegasError]) -> AsyncGenerator[None]:
        """Limit waits before planning; all of a statement's waits share one queue timeout."""
        left_seconds = self.created_at + self._queue_seconds - self._pool.clock.monotonic()
        try:
            async with asyncio.timeout(left_seconds):
                yield
        except TimeoutError:
            raise build_late_error() from None

    async def refresh_tables(self) -> None:
        """Wait until all tables are listed, like `Listing.refresh`; raise Unavailable if that takes too long."""
        async with self.in_queue(tables_not_listed):
            await self._pool.listing.refresh()

    async def begin(self, *, plan: CachedPlan | None = None) -> Executor:
        """Wait for a slot and an executor; raise ResourcesExhausted if none is free in time or the caller is paused."""
        await self.take_slot()
        pool = self._pool
        niceness = _HEAVY_NICENESS if pool.use.is_heavy(self.caller_key) else 0
        executor = pool.try_take(plan, niceness=niceness) if pool.starts.try_enter(self) else None
        if executor is None:
            async with self.in_queue(queue_full):
                await pool.starts.enter(self, self.caller_key)
            async with self.in_queue(_no_process):
                executor = await pool.take(plan, niceness=niceness)
        pool.starts.note_start(self)
        self.executor = executor
        executor.renice(niceness)
        executor.measure_cpu()  # don't charge this caller for earlier statements or the startup
        pool.use.note_start(self.caller_key)
        self.note_start()
        return executor

    async def take_slot(self) -> None:
        """Wait for a slot, which is held until the end."""
        self._pool.ended_limit.check(self.caller_key)
        self._has_slot = self._slots.try_acquire(self.caller_key)
        if not self._has_slot:
            async with self.in_queue(queue_full):
                await self._slots.acquire(self.caller_key)
                self._has_slot = True

    def note_start(self) -> None:
        """Count the statement as running from now on."""
        self.started_at = self.slice_at = self._pool.clock.monotonic()
        self.report.waiting_seconds = self.started_at - self.created_at
        self._pool.running.add(self)

    async def request(self, kind: bytes, body: bytes) -> None:
        """Send a request to the executor."""
        assert self.executor is not None  # noqa: S101 - `begin` came before
        self._is_idle = False
        await self.executor.send(kind, body)

    async def read(self) -> tuple[bytes, bytes]:
        """Return the kind and body of the executor's next response; raise an error response."""
        assert self.executor is not None  # noqa: S101 - `begin` came before
        kind, body = await self.executor.read(self._admit_frame)
        if kind == protocol.FRAME:
            return kind, body
        if kind in {protocol.END, protocol.ERROR}:
            if len(body) > protocol.MAX_FACTS_BYTES:
                raise InternalError("An executor's response is too long.")
            facts = self._facts = protocol.parse_json(body)
            self._is_idle = not facts.get("is_broken")
            self._take_statistics(facts)
            if kind == protocol.ERROR:
                raise protocol.parse_error(facts)
        elif kind == protocol.PLANNED:
            self._is_idle = True
        return kind, body

    def _take_statistics(self, facts: dict[str, Any]) -> None:
        executor = self.executor
        assert executor is not None  # noqa: S101 - it has answered
        executor.cpu_seconds = _number(facts, "process_cpu_seconds") or 0.0
        self._private_bytes = int(_number(facts, "private_bytes") or 0)
        report = self.report
        report.rows = int(_number(facts, "rows") or 0)
        for name in _REPORTED:
            if (number := _number(facts, name)) is not None:
                setattr(report, name, number)
        if "reads" in facts:
            report.reads = parse_reads(facts["reads"])
        if facts.get("shows_counts") is True:
            report.shows_counts, report.explained = True, protocol.parse_explained(facts)
        log_records(facts)
        if facts.get("has_changed_denials"):
            self._pool.on_denials_changed()

    async def plan(self, statement: Statement) -> tuple[bytes, bytes]:
        """Return the IPC schemas of the result and the parameters; the plan is cached for the call that runs it.

        A statement that was recently planned over the same tables needs no executor.
        """
        pool = self._pool
        self._check_length(statement.sql)
        await self._refresh_listing(statement)
        if (known := pool.schemas.get((pool.listing.version, statement))) is not None:
            return known
        executor = await self.begin()
        plan_id, version = next(pool.plan_ids), pool.listing.version
        found = await self._request_plan(statement, plan_id)
        self.report.change = protocol.parse_change(found)
        pool.listing.note_plan(self.caller_key, statement.sql, found)
        schemas = bytes.fromhex(str(found["schema"])), bytes.fromhex(str(found["parameters"]))
        if len(statement.sql) <= _MAX_CACHED_SQL_CHARACTERS:
            expires_at = pool.clock.monotonic() + _PLAN_SECONDS
            executor.plan = CachedPlan(statement=statement, version=version, plan_id=plan_id, expires_at=expires_at)
            is_small = not statement.parameters and sum(map(len, schemas)) <= _MAX_SCHEMAS_BYTES
            if is_small and self.report.change is None:
                pool.schemas[version, statement] = schemas
        return schemas

    async def run(
        self,
        statement: Statement,
        *,
        output: Output,
        write: Callable[[bytes], Awaitable[None]],
        on_running: Callable[[Statement], Statement] = lambda statement: statement,
    ) -> None:
        """Run a statement; pass each frame of its result, a serialized `FlightData`, to `write`.

        `on_running` is called when an executor has the statement, which it returns, perhaps with added values.
        """
        pool = self._pool
        self._check_length(statement.sql)
        await self._refresh_listing(statement)
        plan = pool.find_plan(statement)
        executor = await self.begin(plan=plan)
        current = on_running(statement)
        plan_id = plan.plan_id if plan is not None and executor.plan is plan and current is statement else 0
        executor.plan = None
        positions = await self._send_tables()
        await self.request(protocol.RUN, protocol.pack_statement(current, output, plan_id, pool.partitions, positions))
        left_reads = _MAX_READS
        while True:
            kind, body = await self.read()
            if kind == protocol.END:
                pool.listing.note_plan(self.caller_key, statement.sql, self._facts)
                if statement.tail is not None:
                    self.report.reached = protocol.parse_reached(self._facts, count=len(statement.tail.files))
                return
            if kind == protocol.READS and len(body) <= _MAX_READS_BYTES and left_reads:
                self.report.reads = parse_reads(protocol.parse_json(body))
                if left_reads < _MAX_READS:
                    await asyncio.sleep(0)  # a compromised executor could otherwise block the event loop
                left_reads -= 1
                continue
            if kind == protocol.PROGRESS and len(body) <= _MAX_READS_BYTES:
                self._progress_count += 1
                # Reports arrive about once a second.
                if self._progress_count < 3 + 2 * (pool.clock.monotonic() - self.started_at):
                    self.report.progress = protocol.parse_progress(protocol.parse_json(body))
                    continue
            if kind != protocol.FRAME:
                raise InternalError("An executor sent an unexpected response.")
            self.waits_for_client_since = pool.clock.monotonic()
            await write(body)
            self.waits_for_client_since = None
            del body
            self._drop_frame()

    async def _refresh_listing(self, statement: Statement) -> None:
        """Wait for a new listing, unless the statement's plan shows that it doesn't read tables."""
        listing = self._pool.listing
        if not listing.is_needed(self.caller_key, statement.sql):
            return
        listed = listing.request(statement.sql)
        if listing.version:
            await asyncio.wait({listed}, timeout=min(_LISTING_SECONDS, self._queue_seconds / 2))
            if listed.done() and listed.exception() is None:
                return
            # Storage that hangs or fails affects only statements that read tables.
            if not await self._reads_tables(statement):
                return
        async with self.in_queue(tables_not_listed):
            await await_shared(listed)

    async def _reads_tables(self, statement: Statement) -> bool:
        """Return whether a plan over the last listed tables reads any table; True if planning fails."""
        pool = self._pool
        try:
            async with RunningStatement(pool, self.caller_key, query_id=self._query_id) as planning:
                planning.created_at = self.created_at  # both share one queue timeout
                await planning.begin()
                facts = await planning._request_plan(statement, next(pool.plan_ids))
        except MicromegasError:
            return True
        pool.listing.note_plan(self.caller_key, statement.sql, facts)
        return facts.get("reads_tables") is not False

    async def _request_plan(self, statement: Statement, plan_id: int) -> dict[str, Any]:
        positions = await self._send_tables()
        request = protocol.pack_statement(statement, Output(), plan_id, self._pool.partitions, positions)
        await self.request(protocol.PLAN, request)
        kind, body = await self.read()
        if kind != protocol.PLANNED:
            raise InternalError("An executor sent an unexpected response.")
        return protocol.parse_json(body)

    def _check_length(self, sql: str) -> None:
        """Reject a statement that the executor would reject without reading it, before it costs other callers time."""
        limit = self._pool.options.engine.max_statement_bytes
        if len(sql) > limit:
            raise StatementRefused(f"The statement is longer than the {limit} bytes that this server allows.")

    async def _admit_frame(self, size: int) -> None:
        if size > _LARGE_FRAME_BYTES and not self._has_large_frame:  # responses other than frames keep their slot
            await self._pool.large_frames.acquire(self.caller_key)
            self._has_large_frame = True

    def _drop_frame(self) -> None:
        if self._has_large_frame:
            self._has_large_frame = False
            self._pool.large_frames.release(self.caller_key)

    async def call(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Call a function in the executor with the tables and the arguments, and return its result."""
        positions = await self._send_tables()
        await self.request(protocol.CALL, protocol.pickle_request(function, arguments, positions))
        kind, body = await self.read()
        if kind != protocol.ANSWER:
            raise InternalError("An executor sent an unexpected response.")
        await self.read()
        return protocol.parse_json(body)["answer"]

    async def list_tables(self, caller: AuthContext) -> list[tuple[str, bytes]]:
        """Return the tables that a caller can see, each with the IPC schema of `SELECT *`."""
        await self.refresh_tables()
        await self.begin()
        positions = await self._send_tables()
        await self.request(protocol.TABLES, protocol.pickle_request(caller, positions))
        found: list[tuple[str, bytes]] = []
        left_bytes = protocol.MAX_LISTED_BYTES
        while True:
            kind, body = await self.read()
            if kind == protocol.END:
                return found
            left_bytes -= len(body)
            if kind != protocol.LISTED or left_bytes < 0:
                raise InternalError("An executor sent an unexpected response.")
            found += [(str(name), bytes.fromhex(schema)) for name, schema in protocol.parse_json(body)["tables"]]
            await asyncio.sleep(0)

    async def _send_tables(self) -> Sequence[int] | None:
        """Send the executor the tables that it is missing, in pieces; return the positions of all tables for `RUN`."""
        executor, listing = self.executor, self._pool.listing
        if executor is None or executor.tables is listing.tables:
            return None
        known, tables = executor.tables, listing.tables
        executor.tables = tables
        positions = {id(one): place for place, one in enumerate(known)}
        new = deque(one for one in tables if id(one) not in positions)
        positions |= {id(one): place for place, one in enumerate(new, len(known))}
        named = {one.name: one for one in known}
        piece = b""
        while new:
            packed = listing.packed(new[0], known=named.get(new[0].name))
            if piece and len(piece) + len(packed) > _TOGETHER_BYTES:
                await self.request(protocol.LEARN, piece)
                await asyncio.sleep(0)
                piece = b""
            piece = piece + packed if piece else packed
            new.popleft()
        if piece:
            await self.request(protocol.LEARN, piece)
        return tuple(positions[id(one)] for one in tables)
