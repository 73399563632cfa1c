"""Rows with difficult values, on which a condition is tried before it decides about real ones."""

from __future__ import annotations

from itertools import cycle, islice
from typing import Any, Final

import pyarrow as pa

_TEXTS: Final = ("", "x", "-1", "(", "é", "9" * 40, "%_\\")
_EARLY_NS: Final = -8_500_000_000_000_000_000
_LATE_NS: Final = 8_500_000_000_000_000_000
_NANOSECONDS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def trial_rows(schema: pa.Schema) -> pa.RecordBatch:
    """Return rows of `schema` in which each column has its type's difficult values and null, however it is declared."""
    values = [_difficult_values(field.type) for field in schema]
    count = max(map(len, values), default=1)
    columns = [
        pa.array(list(islice(cycle(column), count)), field.type) for field, column in zip(schema, values, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema([field.with_nullable(True) for field in schema]))


def _difficult_values(kind: pa.DataType) -> list[Any]:  # noqa: PLR0911 - one per kind of type
    if pa.types.is_integer(kind):
        top = 1 << (kind.bit_width - (0 if pa.types.is_unsigned_integer(kind) else 1))
        return [None, 0, 1, top - 1, *([] if pa.types.is_unsigned_integer(kind) else [-1, -top])]
    if pa.types.is_floating(kind):
        return [None, 0.0, -1.5, float("nan"), float("inf"), float("-inf")]
    if pa.types.is_boolean(kind):
        return [None, True, False]
    if pa.types.is_timestamp(kind):
        return [None, 0, *(end // _NANOSECONDS[kind.unit] for end in (_EARLY_NS, _LATE_NS))]
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return [None, *_TEXTS]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return [None, *(text.encode() for text in _TEXTS)]
    return [None]
