"""Which long statements run now and which are stopped; which one is ended when memory runs out. Pure decisions.

A statement is long after `LONG_SECONDS` of running. Long ones share a few places: each runs for a slice, then it is the
turn of the caller who has waited longest, and of that caller's statement that has waited longest.
"""

from __future__ import annotations

import asyncio
import enum
import signal
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from cachetools import LRUCache

from micromegas_jupyter.errors import (
    DeadlineExceeded,
    MicromegasError,
    QueryCancelled,
    ResourcesExhausted,
    ServerUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from micromegas_jupyter.core.system import Clock
    from micromegas_jupyter.executors.launcher import Ended
    from micromegas_jupyter.executors.settings import PoolSettings, WorkerOptions

_Key = TypeVar("_Key", bound="Hashable")

LONG_SECONDS: Final = 1.0
SLICE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LongStatement(Generic[_Key]):
    """A long statement that has work to do.

    Attributes:
        key: What identifies it.
        caller: Whose it is.
        is_stopped: Whether it is stopped now.
        turn_at: When its turn began, or ended when it is stopped; monotonic seconds.
    """

    key: _Key
    caller: Hashable
    is_stopped: bool
    turn_at: float


def choose_running(statements: Sequence[LongStatement[_Key]], *, places: int, now: float) -> set[_Key]:
    """Return the keys of the statements that run from now on, at most `places`.

    Args:
        statements: All long statements that have work to do.
        places: How many may run.
        now: Monotonic seconds.
    """
    if len(statements) <= places:
        return {one.key for one in statements}
    running = [one for one in statements if not one.is_stopped]
    # Whoever is in the middle of a slice keeps it, the longest-running first where there are too many.
    kept = sorted((one for one in running if now - one.turn_at < SLICE_SECONDS), key=lambda one: one.turn_at)[:places]
    chosen = {one.key for one in kept}
    served = {one.caller for one in kept}
    waiting = [one for one in statements if one.key not in chosen]
    last_turns = _last_turns(statements, now)
    while len(chosen) < places:
        # A caller without a place comes first; then the caller, and the statement, whose turn was longest ago.
        following = min(waiting, key=lambda one: (one.caller in served, last_turns[one.caller], _last_turn(one, now)))
        waiting.remove(following)
        chosen.add(following.key)
        served.add(following.caller)
        last_turns[following.caller] = now
    return chosen


def _last_turn(statement: LongStatement[_Key], now: float) -> float:
    """Return when a statement last ran; one that runs now had its turn just now."""
    return statement.turn_at if statement.is_stopped else now


def _last_turns(statements: Iterable[LongStatement[_Key]], now: float) -> dict[Hashable, float]:
    """Return when each caller last had a turn."""
    found: dict[Hashable, float] = {}
    for one in statements:
        last = _last_turn(one, now)
        found[one.caller] = max(last, found.get(one.caller, last))
    return found


def choose_largest(private_bytes: Mapping[_Key, int], *, limit_bytes: int) -> _Key | None:
    """Return whose statement is to be ended for memory; None while all together are within the limit."""
    if sum(private_bytes.values()) <= limit_bytes:
        return None
    return max(private_bytes, key=lambda key: private_bytes[key])


CallerKey = tuple[str, str]

WINDOW_SECONDS: Final = 60.0
PAUSE_SECONDS: Final = 60.0
_MAX_CALLERS: Final = 4096
_WAITING_PER_PLACE: Final = 8


class RunningLimit:
    """Lets a number of statements run at once, of which a smaller number is one caller's. Belongs to one event loop.

    Args:
        max_running: In all.
        max_per_caller: Of one caller.
        queue_timeout_seconds: How long one waits.
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
        """How many wait."""
        return len(self._queue)

    async def acquire(self, caller: CallerKey) -> None:
        """Take a place; whoever waits longest, and whose caller has room, gets the next one."""
        if self._has_room(caller):
            self._take(caller)
            return
        if len(self._queue) >= _WAITING_PER_PLACE * self._max_running or (
            sum(waiting == caller for waiting, _ in self._queue) >= _WAITING_PER_PLACE * self._max_per_caller
        ):
            raise _full()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (caller, turn)
        self._queue.append(entry)
        try:
            async with asyncio.timeout(self._queue_timeout_seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.release(caller)  # the turn came in the moment that ended the wait
            else:
                self._queue.remove(entry)
            if isinstance(error, TimeoutError):
                raise _full() from None
            raise

    def release(self, caller: CallerKey) -> None:
        """Give a place back."""
        self.running_count -= 1
        self._running[caller] -= 1
        if not self._running[caller]:
            del self._running[caller]
        for entry in self._queue:
            waiting, turn = entry
            if self.running_count >= self._max_running:
                return
            if not turn.done() and self._has_room(waiting):
                self._queue.remove(entry)
                self._take(waiting)
                turn.set_result(None)
                return

    def _has_room(self, caller: CallerKey) -> bool:
        return self.running_count < self._max_running and self._running[caller] < self._max_per_caller

    def _take(self, caller: CallerKey) -> None:
        self._running[caller] += 1
        self.running_count += 1


def _full() -> ResourcesExhausted:
    return ResourcesExhausted(
        "The server runs as many statements as it may, for you or in all.",
        remedy="Wait for some to end, then try again.",
        limit="queue",
    )


class EndedLimit:
    """Has a caller wait whose statements had to be ended too often. What a caller cancels never counts.

    Args:
        max_ended: How many within a minute; 0 for any number.
        clock: Measures.
    """

    def __init__(self, max_ended: int, *, clock: Clock) -> None:
        self._max_ended = max_ended
        self._clock = clock
        self._ends: LRUCache[CallerKey, deque[float]] = LRUCache(_MAX_CALLERS)

    def note(self, caller: CallerKey) -> None:
        """Count a statement that was ended for memory, a crash or its deadline."""
        if self._max_ended:
            ends = self._ends.get(caller) or deque(maxlen=self._max_ended)
            ends.append(self._clock.monotonic())
            self._ends[caller] = ends

    def check(self, caller: CallerKey) -> None:
        """Let a caller pass who has not used up the limit."""
        ends = self._ends.get(caller)
        if ends is None or len(ends) < self._max_ended or ends[-1] - ends[0] > WINDOW_SECONDS:
            return
        seconds = ends[-1] + PAUSE_SECONDS - self._clock.monotonic()
        if seconds <= 0:
            del self._ends[caller]
            return
        raise ResourcesExhausted(
            f"{self._max_ended} of your statements within a minute had to be ended, for their memory, a crash or their "
            "time.",
            remedy=f"Wait {seconds:.0f} s, and ask for less: filter or aggregate first.",
            retry_after_seconds=seconds,
            limit="ended_statements",
        )


_MIB: Final = 1024 * 1024
_SMALLER: Final = "Aggregate or filter first, or ask the server's administrator for a higher limit."
_NO_MEMORY: Final = ("memory allocation", "allocation failed", "out of memory", "cannot allocate", "capacity overflow")


class Cause(enum.StrEnum):
    """Why a statement was ended; the values are labels of a metric and words of the audit."""

    MEMORY = "memory"
    STACK = "stack"
    CRASH = "crash"
    PLANNING = "planning"
    DEADLINE = "deadline"
    STALLED = "stalled_reader"
    CANCELLED = "cancelled"
    DISCONNECTED = "disconnected"
    KILLED = "killed"
    LOST = "lost"


#: Causes that are the statement's own doing: they count against its caller.
CHARGED: Final = frozenset({Cause.MEMORY, Cause.STACK, Cause.CRASH, Cause.PLANNING, Cause.DEADLINE, Cause.KILLED})


def find_cause(ended: Ended, decided: Cause | None, *, is_large: bool = False) -> Cause:
    """Return why an executor ended.

    Args:
        ended: How it ended.
        decided: What the front has decided.
        is_large: Whether it had more memory than a stack that has overflowed accounts for.
    """
    if decided is not None or ended.code is None:
        return decided or Cause.LOST
    error = ended.error.lower()
    if hasattr(signal, "SIGPROF") and ended.code == -signal.SIGPROF:
        return Cause.PLANNING
    if "overflowed its stack" in error:
        return Cause.STACK
    if ended.code in {-signal.SIGSEGV, -getattr(signal, "SIGBUS", 0)}:
        # The engine's allocator (mimalloc) hands out memory that the system has refused it, which ends the same way.
        return Cause.MEMORY if is_large else Cause.STACK
    if any(word in error for word in _NO_MEMORY):
        return Cause.MEMORY
    return Cause.KILLED if ended.code == -getattr(signal, "SIGKILL", 0) else Cause.CRASH


def build_error(  # noqa: PLR0911 - one for each cause
    cause: Cause, *, settings: PoolSettings, options: WorkerOptions
) -> MicromegasError:
    """Return the error of a statement that was ended."""
    match cause:
        case Cause.MEMORY:
            limit = min(settings.memory_bytes, options.data_limit_bytes or settings.memory_bytes)
            size = f"{limit / (1024 * _MIB):.3g} GiB" if limit >= 1024 * _MIB else f"{limit // _MIB} MiB"
            return ResourcesExhausted(
                f"This statement needed more memory than it may take (at most {size}) and was ended; nothing else was "
                "affected.",
                remedy=_SMALLER,
                limit="memory",
            )
        case Cause.STACK:
            return ResourcesExhausted(
                "This statement nests too deeply for the engine and was ended; nothing else was affected.",
                remedy="Split it: fewer nested sub-queries, brackets or operators in one expression.",
                limit="stack",
            )
        case Cause.KILLED:
            return ResourcesExhausted(
                "The operating system ended this statement's process, most likely for want of memory on the machine.",
                remedy=_SMALLER,
                limit="memory",
            )
        case Cause.CRASH:
            return ResourcesExhausted(
                "This statement crashed the engine's process and was ended; nothing else was affected.",
                remedy="Write it in another way, with smaller numbers and values. The server's log has more.",
                limit="crash",
            )
        case Cause.PLANNING:
            return ResourcesExhausted(
                f"Planning this statement took more than {options.planning_seconds:g} s of CPU time, so it was ended.",
                remedy="Make it shorter: fewer terms, joins, set operations or sub-queries.",
                limit="planning",
            )
        case Cause.DEADLINE:
            return DeadlineExceeded(
                f"The statement took longer than the {settings.statement_timeout_seconds or 0:g} s that this server "
                "gives one statement.",
                remedy="Ask for less at a time: a shorter time range, fewer columns, an aggregate instead of all rows.",
                limit="query_timeout",
            )
        case Cause.STALLED:
            return DeadlineExceeded("The client did not take the result in time.", limit="stalled_client")
        case Cause.CANCELLED | Cause.DISCONNECTED:
            return QueryCancelled("The query was cancelled, as you asked.")
        case Cause.LOST:
            return ServerUnavailable("The process that ran this statement has ended.", remedy="Run it again.")
