"""Counts whose queries had to be ended with their worker, and says when a caller has to wait for a while.

What a worker does with a caller who has to wait is `server.restrained_callers`' job.
"""

from collections import OrderedDict, deque
from typing import Final, TypeVar

WINDOW_SECONDS: Final = 600.0
PAUSE_SECONDS: Final = 600.0
_MOST_CALLERS: Final = 1024

_T = TypeVar("_T")
Caller = tuple[str, str]


class Restraint:
    """The count of each caller, up to a bound of callers; covered by its supervisor's lock.

    Args:
        most: How many such queries a caller may have in ten minutes before they have to wait; 0 for any number.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._ends: OrderedDict[Caller, deque[float]] = OrderedDict()
        self._until: OrderedDict[Caller, float] = OrderedDict()

    def note(self, caller: Caller, now: float) -> bool:
        """Count one; return whether the caller has to wait from now on."""
        if not self._most:
            return False
        ends = self._ends.setdefault(caller, deque(maxlen=self._most))
        self._ends.move_to_end(caller)
        ends.append(now)
        _forget_oldest(self._ends)
        if len(ends) < self._most or now - ends[0] > WINDOW_SECONDS:
            return False
        self._until[caller] = now + PAUSE_SECONDS
        self._until.move_to_end(caller)
        _forget_oldest(self._until)
        return True

    def waiting(self, now: float) -> dict[Caller, float]:
        """Return who has to wait, and for how many more seconds."""
        for caller in [caller for caller, until in self._until.items() if until <= now]:
            del self._until[caller]
        return {caller: until - now for caller, until in self._until.items()}


def _forget_oldest(found: OrderedDict[Caller, _T]) -> None:
    if len(found) > _MOST_CALLERS:
        found.popitem(last=False)
