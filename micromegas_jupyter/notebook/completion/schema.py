"""What a server offers to write statements with: asked for in two calls, and kept so that completion never waits."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from cachetools import LRUCache

from micromegas_jupyter.errors import MicromegasError, UnsupportedRequest
from micromegas_jupyter.notebook.formatting import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from micromegas_jupyter.config.client import ClientSettings
    from micromegas_jupyter.core.system import Clock
    from micromegas_jupyter.notebook.login.connections import Connection, Connections
    from micromegas_jupyter.notebook.login.dependencies import Client

FETCH_SECONDS: Final = 10.0
"""How long each of the calls may take."""

_MAX_COLUMNS: Final = 50_000
_MAX_FUNCTIONS: Final = 5_000
_COLUMNS_SQL: Final = (
    "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns "
    "WHERE table_schema <> 'information_schema' ORDER BY table_name, ordinal_position"
)
_FUNCTIONS_SQL: Final = "SELECT DISTINCT routine_name FROM information_schema.routines ORDER BY routine_name"
FRESH_SECONDS: Final = 300.0
"""How long an answer is used without asking again in the background."""

RETRY_SECONDS: Final = 15.0
"""How long a server is left alone that could not be asked."""

_MAX_SERVERS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column.

    Attributes:
        name: Its name as it is, without quotes.
        type_text: Its type in words.
        is_nullable: Whether it may hold nulls.
        remarks: What the server says about it; mostly nothing.
    """

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
    """What a server offers.

    Attributes:
        tables: The tables that this caller may see, by their names as they are, without quotes.
        functions: The names of its functions; empty when it does not tell.
    """

    tables: Mapping[str, Table] = field(default_factory=dict)
    functions: tuple[str, ...] = ()

    def columns_of(self, table: str) -> tuple[str, ...]:
        """Return the names of a table's columns; none for a table that is not known."""
        found = self.tables.get(table)
        return () if found is None else tuple(column.name for column in found.columns)


def fetch_schema(client: Client) -> ServerSchema:
    """Ask a server what it offers.

    Raises:
        MicromegasError: It cannot be asked for its tables; a server that does not tell its functions is fine.
    """
    tables = _fetch_tables(client)
    return ServerSchema(tables=MappingProxyType(tables), functions=_fetch_functions(client))


def _fetch_tables(client: Client) -> dict[str, Table]:
    try:
        schemas = client.list_tables(timeout_seconds=FETCH_SECONDS)
    except UnsupportedRequest:
        return _tables_of_rows(_rows(client, _COLUMNS_SQL, limit=_MAX_COLUMNS))
    from micromegas_jupyter.notebook.values import type_text

    return {
        name: Table(
            name=name,
            columns=tuple(
                Column(
                    name=column.name,
                    type_text=type_text(column.type),
                    is_nullable=column.nullable,
                    remarks=_remarks(column.metadata),
                )
                for column in schema
            ),
            remarks=_remarks(schema.metadata),
        )
        for name, schema in sorted(schemas.items(), key=_place)
    }


def _place(table: tuple[str, object]) -> tuple[bool, str]:
    # What begins with an underscore is behind the scenes.
    return table[0].startswith("_"), table[0]


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
    from micromegas_jupyter.telemetry.descriptions import REMARKS_KEY

    return printable((metadata or {}).get(REMARKS_KEY, b"").decode("utf-8", errors="replace"))


class _Entry(NamedTuple):
    """What a server answered last over a connection, never when `schema` is None; and when it was asked last."""

    connection: Connection | None
    schema: ServerSchema | None
    asked_at: float


class SchemaCache:
    """What each server offers, by the settings of its connection. Safe to use from several threads.

    An answer goes with its connection: after another sign-in the tables may be others. Errors are silent; a query
    says them better.

    Args:
        connections: The notebook's connections; opened here when there is none yet.
        clock: Measures how old an answer is.
        may_open: Whether a connection may be opened on a thread of its own.
    """

    def __init__(self, connections: Connections, *, clock: Clock, may_open: Callable[[], bool] = lambda: True) -> None:
        self._connections = connections
        self._clock = clock
        self._may_open = may_open
        self._lock = threading.Lock()
        self._entries: LRUCache[ClientSettings, _Entry] = LRUCache(_MAX_SERVERS)
        self._asking: dict[ClientSettings, threading.Event] = {}
        self._is_closed = False

    def known(self, settings: ClientSettings) -> ServerSchema | None:
        """Return what is known about a server by now; asks nobody and waits for nothing."""
        with self._lock:
            entry = self._current_entry(settings)
        return None if entry is None else entry.schema

    def look_up(self, settings: ClientSettings, *, wait_seconds: float = 0.0) -> ServerSchema | None:
        """Return what is known about a server, and have it asked in the background when that is nothing, or old.

        Args:
            settings: Which server, and as whom.
            wait_seconds: How long to wait for the first answer; only the call that has the server asked waits.
        """
        with self._lock:
            entry = self._current_entry(settings)
            answered = self._begin(settings) if self._is_due(entry) and self._can_ask(settings) else None
        if answered is not None and (entry is None or entry.schema is None) and wait_seconds > 0:
            answered.wait(wait_seconds)
        return self.known(settings)

    def note(self, settings: ClientSettings, connection: Connection, schema: ServerSchema) -> None:
        """Take what a server has just answered over a connection."""
        with self._lock:
            self._keep(settings, connection, schema)

    def close(self) -> None:
        """Forget everything and ask nobody any more."""
        with self._lock:
            self._is_closed = True
            self._entries.clear()

    def _current_entry(self, settings: ClientSettings) -> _Entry | None:
        entry = self._entries.get(settings)
        return entry if entry is not None and entry.connection is self._connections.current(settings) else None

    def _is_due(self, entry: _Entry | None) -> bool:
        if entry is None:
            return True
        age_seconds = self._clock.monotonic() - entry.asked_at
        return age_seconds > (RETRY_SECONDS if entry.schema is None else FRESH_SECONDS)

    def _can_ask(self, settings: ClientSettings) -> bool:
        if self._is_closed or settings in self._asking or len(self._asking) >= _MAX_SERVERS:
            return False
        return self._connections.current(settings) is not None or self._may_open()

    def _begin(self, settings: ClientSettings) -> threading.Event:
        answered = self._asking[settings] = threading.Event()
        threading.Thread(target=self._ask, args=(settings,), name="micromegas-schema", daemon=True).start()
        return answered

    def _ask(self, settings: ClientSettings) -> None:
        connection, schema = None, None
        try:
            connection = self._connections.get(settings)
            schema = fetch_schema(connection.client)
        except Exception:  # noqa: BLE001 - whatever it is, typing is not the moment for a traceback
            connection = self._connections.current(settings)
        finally:
            with self._lock:
                self._keep(settings, connection, schema)
                self._asking.pop(settings).set()

    def _keep(self, settings: ClientSettings, connection: Connection | None, schema: ServerSchema | None) -> None:
        before = self._entries.get(settings)
        if schema is None and before is not None and before.connection is connection:
            schema = before.schema  # better than nothing
        if not self._is_closed:
            self._entries[settings] = _Entry(connection, schema, self._clock.monotonic())
