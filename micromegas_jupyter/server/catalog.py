"""Responses to the metadata commands: one catalog and one schema, both with empty names, as in upstream.

Source of schemas and numbers: FlightSql.proto, its comments on the commands and its enums.
"""

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Final

import pyarrow as pa

import micromegas_jupyter
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.flightsql.commands import MetadataQuery

_MAX_PATTERN_CHARACTERS: Final = 512  # a name with each character escaped
_PATTERN_PART: Final = re.compile(r"\\[%_\\]|[%_*?\[]")
_CATALOG: Final = ""
_DB_SCHEMA: Final = ""
_TABLE_TYPE: Final = "table"


def _schema(columns: str) -> pa.Schema:
    """Return a schema from columns `name:type`; a trailing `?` makes the column nullable."""
    pairs = [(*column.rstrip("?").split(":"), column.endswith("?")) for column in columns.split()]
    return pa.schema([pa.field(name, pa.type_for_alias(kind), nullable=nullable) for name, kind, nullable in pairs])


_TABLES_SCHEMA: Final = _schema("catalog_name:string? db_schema_name:string? table_name:string table_type:string")
_TABLES_WITH_SCHEMA_SCHEMA: Final = _TABLES_SCHEMA.append(pa.field("table_schema", pa.binary(), nullable=False))
_STRING, _BOOL, _INT32, _STRING_LIST = 0, 1, 3, 4  # positions in the union
_VALUE_FIELDS: Final = (
    pa.field("string_value", pa.string()),
    pa.field("bool_value", pa.bool_()),
    pa.field("bigint_value", pa.int64()),
    pa.field("int32_bitmask", pa.int32()),
    pa.field("string_list", pa.list_(pa.string())),
    pa.field("int32_to_int32_list_map", pa.map_(pa.int32(), pa.list_(pa.int32()))),
)
SQL_INFO_SCHEMA: Final = _schema("info_name:uint32").append(
    pa.field("value", pa.dense_union(list(_VALUE_FIELDS)), nullable=False)
)
_CREATE_PARAMS: Final = pa.field("create_params", pa.list_(pa.field("item", pa.string(), nullable=False)))
TYPE_INFO_SCHEMA: Final = _schema(
    "type_name:string data_type:int32 column_size:int32? literal_prefix:string? literal_suffix:string? nullable:int32 "
    "case_sensitive:bool searchable:int32 unsigned_attribute:bool? fixed_prec_scale:bool auto_increment:bool? "
    "local_type_name:string? minimum_scale:int32? maximum_scale:int32? sql_data_type:int32 datetime_subcode:int32? "
    "num_prec_radix:int32? interval_precision:int32?"
).insert(5, _CREATE_PARAMS)
_KEYS_SCHEMA: Final = _schema(
    "pk_catalog_name:string? pk_db_schema_name:string? pk_table_name:string pk_column_name:string "
    "fk_catalog_name:string? fk_db_schema_name:string? fk_table_name:string fk_column_name:string "
    "key_sequence:int32 fk_key_name:string? pk_key_name:string? update_rule:uint8 delete_rule:uint8"
)
_SCHEMAS: Final = {
    "CommandGetSqlInfo": SQL_INFO_SCHEMA,
    "CommandGetCatalogs": _schema("catalog_name:string"),
    "CommandGetDbSchemas": _schema("catalog_name:string? db_schema_name:string"),
    "CommandGetTables": _TABLES_SCHEMA,
    "CommandGetTableTypes": _schema("table_type:string"),
    "CommandGetPrimaryKeys": _schema(
        "catalog_name:string? db_schema_name:string? table_name:string column_name:string key_name:string? "
        "key_sequence:int32"
    ),
    "CommandGetExportedKeys": _KEYS_SCHEMA,
    "CommandGetImportedKeys": _KEYS_SCHEMA,
    "CommandGetCrossReference": _KEYS_SCHEMA,
    "CommandGetXdbcTypeInfo": TYPE_INFO_SCHEMA,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """Properties that depend on the server's configuration."""

    takes_rows: bool = False  # supports bulk ingestion; otherwise read-only
    prepared_idle_seconds: float = 0  # how long an unused prepared statement is kept

    def by_id(self) -> dict[int, tuple[int, object]]:
        """Return these facts by their Flight SQL numbers."""
        return {
            3: (_BOOL, not self.takes_rows),
            10: (_BOOL, self.takes_rows),
            100: (_INT32, min(round(self.prepared_idle_seconds * 1000), _MAX_INT32)),
        }


def metadata_schema(command: MetadataQuery) -> pa.Schema:
    """Return the schema of the response to a command."""
    if command.name == "CommandGetTables" and command.message.include_schema:
        return _TABLES_WITH_SCHEMA_SCHEMA
    return _SCHEMAS[command.name]


def build_metadata(command: MetadataQuery, tables: Sequence[tuple[str, bytes]], facts: ServerFacts) -> pa.RecordBatch:
    """Return the response to a command, given the tables that the caller may see, each with its IPC schema."""
    rows: list[dict[str, object]] = []
    match command.name:
        case "CommandGetSqlInfo":
            return build_sql_info(tuple(command.message.info), facts)
        case "CommandGetCatalogs":
            rows = [{"catalog_name": _CATALOG}]
        case "CommandGetDbSchemas" if _matches_schema(command):
            rows = [{"catalog_name": _CATALOG, "db_schema_name": _DB_SCHEMA}]
        case "CommandGetTables" if _matches_schema(command):
            rows = _table_rows(command, tables)
        case "CommandGetTableTypes":
            rows = [{"table_type": _TABLE_TYPE}]
        case "CommandGetXdbcTypeInfo":
            data_type = command.optional("data_type")
            rows = [found.row() for found in _TYPES if data_type in {None, found.data_type}]
    # There are no keys.
    return pa.RecordBatch.from_pylist(rows, schema=metadata_schema(command))


def matches_pattern(text: str, pattern: str | None) -> bool:
    """Whether `text` matches a pattern (`%` any text, `_` any character, escaped by a backslash); None matches all."""
    if pattern is None:
        return True
    if len(pattern) > _MAX_PATTERN_CHARACTERS:
        raise UsageError(
            f"A name pattern has more than {_MAX_PATTERN_CHARACTERS} characters.",
            remedy="Send a shorter pattern, or omit it to match all names.",
        )

    def as_shell_pattern(found: re.Match[str]) -> str:
        part = found.group()
        return {"%": "*", "_": "?"}.get(part) or f"[{part[-1]}]"

    # fnmatch creates expressions without exponential backtracking for any pattern. Its own matching function would
    # cache tens of thousands of patterns.
    return re.match(fnmatch.translate(_PATTERN_PART.sub(as_shell_pattern, pattern)), text) is not None


def _table_rows(command: MetadataQuery, tables: Sequence[tuple[str, bytes]]) -> list[dict[str, object]]:
    message = command.message
    if message.table_types and _TABLE_TYPE not in message.table_types:
        return []
    return [
        {
            "catalog_name": _CATALOG,
            "db_schema_name": _DB_SCHEMA,
            "table_name": name,
            "table_type": _TABLE_TYPE,
            **({"table_schema": schema} if message.include_schema else {}),
        }
        for name, schema in sorted(tables, key=lambda table: table[0])
        if matches_pattern(name, command.optional("table_name_filter_pattern"))
    ]


def _matches_schema(command: MetadataQuery) -> bool:
    """Whether the catalog (exactly) and the schema pattern match the only ones that exist."""
    is_catalog = command.optional("catalog") in {None, _CATALOG}
    return is_catalog and matches_pattern(_DB_SCHEMA, command.optional("db_schema_filter_pattern"))


# Grafana's editor reads 508 to 512 and needs all five lists.
_KEYWORDS: Final = (
    "ALL AND ANY AS ASC BETWEEN BY CASE CAST CROSS CURRENT_DATE CURRENT_TIMESTAMP DESC DISTINCT ELSE END EXCEPT "
    "EXISTS EXPLAIN EXTRACT FALSE FILTER FROM FULL GROUP HAVING IN INNER INTERSECT INTERVAL IS JOIN LEFT LIKE LIMIT "
    "NATURAL NOT NULL NULLS OFFSET ON OR ORDER OUTER OVER PARTITION RECURSIVE RIGHT ROWS SELECT SHOW SOME TABLE THEN "
    "TRUE UNION UNNEST USING VALUES WHEN WHERE WINDOW WITH"
)
_NUMERIC_FUNCTIONS: Final = (
    "abs acos asin atan atan2 ceil cos degrees exp floor ln log log10 log2 pi power radians random round signum sin "
    "sqrt tan trunc"
)
_STRING_FUNCTIONS: Final = (
    "ascii bit_length btrim char_length chr concat concat_ws contains encode ends_with initcap left length lower lpad "
    "ltrim md5 regexp_like regexp_match regexp_replace repeat replace reverse right rpad rtrim sha256 split_part "
    "starts_with strpos substr to_hex translate trim upper uuid"
)
_SYSTEM_FUNCTIONS: Final = "array arrow_typeof struct"
_DATE_FUNCTIONS: Final = (
    "current_date current_time current_timestamp date_bin date_part date_trunc datepart datetrunc from_unixtime "
    "make_date now to_date to_timestamp to_timestamp_micros to_timestamp_millis to_timestamp_nanos "
    "to_timestamp_seconds to_unixtime"
)

# True: SQL, canceling, selecting from each table, column and table aliases, null || text is null, ORDER BY expressions
# and unselected columns, columns without nulls, correlated subqueries.
_YES: Final = (4, 9, 506, 515, 516, 518, 520, 521, 524, 539)
# False: Substrait, bulk ingestion in a transaction, CREATE and DROP for catalogs, schemas, and tables, aliases that are
# the same as a table's name, LIKE … ESCAPE, integrity enhancement, SELECT … FOR UPDATE, procedures, batches,
# savepoints.
_NO: Final = (5, 11, 500, 501, 502, 519, 523, 527, 536, 537, 563, 565, 566, 572, 573, 574, 576)
# None: transactions and their isolation; case-sensitivity of quoted names, which the protocol can't express; 507: nulls
# sort as the highest values; schemas and catalogs in other statements; positioned updates.
_NONE: Final = (8, 101, 505, 507, 533, 534, 535, 562, 568, 570, 571)

_FACTS: Final[dict[int, tuple[int, object]]] = {
    **dict.fromkeys(_YES, (_BOOL, True)),
    **dict.fromkeys(_NO, (_BOOL, False)),
    **dict.fromkeys(_NONE, (_INT32, 0)),
    0: (_STRING, "micromegas_jupyter"),
    1: (_STRING, micromegas_jupyter.__version__),
    2: (_STRING, pa.__version__),
    503: (_INT32, 3),  # unquoted names are converted to lowercase
    504: (_STRING, '"'),
    508: (_STRING_LIST, _KEYWORDS.split()),
    509: (_STRING_LIST, _NUMERIC_FUNCTIONS.split()),
    510: (_STRING_LIST, _STRING_FUNCTIONS.split()),
    511: (_STRING_LIST, _SYSTEM_FUNCTIONS.split()),
    512: (_STRING_LIST, _DATE_FUNCTIONS.split()),
    513: (_STRING, "\\"),  # escapes % and _ in a name pattern
    522: (_INT32, 0b11),  # GROUP BY unselected columns, alone or in addition to selected ones
    528: (_INT32, 2),  # full outer joins
    529: (_STRING, "schema"),
    531: (_STRING, ""),  # no catalogs
    538: (_INT32, 0b1111),  # subqueries in comparisons, EXISTS, IN, ANY, and ALL
    540: (_INT32, 0b11),  # UNION and UNION ALL
    564: (_INT32, 0b1),
    567: (_INT32, 0b10),  # results are forward-only
    569: (_INT32, 0b10),  # and read-only
}
_MAX_INT32: Final = 2**31 - 1


def build_sql_info(info_ids: tuple[int, ...], facts: ServerFacts) -> pa.RecordBatch:
    """Return the facts with these IDs (all if empty); skip unknown IDs."""
    known = _FACTS | facts.by_id()
    wanted = sorted(set(info_ids) & known.keys()) if info_ids else sorted(known)
    columns: list[list[object]] = [[] for _ in _VALUE_FIELDS]
    types, offsets = [], []
    for info_id in wanted:
        type_code, value = known[info_id]
        types.append(type_code)
        offsets.append(len(columns[type_code]))
        columns[type_code].append(value)
    values = pa.UnionArray.from_dense(
        pa.array(types, pa.int8()),
        pa.array(offsets, pa.int32()),
        [pa.array(column, field.type) for column, field in zip(columns, _VALUE_FIELDS, strict=True)],
        [field.name for field in _VALUE_FIELDS],
    )
    return pa.RecordBatch.from_arrays([pa.array(wanted, pa.uint32()), values], schema=SQL_INFO_SCHEMA)


# SQL types: each name can be used in a CAST. Times are in nanoseconds, as in results.
_NULLABLE: Final = 1
_SEARCHABLE_BASIC, _SEARCHABLE_FULL = 2, 3
_DECIMAL: Final = 3
_DATETIME: Final = 9
_VARCHAR: Final = 12
_MAX_DECIMAL_DIGITS: Final = 76
_NANOSECOND_DIGITS: Final = 9


@dataclass(frozen=True, slots=True)
class _SqlType:
    """One type; `size` is in digits, bits (radix 2), or characters; `quote` is what precedes a literal's apostrophe."""

    name: str
    data_type: int
    size: int | None = None
    _: KW_ONLY
    quote: str | None = None
    radix: int | None = None
    is_unsigned: bool = False
    scale: tuple[int | None, int | None] = (None, None)
    subcode: int | None = None

    def row(self) -> dict[str, object]:
        is_text = self.data_type == _VARCHAR
        return {
            "type_name": self.name,
            "data_type": self.data_type,
            "column_size": self.size,
            "literal_prefix": None if self.quote is None else f"{self.quote}'",
            "literal_suffix": None if self.quote is None else "'",
            "create_params": ["precision", "scale"] if self.data_type == _DECIMAL else None,
            "nullable": _NULLABLE,
            "case_sensitive": is_text,
            "searchable": _SEARCHABLE_FULL if is_text else _SEARCHABLE_BASIC,
            "unsigned_attribute": None if self.radix is None else self.is_unsigned,
            "fixed_prec_scale": False,
            "auto_increment": None if self.radix is None else False,
            "minimum_scale": self.scale[0],
            "maximum_scale": self.scale[1],
            "sql_data_type": self.data_type if self.subcode is None else _DATETIME,
            "datetime_subcode": self.subcode,
            "num_prec_radix": self.radix,
        }


def _integers(name: str, data_type: int, digits: int, unsigned_digits: int) -> tuple[_SqlType, _SqlType]:
    return (
        _SqlType(name, data_type, digits, radix=10, scale=(0, 0)),
        _SqlType(f"{name} UNSIGNED", data_type, unsigned_digits, radix=10, scale=(0, 0), is_unsigned=True),
    )


def _time(name: str, data_type: int, characters: int, subcode: int) -> _SqlType:
    scale = (None, None) if name == "DATE" else (_NANOSECOND_DIGITS, _NANOSECOND_DIGITS)
    return _SqlType(name, data_type, characters, quote=f"{name} ", subcode=subcode, scale=scale)


# In response order: by data_type, then by name.
_TYPES: Final = (
    _SqlType("BOOLEAN", -7, 1),
    *_integers("TINYINT", -6, 3, 3),
    *_integers("BIGINT", -5, 19, 20),
    _SqlType("BYTEA", -3, quote="X"),
    _SqlType("DECIMAL", _DECIMAL, _MAX_DECIMAL_DIGITS, radix=10, scale=(0, _MAX_DECIMAL_DIGITS)),
    *_integers("INT", 4, 10, 10),
    *_integers("SMALLINT", 5, 5, 5),
    _SqlType("REAL", 7, 24, radix=2),
    _SqlType("DOUBLE", 8, 53, radix=2),
    _SqlType("INTERVAL", 10, quote="INTERVAL "),
    _SqlType("VARCHAR", _VARCHAR, quote=""),
    _time("DATE", 91, 10, 1),
    _time("TIME", 92, 18, 2),
    _time("TIMESTAMP", 93, 29, 3),
    _time("TIMESTAMP WITH TIME ZONE", 93, 35, 5),
)
