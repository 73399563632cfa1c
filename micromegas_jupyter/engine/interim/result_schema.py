"""The types that results have on the wire, and batches of exactly those types."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Callable


def wire_schema(schema: pa.Schema, *, preserve_dictionary: bool) -> pa.Schema:
    """Return the schema without views, with times in nanoseconds and, unless preserved, without dictionaries."""
    return pa.schema(
        [field.with_type(wire_type(field.type, preserve_dictionary=preserve_dictionary)) for field in schema]
    )


def wire_type(kind: pa.DataType, *, preserve_dictionary: bool) -> pa.DataType:
    """Return the type that a value of type `kind` has on the wire."""

    def convert(inner: pa.DataType) -> pa.DataType:
        return wire_type(inner, preserve_dictionary=preserve_dictionary)

    for applies, build in _RULES:
        if applies(kind):
            return build(kind, convert)
    if pa.types.is_dictionary(kind):
        if not preserve_dictionary:
            return convert(kind.value_type)
        return pa.dictionary(kind.index_type, convert(kind.value_type), kind.ordered)
    return kind


def to_wire(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return `batch` with exactly the types of `schema`."""
    if batch.schema.equals(schema):
        return batch
    columns = [
        column if column.type.equals(field.type) else _cast(column, field.type)
        for column, field in zip(batch.columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(column.type) and not pa.types.is_dictionary(kind):
        # Taking from the dictionary works for every value type, casting only for some.
        taken = pc.take(column.dictionary, column.indices)
        return taken if taken.type.equals(kind) else _cast(taken, kind)
    return pc.cast(column, kind)


def _with_value_field(kind: pa.DataType, convert: Callable[[pa.DataType], pa.DataType]) -> pa.Field:
    return kind.value_field.with_type(convert(kind.value_type))


_RULES: tuple[
    tuple[
        Callable[[pa.DataType], bool],
        Callable[[pa.DataType, Callable[[pa.DataType], pa.DataType]], pa.DataType],
    ],
    ...,
] = (
    (pa.types.is_string_view, lambda _kind, _convert: pa.string()),
    (pa.types.is_binary_view, lambda _kind, _convert: pa.binary()),
    (pa.types.is_timestamp, lambda kind, _convert: pa.timestamp("ns", kind.tz)),
    (pa.types.is_list_view, lambda kind, convert: pa.list_(_with_value_field(kind, convert))),
    (pa.types.is_large_list_view, lambda kind, convert: pa.large_list(_with_value_field(kind, convert))),
    (pa.types.is_list, lambda kind, convert: pa.list_(_with_value_field(kind, convert))),
    (pa.types.is_large_list, lambda kind, convert: pa.large_list(_with_value_field(kind, convert))),
    (
        pa.types.is_struct,
        lambda kind, convert: pa.struct([field.with_type(convert(field.type)) for field in kind]),
    ),
)
