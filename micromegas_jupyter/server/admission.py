"""How many queries run at once, over all and for each caller; the rest wait a bounded time.

What a query may use while it runs is the engine's business.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from micromegas_jupyter.errors import ResourcesExhausted

_WAITING_PER_SLOT: Final = 4

CallerKey = tuple[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    caller: CallerKey
    turn: asyncio.Future[None]


class Admission:
    """Gives out query slots, first come first served among those whose caller has one left.

    Belongs to one event loop.

    Args:
        max_queries: Slots in all.
        max_per_caller: Slots of one caller.
        wait_seconds: How long a query waits for a slot.
    """

    def __init__(self, *, max_queries: int, max_per_caller: int, wait_seconds: float) -> None:
        self._max_queries = max_queries
        self._max_per_caller = max_per_caller
        self._wait_seconds = wait_seconds
        self._running: Counter[CallerKey] = Counter()
        self._running_count = 0
        self._waiters: list[_Waiter] = []

    @property
    def running_count(self) -> int:
        """How many slots are taken; may be read from any thread."""
        return self._running_count

    @property
    def waiting_count(self) -> int:
        """How many wait for a slot; may be read from any thread."""
        return len(self._waiters)

    @asynccontextmanager
    async def slot(self, caller: CallerKey) -> AsyncIterator[None]:
        """Hold a slot for the caller (issuer, subject).

        Raises:
            ResourcesExhausted: No slot came free in time, or too many wait already.
        """
        if self._is_free(caller):
            self._take(caller)
        else:
            await self._wait_for_turn(caller)
        try:
            yield
        finally:
            self._give_back(caller)

    async def _wait_for_turn(self, caller: CallerKey) -> None:
        if len(self._waiters) >= _WAITING_PER_SLOT * self._max_queries:
            raise _over_limit()
        waiter = _Waiter(caller, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(self._wait_seconds):
                await waiter.turn
        except BaseException as error:
            if waiter.turn.done() and not waiter.turn.cancelled():
                self._give_back(caller)  # the turn came in the moment that ended the wait
            else:
                self._waiters.remove(waiter)
            if isinstance(error, TimeoutError):
                raise _over_limit() from None
            raise

    def _is_free(self, caller: CallerKey) -> bool:
        return self._running_count < self._max_queries and self._running[caller] < self._max_per_caller

    def _take(self, caller: CallerKey) -> None:
        self._running[caller] += 1
        self._running_count += 1

    def _give_back(self, caller: CallerKey) -> None:
        self._running[caller] -= 1
        self._running_count -= 1
        if not self._running[caller]:
            del self._running[caller]
        for waiter in self._waiters:
            if not waiter.turn.done() and self._is_free(waiter.caller):
                self._take(waiter.caller)
                self._waiters.remove(waiter)
                waiter.turn.set_result(None)
                return


def _over_limit() -> ResourcesExhausted:
    return ResourcesExhausted(
        "The server runs as many queries as it may, for you or in all.",
        remedy="Wait for some to end, then try again.",
        limit="queue",
    )
