"""Answers to the commands that describe the database: catalogs, schemas, tables, server facts.

As with upstream there is one catalog and one schema,
both with an empty name, and every table is of type `table`.
"""

import fnmatch
import re
from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from micromegas_jupyter.flightsql.metadata_commands import (
    CatalogsQuery,
    DbSchemasQuery,
    ForeignKeysQuery,
    MetadataCommand,
    PrimaryKeysQuery,
    SqlInfoQuery,
    TablesQuery,
    TableTypesQuery,
    TypeInfoQuery,
)
from micromegas_jupyter.server.sql_info import SQL_INFO_SCHEMA, ServerFacts, build_sql_info
from micromegas_jupyter.server.type_info import TYPE_INFO_SCHEMA, type_rows

_PATTERN_PART: Final = re.compile(r"\\[%_\\]|[%_*?\[]")
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


_PRIMARY_KEYS_SCHEMA: Final = pa.schema(
    [
        pa.field("catalog_name", pa.string()),
        pa.field("db_schema_name", pa.string()),
        pa.field("table_name", pa.string(), nullable=False),
        pa.field("column_name", pa.string(), nullable=False),
        pa.field("key_name", pa.string()),
        pa.field("key_sequence", pa.int32(), nullable=False),
    ]
)
_FOREIGN_KEYS_SCHEMA: Final = pa.schema(
    [
        pa.field("pk_catalog_name", pa.string()),
        pa.field("pk_db_schema_name", pa.string()),
        pa.field("pk_table_name", pa.string(), nullable=False),
        pa.field("pk_column_name", pa.string(), nullable=False),
        pa.field("fk_catalog_name", pa.string()),
        pa.field("fk_db_schema_name", pa.string()),
        pa.field("fk_table_name", pa.string(), nullable=False),
        pa.field("fk_column_name", pa.string(), nullable=False),
        pa.field("key_sequence", pa.int32(), nullable=False),
        pa.field("fk_key_name", pa.string()),
        pa.field("pk_key_name", pa.string()),
        pa.field("update_rule", pa.uint8(), nullable=False),
        pa.field("delete_rule", pa.uint8(), nullable=False),
    ]
)
_SCHEMAS: Final[dict[type, pa.Schema]] = {
    SqlInfoQuery: SQL_INFO_SCHEMA,
    CatalogsQuery: _CATALOGS_SCHEMA,
    DbSchemasQuery: _DB_SCHEMAS_SCHEMA,
    TableTypesQuery: _TABLE_TYPES_SCHEMA,
    PrimaryKeysQuery: _PRIMARY_KEYS_SCHEMA,
    ForeignKeysQuery: _FOREIGN_KEYS_SCHEMA,
    TypeInfoQuery: TYPE_INFO_SCHEMA,
}


def metadata_schema(command: MetadataCommand) -> pa.Schema:
    """Return the schema of the answer to a command."""
    if isinstance(command, TablesQuery):
        return _TABLES_WITH_SCHEMA_SCHEMA if command.include_schema else _TABLES_SCHEMA
    return _SCHEMAS[type(command)]


def build_metadata(command: MetadataCommand, tables: Sequence[tuple[str, bytes]], facts: ServerFacts) -> pa.RecordBatch:
    """Return the answer to a command, over the tables that the caller may see, each with its IPC schema."""
    match command:
        case SqlInfoQuery():
            return build_sql_info(command.info_ids, facts)
        case CatalogsQuery():
            rows: list[dict[str, object]] = [{"catalog_name": _CATALOG}]
        case DbSchemasQuery():
            is_asked = _is_asked_schema(command.catalog, command.schema_pattern)
            rows = [{"catalog_name": _CATALOG, "db_schema_name": _DB_SCHEMA}] if is_asked else []
        case TablesQuery():
            rows = _table_rows(command, tables)
        case TableTypesQuery():
            rows = [{"table_type": _TABLE_TYPE}]
        case TypeInfoQuery():
            rows = type_rows(command.data_type)
        case PrimaryKeysQuery() | ForeignKeysQuery():
            rows = []  # the lakehouse has no keys
    return pa.RecordBatch.from_pylist(rows, schema=metadata_schema(command))


def matches_pattern(text: str, pattern: str | None) -> bool:
    """Tell whether `text` matches a pattern; None matches all.

    `%` stands for any text, `_` for one character, and a backslash before one of the three for that character.
    """
    if pattern is None:
        return True
    # fnmatch translates to an expression that cannot backtrack without end, whatever the pattern.
    return fnmatch.fnmatchcase(text, _PATTERN_PART.sub(_as_shell_pattern, pattern))


def _as_shell_pattern(found: re.Match[str]) -> str:
    part = found.group()
    return {"%": "*", "_": "?"}.get(part) or f"[{part[-1]}]"


def _table_rows(command: TablesQuery, tables: Sequence[tuple[str, bytes]]) -> list[dict[str, object]]:
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
            **({"table_schema": schema} if command.include_schema else {}),
        }
        for name, schema in sorted(tables, key=lambda table: table[0])
        if matches_pattern(name, command.table_pattern)
    ]


def _is_asked_schema(catalog: str | None, schema_pattern: str | None) -> bool:
    return catalog in {None, _CATALOG} and matches_pattern(_DB_SCHEMA, schema_pattern)
