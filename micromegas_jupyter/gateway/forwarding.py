"""Statements that another engine runs: this server handles the call, and the engine provides only plan and rows.

An executor rewrites callers' SQL, because it has limits and can be killed; frames pass through undecoded.
"""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from cachetools import LRUCache, TTLCache

from micromegas_jupyter.core.protocols import AuthContext
from micromegas_jupyter.engine.contract import RUNNING_QUERIES, Reads
from micromegas_jupyter.errors import (
    DeadlineExceeded,
    InvalidStatement,
    QueryError,
    UnsupportedStatement,
)
from micromegas_jupyter.executors.pool import Pool, RunningStatement, parse_reads, tables_not_listed
from micromegas_jupyter.executors.protocol import Output, Statement
from micromegas_jupyter.gateway.backend import Flight, TicketLost
from micromegas_jupyter.gateway.rewrite import list_visible, rewrite_statement
from micromegas_jupyter.gateway.tables import EngineTables

_MIB: Final = 1024 * 1024
_FLIGHT_SECONDS: Final = 2.0  # how long a GetFlightInfo plan waits for its DoGet; the same as for executors
_MAX_FLIGHTS: Final = 512
_MAX_REWRITTEN_CHARACTERS: Final = 8 * _MIB
_OTHER_CHARACTERS: Final = 2048  # counted for a caller's permissions and for each cached statement
_MAX_CACHED_CHARACTERS: Final = 16 * 1024
# Names that only this server can handle, because it has the names and columns of the engine's tables, but not their
# rows.
_OWN_NAMES: Final = frozenset(
    {"information_schema", "my_rights", "deny_queries", "list_query_denials", "remove_query_denial", RUNNING_QUERIES}
)
_OWN_LIMITS: Final = frozenset({"rows", "result_bytes"})
_OWN_STATEMENTS: Final = frozenset({"show", "describe", "desc"})
_OWN_NAME: Final = "|".join(sorted(_OWN_NAMES))
# Skipped text, except quoted own names. Possessive patterns only, because the event loop waits for the result.
_SKIPPED: Final = re.compile(
    rf"""(?<![\w$])[eE]'(?:[^'\\]|\\.|'')*+(?:'|\Z)|'(?:[^']|'')*+(?:'|\Z)|"({_OWN_NAME})"(?!")"""
    r"""|"(?:[^"]|"")*+(?:"|\Z)|--[^\r\n]*+|/\*(?:[^*]|\*(?!/))*+(?:\*/|\Z)""",
    re.DOTALL,
)
_OWN: Final = re.compile(
    rf"\s*+(?:{'|'.join(sorted(_OWN_STATEMENTS))})(?![\w@$\#])|.*?(?<![\w@$\#])(?:{_OWN_NAME})(?![\w@$\#])",
    re.IGNORECASE | re.DOTALL,
)
_OWN_KEYWORDS: Final = tuple(word.upper() for word in _OWN_NAMES | _OWN_STATEMENTS)


def is_answered_here(sql: str) -> bool:
    """Whether a statement reads data that only this server has, so that it must run in this server's executors."""
    upper = sql.upper()  # not a regular expression, which would block the event loop for milliseconds
    if not any(word in upper for word in _OWN_KEYWORDS):
        return False
    return _OWN.match(_SKIPPED.sub(r" \1 ", sql)) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Forwarded:
    """A statement as sent to the engine."""

    sql: str = field(repr=False)
    hides_rows: bool
    parameters: bytes  # the IPC schema of its parameters
    is_bound: bool
    reads: Reads
    size: int  # including the source of the rewrite


@contextmanager
def _hiding_values(forwarded: _Forwarded) -> Iterator[None]:
    """If rows are hidden from the caller, remove the engine's own message, which may contain values and plans."""
    try:
        yield
    except QueryError as error:
        if not forwarded.hides_rows or isinstance(error, DeadlineExceeded) or error.limit in _OWN_LIMITS:
            raise
        raise InvalidStatement(
            "The engine couldn't run the statement; the reason isn't shown because you may read only some of a table's "
            "rows.",
            remedy="Check its casts (TRY_CAST returns NULL), divisions and regular expressions.",
        ) from None


class Gateway:
    """Forwards statements to an engine, using the slots of an executor pool. Belongs to one event loop."""

    def __init__(self, pool: Pool, tables: EngineTables, *, max_rows: int | None) -> None:
        self.pool = pool
        self.engine = tables.engine
        self.tables = tables
        self._max_rows = max_rows
        self._listed_version = 0
        #: Plans that wait for the call that reads their rows; a ticket may be valid for only one call.
        self.flights: TTLCache[Any, Flight] = TTLCache(_MAX_FLIGHTS, _FLIGHT_SECONDS, pool.clock.monotonic)
        self.rewritten: LRUCache[Any, _Forwarded] = LRUCache(_MAX_REWRITTEN_CHARACTERS, getsizeof=lambda one: one.size)

    async def open(self) -> None:
        """Prepare the connection to the engine."""
        await self.engine.open()
        self.tables.attach()

    async def close(self) -> None:
        """Close the connection and cancel its calls."""
        await self.tables.close()

    def runner(self, running: RunningStatement, sql: str | None = None) -> "RunningStatement | ForwardedStatement":
        """Return the object that plans and runs a statement: the pool if it runs here, or the engine otherwise."""
        # Longer statements are rejected.
        is_own = sql and len(sql) <= self.pool.options.engine.max_statement_bytes and is_answered_here(sql)
        return running if is_own else ForwardedStatement(self, running)

    def rewritten_key(self, statement: Statement) -> tuple[object, ...]:
        """Return the statement's key in `rewritten`, based on the tables that executors currently know."""
        values = statement.parameters
        return (self._listed_version, statement.sql, statement.caller, values, self.row_limit(statement))

    def add_rewritten(
        self, statement: Statement, answer: Mapping[str, object], *, key: tuple[object, ...]
    ) -> _Forwarded:
        """Return the executor's rewrite of a statement, and cache it if it will be the same next time.

        `key` is the statement's key from before the executor received it, because the tables may have changed since.
        """
        sql, parameters, reads = str(answer["sql"]), bytes.fromhex(str(answer["parameters"])), answer["reads"]
        found = _Forwarded(
            sql=sql,
            hides_rows=bool(answer["hides_rows"]),
            parameters=parameters,
            is_bound=bool(answer["is_bound"]),
            reads=parse_reads(reads),
            size=sum(map(len, (sql, parameters, str(reads), statement.sql, *statement.parameters))) + _OTHER_CHARACTERS,
        )
        with suppress(ValueError):  # larger than the whole cache
            if found.is_bound:
                self.rewritten[key] = found
        return found

    async def list_for_executors(self) -> None:
        """Send the current tables to the executors."""
        version = self.tables.version
        if self._listed_version != version:
            await self.pool.listing.refresh()
            self._listed_version = version

    def row_limit(self, statement: Statement) -> int | None:
        """Return how many rows to request from the engine: one more than the limit, to detect truncation."""
        max_sent = None if self._max_rows is None else self._max_rows + 1
        return min((one for one in (statement.row_limit, max_sent) if one is not None), default=None)


class ForwardedStatement:
    """A statement that an engine runs; `running` has an executor only during the rewrite."""

    def __init__(self, gateway: Gateway, running: RunningStatement) -> None:
        self._gateway = gateway
        self._running = running

    async def plan(self, statement: Statement) -> tuple[bytes, bytes]:
        """Return the IPC schemas of the result and the parameters; the engine's ticket is kept for reading."""
        forwarded = await self._rewrite(statement, with_nulls=True)
        if not forwarded.sql:
            return b"", forwarded.parameters
        try:
            with _hiding_values(forwarded):
                flight = await self._gateway.engine.plan(forwarded.sql)
        except InvalidStatement:
            if forwarded.is_bound:
                raise
            return b"", forwarded.parameters  # some statements can't be planned without values
        if forwarded.is_bound and len(forwarded.sql) <= _MAX_CACHED_CHARACTERS:
            self._gateway.flights[forwarded.sql] = flight
        return flight.schema, forwarded.parameters

    async def run(
        self,
        statement: Statement,
        *,
        output: Output,
        write: Callable[[bytes], Awaitable[None]],
        on_running: Callable[[Statement], Statement] = lambda statement: statement,
    ) -> None:
        """Run a statement; pass each frame of the engine's result to `write` unchanged."""
        forwarded = await self._rewrite(statement, with_nulls=False)
        on_running(statement)
        gateway = self._gateway
        with _hiding_values(forwarded):
            flight = gateway.flights.pop(forwarded.sql, None)
            if flight is not None:
                with suppress(TicketLost):
                    await self._forward(flight, output, write)
                    return
            flight = await gateway.engine.plan(forwarded.sql)
            try:
                await self._forward(flight, output, write)
            except TicketLost as lost:
                raise lost.__cause__ or lost from None

    async def list_tables(self, caller: AuthContext) -> list[tuple[str, bytes]]:
        """Return the tables that a caller sees, each with its IPC schema from the engine."""
        await self._refresh_tables()
        schemas = self._gateway.tables.schemas
        await self._running.begin()
        names = await self._running.call(list_visible, caller, self._gateway.pool.options.engine)
        return [(name, schemas[name]) for name in names if name in schemas]

    async def _refresh_tables(self) -> None:
        async with self._running.in_queue(tables_not_listed):
            await self._gateway.tables.refresh()
            await self._gateway.list_for_executors()

    async def _rewrite(self, statement: Statement, *, with_nulls: bool) -> _Forwarded:
        """Acquire a slot, and return the statement for the engine, either rewritten by an executor or cached."""
        if statement.time_range is not None:
            raise UnsupportedStatement(
                "The engine behind this server can't restrict tables to a time range.",
                remedy="Omit the range, and filter on the tables' time columns instead.",
            )
        gateway, running, options = self._gateway, self._running, self._gateway.pool.options
        await self._refresh_tables()
        key = gateway.rewritten_key(statement)
        found = gateway.rewritten.get(key)
        if found is None:
            await running.begin()
            answer = await running.call(
                rewrite_statement,
                statement.sql,
                statement.caller,
                statement.parameters,
                gateway.row_limit(statement),
                options.engine,
                gateway.engine.settings.dialect,
                with_nulls,
            )
            found = gateway.add_rewritten(statement, answer, key=key)
        await running.continue_elsewhere()
        running.report.reads = found.reads
        return found

    async def _forward(self, flight: Flight, output: Output, write: Callable[[bytes], Awaitable[None]]) -> None:
        running, clock, size = self._running, self._gateway.pool.clock, 0
        report = running.report
        report.planning_seconds = clock.monotonic() - running.started_at
        async with aclosing(self._gateway.engine.read(flight)) as frames:
            async for frame, rows in frames:
                size += len(frame)
                # Results that don't fit completely are not sent.
                if output.max_bytes is not None and size > output.max_bytes:
                    raise output.too_large(f"{report.rows:,} rows were sent")
                if output.max_rows is not None and report.rows + rows > output.max_rows:
                    raise output.too_many_rows(report.rows)
                running.waits_for_client_since = clock.monotonic()
                await write(frame)
                running.waits_for_client_since = None
                report.rows += rows
