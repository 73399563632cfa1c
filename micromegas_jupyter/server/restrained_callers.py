"""Callers who may not query for a while, because queries of theirs had to be ended with their process.

Who that is, all processes of a server are told by whoever supervises them.
"""

import threading
from collections import OrderedDict

from micromegas_jupyter.errors import ResourcesExhausted
from micromegas_jupyter.seams import SYSTEM_CLOCK, Clock
from micromegas_jupyter.server.fair_slots import CallerKey

MOST_CALLERS = 1024


class RestrainedCallers:
    """Knows them, up to a bound; the oldest are forgotten first. Safe to use from several threads.

    Args:
        clock: Tells when it is over.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._until: OrderedDict[CallerKey, float] = OrderedDict()

    def restrain(self, caller: CallerKey, seconds: float) -> None:
        """Refuse this caller's queries for so long."""
        with self._lock:
            self._until[caller] = self._clock.monotonic() + seconds
            self._until.move_to_end(caller)
            if len(self._until) > MOST_CALLERS:
                self._until.popitem(last=False)

    def check(self, caller: CallerKey) -> None:
        """Let a caller pass who is not restrained.

        Raises:
            ResourcesExhausted: They are.
        """
        if not self._until:
            return
        with self._lock:
            seconds = self._until.get(caller, 0.0) - self._clock.monotonic()
            if seconds <= 0:
                self._until.pop(caller, None)
                return
        minutes = max(1, round(seconds / 60))
        raise ResourcesExhausted(
            "Several of your queries did not stop when they were cancelled, or took too much memory, and other callers "
            "lost theirs with them.",
            remedy=f"Try again in {minutes} min, without cross joins, joins that have no equality and huge values.",
            retry_after_seconds=seconds,
            limit="stuck_queries",
        )
