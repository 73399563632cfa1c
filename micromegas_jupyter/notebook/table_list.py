"""A server's tables and their columns, as rows of a result."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.notebook.completion import name_in_sql

if TYPE_CHECKING:
    from collections.abc import Callable

    from micromegas_jupyter.notebook.completion import ServerSchema, Table
    from micromegas_jupyter.notebook.login.connections import Client

COUNT_SECONDS: Final = 20.0
"""The timeout for counting a table's rows on the server."""

MAX_COUNTED: Final = 20
"""The maximum number of tables that are counted."""

_TABLES: Final = pa.schema([("table", pa.string()), ("columns", pa.int64()), ("description", pa.string())])
_COLUMNS: Final = pa.schema([(name, pa.string()) for name in ("table", "column", "type", "null", "description")])
_COUNTS: Final = pa.schema(
    [("table", pa.string()), ("rows", pa.int64()), *((name, pa.string()) for name in ("first", "last", "problem"))]
)


def list_tables(schema: ServerSchema) -> pa.Table:
    """Return a row per table: its name, number of columns, and description."""
    rows = [
        {"table": table.name, "columns": len(table.columns), "description": table.remarks}
        for table in schema.tables.values()
    ]
    return pa.Table.from_pylist(rows, _TABLES)


def list_columns(schema: ServerSchema, pattern: str) -> pa.Table:
    """Return a row per column whose name or table name matches the pattern."""
    matches = _matcher(pattern)
    rows = [
        {
            "table": table.name,
            "column": column.name,
            "type": column.type_text,
            "null": "possible" if column.is_nullable else "never",
            "description": column.remarks,
        }
        for table in schema.tables.values()
        for column in table.columns
        if matches(table.name) or matches(column.name)
    ]
    return pa.Table.from_pylist(rows, _COLUMNS)


def count_tables(client: Client, schema: ServerSchema, pattern: str) -> pa.Table:
    """Return a row per matching table: its number of rows and time range, or why they are unknown."""
    matches = _matcher(pattern)
    counted = [table for table in schema.tables.values() if matches(table.name)][:MAX_COUNTED]
    return pa.Table.from_pylist([{"table": table.name, **_count_rows(client, table)} for table in counted], _COUNTS)


def _matcher(pattern: str) -> Callable[[str], object]:
    """Return a predicate for names; `*` in the pattern is a wildcard."""
    return re.compile(".*".join(map(re.escape, pattern.strip().split("*"))), re.IGNORECASE).search


def _count_rows(client: Client, table: Table) -> dict[str, object]:
    times = [column.name for column in table.columns if column.type_text.lower().startswith("timestamp")]
    time = next((name for name in ("time", "insert_time") if name in times), next(iter(times), ""))
    # Use strings, because Python's times are limited to microseconds and the year 9999.
    ends = [("min", "first"), ("max", "last")] if time else []
    covered = "".join(f", CAST({end}({name_in_sql(time)}) AS VARCHAR) AS {name}" for end, name in ends)
    sql = f"SELECT count(*) AS rows{covered} FROM {name_in_sql(table.name)}"  # noqa: S608 - the server's own names, quoted
    try:
        with client.open_query(sql, limit=1, timeout_seconds=COUNT_SECONDS) as reader:
            counted: dict[str, object] = reader.read_all().to_pylist()[0]
    except MicromegasError as error:
        return {"problem": error.what}
    return counted
