"""The server's tables in the form that ADBC defines for connections."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import pyarrow as pa

import micromegas_jupyter
from micromegas_jupyter.client.workarounds.marimo_catalog import catalog_name, vendor_name
from micromegas_jupyter.errors import UsageError

_TABLE: Final = "table"
_DEPTHS: Final = ("catalogs", "db_schemas", "tables", "columns", "all")


def _structs(**fields: pa.DataType) -> pa.DataType:
    return pa.list_(pa.struct(fields))


# Source: adbc.h, AdbcConnectionGetObjects.
_TEXT: Final = pa.string()
_COLUMN: Final[dict[str, pa.DataType]] = {
    "column_name": _TEXT,
    "ordinal_position": pa.int32(),
    "remarks": _TEXT,
    "xdbc_data_type": pa.int16(),
    "xdbc_type_name": _TEXT,
    "xdbc_column_size": pa.int32(),
    "xdbc_decimal_digits": pa.int16(),
    "xdbc_num_prec_radix": pa.int16(),
    "xdbc_nullable": pa.int16(),
    "xdbc_column_def": _TEXT,
    "xdbc_sql_data_type": pa.int16(),
    "xdbc_datetime_sub": pa.int16(),
    "xdbc_char_octet_length": pa.int32(),
    "xdbc_is_nullable": _TEXT,
    "xdbc_scope_catalog": _TEXT,
    "xdbc_scope_schema": _TEXT,
    "xdbc_scope_table": _TEXT,
    "xdbc_is_autoincrement": pa.bool_(),
    "xdbc_is_generatedcolumn": pa.bool_(),
}
_USAGE: Final = _structs(fk_catalog=_TEXT, fk_db_schema=_TEXT, fk_table=_TEXT, fk_column_name=_TEXT)
_CONSTRAINTS: Final = _structs(
    constraint_name=_TEXT,
    constraint_type=_TEXT,
    constraint_column_names=pa.list_(_TEXT),
    constraint_column_usage=_USAGE,
)
_TABLES: Final = _structs(
    table_name=_TEXT, table_type=_TEXT, table_columns=_structs(**_COLUMN), table_constraints=_CONSTRAINTS
)
_OBJECTS: Final = pa.schema(
    {"catalog_name": _TEXT, "catalog_db_schemas": _structs(db_schema_name=_TEXT, db_schema_tables=_TABLES)}
)


class Filters(NamedTuple):
    """Patterns with the wildcards `%` and `_`, and table types; None matches everything."""

    catalog: str | None
    db_schema: str | None
    table: str | None
    table_types: list[str] | None
    column: str | None


def build_objects(
    list_tables: Callable[[], Mapping[str, pa.Schema]], depth: str, filters: Filters
) -> pa.RecordBatchReader:
    """Return the tree of catalogs, schemas, tables, and columns down to `depth`, and list tables only if needed."""
    if depth not in _DEPTHS:
        raise UsageError(f"depth {depth!r} is not valid.", remedy=f"Choose one of {', '.join(_DEPTHS)}.")
    level = _DEPTHS.index(depth)
    tables = None
    if level >= _DEPTHS.index("tables"):
        has_tables = filters.table_types is None or _TABLE in filters.table_types
        found = list_tables() if has_tables and _matches("", filters.db_schema) else {}
        tables = [
            {"table_name": name, "table_type": _TABLE, "table_columns": columns, "table_constraints": None}
            for name, schema in sorted(found.items())
            if _matches(name, filters.table)
            for columns in [_columns(schema, filters.column) if level >= _DEPTHS.index("columns") else None]
        ]
    schemas = [{"db_schema_name": "", "db_schema_tables": tables}] if _matches("", filters.db_schema) else []
    catalogs = [{"catalog_name": catalog_name(), "catalog_db_schemas": schemas if level else None}]
    rows = catalogs if _matches(catalog_name(), filters.catalog) else []
    return pa.Table.from_pylist(rows, _OBJECTS).to_reader()


def _columns(schema: pa.Schema, pattern: str | None) -> list[dict[str, Any]]:
    return [
        {
            "column_name": field.name,
            "ordinal_position": position,
            "remarks": _text(field, b"ARROW:FLIGHT:SQL:REMARKS"),
            "xdbc_type_name": _text(field, b"ARROW:FLIGHT:SQL:TYPE_NAME") or str(field.type),
            "xdbc_nullable": int(field.nullable),
            "xdbc_is_nullable": "YES" if field.nullable else "NO",
        }
        for position, field in enumerate(schema, 1)
        if _matches(field.name, pattern)
    ]


def _text(field: pa.Field, key: bytes) -> str | None:
    return (field.metadata or {}).get(key, b"").decode("utf-8", "replace") or None


def _matches(name: str, pattern: str | None) -> bool:
    if pattern is None:
        return True
    parts = {"%": ".*", "_": "."}
    return re.fullmatch("".join(parts.get(sign, re.escape(sign)) for sign in pattern), name, re.DOTALL) is not None


def find_table(tables: Mapping[str, pa.Schema], name: str, *, catalog: str | None, db_schema: str | None) -> pa.Schema:
    """Return a table's schema."""
    if catalog not in {None, "", catalog_name()} or db_schema or name not in tables:
        raise UsageError("You can't read a table with this name.", remedy="list_tables() returns all of them.")
    return tables[name]


def driver_info() -> dict[str | int, Any]:
    """Return ADBC's information about the driver."""
    return {
        "vendor_name": vendor_name(),
        "vendor_sql": True,
        "driver_name": "micromegas_jupyter",
        "driver_version": micromegas_jupyter.__version__,
        "driver_arrow_version": pa.__version__,
    }
