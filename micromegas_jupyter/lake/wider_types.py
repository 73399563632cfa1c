"""The type that holds the values of two files' columns of one name, where one does and no value is lost.

Times in a finer unit are fewer: whether those that are there lie among them is `finest_units`' answer.

Programs write the same values in different types: text as plain, large, view or categories, moments in other units,
numbers in other widths. What a table is made of is the callers' job.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from micromegas_jupyter.lake.finest_units import UNITS

_UTC: Final = frozenset({"UTC", "Etc/UTC", "Z", "+00:00"})
_WIDEST_DECIMAL: Final = 38
_EXACT_IN_DOUBLE_BITS: Final = 32
_LONGEST_INTEGER_BITS: Final = 64


def wider_type(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """Return a type that holds all values of both, but for times too far off for the finer unit; None without one."""
    if first == second or pa.types.is_null(second):
        return first
    if pa.types.is_null(first):
        return second
    return _wider(_plain(first), _plain(second))


def _wider(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    if first == second:
        return first
    if _is_number(first) and _is_number(second):
        return _wider_number(first, second)
    if pa.types.is_timestamp(first) and pa.types.is_timestamp(second) and first.tz == second.tz:
        return pa.timestamp(max(first.unit, second.unit, key=UNITS.index), first.tz)
    if pa.types.is_decimal128(first) and pa.types.is_decimal128(second):
        return _wider_decimal(first, second)
    return None


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the plainest type of the same values."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_timestamp(kind) and kind.tz in _UTC:
        return pa.timestamp(kind.unit, "UTC")
    return kind


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _wider_number(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    if pa.types.is_floating(first) and pa.types.is_floating(second):
        return max(first, second, key=lambda kind: kind.bit_width)
    if pa.types.is_floating(first) or pa.types.is_floating(second):
        integer = second if pa.types.is_floating(first) else first
        return pa.float64() if integer.bit_width <= _EXACT_IN_DOUBLE_BITS else None
    if pa.types.is_signed_integer(first) == pa.types.is_signed_integer(second):
        return max(first, second, key=lambda kind: kind.bit_width)
    unsigned = second if pa.types.is_signed_integer(first) else first
    return pa.int64() if unsigned.bit_width < _LONGEST_INTEGER_BITS else None


def _wider_decimal(first: pa.Decimal128Type, second: pa.Decimal128Type) -> pa.DataType | None:
    scale = max(first.scale, second.scale)
    precision = max(first.precision - first.scale, second.precision - second.scale) + scale
    return pa.decimal128(precision, scale) if precision <= _WIDEST_DECIMAL else None
