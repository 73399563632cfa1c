"""Brings the rows of values that various clients send into one form: columns named "0", "1", …, of plain types.

Which placeholder a column is for, `placeholders` knows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

from micromegas_jupyter.errors import InvalidStatement

if TYPE_CHECKING:
    from micromegas_jupyter.engine.contract import StatementRequest


def with_plain_parameters(request: StatementRequest, columns: tuple[str, ...]) -> StatementRequest:
    """Return the request with its values named and typed as `placeholders` expects them.

    flightsql-dbapi names its columns `param_0`, `param_1`, … and wraps each value in a union; some clients give no
    names. Flight SQL binds by position, so such columns are for `?` and `$1` in their order.

    Args:
        request: The request as it came.
        columns: The columns that the statement's placeholders have.

    Raises:
        InvalidStatement: The values of one parameter are of several types.
    """
    batch = request.parameters
    if batch is None:
        return request
    names = _positions(batch.schema.names, columns)
    if names == batch.schema.names and not any(map(pa.types.is_union, batch.schema.types)):
        return request
    arrays = [_without_union(array) for array in batch.columns]
    fields = [
        pa.field(name, array.type, field.nullable)
        for name, array, field in zip(names, arrays, batch.schema, strict=True)
    ]
    return replace(request, parameters=pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields)))


def _positions(names: list[str], columns: tuple[str, ...]) -> list[str]:
    """Return "0", "1", … in place of names that a client made up, unless the statement knows one of them."""
    made_up = all(name in {"", f"param_{index}"} for index, name in enumerate(names))
    return [str(index) for index in range(len(names))] if made_up and not set(names) & set(columns) else names


def _without_union(array: pa.Array) -> pa.Array:
    """Return the values of a union whose rows are all of one type."""
    if not pa.types.is_union(array.type):
        return array
    codes = set(array.type_codes.to_pylist())
    if len(codes) > 1:
        raise InvalidStatement("The values of one parameter are of several types.")
    if not codes:
        return pa.nulls(0)
    position = array.type.type_codes.index(codes.pop())
    values = array.field(position)
    return values.take(array.offsets) if array.type.mode == "dense" else values
