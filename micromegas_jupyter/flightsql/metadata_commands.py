"""The commands that ask what a server holds and knows, as values: tables, keys, types, facts.

Statements are `commands`' job, the answers the server's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from micromegas_jupyter.flightsql import messages


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlInfoQuery:
    """Describe the server; `info_ids` empty asks for everything."""

    info_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogsQuery:
    """List the catalogs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DbSchemasQuery:
    """List the schemas; `catalog` is exact, the pattern knows `%` and `_`, None means any."""

    catalog: str | None
    schema_pattern: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TablesQuery:
    """List the tables; names are patterns with `%` and `_`, `table_types` empty means any."""

    catalog: str | None
    schema_pattern: str | None
    table_pattern: str | None
    table_types: tuple[str, ...]
    include_schema: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TableTypesQuery:
    """List the kinds of table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrimaryKeysQuery:
    """List the columns of a table's primary key."""

    table: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignKeysQuery:
    """List foreign keys: those that a table has, those that refer to it, or those between two tables.

    All three are answered by the same columns; a side that is not asked about is None.
    """

    primary_table: str | None
    foreign_table: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeInfoQuery:
    """Describe the types of columns; `data_type` is a number of `XdbcDataType`, None means all."""

    data_type: int | None


MetadataCommand = (
    SqlInfoQuery
    | CatalogsQuery
    | DbSchemasQuery
    | TablesQuery
    | TableTypesQuery
    | PrimaryKeysQuery
    | ForeignKeysQuery
    | TypeInfoQuery
)


def parse_metadata_command(name: str, data: bytes) -> MetadataCommand | None:
    """Read the message with this name; None when it is no such command.

    Raises:
        google.protobuf.message.DecodeError: The bytes are not that message.
    """
    found = _READERS.get(name)
    if found is None:
        return None
    message_class, read = found
    return read(message_class.FromString(data))


def _read_db_schemas(command: Any) -> DbSchemasQuery:
    return DbSchemasQuery(
        catalog=_optional(command, "catalog"), schema_pattern=_optional(command, "db_schema_filter_pattern")
    )


def _read_tables(command: Any) -> TablesQuery:
    return TablesQuery(
        catalog=_optional(command, "catalog"),
        schema_pattern=_optional(command, "db_schema_filter_pattern"),
        table_pattern=_optional(command, "table_name_filter_pattern"),
        table_types=tuple(command.table_types),
        include_schema=command.include_schema,
    )


def _read_type_info(command: Any) -> TypeInfoQuery:
    return TypeInfoQuery(data_type=command.data_type if command.HasField("data_type") else None)


def _optional(message: Any, field: str) -> str | None:
    if not message.HasField(field):
        return None
    value: str = getattr(message, field)
    return value


_READERS: Final[dict[str, tuple[Any, Callable[[Any], MetadataCommand]]]] = {
    "CommandGetSqlInfo": (messages.CommandGetSqlInfo, lambda command: SqlInfoQuery(info_ids=tuple(command.info))),
    "CommandGetCatalogs": (messages.CommandGetCatalogs, lambda _: CatalogsQuery()),
    "CommandGetDbSchemas": (messages.CommandGetDbSchemas, _read_db_schemas),
    "CommandGetTables": (messages.CommandGetTables, _read_tables),
    "CommandGetTableTypes": (messages.CommandGetTableTypes, lambda _: TableTypesQuery()),
    "CommandGetPrimaryKeys": (messages.CommandGetPrimaryKeys, lambda command: PrimaryKeysQuery(table=command.table)),
    "CommandGetExportedKeys": (
        messages.CommandGetExportedKeys,
        lambda command: ForeignKeysQuery(primary_table=command.table, foreign_table=None),
    ),
    "CommandGetImportedKeys": (
        messages.CommandGetImportedKeys,
        lambda command: ForeignKeysQuery(primary_table=None, foreign_table=command.table),
    ),
    "CommandGetCrossReference": (
        messages.CommandGetCrossReference,
        lambda command: ForeignKeysQuery(primary_table=command.pk_table, foreign_table=command.fk_table),
    ),
    "CommandGetXdbcTypeInfo": (messages.CommandGetXdbcTypeInfo, _read_type_info),
}
