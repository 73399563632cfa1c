"""Provides an engine's tables in the form that the rest of the server uses: names and schemas, without files."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Final

import pyarrow as pa

from micromegas_jupyter.core.protocols import TableProblem, TableSnapshot
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import InvalidStatement, MicromegasError, Unavailable
from micromegas_jupyter.executors.launcher import await_shared
from micromegas_jupyter.gateway.backend import Engine

_LOG: Final = logging.getLogger("micromegas_jupyter.gateway")
_NAMES_SECONDS: Final = 5.0
#: While a listing is running or can't be completed, the previous listing is used up to this age.
_MAX_AGE_SECONDS: Final = 30.0
#: Listing stops after this time without statements; the next statement then waits for a listing.
_IDLE_SECONDS: Final = 30.0
_LISTING_SECONDS: Final = 60.0
_SCHEMA_SECONDS: Final = 60.0
_MAX_TABLES: Final = 5000
_MAX_SCHEMAS_BYTES: Final = 64 * 1024 * 1024
_AT_ONCE: Final = 8
_WAIT_SECONDS: Final = 120.0
#: This server can list the table's columns, but its own processes can't read the rows.
_ELSEWHERE: Final = TableProblem(
    "The table is in the engine behind this server, which this statement can't access.",
    "Query its rows in a statement without information_schema, SHOW, or the server's own functions.",
    is_elsewhere=True,
)


class EngineTables:
    """Tracks an engine's tables; executors use it as a `TableSource`. Belongs to one event loop, except for `snapshot`.

    While statements arrive, the tables are listed every five seconds in the background, so that statements don't wait.
    A new table appears after five seconds plus the time of a listing, a new column after at most a minute.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._loop: asyncio.AbstractEventLoop | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._listed_at = self._used_at = float("-inf")
        self._found: dict[str, tuple[bytes, pa.Schema, float]] = {}  # with the expiration time of each schema
        self._snapshots: tuple[TableSnapshot, ...] = ()
        #: Each table's IPC schema from the engine.
        self.schemas: Mapping[str, bytes] = MappingProxyType({})
        self.version = 0

    def attach(self) -> None:
        """Attach this object to the running event loop."""
        self._loop = asyncio.get_running_loop()

    def snapshot(self, sql: str | None = None) -> Sequence[TableSnapshot]:  # noqa: ARG002 - the engine plans statements
        """Return all tables. Not for the event loop's thread; before `attach`, calls the engine once."""
        if self._loop is None:
            return asyncio.run(self._request_once())
        refreshing = asyncio.run_coroutine_threadsafe(self.refresh(), self._loop)
        try:
            refreshing.result(_WAIT_SECONDS)
        except TimeoutError:
            raise _not_listed() from None
        return self._snapshots

    async def _request_once(self) -> Sequence[TableSnapshot]:
        await self.engine.open()
        try:
            await self.refresh()
        finally:
            await self.close()
        return self._snapshots

    async def close(self) -> None:
        """Stop listing tables, and close the connection to the engine."""
        if self._keeping is not None:
            self._keeping.cancel()
        await self.engine.close()

    async def refresh(self) -> None:
        """Wait until the listing is up to date; raise Unavailable if the engine can't list its tables."""
        self._used_at = now = SYSTEM_CLOCK.monotonic()
        age = now - self._listed_at
        is_listing = self._keeping is not None and not self._keeping.done()
        if age >= (_MAX_AGE_SECONDS if is_listing else _NAMES_SECONDS):
            await self._list()
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.get_running_loop().create_task(self._keep_listed())

    async def _keep_listed(self) -> None:
        """List the tables periodically until there have been no statements for some time."""
        while True:
            await asyncio.sleep(_NAMES_SECONDS)
            if SYSTEM_CLOCK.monotonic() - self._used_at >= _IDLE_SECONDS:
                return
            with suppress(MicromegasError):  # already logged
                await self._list()

    async def _list(self) -> None:
        if self._refreshing is None:
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh())
            self._refreshing.add_done_callback(lambda task: task.cancelled() or task.exception())
        await await_shared(self._refreshing)

    async def _refresh(self) -> None:
        turn = asyncio.Semaphore(_AT_ONCE)
        began_at = SYSTEM_CLOCK.monotonic()
        try:
            async with asyncio.timeout(_LISTING_SECONDS):
                listed = await self.engine.list_tables()
                now = SYSTEM_CLOCK.monotonic()
                if len(listed) > _MAX_TABLES:
                    _LOG.error("the engine has more tables than are known here", extra={"tables": len(listed)})
                    listed = dict(sorted(listed.items())[:_MAX_TABLES])

                async def find(name: str, schema: bytes | None) -> bytes | None:
                    known = self._found.get(name)
                    if schema is not None:
                        return schema
                    if known is not None and known[2] > now:
                        return known[0]
                    async with turn:
                        return await self._find_schema(name)

                names = sorted(listed)
                schemas = await asyncio.gather(*(find(name, listed[name]) for name in names))
                self._take_over({name: schema for name, schema in zip(names, schemas, strict=True) if schema}, now)
                self._listed_at = began_at
        except TimeoutError:
            raise _not_listed() from None
        finally:
            self._refreshing = None

    async def _find_schema(self, name: str) -> bytes | None:
        """Return a table's schema, or None if the engine can't read the table; such tables are hidden from users."""
        quote = "`" if self.engine.settings.dialect == "spark" else '"'
        try:
            # The name comes from the engine, and is quoted.
            sql = f"SELECT * FROM {quote}{name.replace(quote, 2 * quote)}{quote} LIMIT 0"  # noqa: S608
            return (await self.engine.plan(sql)).schema
        except InvalidStatement as error:
            _LOG.warning("the engine cannot read one of its tables", extra={"table": name, "error": error.what})
            return None

    def _take_over(self, schemas: Mapping[str, bytes], now: float) -> None:
        found: dict[str, tuple[bytes, pa.Schema, float]] = {}
        room = _MAX_SCHEMAS_BYTES
        for name, schema in schemas.items():
            room -= len(schema)
            known = self._found.get(name)
            if known is not None and known[0] == schema:
                until = known[2] if known[2] > now else now + _SCHEMA_SECONDS
                found[name] = (schema, known[1], until)
            elif room > 0 and (decoded := _decode(name, schema)) is not None:
                found[name] = (schema, decoded, now + _SCHEMA_SECONDS)
        if {name: one[0] for name, one in found.items()} != self.schemas or not self.version:
            self._snapshots = tuple(
                TableSnapshot(name=name, schema=one[1], files=(), problem=_ELSEWHERE) for name, one in found.items()
            )
            self.schemas = MappingProxyType({name: one[0] for name, one in found.items()})
            self.version += 1
        self._found = found

    def can_be_reached(self) -> bool:
        """Return whether the engine is reachable; can be called from any thread except the event loop's."""
        if self._loop is None:
            return False
        asking = asyncio.run_coroutine_threadsafe(self.engine.ping(), self._loop)
        try:
            asking.result(_WAIT_SECONDS)
        except (MicromegasError, TimeoutError):
            return False
        return True


def _not_listed() -> Unavailable:
    return Unavailable("The engine didn't list its tables in time.")


def _decode(name: str, schema: bytes) -> pa.Schema | None:
    try:
        found = pa.ipc.read_schema(pa.py_buffer(schema))
        is_usable = all(field.isprintable() for field in found.names)
    except (pa.ArrowException, OSError, ValueError):
        is_usable = False
    if not is_usable:
        _LOG.warning("a table of the engine has a schema that cannot be used", extra={"table": name})
        return None
    return found
