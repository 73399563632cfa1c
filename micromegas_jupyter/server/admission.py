"""Whose query runs when: few heavy ones at once, and small ones beside them without waiting for them.

A query gets a turn to be planned. When the plan is heavy, it hands that turn on and waits for one of the few heavy
turns. When it is small, it keeps its turn; if it then works for a while, it counts as a medium one as well, and for
long, as a heavy one. One that is known to be medium waits for one of the few turns of those, which are over soon. What
a query may use while it runs is the engine's business.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final, Self

from micromegas_jupyter.server.equal_timers import EqualTimers
from micromegas_jupyter.server.fair_slots import CallerKey, FairSlots, SlotLimits

#: A query that works for longer counts as heavy, whatever its plan looked like.
LONG_SECONDS: Final = 1.0
#: A query that works for longer is no small one: many of these at once keep small ones waiting.
MEDIUM_SECONDS: Final = 0.05
_WAITING_PER_SLOT: Final = 4

__all__ = ["LONG_SECONDS", "MEDIUM_SECONDS", "Admission", "AdmissionLimits", "CallerKey", "Turn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """How many queries run at once.

    Attributes:
        max_queries: Queries that plan, or run and are small.
        max_per_caller: Of these, those of one caller.
        max_heavy: Heavy queries that run.
        max_medium: Medium queries that run.
        wait_seconds: How long a query waits for each turn.
    """

    max_queries: int
    max_per_caller: int
    max_heavy: int
    max_medium: int
    wait_seconds: float


class Admission:
    """Gives out turns. Belongs to one event loop; the counts may be read from any thread."""

    def __init__(self, limits: AdmissionLimits) -> None:
        self._short = EqualTimers(MEDIUM_SECONDS)
        self._long = EqualTimers(LONG_SECONDS)
        waiting = _WAITING_PER_SLOT * limits.max_queries

        def share(slots: int, *, per_caller: int, limit: str, waiting_per_caller: int = waiting) -> FairSlots:
            return FairSlots(
                SlotLimits(
                    slots=slots,
                    per_caller=per_caller,
                    waiting=waiting,
                    waiting_per_caller=waiting_per_caller,
                    wait_seconds=limits.wait_seconds,
                ),
                limit=limit,
            )

        self._ordinary = share(limits.max_queries, per_caller=limits.max_per_caller, limit="queue")
        self._medium = share(limits.max_medium, per_caller=limits.max_medium, limit="queue")
        self._heavy = share(
            limits.max_heavy,
            per_caller=limits.max_heavy,
            waiting_per_caller=limits.max_per_caller,
            limit="heavy_queue",
        )

    @property
    def small_count(self) -> int:
        """How many queries plan, or run without being known as heavy before they ran."""
        return self._ordinary.taken_count

    @property
    def heavy_count(self) -> int:
        """How many heavy queries run and work, those among them that were taken for small."""
        return self._heavy.taken_count

    @property
    def medium_count(self) -> int:
        """How many medium queries run, those among them that were taken for small."""
        return self._medium.taken_count

    @property
    def waiting_medium_count(self) -> int:
        """How many medium queries wait to run."""
        return self._medium.waiting_count

    @property
    def waiting_count(self) -> int:
        """How many wait to be planned."""
        return self._ordinary.waiting_count

    @property
    def waiting_heavy_count(self) -> int:
        """How many heavy queries wait to run."""
        return self._heavy.waiting_count

    def turn(self, caller: CallerKey, *, waiting: Callable[[], AbstractContextManager[None]] = nullcontext) -> "Turn":
        """Wait for a turn, to plan and run a query in the body of an `async with`.

        Args:
            caller: Issuer and subject.
            waiting: Makes what is around each wait, to measure it.

        Raises:
            ResourcesExhausted: No turn came in time, or too many wait already.
        """
        return Turn(
            caller,
            ordinary=self._ordinary,
            medium=self._medium,
            heavy=self._heavy,
            short=self._short,
            long=self._long,
            waiting=waiting,
        )


class Turn:
    """One query's turn. Belongs to one event loop; made by `Admission`."""

    def __init__(  # noqa: PLR0913 - what it may hold, and for how long
        self,
        caller: CallerKey,
        *,
        ordinary: FairSlots,
        medium: FairSlots,
        heavy: FairSlots,
        short: EqualTimers,
        long: EqualTimers,
        waiting: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._caller = caller
        self._ordinary = ordinary
        self._medium = medium
        self._heavy = heavy
        self._waiting = waiting
        self._has_ordinary = False
        self._is_small = False
        self._has_medium = False
        self._is_heavy = False
        self._is_idle = False
        self._has_heavy = False
        self._short = short
        self._long = long

    async def __aenter__(self) -> Self:
        with self._waiting():
            await self._ordinary.take(self._caller)
        self._has_ordinary = True
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.end()

    async def become_heavy(self) -> None:
        """Hand the turn on and wait for a heavy one.

        Raises:
            ResourcesExhausted: None came in time, or too many wait already.
        """
        await self._exchange(self._heavy)
        self._is_heavy = self._has_heavy = True

    async def become_medium(self) -> None:
        """Hand the turn on and wait for a medium one, which `LONG_SECONDS` later becomes a heavy one.

        Raises:
            ResourcesExhausted: None came in time, or too many wait already.
        """
        await self._exchange(self._medium)
        self._has_medium = True
        self._long.start(self)

    def become_small(self) -> None:
        """Keep the turn; from `MEDIUM_SECONDS` on the query counts as a medium one too, then as a heavy one."""
        self._is_small = True
        self._short.start(self)

    def time_is_over(self) -> None:
        """Count as what takes longer from now on."""
        if self._is_small:
            self._is_small, self._has_medium = False, True
            self._medium.force(self._caller)
            self._long.start(self)
        else:
            self._leave_medium()
            self._settle(is_heavy=True)

    async def _exchange(self, slots: FairSlots) -> None:
        self._has_ordinary = False
        self._ordinary.give_back(self._caller)
        with self._waiting():
            await slots.take(self._caller)

    def _leave_medium(self) -> None:
        if self._has_medium:
            self._has_medium = False
            self._medium.give_back(self._caller)

    def idle(self) -> "_Idle":
        """Let others have a heavy turn while the body waits for long: for a client that takes no data."""
        return _Idle(self, self._long)

    def end(self) -> None:
        """Give everything back."""
        self._short.drop(self)
        self._long.drop(self)
        self._leave_medium()
        self._settle(is_heavy=False)
        if self._has_ordinary:
            self._has_ordinary = False
            self._ordinary.give_back(self._caller)

    def rest(self, *, is_idle: bool) -> None:
        """Give the heavy turn away, or have it again."""
        self._is_idle = is_idle
        self._settle(is_heavy=self._is_heavy)

    def _settle(self, *, is_heavy: bool) -> None:
        """Hold a heavy turn exactly while the query is heavy and not idle."""
        self._is_heavy = is_heavy
        is_due = is_heavy and not self._is_idle
        if is_due and not self._has_heavy:
            self._heavy.force(self._caller)
        elif self._has_heavy and not is_due:
            self._heavy.give_back(self._caller)
        self._has_heavy = is_due


class _Idle:
    """A query while it waits for its client; there is one for each message."""

    __slots__ = ("_long", "_turn")

    def __init__(self, turn: Turn, long: EqualTimers) -> None:
        self._turn = turn
        self._long = long

    def __enter__(self) -> None:
        self._long.start(self)

    def __exit__(self, *_error: object) -> None:
        self._long.drop(self)
        self._turn.rest(is_idle=False)

    def time_is_over(self) -> None:
        self._turn.rest(is_idle=True)
