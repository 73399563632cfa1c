"""Converts the rows that clients send for the data model's tables to the columns that are stored.

Strings, times, and properties are accepted in every lossless form, such as upstream's replication.
"""

import itertools
import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from micromegas_jupyter.core import jsonb
from micromegas_jupyter.core.text import shown
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.telemetry.tables import (
    DICTIONARY,
    PROPERTIES,
    TIMESTAMP,
    TableDefinition,
    build_constant_properties,
)

_PACKAGE: Final = "micromegas_jupyter"
QUERY_AUDIT_TARGET: Final = "flightsql_query_audit"
"""The target of the query audit log, the same as upstream's."""
ORIGIN_PROPERTY: Final = "micromegas.origin"
"""A process property that only rows from the server's own recorder have; its value is `SERVER_ORIGIN`."""
SERVER_ORIGIN: Final = "server"
# Columns that the sender may omit, and the columns used instead.
_STAND_INS: Final = {("processes", "last_update_time"): "insert_time", ("streams", "last_update_time"): "insert_time"}
_LEFT_TO_THE_SERVER: Final = frozenset({("processes", "last_block_end_ticks"), ("processes", "last_block_end_time")})
# Newer senders include an audience, which is ignored.
_IGNORED: Final = frozenset({("processes", "audience"), ("streams", "audience")})
_MAX_NAME_LENGTH: Final = 80
_PAIR_BYTES: Final = 8  # two 32-bit numbers


def find_own_targets(targets: pa.Array) -> pa.Array:
    """Return which of these strings are targets of the server's own loggers."""
    names = pc.is_in(targets, pa.array([_PACKAGE, QUERY_AUDIT_TARGET], targets.type))
    return pc.or_(names, pc.starts_with(targets, f"{_PACKAGE}."))


def check_targets(rows: pa.RecordBatch) -> None:
    """Check that log entries with the table's columns do not use targets of the server's own loggers."""
    if pc.any(find_own_targets(rows.column("target").dictionary)).as_py():
        raise UsageError(
            f"The targets {_PACKAGE}, {_PACKAGE}.*, and {QUERY_AUDIT_TARGET} are reserved for the server's own logs.",
            remedy="Use different targets, or have an administrator send these rows.",
        )


def check_origin(rows: pa.RecordBatch, definition: TableDefinition) -> None:
    """Check that rows with the table's columns do not claim to be recorded by the server."""
    name = "properties" if definition.name == "processes" else "process_properties"
    if name not in rows.schema.names:
        return
    for one in rows.column(name).dictionary.to_pylist():
        # A key's bytes are its text, so most sets need no decoding. Queries match it regardless of ASCII case.
        if one is not None and ORIGIN_PROPERTY.encode() in one.lower() and jsonb.find(one, ORIGIN_PROPERTY) is not None:
            raise UsageError(
                f"The process property {ORIGIN_PROPERTY} is reserved for the server's own telemetry.",
                remedy=f"Remove it from {name}.",
            )


def check_columns(schema: pa.Schema, definition: TableDefinition) -> None:
    """Check that columns with these names and types can be converted to the table's. Errors contain the column name."""
    known = set(definition.schema.names)
    table = definition.name
    for name in schema.names:
        if name not in known and (table, name) not in _IGNORED:
            raise UsageError(
                f"The table {table} doesn't have a column {shown(name)}.",
                remedy=f"Send only the columns {', '.join(definition.schema.names)}.",
            )
    for field in definition.schema:
        if field.name not in schema.names:
            if (table, field.name) not in _STAND_INS and (table, field.name) not in _LEFT_TO_THE_SERVER:
                raise UsageError(
                    f"The column {field.name} of {table} is missing.", remedy=f"Send it as {_wanted(field)}."
                )
        elif not _is_convertible(schema.field(field.name).type, field.type):
            found = str(schema.field(field.name).type)[:_MAX_NAME_LENGTH]
            raise UsageError(f"The column {field.name} has the type {found}.", remedy=f"Send {_wanted(field)}.")


def convert_rows(rows: pa.RecordBatch, definition: TableDefinition) -> pa.RecordBatch:
    """Convert rows that `check_columns` accepted to the table's columns; errors contain the column's name."""
    columns = []
    for field in definition.schema:
        name = field.name
        if name not in rows.schema.names:
            name = _STAND_INS.get((definition.name, name), name)
        if name not in rows.schema.names:
            columns.append(pa.nulls(rows.num_rows, field.type))
            continue
        try:
            column = _convert(rows.column(name), field.type)
        except (pa.ArrowException, ValueError) as error:
            raise UsageError(
                f"The column {field.name} contains a value that cannot be converted to {_wanted(field)}.",
                remedy="Correct the value.",
            ) from error
        if column.null_count and not field.nullable:
            raise UsageError(f"A value in the column {field.name} is missing.", remedy="Send a value for each row.")
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=definition.schema)


def _is_convertible(found: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_null(found) or found == wanted:
        return True  # whether the table allows null values is checked per row
    if wanted == PROPERTIES:
        return _is_properties(found)
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_list(wanted):
        is_list = pa.types.is_list(found) or pa.types.is_large_list(found)
        return is_list and _is_convertible(found.value_type, wanted.value_type)
    if wanted in {DICTIONARY, pa.utf8()}:
        return _is_text(found)
    if pa.types.is_fixed_size_binary(wanted):
        return bool(found == wanted or _is_bytes(found))
    return _is_bytes(found) if pa.types.is_binary(wanted) else _is_number(found, wanted)


def _is_number(found: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_timestamp(wanted):
        return bool(pa.types.is_timestamp(found))
    is_real = pa.types.is_floating(found) and pa.types.is_floating(wanted)
    return bool(pa.types.is_integer(found) or is_real)


def _is_properties(found: pa.DataType) -> bool:
    if pa.types.is_dictionary(found):
        return _is_properties(found.value_type)
    if pa.types.is_map(found):
        return _is_text(found.key_type) and _is_text(found.item_type)
    if pa.types.is_list(found) or pa.types.is_large_list(found):
        pair = found.value_type
        names = [field.name for field in pair] if pa.types.is_struct(pair) else []
        return names == ["key", "value"] and all(_is_text(field.type) for field in pair)
    return _is_bytes(found)


def _is_text(found: pa.DataType) -> bool:
    if pa.types.is_dictionary(found):
        found = found.value_type
    return bool(pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found))


def _is_bytes(found: pa.DataType) -> bool:
    return bool(pa.types.is_binary(found) or pa.types.is_large_binary(found) or pa.types.is_binary_view(found))


def _convert(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    if pa.types.is_null(column.type):
        return build_constant_properties({}, len(column)) if wanted == PROPERTIES else pa.nulls(len(column), wanted)
    if wanted == PROPERTIES:
        return convert_properties(column)
    if pa.types.is_list(wanted):
        flat = _convert(column.flatten(), wanted.value_type)
        return pa.ListArray.from_arrays(_offsets(column), flat, type=wanted, mask=column.is_null())
    if wanted == DICTIONARY:
        return _plain(column).cast(pa.utf8()).dictionary_encode()
    if wanted == TIMESTAMP and column.type.tz is None:
        # A time without a zone counts as UTC, as upstream stores it.
        return column.cast(pa.timestamp(column.type.unit, "UTC")).cast(TIMESTAMP)
    return _plain(column).cast(wanted)


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def convert_properties(column: pa.Array) -> pa.Array:
    """Return property sets from any accepted form; a row without one gets an empty one."""
    indices, sets = _distinct_properties(column)
    positions: dict[bytes, int] = {}
    renumbered = pa.array([positions.setdefault(one, len(positions)) for one in sets], pa.int32()).take(indices)
    if renumbered.null_count:
        renumbered = pc.fill_null(renumbered, positions.setdefault(jsonb.encode({}), len(positions)))
    return pa.DictionaryArray.from_arrays(renumbered, pa.array(list(positions), pa.binary()))


def _distinct_properties(column: pa.Array) -> tuple[pa.Array, Sequence[bytes]]:
    """Return the index of each row's property set (null for none), and the distinct sets as JSONB."""
    if pa.types.is_dictionary(column.type):
        indices, sets = _distinct_properties(column.dictionary)
        return indices.take(column.indices), sets
    if _is_bytes(column.type):
        distinct = column.cast(pa.binary()).dictionary_encode()
        sets = distinct.dictionary.to_pylist()
        for one in sets:
            check_properties(one)
        return distinct.indices, sets
    lists = _as_list(column) if pa.types.is_map(column.type) else column
    pairs = lists.flatten()
    keys, values = (
        _plain(pc.struct_field(pairs, index)).cast(pa.utf8()).dictionary_encode(null_encoding="encode")
        for index in (0, 1)
    )
    # Rows with equal pairs of positions are equal, so only a few rows become Python objects.
    numbers = np.stack([keys.indices.to_numpy(), values.indices.to_numpy()], axis=1).astype(np.int32).tobytes()
    key_texts, value_texts = keys.dictionary.to_pylist(), values.dictionary.to_pylist()
    known: dict[bytes, int] = {}
    sets = []
    ends = (_offsets(lists).to_numpy() * _PAIR_BYTES).tolist()
    indices = []
    for begin, end in itertools.pairwise(ends):
        row = numbers[begin:end]
        position = known.get(row)
        if position is None:
            position = known[row] = len(sets)
            texts = ((key_texts[key], value_texts[value]) for key, value in struct.iter_unpack("=ii", row))
            sets.append(jsonb.encode(dict(texts)))
        indices.append(position)
    return pa.array(indices, pa.int32(), mask=column.is_null().to_numpy(zero_copy_only=False)), sets


def _as_list(column: pa.MapArray) -> pa.ListArray:
    """Return the same rows as lists of structs, using the same buffers."""
    pairs = pa.StructArray.from_arrays([column.keys, column.items], ["key", "value"])
    return pa.Array.from_buffers(
        pa.list_(pairs.type), len(column), column.buffers()[:2], offset=column.offset, children=[pairs]
    )


def _offsets(column: pa.Array) -> pa.Array:
    """Return the offsets for `column.flatten()`, which omits the values of null lists."""
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    return pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(lengths.cast(pa.int64()))]).cast(pa.int32())


def _wanted(field: pa.Field) -> str:
    if field.type == PROPERTIES:
        return "properties (a map, a list of key-value structs, or JSONB)"
    if field.type == DICTIONARY:
        return "a string (plain or dictionary-encoded)"
    return {pa.utf8(): "a string (plain or dictionary-encoded)", TIMESTAMP: "a timestamp"}.get(
        field.type, str(field.type)
    )


def check_properties(data: bytes) -> None:
    """Check that bytes are a binary JSON object."""
    try:
        found = jsonb.decode(data)
    except jsonb.MalformedJsonb:
        raise UsageError(
            "A value is not binary JSON (JSONB).", remedy="Send properties as a map or a list of key-value pairs."
        ) from None
    if not isinstance(found, dict):
        raise UsageError("Properties are not a JSON object.", remedy="Send key-value pairs.")
