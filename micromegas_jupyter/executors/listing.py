"""The table listing that statements are planned against, and its distribution to executors."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cachetools import LRUCache

from micromegas_jupyter.core.file_list import TableChange
from micromegas_jupyter.core.protocols import TableSnapshot, TableSource
from micromegas_jupyter.executors import protocol
from micromegas_jupyter.executors.launcher import await_shared, run_in_thread
from micromegas_jupyter.executors.scheduling import CallerKey

# The SQL of waiting statements is searched for table names; above this size, listing all tables is cheaper.
_MAX_WANTED_CHARACTERS: Final = 32 * 1024
# Short statements whose plans read no tables are remembered.
_MAX_REMEMBERED: Final = 1024
_MAX_REMEMBERED_CHARACTERS: Final = 512


class Listing:
    """The tables, listed on a separate thread because storage may hang. Belongs to one event loop.

    A statement sees everything that was committed before it arrived, because it waits for a listing that begins later.
    Statements that arrive during a listing share the next one.
    """

    def __init__(self, source: TableSource) -> None:
        self._source = source
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None
        self._wanted: str | None = None  # the statements that wait for the next listing; initially all tables
        self._packed: dict[int, tuple[TableSnapshot, bytes]] = {}
        self._changes: dict[tuple[int, int], tuple[TableSnapshot, TableSnapshot, bytes | None]] = {}
        self._reading_none: LRUCache[tuple[CallerKey, str], None] = LRUCache(_MAX_REMEMBERED)
        self.version = 0
        self.tables: Sequence[TableSnapshot] = ()

    def packed(self, table: TableSnapshot, *, known: TableSnapshot | None = None) -> bytes:
        """Return a table for executors, packed only once, or only the changes if they already have most of it."""
        if known is not None:
            pair = id(known), id(table)
            if pair not in self._changes:
                change = TableChange.between(known, table)
                self._changes[pair] = known, table, None if change is None else protocol.pickle_request(change)
            if (packed := self._changes[pair][2]) is not None:
                return packed
        if id(table) not in self._packed:
            self._packed[id(table)] = table, protocol.pickle_request(table)
        return self._packed[id(table)][1]

    def is_needed(self, caller: CallerKey, sql: str) -> bool:
        """Whether the caller's statement might read tables; False only if its plan has shown that it doesn't."""
        return not self.version or (caller, sql) not in self._reading_none

    def note_plan(self, caller: CallerKey, sql: str, facts: Mapping[str, Any]) -> None:
        """Store an executor's report of a statement's plan, only for this caller: executors are not trusted."""
        if facts.get("reads_tables") is not False:
            self._reading_none.pop((caller, sql), None)
        elif len(sql) <= _MAX_REMEMBERED_CHARACTERS and self.is_needed(caller, sql):
            self._reading_none[caller, sql] = None

    async def refresh(self) -> None:
        """Wait for a listing of all tables that starts after this call; raise Unavailable if they cannot be listed."""
        await await_shared(self.request(None))

    def request(self, sql: str | None) -> asyncio.Task[None]:
        """Return the next listing to start, which includes the tables in `sql` (None for all tables).

        It is shared, so waiting callers must not cancel it.
        """
        if sql is None or self._wanted is None or len(self._wanted) + len(sql) > _MAX_WANTED_CHARACTERS:
            self._wanted = None
        else:
            self._wanted = f"{self._wanted} {sql}"
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._list())
            # Retrieve an exception that may not have a waiter, so that asyncio does not log it.
            self._next.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._next

    async def _list(self) -> None:
        async with self._turn:
            self._next = None
            wanted, self._wanted = self._wanted, ""
            found = await run_in_thread(lambda: self._list_tables(wanted), name="table-listing")
            if found is not None:
                self.tables = found
                self._changes = {}
                self._packed = {id(one): self._packed[id(one)] for one in found if id(one) in self._packed}
                self.version += 1

    def _list_tables(self, wanted: str | None) -> tuple[TableSnapshot, ...] | None:
        """Return the tables that changed; runs on a separate thread because tables have many files."""
        tables = tuple(self._source.snapshot(wanted))
        return None if tables == self.tables and self.version else tables
