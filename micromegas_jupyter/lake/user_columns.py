"""Columns of tables that callers make: which types are kept, and how later rows are fitted to them.

Kept are the types that Parquet holds and the engine reads back; what differs only in how it is written down (large and
view text, dictionaries, smaller units of time) becomes the plain one.
"""

import re
import zoneinfo
from collections.abc import Callable
from typing import Final

import pyarrow as pa

from micromegas_jupyter.errors import ResourcesExhausted, UsageError

MAX_COLUMNS: Final = 512
_MAX_NAME_BYTES: Final = 128
_MAX_SHOWN: Final = 80
_ZONE: Final = re.compile(r"[+-][0-9]{2}:[0-9]{2}|[A-Za-z][A-Za-z0-9_+/-]{0,63}")

_OTHER_REMEDY: Final = "Ask somebody who may read the table for its columns and their types."

_IsKind = Callable[[pa.DataType], bool]
_AS_THEY_ARE: Final[tuple[_IsKind, ...]] = (
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_time,
    pa.types.is_duration,
)
_BECOME: Final[tuple[tuple[_IsKind, pa.DataType], ...]] = (
    (pa.types.is_string, pa.utf8()),
    (pa.types.is_large_string, pa.utf8()),
    (pa.types.is_string_view, pa.utf8()),
    (pa.types.is_binary, pa.binary()),
    (pa.types.is_large_binary, pa.binary()),
    (pa.types.is_binary_view, pa.binary()),
    (pa.types.is_float64, pa.float64()),
    (pa.types.is_floating, pa.float32()),
    (pa.types.is_date, pa.date32()),
)
# Of these a column may come in another width or scale than it is kept in.
_FAMILIES: Final[tuple[_IsKind, ...]] = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)


def stored_schema(schema: pa.Schema) -> pa.Schema:
    """Return the columns that a table made for `schema` has."""
    if len(schema) > MAX_COLUMNS:
        raise ResourcesExhausted(f"A table has at most {MAX_COLUMNS} columns.", remedy="Send fewer.")
    fields = []
    for field in schema:
        if not field.name or len(field.name.encode()) > _MAX_NAME_BYTES:
            raise UsageError(
                f"The column name {shown(field.name)} is empty or longer than {_MAX_NAME_BYTES} bytes.",
                remedy="Rename the column.",
            )
        kept = _stored_type(field.type)
        if kept is None:
            raise UsageError(
                f"The column {shown(field.name)} has the type {str(field.type)[:_MAX_SHOWN]}, which cannot be stored.",
                remedy="Cast it before sending, to numbers, text, bytes, times, or lists and structs of those.",
            )
        fields.append(pa.field(field.name, kept, field.nullable))
    return pa.schema(fields)


def check_fits(schema: pa.Schema, stored: pa.Schema, *, is_known: bool = True) -> None:
    """Check that rows of `schema` can become rows of the table."""
    for field in schema:
        if field.name not in stored.names:
            raise UsageError(
                f"The table has no column {shown(field.name)}.",
                remedy=f"Send the columns {_listed(stored.names)}." if is_known else _OTHER_REMEDY,
            )
        wanted = stored.field(field.name).type
        if not (pa.types.is_null(field.type) or _is_convertible(field.type, wanted)):
            theirs = str(wanted)[:_MAX_SHOWN] if is_known else "another"
            raise UsageError(
                f"The column {shown(field.name)} has the type {str(field.type)[:_MAX_SHOWN]}, and the table's has "
                f"{theirs}.",
                remedy="Cast it before sending." if is_known else _OTHER_REMEDY,
            )
    for field in stored:
        if field.name not in schema.names and not field.nullable:
            if not is_known:
                raise UsageError("A column that needs a value is missing.", remedy=_OTHER_REMEDY)
            raise UsageError(f"The column {shown(field.name)} is missing.", remedy="Every row needs a value in it.")


def convert_rows(rows: pa.RecordBatch, stored: pa.Schema, *, is_known: bool = True) -> pa.RecordBatch:
    """Return rows, whose columns `check_fits` accepted, with the table's columns; those that are missing are null."""
    columns = []
    for field in stored:
        column = rows.column(field.name) if field.name in rows.schema.names else pa.nulls(rows.num_rows)
        try:
            fitted = _convert(column, field.type)
        except (pa.ArrowException, ValueError) as error:
            theirs = str(field.type)[:_MAX_SHOWN] if is_known else "the table's type"
            raise UsageError(
                f"The column {shown(field.name)} contains a value that does not fit {theirs}.",
                remedy="Correct the value.",
            ) from error
        if fitted.null_count and not field.nullable:
            raise UsageError(f"The column {shown(field.name)} lacks a value.", remedy="Every row needs a value in it.")
        columns.append(fitted)
    return pa.RecordBatch.from_arrays(columns, schema=stored)


def shown(name: str) -> str:
    """Return a name that a caller sent so that it can stand in a sentence."""
    return repr(name[:_MAX_SHOWN])


def _stored_type(kind: pa.DataType) -> pa.DataType | None:
    if pa.types.is_dictionary(kind):
        return _stored_type(kind.value_type)
    for is_kind, kept in _BECOME:
        if is_kind(kind):
            return kept
    if pa.types.is_timestamp(kind):
        # Answers count nanoseconds, so a time that does not fit is told to the sender instead of to every reader.
        return pa.timestamp("ns", kind.tz) if kind.tz is None or _is_zone(kind.tz) else None
    if pa.types.is_fixed_size_binary(kind):
        return kind if kind.byte_width else None
    if pa.types.is_decimal(kind):
        return _stored_decimal(kind)
    return kind if any(is_kind(kind) for is_kind in _AS_THEY_ARE) else _stored_nested(kind)


def _stored_decimal(kind: pa.DataType) -> pa.DataType | None:
    if not 0 <= kind.scale <= kind.precision:
        return None  # Arrow has such scales, Parquet does not
    return kind if pa.types.is_decimal256(kind) else pa.decimal128(kind.precision, kind.scale)


def _stored_nested(kind: pa.DataType) -> pa.DataType | None:
    children = [_stored_type(kind.field(index).type) for index in range(kind.num_fields)]
    kept = [child for child in children if child is not None]
    if not kept or len(kept) < len(children):
        return None
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(kept[0])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kept[0], kind.list_size) if kind.list_size else None
    if pa.types.is_map(kind):
        key, item = _stored_type(kind.key_type), _stored_type(kind.item_type)
        return None if key is None or item is None else pa.map_(key, item)
    names = [kind.field(index).name for index in range(kind.num_fields)]
    if not pa.types.is_struct(kind) or len(set(names)) < len(names) or "" in names:
        return None
    return pa.struct(list(zip(names, kept, strict=True)))


def _is_zone(zone: str) -> bool:
    if _ZONE.fullmatch(zone) is None:
        return False
    if zone[0] in "+-":
        return int(zone[1:3]) <= 23 and int(zone[4:]) <= 59  # noqa: PLR2004 - a clock's hours and minutes
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return zone == "UTC"
    return True


def _is_convertible(found: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_dictionary(found):
        found = found.value_type
    if any(is_kind(found) and is_kind(wanted) for is_kind in _FAMILIES):
        return True
    return bool(_stored_type(found) == wanted)


def _convert(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column if column.type == wanted else column.cast(wanted)


def _listed(names: list[str]) -> str:
    text = ", ".join(names)
    return text if len(text) <= 4 * _MAX_SHOWN else f"{text[: 4 * _MAX_SHOWN]}…"
