"""The tables as they stand now, listed once for all statements that come in at the same moment."""

from __future__ import annotations

import asyncio
import queue
import re
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from micromegas_jupyter.core.protocols import TableSnapshot, TableSource

_T = TypeVar("_T")
# Every statement that reads a table or lists tables has one of these words.
_READS_TABLES: Final = re.compile(r"\b(?:from|table|show|describe|desc|explain)\b", re.IGNORECASE)


class Listing:
    """Lists tables on a thread, since storage may hang. Belongs to one event loop.

    A statement sees whatever was committed before it came in: it waits for a listing that begins after that. Those that
    come in while one is made share the next one.

    Args:
        source: The tables.
    """

    def __init__(self, source: TableSource) -> None:
        self._source = source
        self._thread = _Thread()
        self._current: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None
        self.version = 0
        self.tables: Sequence[TableSnapshot] = ()

    async def refresh_for(self, sql: str) -> None:
        """Wait for a listing that begins after this call, unless the statement reads no table.

        Raises:
            Unavailable: The tables cannot be listed.
        """
        if not self.version or _READS_TABLES.search(sql) is not None:
            await self.refresh()

    async def refresh(self) -> None:
        """Wait for a listing that begins after this call.

        Raises:
            Unavailable: The tables cannot be listed.
        """
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._list(self._current))
            self._next.add_done_callback(_note_failure)
        # Shielded: others wait for the same listing.
        await asyncio.shield(self._next)

    async def _list(self, previous: asyncio.Task[None] | None) -> None:
        if previous is not None and not previous.done():
            await asyncio.wait({previous})
        self._current, self._next = self._next, None
        tables = tuple(await self._thread.run(self._source.snapshot))
        if tables != self.tables or not self.version:
            self.tables = tables
            self.version += 1


class _Thread:
    """Runs functions on one daemon thread, which may hang: at half the cost of asyncio's pool, and apart from it."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]]] = queue.SimpleQueue()
        self._has_started = False

    async def run(self, function: Callable[[], _T]) -> _T:
        """Return what `function` returns."""
        if not self._has_started:
            self._has_started = True
            threading.Thread(target=self._work, name="table-listing", daemon=True).start()
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._jobs.put((function, future))
        return await future

    def _work(self) -> None:
        while True:
            function, future = self._jobs.get()
            result, error = None, None
            try:
                result = function()
            except BaseException as raised:  # noqa: BLE001 - whoever waits gets it
                error = raised
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                future.get_loop().call_soon_threadsafe(_settle, future, result, error)


def _settle(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _note_failure(listing: asyncio.Task[None]) -> None:
    """Look at a failure that nobody may wait for any more, so that asyncio does not log it."""
    if not listing.cancelled():
        listing.exception()
