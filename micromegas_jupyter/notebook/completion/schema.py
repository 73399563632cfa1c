"""A server's tables and functions: fetched in two calls, and cached so that completion does not wait."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from cachetools import LRUCache

from micromegas_jupyter.errors import MicromegasError, UnsupportedRequest
from micromegas_jupyter.notebook.shell import printable, start_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from micromegas_jupyter.config.client import ClientSettings
    from micromegas_jupyter.core.system import Clock
    from micromegas_jupyter.notebook.login.connections import Client, Connection, Connections

FETCH_SECONDS: Final = 10.0
"""The deadline of each call."""

_MAX_COLUMNS: Final = 50_000
_MAX_FUNCTIONS: Final = 5_000
_COLUMNS_SQL: Final = (
    "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns "
    "WHERE table_schema <> 'information_schema' ORDER BY table_name, ordinal_position"
)
_FUNCTIONS_SQL: Final = "SELECT DISTINCT routine_name FROM information_schema.routines ORDER BY routine_name"
FRESH_SECONDS: Final = 300.0
"""How long an answer is used before it is fetched again in the background."""

RETRY_SECONDS: Final = 15.0
"""The pause after a failed call."""

_MAX_SERVERS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its name without quotes, its type as text, and the server's remarks, mostly empty."""

    name: str
    type_text: str
    is_nullable: bool = True
    remarks: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table with its columns in order."""

    name: str
    columns: tuple[Column, ...] = ()
    remarks: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSchema:
    """A server's tables that this caller may see, by name without quotes, and its functions; empty if not known."""

    tables: Mapping[str, Table] = field(default_factory=dict)
    functions: tuple[str, ...] = ()

    def columns_of(self, table: str) -> tuple[str, ...]:
        """Return the names of a table's columns; empty for an unknown table."""
        found = self.tables.get(table)
        return () if found is None else tuple(column.name for column in found.columns)


def fetch_schema(client: Client) -> ServerSchema:
    """Fetch a server's tables and functions; raises `MicromegasError` when it does not list its tables."""
    return ServerSchema(tables=MappingProxyType(_fetch_tables(client)), functions=_fetch_functions(client))


def _fetch_tables(client: Client) -> dict[str, Table]:
    try:
        schemas = client.list_tables(timeout_seconds=FETCH_SECONDS)
    except UnsupportedRequest:
        return _tables_of_rows(_rows(client, _COLUMNS_SQL, limit=_MAX_COLUMNS))
    from micromegas_jupyter.notebook.results.formats import sql_type

    tables = {}
    # A leading underscore marks internal tables.
    for name, schema in sorted(schemas.items(), key=lambda table: (table[0].startswith("_"), table[0])):
        columns = tuple(
            Column(
                name=each.name,
                type_text=sql_type(each.type),
                is_nullable=each.nullable,
                remarks=_remarks(each.metadata),
            )
            for each in schema
        )
        tables[name] = Table(name=name, columns=columns, remarks=_remarks(schema.metadata))
    return tables


def _tables_of_rows(rows: Iterable[Mapping[str, object]]) -> dict[str, Table]:
    columns: dict[str, list[Column]] = {}
    for row in rows:
        column = Column(
            name=str(row["column_name"]),
            type_text=printable(str(row["data_type"])),
            is_nullable=row["is_nullable"] == "YES",
        )
        columns.setdefault(str(row["table_name"]), []).append(column)
    return {name: Table(name=name, columns=tuple(found)) for name, found in columns.items()}


def _fetch_functions(client: Client) -> tuple[str, ...]:
    try:
        rows = _rows(client, _FUNCTIONS_SQL, limit=_MAX_FUNCTIONS)
    except MicromegasError:
        return ()
    return tuple(str(row["routine_name"]) for row in rows if "routine_name" in row)


def _rows(client: Client, sql: str, *, limit: int) -> list[dict[str, object]]:
    with client.open_query(sql, limit=limit, timeout_seconds=FETCH_SECONDS) as reader:
        rows: list[dict[str, object]] = reader.read_all().to_pylist()
    return rows


def _remarks(metadata: Mapping[bytes, bytes] | None) -> str:
    from micromegas_jupyter.telemetry.tables import REMARKS_KEY

    return printable((metadata or {}).get(REMARKS_KEY, b"").decode("utf-8", errors="replace"))


class _Entry(NamedTuple):
    """A server's last answer over a connection, None when there was none, and the time of the last call."""

    connection: Connection | None
    schema: ServerSchema | None
    fetched_at: float


class SchemaCache:
    """The schema of each server, by the settings of its connection; any thread. Errors are silent.

    An answer belongs to its connection: after another sign-in the tables may differ. `may_open` says whether a
    connection may be opened on another thread.
    """

    def __init__(self, connections: Connections, *, clock: Clock, may_open: Callable[[], bool] = lambda: True) -> None:
        self._connections = connections
        self._clock = clock
        self._may_open = may_open
        self._lock = threading.Lock()
        self._entries: LRUCache[ClientSettings, _Entry] = LRUCache(_MAX_SERVERS)
        self._fetching: dict[ClientSettings, threading.Event] = {}
        self._is_closed = False

    def look_up(self, settings: ClientSettings, *, wait_seconds: float = 0.0) -> ServerSchema | None:
        """Return what is cached; fetches nothing or what is old, and waits only when it starts the first fetch."""
        current = self._connections.current(settings)
        with self._lock:
            known = self._known(settings)
            pause_seconds = RETRY_SECONDS if known.schema is None else FRESH_SECONDS
            is_due = self._clock.monotonic() - known.fetched_at > pause_seconds
            is_busy = self._is_closed or settings in self._fetching or len(self._fetching) >= _MAX_SERVERS
            if not is_due or is_busy or (current is None and not self._may_open()):
                return known.schema
            answered = self._fetching[settings] = threading.Event()
        start_thread(self._fetch, settings, name="micromegas-schema")
        if known.schema is None:
            answered.wait(wait_seconds)
        with self._lock:
            return self._known(settings).schema

    def note(self, settings: ClientSettings, connection: Connection, schema: ServerSchema) -> None:
        """Cache a server's answer over a connection."""
        with self._lock:
            self._store(settings, connection, schema)

    def close(self) -> None:
        """Forget everything and fetch nothing any more."""
        with self._lock:
            self._is_closed = True
            self._entries.clear()

    def _known(self, settings: ClientSettings) -> _Entry:
        entry = self._entries.get(settings)
        if entry is None or entry.connection is not self._connections.current(settings):
            return _Entry(None, None, -math.inf)
        return entry

    def _fetch(self, settings: ClientSettings) -> None:
        connection, schema = None, None
        try:
            connection = self._connections.get(settings)
            schema = fetch_schema(connection.client)
        except Exception:  # noqa: BLE001 - nobody wants a traceback while typing
            connection = self._connections.current(settings)
        finally:
            with self._lock:
                self._store(settings, connection, schema)
                self._fetching.pop(settings).set()

    def _store(self, settings: ClientSettings, connection: Connection | None, schema: ServerSchema | None) -> None:
        before = self._entries.get(settings)
        if schema is None and before is not None and before.connection is connection:
            schema = before.schema  # better than nothing
        if not self._is_closed:
            self._entries[settings] = _Entry(connection, schema, self._clock.monotonic())
