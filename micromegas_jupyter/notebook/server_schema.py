"""What a server offers to write statements with: its tables, their columns, its functions; asked for in two calls.

Keeping the answers is `schema_cache`'s job.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.errors import MicromegasError, UnsupportedRequest
from micromegas_jupyter.notebook.words import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from micromegas_jupyter.notebook.parts import Client

FETCH_SECONDS: Final = 10.0
"""How long each of the calls may take."""

_MAX_COLUMNS: Final = 50_000
_MAX_FUNCTIONS: Final = 5_000
_COLUMNS_SQL: Final = (
    "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns "
    "WHERE table_schema <> 'information_schema' ORDER BY table_name, ordinal_position"
)
_FUNCTIONS_SQL: Final = "SELECT DISTINCT routine_name FROM information_schema.routines ORDER BY routine_name"


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
    from micromegas_jupyter.notebook.cell_texts import type_text

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
