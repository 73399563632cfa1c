"""Allowed column types: Delta's types, how other types are stored, and types that cannot be stored."""

from collections.abc import Callable
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from micromegas_jupyter.core.text import cut, shown
from micromegas_jupyter.errors import ResourcesExhausted, UsageError
from micromegas_jupyter.telemetry.tables import NANOS, TableDefinition

PARTITION_DATE: Final = "date"
"""The partition column of the data model's tables, which SQL doesn't show."""
MAX_COLUMNS: Final = 512
_MAX_NAME_BYTES: Final = 128
_MAX_SHOWN: Final = 80
_MAX_DEPTH: Final = 16
_OTHER_REMEDY: Final = "Ask a user with read access to the table for its columns and their types."

_PLAIN: Final = frozenset(
    {pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.utf8(), pa.binary()}
)
_IsKind = Callable[[pa.DataType], bool]
_BECOME: Final[dict[_IsKind, pa.DataType]] = {
    pa.types.is_large_string: pa.utf8(),
    pa.types.is_string_view: pa.utf8(),
    pa.types.is_large_binary: pa.binary(),
    pa.types.is_binary_view: pa.binary(),
    pa.types.is_fixed_size_binary: pa.binary(),
    pa.types.is_date: pa.date32(),
    pa.types.is_uint8: pa.int16(),
    pa.types.is_uint16: pa.int32(),
    pa.types.is_uint32: pa.int64(),
    pa.types.is_uint64: pa.decimal128(20, 0),
    pa.types.is_float16: pa.float32(),
}
_MAX_DIGITS: Final = 38
_NANOS_PER_MICROSECOND: Final = 1000
# Types that Delta doesn't support.
_REMEDIES: Final[dict[_IsKind, str]] = {
    pa.types.is_time: "Send it as a string, or as an int64 counted from midnight.",
    pa.types.is_duration: "Send it as an int64, for example in nanoseconds.",
    pa.types.is_interval: "Send it as a string or an int64.",
    pa.types.is_null: "Send it with the type that its values will have.",
    pa.types.is_decimal: "Send it as a decimal with at most 38 digits in total, before and after the decimal point.",
    pa.types.is_union: "Send one column for each type.",
}
_REMEDY: Final = "Send numbers, strings, bytes, times, or lists, maps, and structs of those."
_LISTS: Final = (pa.ListType, pa.LargeListType, pa.FixedSizeListType, pa.ListViewType, pa.LargeListViewType)


def stored_schema(schema: pa.Schema) -> pa.Schema:
    """Return the columns of a table created for `schema`."""
    if len(schema) > MAX_COLUMNS:
        raise ResourcesExhausted(f"A table can have at most {MAX_COLUMNS} columns.", remedy="Send fewer.")
    seen: dict[str, str] = {}
    fields = []
    for field in schema:
        fields.append(stored_field(field))
        other = seen.get(field.name.lower())
        seen[field.name.lower()] = field.name
        if other is not None:
            raise UsageError(
                f"The columns {shown(other)} and {shown(field.name)} have the same name or differ only in case.",
                remedy="Rename one of them.",
            )
    return pa.schema(fields)


def stored_field(field: pa.Field) -> pa.Field:
    """Return the column to store for a column that was sent."""
    if not field.name or len(field.name.encode()) > _MAX_NAME_BYTES or not field.name.isprintable():
        raise UsageError(
            f"The column name {shown(field.name)} is empty, longer than {_MAX_NAME_BYTES} bytes, or contains "
            "unprintable characters.",
            remedy="Rename the column.",
        )
    try:
        return pa.field(field.name, _stored_type(field.type), field.nullable)
    except _Refused as error:
        kind = str(field.type)[:_MAX_SHOWN]
        inner = f" because of {str(error.kind)[:_MAX_SHOWN]}" if error.kind != field.type else ""
        raise UsageError(
            f"The column {shown(field.name)} has the type {kind}, which cannot be stored{inner}.",
            remedy=next((remedy for is_kind, remedy in _REMEDIES.items() if is_kind(error.kind)), _REMEDY),
        ) from None


def stored_definition(definition: TableDefinition) -> pa.Schema:
    """Return the stored columns of a data model table, without the partition column."""
    nanos = [pa.field(f"{name}{NANOS}", pa.int16()) for name in definition.split_times]
    return pa.schema([*map(stored_field, definition.schema), *nanos])


def check_fits(schema: pa.Schema, stored: pa.Schema, *, is_known: bool = True) -> None:
    """Check that rows with `schema` can be stored in the table."""
    for field in schema:
        if field.name not in stored.names:
            known = cut(", ".join(stored.names), 4 * _MAX_SHOWN)
            raise UsageError(
                f"The table has no column {shown(field.name)}.",
                remedy=f"Send the columns {known}." if is_known else _OTHER_REMEDY,
            )
        wanted = stored.field(field.name).type
        if not (pa.types.is_null(field.type) or _is_convertible(field.type, wanted)):
            theirs = f"the type {str(wanted)[:_MAX_SHOWN]}" if is_known else "a different type"
            raise UsageError(
                f"The column {shown(field.name)} has the type {str(field.type)[:_MAX_SHOWN]}, but the table's column "
                f"has {theirs}.",
                remedy="Cast it before sending." if is_known else _OTHER_REMEDY,
            )
    for field in stored:
        if field.name not in schema.names and not field.nullable:
            if not is_known:
                raise UsageError("A required column is missing.", remedy=_OTHER_REMEDY)
            raise UsageError(
                f"The column {shown(field.name)} is missing.", remedy="Every row must have a value in this column."
            )


def convert_rows(
    rows: pa.RecordBatch, stored: pa.Schema, *, is_known: bool = True, first_row: int = 0
) -> pa.RecordBatch:
    """Convert rows that `check_fits` has accepted to the table's columns; missing columns are null.

    Errors count rows from 1 after the `first_row` rows that were sent before.
    """
    columns = []
    for field in stored:
        column = rows.column(field.name) if field.name in rows.schema.names else pa.nulls(rows.num_rows)
        try:
            fitted = _convert(column, field.type)
        except (pa.ArrowException, ValueError) as error:
            theirs = str(field.type)[:_MAX_SHOWN] if is_known else "the table's type"
            is_time = pa.types.is_timestamp(field.type)
            raise UsageError(
                f"The column {shown(field.name)} contains a value that does not fit {theirs}"
                f"{_first_unfit(column, field.type, first_row)}.",
                remedy='Round times to microseconds, or send them with times="truncate".'
                if is_time
                else "Correct the value.",
            ) from error
        if fitted.null_count and not field.nullable:
            raise UsageError(
                f"The column {shown(field.name)} lacks a value.", remedy="Every row must have a value in this column."
            )
        columns.append(fitted)
    return pa.RecordBatch.from_arrays(columns, schema=stored)


def convert_definition_rows(rows: pa.RecordBatch, definition: TableDefinition, stored: pa.Schema) -> pa.RecordBatch:
    """Return data model rows in their stored form, with the partition column.

    Times are truncated to microseconds, and the remainders of `split_times` go to separate columns.
    """
    columns = {
        field.name: _convert(rows.column(field.name), field.type, safe=not pa.types.is_timestamp(field.type))
        for field in stored
        if field.name in rows.schema.names
    }
    for name in definition.split_times:
        times, nanos = np.divmod(rows.column(name).cast(pa.int64()).to_numpy(), _NANOS_PER_MICROSECOND)
        columns[name] = pa.array(times).cast(stored.field(name).type)
        columns[f"{name}{NANOS}"] = pa.array(nanos.astype(np.int16))
    columns[PARTITION_DATE] = pc.cast(columns[definition.range_columns[0]], pa.date32(), safe=False)
    schema = stored.append(pa.field(PARTITION_DATE, pa.date32()))
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def is_compatible(written: pa.Schema, stored: pa.Schema) -> bool:
    """Whether rows with schema `written` fit a table with schema `stored`, which may have gained columns since."""
    return all(
        field.name in stored.names and stored.field(field.name).type.equals(field.type) for field in written
    ) and all(field.nullable or field.name in written.names for field in stored)


class _Refused(Exception):
    def __init__(self, kind: pa.DataType) -> None:
        super().__init__(kind)
        self.kind = kind


def _stored_type(kind: pa.DataType, depth: int = 0) -> pa.DataType:  # noqa: PLR0911 - one per kind
    if depth > _MAX_DEPTH:
        raise _Refused(kind)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _stored_type(kind.value_type, depth)
    stored = kind if kind in _PLAIN else next((plain for is_kind, plain in _BECOME.items() if is_kind(kind)), None)
    if stored is not None:
        return stored
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", tz=None if kind.tz is None else "UTC")
    if pa.types.is_decimal(kind):
        scale = max(kind.scale, 0)
        precision = kind.precision - kind.scale + scale
        if scale <= precision <= _MAX_DIGITS:
            return pa.decimal128(precision, scale)
    if isinstance(kind, _LISTS):
        return pa.list_(pa.field("element", _stored_type(kind.value_type, depth + 1)))
    if pa.types.is_map(kind):
        return pa.map_(_stored_type(kind.key_type, depth + 1), _stored_type(kind.item_type, depth + 1))
    fields = [kind.field(index) for index in range(kind.num_fields)] if pa.types.is_struct(kind) else []
    if not all(field.name for field in fields) or len({field.name.lower() for field in fields}) != max(len(fields), 1):
        raise _Refused(kind)
    return pa.struct([pa.field(field.name, _stored_type(field.type, depth + 1)) for field in fields])


def _is_convertible(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether values can be converted without changing their meaning; whether each value fits is checked per row."""
    if pa.types.is_dictionary(found) or pa.types.is_run_end_encoded(found):
        found = found.value_type
    if pa.types.is_integer(found):
        return bool(pa.types.is_integer(wanted) or (pa.types.is_uint64(found) and wanted == _stored_type(found)))
    if pa.types.is_floating(found):
        # Arrow rounds float64 to float32 silently.
        return bool(pa.types.is_float64(wanted) or (wanted == pa.float32() and not pa.types.is_float64(found)))
    if pa.types.is_decimal(found):
        return bool(pa.types.is_decimal(wanted))
    try:
        stored = _stored_type(found)
    except _Refused:
        return False
    return bool(stored == wanted)


def _first_unfit(column: pa.Array, wanted: pa.DataType, first_row: int) -> str:
    """Return the first value that can't be stored and its row, as part of a sentence."""
    low, high = 0, len(column)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            _convert(column.slice(low, middle - low), wanted)
            low = middle
        except (pa.ArrowException, ValueError):
            high = middle
    value = column[low]
    kind = value.type
    if pa.types.is_date64(kind):
        value = value.cast(pa.timestamp("ms"))
    text = str(value.cast(pa.string())) if pa.types.is_temporal(kind) else str(value)
    return f": {cut(text, _MAX_SHOWN)} in row {first_row + low + 1:,}"


def _convert(column: pa.Array, wanted: pa.DataType, *, safe: bool = True) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    elif pa.types.is_run_end_encoded(column.type):
        column = pc.run_end_decode(column)
    elif isinstance(column.type, pa.ListViewType | pa.LargeListViewType):
        # Arrow 23 loses values when it casts a slice or casts to a different value type.
        ends = pc.cumulative_sum(pc.fill_null(pc.list_value_length(column), 0).cast(pa.int64()))
        offsets = pa.concat_arrays([pa.array([0], pa.int64()), ends])
        column = pa.LargeListArray.from_arrays(offsets, column.flatten(), mask=column.is_null())
    return column if column.type == wanted else column.cast(wanted, safe=safe)
