"""A clock that moves only when a test says so."""

from datetime import UTC, datetime, timedelta


class FakeClock:
    """Implements `core.system.Clock`; `advance` moves both hands."""

    def __init__(self, start=None):
        self._now = start or datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
        self._monotonic = 1000.0

    def now(self):
        return self._now

    def monotonic(self):
        return self._monotonic

    def advance(self, seconds):
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds

    def sleep_through(self, seconds):
        self._now += timedelta(seconds=seconds)
