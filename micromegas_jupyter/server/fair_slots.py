"""A number of slots that callers share fairly: who waits gets a turn after each other waiting caller had one.

What a slot stands for is `admission`'s business.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from typing import Final

from micromegas_jupyter.errors import ResourcesExhausted

CallerKey = tuple[str, str]

_FULL: Final = "The server runs as many queries as it may, for you or in all."


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotLimits:
    """How many have a slot, and how many wait for one.

    Attributes:
        slots: Slots in all.
        per_caller: Slots of one caller.
        waiting: Who may wait in all.
        waiting_per_caller: Of these, those of one caller.
        wait_seconds: How long one waits.
    """

    slots: int
    per_caller: int
    waiting: int
    waiting_per_caller: int
    wait_seconds: float


class FairSlots:
    """Gives out slots, one caller after the other among those who wait. Belongs to one event loop.

    Args:
        limits: How many.
        limit: The word for the metrics when nobody else may wait, or waits too long.
        what: What is said then.
    """

    def __init__(self, limits: SlotLimits, *, limit: str, what: str = _FULL) -> None:
        self._limits = limits
        self._limit = limit
        self._what = what
        self._taken: Counter[CallerKey] = Counter()
        # The caller whose turn is next comes first; no caller is here without somebody who waits.
        self._waiting: OrderedDict[CallerKey, deque[asyncio.Future[None]]] = OrderedDict()
        self.taken_count = 0
        self.waiting_count = 0

    async def take(self, caller: CallerKey) -> None:
        """Take a slot, after a wait when none is free.

        Raises:
            ResourcesExhausted: No slot came free in time, or too many wait already.
        """
        # Whenever a slot comes free, those who wait get it first; one that is free now is free for everybody.
        if self.has_room(caller):
            self.force(caller)
        else:
            await self._wait(caller)

    def force(self, caller: CallerKey) -> None:
        """Take a slot at once, one too many if need be; nobody else gets one until as many came back."""
        self._taken[caller] += 1
        self.taken_count += 1

    def give_back(self, caller: CallerKey) -> None:
        """Give a slot back; whose turn it is gets it."""
        self._taken[caller] -= 1
        self.taken_count -= 1
        if not self._taken[caller]:
            del self._taken[caller]
        while (next_caller := self._next()) is not None:
            turn = self._waiting[next_caller][0]
            self._forget(next_caller, turn)
            if turn.done():
                continue  # cancelled, and whoever waited has not run since
            if next_caller in self._waiting:
                self._waiting.move_to_end(next_caller)
            self.force(next_caller)
            turn.set_result(None)

    def _next(self) -> CallerKey | None:
        if self.taken_count >= self._limits.slots:
            return None
        return next((caller for caller in self._waiting if self.has_room(caller)), None)

    def has_room(self, caller: CallerKey) -> bool:
        """Whether `take` would not wait."""
        return self.taken_count < self._limits.slots and self._taken[caller] < self._limits.per_caller

    async def _wait(self, caller: CallerKey) -> None:
        limits = self._limits
        own = len(self._waiting.get(caller, ()))
        if own >= limits.waiting_per_caller or (self.waiting_count >= limits.waiting and not self._make_room(own)):
            raise self._full()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(turn)
        self.waiting_count += 1
        try:
            async with asyncio.timeout(limits.wait_seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.give_back(caller)  # the turn came in the moment that ended the wait
            else:
                self._forget(caller, turn)
            if isinstance(error, TimeoutError):
                raise self._full() from None
            raise

    def _make_room(self, own: int) -> bool:
        """Send away the last of the caller who waits most, if more of theirs wait than of a newcomer who has `own`."""
        busiest = max(self._waiting, key=lambda caller: len(self._waiting[caller]))
        if len(self._waiting[busiest]) <= own + 1:
            return False
        last = self._waiting[busiest][-1]
        self._forget(busiest, last)
        if not last.done():
            last.set_exception(
                ResourcesExhausted(
                    "Most of the queries that wait are yours, and this one gave its place to another caller's.",
                    remedy="Send fewer at once, then try again.",
                    limit=self._limit,
                )
            )
        return True

    def _forget(self, caller: CallerKey, turn: asyncio.Future[None]) -> None:
        own = self._waiting.get(caller, deque())
        if turn not in own:
            return
        own.remove(turn)
        self.waiting_count -= 1
        if not own:
            del self._waiting[caller]

    def _full(self) -> ResourcesExhausted:
        return ResourcesExhausted(
            self._what,
            remedy="Wait for some to end, then try again.",
            limit=self._limit,
        )
