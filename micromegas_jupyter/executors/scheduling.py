"""Scheduling: callers' shares of the pool and the processors, and why statements are stopped."""

import asyncio
import enum
import logging
import math
import os
import signal
from collections import Counter, deque
from collections.abc import Collection, Iterable
from typing import Final, Protocol, TypeVar

from cachetools import LRUCache

from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import (
    DeadlineExceeded,
    MicromegasError,
    PermissionDenied,
    QueryCancelled,
    QueryDenied,
    ResourcesExhausted,
    ServerUnavailable,
)
from micromegas_jupyter.executors.launcher import Ended, Executor
from micromegas_jupyter.executors.settings import PoolSettings, WorkerOptions

CallerKey = tuple[str, str]

_LOG: Final = logging.getLogger("micromegas_jupyter.executors")
WINDOW_SECONDS: Final = 60.0
PAUSE_SECONDS: Final = 60.0
_MAX_CALLERS: Final = 4096
_HALF_LIFE_SECONDS: Final = 10.0
#: A caller above these limits is a heavy user: total time, if their statements average this much, or rate.
_MUCH_SECONDS: Final = 1.0
_MUCH_PER_STATEMENT_SECONDS: Final = 0.1
_MUCH_SHARE: Final = 0.25
_MAX_WAITING_PER_SLOT: Final = 8
_START_SECONDS: Final = 0.02  # most small statements finish within this time
_MAX_OVERTAKEN_SECONDS: Final = 1.0
_MIB: Final = 1024 * 1024
SHORT_SECONDS: Final = 0.1
LONG_NICENESS: Final = 10
_TICK_SECONDS: Final = 0.1
_FAST_TICK_SECONDS: Final = 0.02  # while memory use is high
_FAST_SHARE: Final = 0.4
_KILL_SHARE: Final = 0.85  # a statement's memory may grow between two ticks
_LONG_SECONDS: Final = 1.0  # long statements share a few slots, each for one slice
_SLICE_SECONDS: Final = 1.0
_STALLED_UNDER_PRESSURE_SECONDS: Final = 30.0


class RunningLimit:
    """Limits how many statements run at the same time, in total and per caller. Belongs to one event loop.

    The last eighth of the slots, and of the waiting places, is reserved for callers without any. The waiting caller
    with the fewest slots is next, so that several demanding callers can't exclude others.
    """

    def __init__(self, *, max_running: int, max_per_caller: int, queue_timeout_seconds: float) -> None:
        self._max_running = max_running
        self._max_per_caller = max_per_caller
        self._queue_timeout_seconds = queue_timeout_seconds
        self._running: Counter[CallerKey] = Counter()
        self._queue: deque[tuple[CallerKey, asyncio.Future[None]]] = deque()
        self.running_count = 0

    @property
    def waiting_count(self) -> int:
        """The number of waiting statements."""
        return len(self._queue)

    def try_acquire(self, caller: CallerKey) -> bool:
        """Take a slot if one is free."""
        is_free = self._has_capacity(caller)
        if is_free:
            self._take(caller)
        return is_free

    async def acquire(self, caller: CallerKey) -> None:
        """Take a slot, or wait in line; raise ResourcesExhausted if none is free in time or too many wait."""
        if self.try_acquire(caller):
            return
        own = sum(waiting == caller for waiting, _ in self._queue)
        if own >= _MAX_WAITING_PER_SLOT * self._max_per_caller or not is_left(
            _MAX_WAITING_PER_SLOT * self._max_running, taken=len(self._queue), own=own
        ):
            raise queue_full()
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (caller, granted)
        self._queue.append(entry)
        try:
            async with asyncio.timeout(self._queue_timeout_seconds):
                await granted
        except BaseException as error:
            if granted.done() and not granted.cancelled():
                self.release(caller)  # it was granted just as the wait ended
            else:
                self._queue.remove(entry)
            if isinstance(error, TimeoutError):
                raise queue_full() from None
            raise

    def release(self, caller: CallerKey) -> None:
        """Free a slot."""
        self.running_count -= 1
        self._running[caller] -= 1
        if not self._running[caller]:
            del self._running[caller]
        ready = (entry for entry in self._queue if not entry[1].done() and self._has_capacity(entry[0]))
        if entry := min(ready, key=lambda one: self._running[one[0]], default=None):
            self._queue.remove(entry)
            self._take(entry[0])
            entry[1].set_result(None)

    def _has_capacity(self, caller: CallerKey) -> bool:
        own = self._running[caller]
        return own < self._max_per_caller and is_left(self._max_running, taken=self.running_count, own=own)

    def _take(self, caller: CallerKey) -> None:
        self._running[caller] += 1
        self.running_count += 1


def is_left(total: int, *, taken: int, own: int) -> bool:
    """Whether a caller that holds `own` of the `taken` places may take another one, out of `total`."""
    return taken < total - (total // 8 if own else 0)


def queue_full() -> ResourcesExhausted:
    """Return the error for a statement that did not get a slot in time."""
    return ResourcesExhausted(
        "The server is running the maximum number of statements, for you or in total.",
        remedy="Wait for some statements to finish, then try again.",
        limit="queue",
    )


class ProcessorUse:
    """Tracks callers' recent CPU time as a sum per caller that halves every ten seconds."""

    def __init__(self, *, processors: int, clock: Clock) -> None:
        self._clock = clock
        self._max_seconds = _MUCH_SHARE * processors * _HALF_LIFE_SECONDS / math.log(2)
        self._sums: LRUCache[CallerKey, tuple[float, float, float]] = LRUCache(_MAX_CALLERS)
        self._light_at = -math.inf

    def note_start(self, caller: CallerKey) -> None:
        """Count a statement that is starting."""
        self._add(caller, 0.0, 1)
        if not self._is_much(caller):
            self._light_at = self._clock.monotonic()

    def charge(self, caller: CallerKey, seconds: float) -> None:
        """Add CPU time that a statement has used."""
        self._add(caller, seconds, 0)

    def is_heavy(self, caller: CallerKey) -> bool:
        """Whether a caller is using a lot of CPU time while others, who use little, are also running statements."""
        return self._clock.monotonic() - self._light_at < _HALF_LIFE_SECONDS and self._is_much(caller)

    def seconds(self, caller: CallerKey) -> float:
        """Return a caller's recent CPU time."""
        return self._decayed(caller)[0]

    def _is_much(self, caller: CallerKey) -> bool:
        seconds, statements = self._decayed(caller)
        return seconds > min(self._max_seconds, max(_MUCH_SECONDS, _MUCH_PER_STATEMENT_SECONDS * statements))

    def _decayed(self, caller: CallerKey) -> tuple[float, float]:
        seconds, statements, at = self._sums.get(caller, (0.0, 0.0, 0.0))
        share = 0.5 ** ((self._clock.monotonic() - at) / _HALF_LIFE_SECONDS)
        return seconds * share, statements * share

    def _add(self, caller: CallerKey, seconds: float, statements: int) -> None:
        old_seconds, old_statements = self._decayed(caller)
        self._sums[caller] = (old_seconds + seconds, old_statements + statements, self._clock.monotonic())


class StartQueue:
    """Lets only a few statements start at a time, because more would slow each other down and require more executors.

    A statement has a place until it finishes or has had its executor for a moment. The caller with the lowest processor
    use is next, unless another one has waited for a second. Belongs to one event loop.
    """

    def __init__(self, use: ProcessorUse, *, max_starts: int, clock: Clock) -> None:
        self._use = use
        self._max_starts = max_starts
        self._clock = clock
        self._starting: dict[object, float] = {}  # when the statement got its executor
        self._waiting: dict[asyncio.Future[None], tuple[object, CallerKey, float]] = {}  # the oldest first
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting_count(self) -> int:
        """The number of waiting statements."""
        return len(self._waiting)

    def try_enter(self, statement: object) -> bool:
        """Take a place if one is free."""
        is_free = len(self._starting) < self._max_starts
        if is_free:
            self._starting[statement] = math.inf
        return is_free

    async def enter(self, statement: object, caller: CallerKey) -> None:
        """Take a place, or wait for one; callers must always call `leave` afterwards."""
        if statement in self._starting:
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[granted] = statement, caller, self._clock.monotonic()
        self._grant()
        try:
            await granted
        finally:
            self._waiting.pop(granted, None)

    def note_start(self, statement: object) -> None:
        """Start the time of a statement, which now has an executor."""
        self._starting[statement] = self._clock.monotonic()
        if self._waiting:
            self._grant()

    def leave(self, statement: object) -> None:
        """Free the statement's place, if it still has one."""
        if self._starting.pop(statement, None) is not None and self._waiting:
            self._grant()

    def _grant(self) -> None:
        now = self._clock.monotonic()
        for statement in [one for one, at in self._starting.items() if at <= now - _START_SECONDS]:
            del self._starting[statement]
        while self._waiting and len(self._starting) < self._max_starts:
            granted = next(iter(self._waiting))
            if now - self._waiting[granted][2] < _MAX_OVERTAKEN_SECONDS:
                granted = min(self._waiting, key=lambda one: self._use.seconds(self._waiting[one][1]))
            statement, _, _ = self._waiting.pop(granted)
            if not granted.done():
                self._starting[statement] = math.inf
                granted.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        ends_at = min(self._starting.values(), default=math.inf) + _START_SECONDS
        if self._waiting and ends_at < math.inf:
            self._timer = asyncio.get_running_loop().call_later(ends_at - now, self._grant)


class EndedLimit:
    """Delays callers whose statements had to be killed too often (0 for no limit); cancellations don't count."""

    def __init__(self, max_ended: int, *, clock: Clock) -> None:
        self._max_ended = max_ended
        self._clock = clock
        self._ends: LRUCache[CallerKey, deque[float]] = LRUCache(_MAX_CALLERS)

    def note(self, caller: CallerKey) -> None:
        """Count a statement that was killed for memory, a crash, or its deadline."""
        if self._max_ended:
            ends = self._ends.get(caller) or deque(maxlen=self._max_ended)
            ends.append(self._clock.monotonic())
            self._ends[caller] = ends

    def check(self, caller: CallerKey) -> None:
        """Raise ResourcesExhausted for a caller who has exceeded the limit."""
        ends = self._ends.get(caller)
        if ends is None or len(ends) < self._max_ended or ends[-1] - ends[0] > WINDOW_SECONDS:
            return
        seconds = ends[-1] + PAUSE_SECONDS - self._clock.monotonic()
        if seconds <= 0:
            del self._ends[caller]
            return
        raise ResourcesExhausted(
            f"{self._max_ended} of your statements had to be stopped within a minute because of memory, a "
            "crash, or a timeout.",
            remedy=f"Wait {seconds:.0f} s, and request less data: filter or aggregate first.",
            retry_after_seconds=seconds,
            limit="ended_statements",
        )


class Cause(enum.StrEnum):
    """Why a statement was stopped; the values are used in metric labels and in the audit."""

    MEMORY = "memory"
    STACK = "stack"
    CRASH = "crash"
    PLANNING = "planning"
    DEADLINE = "deadline"
    STALLED = "stalled_reader"
    CANCELLED = "cancelled"
    #: An HTTP request was abandoned, exceeded its timeout, or received as much of the result as an agent displays.
    WITHDRAWN = "withdrawn"
    REQUEST_TIMEOUT = "request_timeout"
    RESULT_CUT = "result_cut"
    DENIED = "denied"
    CUT_OFF = "cut_off"
    DISCONNECTED = "disconnected"
    KILLED = "killed"
    LOST = "lost"


#: Causes that are the statement's fault, and so count against its caller.
CHARGED: Final = frozenset({Cause.MEMORY, Cause.STACK, Cause.CRASH, Cause.PLANNING, Cause.DEADLINE, Cause.KILLED})
_ALONE: Final = "nothing else was affected"
_SMALLER: Final = "Aggregate or filter first, or ask the server's administrator for a higher limit."
_NO_MEMORY: Final = (
    "memory allocation", "allocation failed", "out of memory", "cannot allocate", "capacity overflow", "memoryerror",
)  # fmt: skip


def find_cause(ended: Ended, decided: Cause | None, *, is_large: bool = False) -> Cause:
    """Return why an executor exited; `is_large` means that it used more memory than a stack overflow would explain."""
    if decided is not None or ended.code is None:
        return decided or Cause.LOST
    error = ended.error.lower()
    if hasattr(signal, "SIGPROF") and ended.code == -signal.SIGPROF:
        return Cause.PLANNING
    if "overflowed its stack" in error:
        return Cause.STACK
    if ended.code in {-signal.SIGSEGV, -getattr(signal, "SIGBUS", 0)}:
        # The engine's allocator (mimalloc) returns memory that the system has denied, which causes the same crash.
        return Cause.MEMORY if is_large else Cause.STACK
    if any(word in error for word in _NO_MEMORY):
        return Cause.MEMORY
    return Cause.KILLED if ended.code == -getattr(signal, "SIGKILL", 0) else Cause.CRASH


def cut_off_error() -> PermissionDenied:
    """Return the error for an open call by a user whose access was removed."""
    return PermissionDenied(
        "Your access to this server was revoked.", reason="cut_off", remedy="Ask one of the server's administrators."
    )


def request_timeout_error() -> DeadlineExceeded:
    """Return the error for a query that exceeded its HTTP request's timeout."""
    return DeadlineExceeded(
        "The query exceeded its request's timeout_seconds and was stopped.",
        remedy="Shorten the time range, aggregate, or raise timeout_seconds.",
        limit="query_timeout",
    )


def build_error(cause: Cause, *, settings: PoolSettings, options: WorkerOptions) -> MicromegasError:
    """Return the error for a stopped statement."""
    memory = min(settings.memory_bytes, options.data_limit_bytes or settings.memory_bytes)
    size = f"{memory / (1024 * _MIB):.3g} GiB" if memory >= 1024 * _MIB else f"{memory // _MIB} MiB"
    errors: dict[Cause, MicromegasError] = {
        Cause.MEMORY: ResourcesExhausted(
            f"This statement exceeded its memory limit (at most {size}) and was stopped; {_ALONE}.",
            remedy=_SMALLER,
            limit="memory",
        ),
        Cause.STACK: ResourcesExhausted(
            f"This statement is nested too deeply for the engine and was stopped; {_ALONE}.",
            remedy="Split it, or use fewer nested subqueries, parentheses, or operators per expression.",
            limit="stack",
        ),
        Cause.KILLED: ResourcesExhausted(
            "The operating system killed this statement's process, most likely because the machine ran out of memory.",
            remedy=_SMALLER,
            limit="memory",
        ),
        Cause.CRASH: ResourcesExhausted(
            f"This statement crashed the engine's process and was stopped; {_ALONE}.",
            remedy="Rewrite it with smaller numbers and values. The server's log has details.",
            limit="crash",
        ),
        Cause.PLANNING: ResourcesExhausted(
            f"Planning this statement took more than {options.planning_seconds:g} s of CPU time, so it was stopped.",
            remedy="Shorten it: use fewer terms, joins, set operations, or subqueries.",
            limit="planning",
        ),
        Cause.DEADLINE: DeadlineExceeded(
            f"The statement took longer than the server's limit of {settings.statement_timeout_seconds or 0:g} s.",
            remedy="Read less data: use a shorter time range, fewer columns, or aggregates instead of all rows.",
            limit="query_timeout",
        ),
        Cause.REQUEST_TIMEOUT: request_timeout_error(),
        Cause.STALLED: DeadlineExceeded("The client did not read the result in time.", limit="stalled_client"),
        Cause.DENIED: QueryDenied("The query was stopped because an administrator denied it.", limit="denied"),
        Cause.CUT_OFF: cut_off_error(),
        Cause.LOST: ServerUnavailable("The process that ran this statement has exited.", remedy="Run it again."),
    }
    return errors.get(cause) or QueryCancelled("The query was cancelled, as you asked.")


class _Statement(Protocol):
    """A statement as seen by its governor; times are monotonic."""

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
    """Checks a pool's statements several times a second: those that are `running`, and all `open_calls`."""

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
        self._limits = limits  # for resources that stalled readers withhold from others

    async def govern(self) -> None:
        """Govern all statements until the task is canceled."""
        share = 0.0
        while True:
            await asyncio.sleep(_FAST_TICK_SECONDS if share > _FAST_SHARE else _TICK_SECONDS)
            try:
                share = self._govern_once()
            except Exception:  # noqa: BLE001 - the next round must come
                _LOG.exception("governing executors failed")

    def _govern_once(self) -> float:
        """Schedule and limit all running statements once; return the share of memory in use."""
        now = self._clock.monotonic()
        for one in self._running:
            one.charge()
        self._schedule(now)
        timeout = self._settings.statement_timeout_seconds
        for one in tuple(self._open_calls):
            if timeout is None or now - one.created_at < timeout:
                break
            one.end(Cause.DEADLINE)
        limit = self._settings.write_timeout_seconds
        if any(one.waiting_count for one in self._limits):
            limit = min(limit, _STALLED_UNDER_PRESSURE_SECONDS)
        for one in self._running:
            if one.waits_for_client_since is not None and now - one.waits_for_client_since > limit:
                one.end(Cause.STALLED)
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

    def continue_stopped(self) -> None:
        """Let a stopped statement replace a finished one."""
        if any(one.is_stopped for one in self._running):
            self._schedule(self._clock.monotonic())


def choose_running(statements: Collection[S], *, slots: int, now: float) -> set[S]:
    """Return the long statements to run now, at most `slots`; each has work to do.

    The slice of a statement began at its `slice_at` (monotonic), or ended then if it is stopped.
    """
    if len(statements) <= slots:
        return set(statements)
    # Statements in the middle of a slice continue, longest-running first if there are too many.
    in_slice = [one for one in statements if not one.is_stopped and now - one.slice_at < _SLICE_SECONDS]
    chosen = set(sorted(in_slice, key=lambda one: one.slice_at)[:slots])
    served = {one.caller_key for one in chosen}
    waiting = [one for one in statements if one not in chosen]
    last_ran_at = {one: one.slice_at if one.is_stopped else now for one in statements}
    last_served: dict[CallerKey, float] = {}
    for one, at in last_ran_at.items():
        last_served[one.caller_key] = max(at, last_served.get(one.caller_key, at))
    while len(chosen) < slots:
        # Callers without a slot come first, then the caller and the statement that have waited longest.
        following = min(
            waiting, key=lambda one: (one.caller_key in served, last_served[one.caller_key], last_ran_at[one])
        )
        waiting.remove(following)
        chosen.add(following)
        served.add(following.caller_key)
        last_served[following.caller_key] = now
    return chosen


def _private_bytes(executor: Executor) -> int:
    """Return an executor's anonymous memory in addition to its memory at startup; 0 if unknown."""
    try:
        with open(f"/proc/{executor.process.pid}/statm", "rb") as stream:  # noqa: PTH123 - ten times a second for each
            _, resident, shared, *_ = stream.read().split()
    except (OSError, ValueError):
        return 0
    anonymous = (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
    return max(0, anonymous - executor.baseline_private_bytes)
