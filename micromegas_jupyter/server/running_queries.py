"""What callers have running: how many calls, and which statements, so that another call can stop them.

A statement is known by a key made of its caller and its ticket, so nobody can name another caller's.
"""

import asyncio
import enum
import hashlib
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

from micromegas_jupyter.errors import ResourcesExhausted
from micromegas_jupyter.executors.pool import RunningStatement
from micromegas_jupyter.executors.scheduling import CallerKey, Cause
from micromegas_jupyter.server.tickets import join_parts

_END_SECONDS: Final = 2.0


class CancelStatus(enum.IntEnum):
    """How far a cancellation has come, in the numbers of Flight's `CancelStatus` and Flight SQL's `CancelResult`."""

    CANCELLED = 1
    CANCELLING = 2
    NOT_CANCELLABLE = 3


class RunningQueries:
    """Knows the statements that run. Belongs to one event loop."""

    def __init__(self) -> None:
        self._running: dict[bytes, set[RunningStatement]] = {}

    @contextmanager
    def listed(self, key: bytes, statement: RunningStatement) -> Iterator[None]:
        """Let the statement be cancelled by its key while the body runs."""
        self._running.setdefault(key, set()).add(statement)
        try:
            yield
        finally:
            self._running[key].discard(statement)
            if not self._running[key]:
                del self._running[key]

    async def cancel(self, key: bytes) -> CancelStatus:
        """End the statements with this key, and wait a moment until they have ended."""
        statements = tuple(self._running.get(key, ()))
        if not statements:
            return CancelStatus.NOT_CANCELLABLE
        for statement in statements:
            statement.end(Cause.CANCELLED)
        try:
            async with asyncio.timeout(_END_SECONDS):
                for statement in statements:
                    await statement.has_ended.wait()
        except TimeoutError:
            return CancelStatus.CANCELLING
        return CancelStatus.CANCELLED


class OpenCalls:
    """Counts the open calls of each caller. Belongs to one event loop."""

    def __init__(self, per_caller: int) -> None:
        self._per_caller = per_caller
        self._open: Counter[CallerKey] = Counter()

    @contextmanager
    def one_of(self, caller: CallerKey) -> Iterator[None]:
        """Have the body be a call of this caller."""
        if self._open[caller] >= self._per_caller:
            raise ResourcesExhausted(
                f"You have {self._per_caller} calls open, as many as one caller may.",
                remedy="Wait for some to end, read results to their end, or cancel them.",
                limit="calls",
            )
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]


def join_statuses(found: Collection[CancelStatus]) -> CancelStatus:
    """Return the status of several cancellations as one: not done until all are, and done if there was one to do."""
    for status in (CancelStatus.CANCELLING, CancelStatus.CANCELLED):
        if status in found:
            return status
    return CancelStatus.NOT_CANCELLABLE


def query_key(caller: CallerKey, name: bytes) -> bytes:
    """Return the key of a caller's query; `name` is its ticket, or the id of a ticket that the server issued."""
    return hashlib.sha256(join_parts(*map(str.encode, caller), name)).digest()
