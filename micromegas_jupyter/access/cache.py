"""A bounded memory of findings that forgets by time and by least use.

What may be remembered, and for how long, is the caller's rule.
"""

import threading
from collections import OrderedDict
from datetime import datetime
from typing import Generic, TypeVar

from micromegas_jupyter.seams import Clock

Value = TypeVar("Value")


class ExpiringCache(Generic[Value]):
    """Maps digests to values; one lock guards the entries and is held for single operations only."""

    def __init__(self, *, clock: Clock, max_entries: int, ttl_seconds: float) -> None:
        self._clock = clock
        self._max_entries = max_entries
        self._ttl_seconds = ttl_seconds
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, tuple[Value, float, datetime | None]] = OrderedDict()

    def get(self, key: bytes) -> Value | None:
        """Return the value while it lasts, and count it as used; else None."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            value, ends_at_monotonic, ends_at = entry
            if self._clock.monotonic() >= ends_at_monotonic or (ends_at is not None and self._clock.now() >= ends_at):
                del self._entries[key]
                return None
            self._entries.move_to_end(key)
            return value

    def put(self, key: bytes, value: Value, *, ends_at: datetime | None = None) -> None:
        """Remember `value` for the cache's time to live, or until `ends_at` when that is earlier."""
        with self._lock:
            self._entries[key] = (value, self._clock.monotonic() + self._ttl_seconds, ends_at)
            self._entries.move_to_end(key)
            while len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)
