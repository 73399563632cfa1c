"""A server's tables and functions: fetched in two calls, and cached so that completion does not wait."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.core.system import start_thread
from micromegas_jupyter.errors import MicromegasError, UnsupportedRequest
from micromegas_jupyter.notebook.shell import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from micromegas_jupyter.config.client import ClientSettings
    from micromegas_jupyter.notebook.login.connections import Client, Connection, Connections, Dependencies

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


@dataclass(frozen=True, slots=True)
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
            Column(each.name, sql_type(each.type), each.nullable, _remarks(each.metadata)) for each in schema
        )
        tables[name] = Table(name=name, columns=columns, remarks=_remarks(schema.metadata))
    return tables


def _tables_of_rows(rows: Iterable[Mapping[str, object]]) -> dict[str, Table]:
    columns: dict[str, list[Column]] = {}
    for row in rows:
        column = Column(str(row["column_name"]), printable(str(row["data_type"])), row["is_nullable"] == "YES")
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


class SchemaCache:
    """The schema of each connection: after another sign-in the tables may differ. Any thread; errors are silent."""

    def __init__(self, connections: Connections, dependencies: Dependencies) -> None:
        self._connections = connections
        self._dependencies = dependencies
        self._lock = threading.Lock()
        self._fetching: dict[ClientSettings, threading.Event] = {}

    def look_up(self, settings: ClientSettings, *, wait_seconds: float = 0.0) -> ServerSchema:
        """Return what is known; fetches nothing or what is old, and waits only when it starts the first fetch."""
        connection = self._connections.current(settings)
        if connection is None:
            known, is_due = None, not self._dependencies.is_wrapped()  # whose client is not made on another thread
        else:
            known, is_due = connection.schema, self._dependencies.clock.monotonic() >= connection.schema_due_at
        with self._lock:
            if settings in self._fetching or not is_due:
                return known or ServerSchema()
            answered = self._fetching[settings] = threading.Event()
        start_thread(self._fetch, settings, name="micromegas-schema")
        if known is None:
            answered.wait(wait_seconds)
        connection = self._connections.current(settings)
        return (connection and connection.schema) or ServerSchema()

    def note(self, connection: Connection, schema: ServerSchema | None) -> None:
        """Keep a server's answer; None when there was none, which leaves the one before it."""
        pause_seconds = RETRY_SECONDS if schema is None else FRESH_SECONDS
        connection.schema_due_at = self._dependencies.clock.monotonic() + pause_seconds
        connection.schema = schema or connection.schema

    def _fetch(self, settings: ClientSettings) -> None:
        connection = None
        try:
            connection = self._connections.get(settings)
            self.note(connection, fetch_schema(connection.client))
        except Exception:  # noqa: BLE001 - nobody wants a traceback while typing
            if connection is not None:
                self.note(connection, None)
        finally:
            with self._lock:
                self._fetching.pop(settings).set()
