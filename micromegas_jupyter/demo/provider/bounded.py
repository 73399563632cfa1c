"""A store that forgets: entries leave when they are old, and the oldest leaves when there are too many.

It has no lock of its own; its owner has one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from micromegas_jupyter.seams import Clock

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class _Entry(Generic[Value]):
    value: Value
    leaves_at: float


class BoundedStore(Generic[Value]):
    """Values by name, each for `lifetime_seconds`, at most `max_entries` of them."""

    def __init__(self, *, clock: Clock, lifetime_seconds: float, max_entries: int) -> None:
        self._clock = clock
        self._lifetime_seconds = lifetime_seconds
        self._max_entries = max_entries
        self._entries: dict[str, _Entry[Value]] = {}

    def put(self, name: str, value: Value) -> None:
        """Keep `value`; the oldest entries leave first when there is no room."""
        self._drop_old()
        self._entries.pop(name, None)
        while len(self._entries) >= self._max_entries:
            del self._entries[next(iter(self._entries))]
        self._entries[name] = _Entry(value, self._clock.monotonic() + self._lifetime_seconds)

    def get(self, name: str) -> Value | None:
        """Return the value, or None when it was never there or has left."""
        self._drop_old()
        entry = self._entries.get(name)
        return None if entry is None else entry.value

    def take(self, name: str) -> Value | None:
        """Return the value and forget it, or None when it is not there."""
        value = self.get(name)
        self._entries.pop(name, None)
        return value

    def values(self) -> list[Value]:
        """Return all values, oldest first."""
        self._drop_old()
        return [entry.value for entry in self._entries.values()]

    def __len__(self) -> int:
        self._drop_old()
        return len(self._entries)

    def _drop_old(self) -> None:
        # One lifetime for all, so insertion order is the order of leaving.
        now = self._clock.monotonic()
        while self._entries:
            oldest = next(iter(self._entries))
            if self._entries[oldest].leaves_at > now:
                return
            del self._entries[oldest]
