"""Schemas without dictionaries, for tables of which a caller sees some rows only.

A dictionary is shared by the rows of a batch. When some are filtered out their values stay in it, where a cast meets
them and from where they would go on the wire.
"""

from __future__ import annotations

import functools

import pyarrow as pa


@functools.lru_cache(maxsize=256)
def flat_schema(schema: pa.Schema) -> pa.Schema:
    """Return `schema` with each dictionary type, also inside others, replaced by the type of its values."""
    return pa.schema([_flat_field(field) for field in schema], metadata=schema.metadata)


def _flat_field(field: pa.Field) -> pa.Field:
    return field.with_type(_flat_type(field.type))


def _flat_type(found: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(found):
        return _flat_type(found.value_type)
    if pa.types.is_list(found) or pa.types.is_large_list(found):
        make_list = pa.list_ if pa.types.is_list(found) else pa.large_list
        return make_list(_flat_field(found.value_field))
    if pa.types.is_fixed_size_list(found):
        return pa.list_(_flat_field(found.value_field), found.list_size)
    if pa.types.is_struct(found):
        return pa.struct([_flat_field(found.field(index)) for index in range(found.num_fields)])
    if pa.types.is_map(found):
        return pa.map_(_flat_field(found.key_field), _flat_field(found.item_field), keys_sorted=found.keys_sorted)
    return found
