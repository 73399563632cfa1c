"""The schemas of rows: for SQL and conditions, for reading files, and for results on the wire."""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import pyarrow as pa
from datafusion import DataFrame, SessionContext, col, lit, udtf
from datafusion import functions as f
from datafusion.expr import Expr

from micromegas_jupyter.core.jsonb import TYPE_METADATA
from micromegas_jupyter.engine.scanner import quoted
from micromegas_jupyter.telemetry.tables import NANOS, PROPERTIES

# Types that are sent unchanged on the wire.
_ROWS_PER_BATCH: Final = 1 << 18
_UNCHANGED: Final = frozenset(one.id for one in (pa.bool_(), pa.int32(), pa.int64(), pa.float64(), pa.string()))


def no_rows(context: SessionContext, schema: pa.Schema) -> DataFrame:
    """Return a frame without rows."""
    return context.read_batch(pa.RecordBatch.from_pylist([], schema=schema))


def rows_without_values(context: SessionContext, schema: pa.Schema, count: int) -> DataFrame | None:
    """Return a frame of `count` rows whose values don't matter, or None if a nested column is never null.

    It has a known number of rows. Columns that are never null remain so, because `key IS NOT NULL` is then always true.
    """
    if any(one.type.num_fields and not one.nullable for one in schema):
        return None
    size = min(count, _ROWS_PER_BATCH)
    columns = [pa.nulls(size, one.type) for one in schema]
    filled = [
        column if one.nullable else pa.Array.from_buffers(one.type, size, [None, *column.buffers()[1:]])
        for one, column in zip(schema, columns, strict=True)
    ]
    batch = pa.RecordBatch.from_arrays(filled, schema=schema)
    whole, rest = divmod(count, _ROWS_PER_BATCH)
    return context.read_batches([*[batch] * whole, batch.slice(0, rest)])


def register_rows(
    session: SessionContext, function: str, rows: Iterable[Mapping[str, object]], schema: pa.Schema
) -> None:
    """Register a table function that returns these rows."""
    found = session.read_batch(pa.RecordBatch.from_pylist([dict(row) for row in rows], schema=schema)).into_view()
    session.register_udtf(udtf(lambda *_: found, function))


@functools.lru_cache(maxsize=64)
def stored_times(schema: pa.Schema, split: tuple[str, ...]) -> pa.Schema:
    """Return the columns to read for a schema with times whose nanoseconds are stored separately."""
    fields = [one.with_type(_in_microseconds(one.type)) if one.name in split else one for one in schema]
    return pa.schema([*fields, *(pa.field(f"{name}{NANOS}", pa.int16()) for name in split)])


@functools.lru_cache(maxsize=64)
def whole_times(schema: pa.Schema, split: tuple[str, ...]) -> list[Expr]:
    """Return the expressions that compute a schema's columns from those of `stored_times`.

    They use integers, so that no value makes them fail; a time without nanoseconds has 0.
    """
    columns = {one.name: col(quoted(one.name)) for one in schema}
    for name in split:
        ticks = columns[name].cast(pa.int64()) * lit(1000)
        nanos = f.coalesce(col(quoted(f"{name}{NANOS}")), lit(pa.scalar(0, pa.int16())))
        columns[name] = (ticks + nanos).cast(schema.field(name).type).alias(name)
    return list(columns.values())


def cut_times(rows: DataFrame, split: tuple[str, ...]) -> DataFrame:
    """Return rows with these times in microseconds."""
    kinds = {one.name: one.type for one in rows.schema()}
    cut = {name: col(quoted(name)).cast(_in_microseconds(kinds[name])).alias(name) for name in split}
    return rows.select(*(cut.get(name, col(quoted(name))) for name in kinds))


def _in_microseconds(time: pa.TimestampType) -> pa.DataType:
    return pa.timestamp("us", time.tz)


@functools.lru_cache(maxsize=256)
def flat_schema(schema: pa.Schema, *, keeps_properties: bool = False) -> pa.Schema:
    """Return `schema` with each dictionary type, including nested ones, replaced by its value type.

    The rows of a batch share a dictionary. If some rows are filtered out, their values remain in it, where a cast could
    fail on them and from where they would be sent. With `keeps_properties`, property columns are unchanged: functions
    on them are evaluated once per value.
    """

    def flat(found: pa.DataType) -> pa.DataType:
        return found if keeps_properties and found == PROPERTIES else _flat_type(found)

    return pa.schema([field.with_type(flat(field.type)) for field in schema], metadata=schema.metadata)


def _flat_type(found: pa.DataType) -> pa.DataType:
    return _flat_type(found.value_type) if pa.types.is_dictionary(found) else _with_children(found, _flat_type)


def wire_schema(schema: pa.Schema, *, preserve_dictionary: bool, keeps_units: bool) -> pa.Schema:
    """Return `schema` as sent on the wire.

    DataFusion's own types vary with its rewrites (`upper` of a dictionary is a string view), but clients need one
    schema before the first batch. String and binary views become Utf8 and Binary, timestamps are in nanoseconds unless
    the result `keeps_units`, dictionaries are flattened unless `preserve_dictionary`; names, order, nullability, and
    the fields' own metadata are unchanged. Dictionaries of bytes are binary JSON, which the metadata declares.
    """
    return pa.schema(
        [_wire_field(field, preserve_dictionary=preserve_dictionary, keeps_units=keeps_units) for field in schema]
    )


def _wire_field(field: pa.Field, *, preserve_dictionary: bool, keeps_units: bool) -> pa.Field:
    if field.type.id in _UNCHANGED:
        return field
    if field.type == PROPERTIES:
        field = field.with_metadata({**(field.metadata or {}), **TYPE_METADATA})
    return field.with_type(_wire_type(field.type, preserve_dictionary=preserve_dictionary, keeps_units=keeps_units))


def to_wire(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return `batch` converted to exactly `schema`, which is the result of `wire_schema` for the plan's schema."""
    if batch.schema.equals(schema, check_metadata=True):
        return batch
    columns = batch.columns
    if batch.schema.types != schema.types:
        columns = [_convert(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _wire_type(found: pa.DataType, *, preserve_dictionary: bool, keeps_units: bool) -> pa.DataType:
    if pa.types.is_string_view(found):
        return pa.string()
    if pa.types.is_binary_view(found):
        return pa.binary()
    if pa.types.is_timestamp(found):
        return found if keeps_units else pa.timestamp("ns", found.tz)
    if pa.types.is_dictionary(found):
        value = _wire_type(found.value_type, preserve_dictionary=preserve_dictionary, keeps_units=keeps_units)
        return pa.dictionary(found.index_type, value, found.ordered) if preserve_dictionary else value
    return _with_children(
        found, functools.partial(_wire_type, preserve_dictionary=preserve_dictionary, keeps_units=keeps_units)
    )


def _with_children(found: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """Return a type with its nested types changed; a list view becomes a list."""

    def child(field: pa.Field) -> pa.Field:
        return field.with_type(change(field.type))

    if pa.types.is_list(found) or pa.types.is_list_view(found):
        return pa.list_(child(found.value_field))
    if pa.types.is_large_list(found) or pa.types.is_large_list_view(found):
        return pa.large_list(child(found.value_field))
    if pa.types.is_fixed_size_list(found):
        return pa.list_(child(found.value_field), found.list_size)
    if pa.types.is_struct(found):
        return pa.struct([child(found.field(index)) for index in range(found.num_fields)])
    if pa.types.is_map(found):
        return pa.map_(child(found.key_field), child(found.item_field), keys_sorted=found.keys_sorted)
    return found


def _convert(column: pa.Array, target: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(column.type) and not pa.types.is_dictionary(target):
        # Convert the values first, because there are few, and pyarrow cannot look up views.
        return _convert(column.dictionary, target).take(column.indices)
    if pa.types.is_list_view(column.type) or pa.types.is_large_list_view(column.type):
        return pa.array(column.to_pylist(), target)  # pyarrow's own cast creates too few offsets
    return column.cast(target)


_TYPE_NAMES: Final = {
    "Boolean": "BOOLEAN",
    "Int8": "TINYINT",
    "Int16": "SMALLINT",
    "Int32": "INT",
    "Int64": "BIGINT",
    "UInt8": "TINYINT UNSIGNED",
    "UInt16": "SMALLINT UNSIGNED",
    "UInt32": "INT UNSIGNED",
    "UInt64": "BIGINT UNSIGNED",
    "Float16": "REAL",
    "Float32": "REAL",
    "Float64": "DOUBLE",
    "Utf8": "VARCHAR",
    "LargeUtf8": "VARCHAR",
    "Utf8View": "VARCHAR",
    "Binary": "BYTEA",
    "LargeBinary": "BYTEA",
    "BinaryView": "BYTEA",
    "Date32": "DATE",
    "Date64": "DATE",
}
_TYPE: Final = "|".join(sorted(_TYPE_NAMES, key=len, reverse=True))
# Constants first: `Int64(1)` is a constant, but `Decimal128(10, 2)` is a type.
_CONSTANTS: Final = (
    (re.compile(r"\b(?:U?Int(?:8|16|32|64)|Float(?:32|64))\((-?[\d.]+(?:e[+-]?\d+)?)\)"), r"\1"),
    (re.compile(r"\bBoolean\((true|false)\)"), r"\1"),
    (re.compile(r'\b(?:Large)?Utf8(?:View)?\("((?:[^"\\]|\\.)*)"\)'), r"'\1'"),
)
_TYPES: Final[tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...]] = (
    (re.compile(rf"\bDictionary\(\w+, ({_TYPE})\)"), r"\1"),
    (re.compile(r"\bTimestamp\((?:\w+|µs), (?!None\b)[^)]*\)"), "TIMESTAMP WITH TIME ZONE"),
    (re.compile(r"\bTimestamp\((?:ns|µs|us|ms|s|\w+second)(?:, None)?\)"), "TIMESTAMP"),
    (re.compile(r"\bTime(?:32|64)\([^)]*\)"), "TIME"),
    (re.compile(r"\bInterval\(\w+\)"), "INTERVAL"),
    (re.compile(r"\bDuration\([^)]*\)"), "DURATION"),
    (re.compile(r"\bDecimal(?:32|64|128|256)\("), "DECIMAL("),
    (re.compile(r"\bFixedSizeBinary\(\d+\)"), "BYTEA"),
    (re.compile(rf"(?<![\w.\"'])({_TYPE})\b(?![(\"'])"), lambda found: _TYPE_NAMES[found[1]]),
)


def with_sql_names(text: str) -> str:
    """Return an engine's message with SQL types and constants: `Int64 * Utf8` becomes `BIGINT * VARCHAR`."""
    text = with_sql_constants(text)
    for pattern, name in _TYPES:
        text = pattern.sub(name, text)
    return text


def with_sql_constants(text: str) -> str:
    """Return a string, such as the engine's name for a column, with SQL constants: `Int64(1)` becomes `1`."""
    for pattern, constant in _CONSTANTS if "(" in text else ():
        text = pattern.sub(constant, text)
    return text
