"""A bounded memory of findings that forgets by time and by little use.

What may be remembered, and for how long, is the caller's rule.
"""

import threading
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Generic, TypeVar

from micromegas_jupyter.core.system import Clock

Value = TypeVar("Value")

_NEVER = datetime.max.replace(tzinfo=UTC)
# How many entries that were used lately are passed over for one that was not, before the oldest goes anyway.
_MAX_SECOND_CHANCES = 16


class _Entry(Generic[Value]):
    __slots__ = ("ends_at", "ends_at_monotonic", "value", "was_used")

    def __init__(self, value: Value, ends_at_monotonic: float, ends_at: datetime) -> None:
        self.value = value
        self.ends_at_monotonic = ends_at_monotonic
        self.ends_at = ends_at
        self.was_used = False


class ExpiringCache(Generic[Value]):
    """Maps digests to values; with room for none it remembers nothing.

    A look-up takes no lock: it reads one entry and marks it as used. Everything that changes which entries there are
    happens behind one lock. Which entry makes room is decided by the second-chance rule, which is close to the least
    recently used and costs a look-up nothing.

    An entry ends by the monotonic clock after the time to live, and by the wall clock at its own end; so neither a
    clock that is set back nor one that is set forward lets it live too long.
    """

    def __init__(self, *, clock: Clock, max_entries: int, ttl_seconds: float) -> None:
        self._now = clock.now
        self._monotonic = clock.monotonic
        self._max_entries = max_entries
        self._ttl_seconds = ttl_seconds
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, _Entry[Value]] = OrderedDict()
        self._find = self._entries.get

    def get(self, key: bytes) -> Value | None:
        """Return the value while it lasts, and note that it was used; else None."""
        entry = self._find(key)
        if entry is None:
            return None
        if self._now() < entry.ends_at and self._monotonic() < entry.ends_at_monotonic:
            entry.was_used = True
            return entry.value
        with self._lock:
            if self._find(key) is entry:
                del self._entries[key]
        return None

    def put(self, key: bytes, value: Value, *, ends_at: datetime | None = None) -> None:
        """Remember `value` for the cache's time to live, or until `ends_at` when that is earlier."""
        if self._max_entries < 1:
            return
        entry = _Entry(value, self._monotonic() + self._ttl_seconds, _NEVER if ends_at is None else ends_at)
        with self._lock:
            self._entries.pop(key, None)
            self._make_room()
            self._entries[key] = entry

    def clear(self) -> None:
        """Forget everything at once."""
        with self._lock:
            self._entries.clear()

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

    def _make_room(self) -> None:
        """Leave room for one more entry; called with the lock held."""
        chances = _MAX_SECOND_CHANCES
        while len(self._entries) >= self._max_entries:
            key, oldest = self._entries.popitem(last=False)
            if oldest.was_used and chances:
                chances -= 1
                oldest.was_used = False
                self._entries[key] = oldest
