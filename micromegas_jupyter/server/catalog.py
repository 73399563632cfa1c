"""Answers to the commands that describe the database: catalogs, schemas, tables, server facts.

Which tables a caller may see is the engine's knowledge. As with upstream there is one catalog and one schema,
both with an empty name, and every table is of type `table`.
"""

import fnmatch
from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from micromegas_jupyter.flightsql.commands import (
    CatalogsQuery,
    DbSchemasQuery,
    SqlInfoQuery,
    TablesQuery,
    TableTypesQuery,
)
from micromegas_jupyter.server.sql_info import SQL_INFO_SCHEMA, build_sql_info
from micromegas_jupyter.telemetry.descriptions import with_remarks

MetadataCommand = SqlInfoQuery | CatalogsQuery | DbSchemasQuery | TablesQuery | TableTypesQuery

_CATALOG: Final = ""
_DB_SCHEMA: Final = ""
_TABLE_TYPE: Final = "table"

# Source: FlightSql.proto, the schemas in the comments on the commands.
_CATALOGS_SCHEMA: Final = pa.schema([pa.field("catalog_name", pa.string(), nullable=False)])
_DB_SCHEMAS_SCHEMA: Final = pa.schema(
    [pa.field("catalog_name", pa.string()), pa.field("db_schema_name", pa.string(), nullable=False)]
)
_TABLES_SCHEMA: Final = pa.schema(
    [
        pa.field("catalog_name", pa.string()),
        pa.field("db_schema_name", pa.string()),
        pa.field("table_name", pa.string(), nullable=False),
        pa.field("table_type", pa.string(), nullable=False),
    ]
)
_TABLES_WITH_SCHEMA_SCHEMA: Final = _TABLES_SCHEMA.append(pa.field("table_schema", pa.binary(), nullable=False))
_TABLE_TYPES_SCHEMA: Final = pa.schema([pa.field("table_type", pa.string(), nullable=False)])


def metadata_schema(command: MetadataCommand) -> pa.Schema:
    """Return the schema of the answer to a command."""
    match command:
        case SqlInfoQuery():
            return SQL_INFO_SCHEMA
        case CatalogsQuery():
            return _CATALOGS_SCHEMA
        case DbSchemasQuery():
            return _DB_SCHEMAS_SCHEMA
        case TablesQuery():
            return _TABLES_WITH_SCHEMA_SCHEMA if command.include_schema else _TABLES_SCHEMA
        case TableTypesQuery():
            return _TABLE_TYPES_SCHEMA


def build_metadata(command: MetadataCommand, tables: Sequence[tuple[str, pa.Schema]]) -> pa.RecordBatch:
    """Return the answer to a command, over the tables that the caller may see."""
    match command:
        case SqlInfoQuery():
            return build_sql_info(command.info_ids)
        case CatalogsQuery():
            rows: list[dict[str, object]] = [{"catalog_name": _CATALOG}]
        case DbSchemasQuery():
            is_asked = _is_asked_schema(command.catalog, command.schema_pattern)
            rows = [{"catalog_name": _CATALOG, "db_schema_name": _DB_SCHEMA}] if is_asked else []
        case TablesQuery():
            rows = _table_rows(command, tables)
        case TableTypesQuery():
            rows = [{"table_type": _TABLE_TYPE}]
    return pa.RecordBatch.from_pylist(rows, schema=metadata_schema(command))


def matches_pattern(text: str, pattern: str | None) -> bool:
    """Tell whether `text` matches a pattern with `%` (any text) and `_` (one character); None matches all."""
    if pattern is None:
        return True
    # fnmatch translates to an expression that cannot backtrack without end, whatever the pattern.
    wildcards = {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}
    return fnmatch.fnmatchcase(text, "".join(wildcards.get(character, character) for character in pattern))


def _table_rows(command: TablesQuery, tables: Sequence[tuple[str, pa.Schema]]) -> list[dict[str, object]]:
    if not _is_asked_schema(command.catalog, command.schema_pattern):
        return []
    if command.table_types and _TABLE_TYPE not in command.table_types:
        return []
    return [
        {
            "catalog_name": _CATALOG,
            "db_schema_name": _DB_SCHEMA,
            "table_name": name,
            "table_type": _TABLE_TYPE,
            **({"table_schema": with_remarks(name, schema).serialize().to_pybytes()} if command.include_schema else {}),
        }
        for name, schema in sorted(tables, key=lambda table: table[0])
        if matches_pattern(name, command.table_pattern)
    ]


def _is_asked_schema(catalog: str | None, schema_pattern: str | None) -> bool:
    return catalog in {None, _CATALOG} and matches_pattern(_DB_SCHEMA, schema_pattern)
