"""Remembers who was warned of lately, so that the log says each thing once a day.

What a warning says is the caller's choice.
"""

import threading
from collections import OrderedDict

from micromegas_jupyter.core.system import Clock

ONE_DAY_SECONDS = 24 * 3600.0
MAX_REMEMBERED = 100_000


class DailyTurns:
    """Gives each name one turn a day. One lock guards the memory, which is bounded; the oldest turns are forgotten.

    Outlives the validators that ask, so that a reload repeats no warning.
    """

    def __init__(self, clock: Clock, *, max_remembered: int = MAX_REMEMBERED) -> None:
        self._clock = clock
        self._max_remembered = max_remembered
        self._lock = threading.Lock()
        self._next_at: OrderedDict[bytes, float] = OrderedDict()

    def take(self, name: bytes) -> tuple[bool, float]:
        """Return whether it is this name's turn now, and the monotonic time of its next one."""
        with self._lock:
            now = self._clock.monotonic()
            next_at = self._next_at.get(name)
            if next_at is not None and now < next_at:
                return False, next_at
            self._next_at[name] = now + ONE_DAY_SECONDS
            self._next_at.move_to_end(name)
            while len(self._next_at) > self._max_remembered:
                self._next_at.popitem(last=False)
            return True, now + ONE_DAY_SECONDS
