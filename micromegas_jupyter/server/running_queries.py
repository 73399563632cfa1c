"""The queries that give rows now, so that their callers can stop them with another call.

A query is known by a key made of its caller and its ticket, so nobody can name another caller's. The queries of other
processes of the server are reached through `cancel_elsewhere`; how to get there is for whoever starts the processes.
"""

import asyncio
import enum
import hashlib
import logging
from collections.abc import Awaitable, Callable, Collection
from types import TracebackType
from typing import Final

from micromegas_jupyter.errors import QueryCancelled, ServerUnavailable, Unavailable
from micromegas_jupyter.server.admission import CallerKey
from micromegas_jupyter.server.equal_timers import Deadline
from micromegas_jupyter.server.seals import join_parts

_END_SECONDS: Final = 2.0
_ELSEWHERE_SECONDS: Final = 5.0
_LOG: Final = logging.getLogger("micromegas_jupyter.server")


class CancelStatus(enum.IntEnum):
    """How far a cancellation has come, in the numbers of Flight's `CancelStatus` and Flight SQL's `CancelResult`."""

    CANCELLED = 1
    CANCELLING = 2
    NOT_CANCELLABLE = 3


CancelElsewhere = Callable[[bytes], Awaitable[CancelStatus]]
"""Cancels the queries with this key in the server's other processes; raises `Unavailable` when not all were asked."""


class RunningQueries:
    """Knows the queries that run in this process. Belongs to one event loop.

    Args:
        cancel_elsewhere: Reaches the server's other processes; None when there are none.
    """

    def __init__(self, cancel_elsewhere: CancelElsewhere | None = None) -> None:
        self._cancel_elsewhere = cancel_elsewhere
        self._running: dict[bytes, set[_Running]] = {}

    def running(self, key: bytes) -> "_Running":
        """Let the query in the body of a `with` be cancelled by its key.

        Raises:
            QueryCancelled: It was.
        """
        return _Running(self._running, key)

    async def cancel(self, key: bytes) -> CancelStatus:
        """Cancel the queries with this key in all processes of the server.

        Raises:
            ServerUnavailable: None was found here, and the other processes could not be asked.
        """
        here, elsewhere = await asyncio.gather(self.cancel_here(key), self._ask_elsewhere(key))
        if elsewhere is not None:
            return join_statuses({here, elsewhere})
        if here is CancelStatus.NOT_CANCELLABLE:
            raise ServerUnavailable(
                "Whether another process of the server runs the query could not be found out.",
                remedy="Cancel it again.",
            )
        return CancelStatus.CANCELLING  # it may run elsewhere, too

    async def cancel_here(self, key: bytes) -> CancelStatus:
        """Cancel the queries with this key in this process, and wait a moment until they have ended."""
        entries = tuple(self._running.get(key, ()))
        if not entries:
            return CancelStatus.NOT_CANCELLABLE
        for entry in entries:
            entry.end()
        try:
            async with asyncio.timeout(_END_SECONDS):
                for entry in entries:
                    await entry.has_ended.wait()
        except TimeoutError:
            return CancelStatus.CANCELLING
        return CancelStatus.CANCELLED

    async def _ask_elsewhere(self, key: bytes) -> CancelStatus | None:
        """Return what the other processes did; None when nobody knows."""
        if self._cancel_elsewhere is None:
            return CancelStatus.NOT_CANCELLABLE
        try:
            async with asyncio.timeout(_ELSEWHERE_SECONDS):
                return await self._cancel_elsewhere(key)
        except Exception as error:  # noqa: BLE001 - whatever the way to other processes does wrong, nobody knows
            _LOG.warning(
                "the server's other processes could not be asked to cancel a query",
                exc_info=None if isinstance(error, Unavailable | TimeoutError) else error,
            )
            return None


class _Running:
    """One query while it runs."""

    __slots__ = ("_all", "_deadline", "_key", "has_ended")

    def __init__(self, all_running: dict[bytes, set["_Running"]], key: bytes) -> None:
        self._all = all_running
        self._key = key
        self._deadline = Deadline(None, _cancelled)
        self.has_ended = asyncio.Event()

    def __enter__(self) -> None:
        self._deadline.__enter__()
        self._all.setdefault(self._key, set()).add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.has_ended.set()
        entries = self._all[self._key]
        entries.discard(self)
        if not entries:
            del self._all[self._key]
        self._deadline.__exit__(kind, error, traceback)

    def end(self) -> None:
        self._deadline.time_is_over()


def _cancelled() -> QueryCancelled:
    return QueryCancelled("The query was cancelled, as you asked.")


def join_statuses(found: Collection[CancelStatus]) -> CancelStatus:
    """Return the status of several cancellations as one: not done until all are, and done if there was one to do."""
    for status in (CancelStatus.CANCELLING, CancelStatus.CANCELLED):
        if status in found:
            return status
    return CancelStatus.NOT_CANCELLABLE


def query_key(caller: CallerKey, name: bytes) -> bytes:
    """Return the key of a caller's query; `name` is its ticket, or the id of a ticket that the server issued."""
    return hashlib.sha256(join_parts(*map(str.encode, caller), name)).digest()
