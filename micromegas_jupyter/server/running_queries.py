"""The statements that give rows now, so that their callers can stop them with another call.

A statement is known by a key made of its caller and its ticket, so nobody can name another caller's.
"""

import asyncio
import enum
import hashlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

from micromegas_jupyter.executors.limits import CallerKey
from micromegas_jupyter.executors.reports import Cause
from micromegas_jupyter.executors.statements import RunningStatement
from micromegas_jupyter.server.seals import join_parts

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


def join_statuses(found: Collection[CancelStatus]) -> CancelStatus:
    """Return the status of several cancellations as one: not done until all are, and done if there was one to do."""
    for status in (CancelStatus.CANCELLING, CancelStatus.CANCELLED):
        if status in found:
            return status
    return CancelStatus.NOT_CANCELLABLE


def query_key(caller: CallerKey, name: bytes) -> bytes:
    """Return the key of a caller's query; `name` is its ticket, or the id of a ticket that the server issued."""
    return hashlib.sha256(join_parts(*map(str.encode, caller), name)).digest()
