"""How much of the pool one caller may have: statements at once, and statements that had to be ended."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import TYPE_CHECKING, Final

from cachetools import LRUCache

from micromegas_jupyter.errors import ResourcesExhausted

if TYPE_CHECKING:
    from micromegas_jupyter.core.system import Clock

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
        """Take a place; whoever waits longest, and whose caller has room, gets the next one.

        Raises:
            ResourcesExhausted: None came free in time, or too many wait already.
        """
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
        """Let a caller pass who has not used up the limit.

        Raises:
            ResourcesExhausted: They have.
        """
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
