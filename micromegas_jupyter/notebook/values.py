"""Writes Arrow values and types as short text for a preview; how it is laid out is `result`'s.

A server may send what Arrow's types do not allow (text that is no UTF-8, a time zone that nobody knows, a time out of
range): that is written, too, as bytes, in UTC or as what it is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from micromegas_jupyter.notebook.formatting import cut, printable

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_CELL_CHARACTERS = 200

_MAX_SHOWN_BYTES = 24
_MAX_SHOWN_ITEMS = 10
_MAX_DEPTH = 3
_UTC_NAMES = frozenset({"UTC", "+00:00", "Z", "Etc/UTC"})
_UNWRITABLE = "(cannot be written)"


def column_texts(column: pa.ChunkedArray) -> list[str | None]:
    """Return one short text for each value, None for null; meant for a few rows, not for a whole result."""
    return [None if text is None else _short(text) for text in _texts(decoded(column))]


def decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the column without dictionary encoding; one that has none is returned as it is."""
    if not pa.types.is_dictionary(column.type):
        return column
    return pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], column.type.value_type)


def type_text(kind: pa.DataType) -> str:
    """Return a type's name as a person needs it: no dictionary encoding, `UTC` for each of its spellings."""
    if pa.types.is_dictionary(kind):
        return type_text(kind.value_type)
    if pa.types.is_timestamp(kind):
        zone = "no time zone" if kind.tz is None else "UTC" if kind.tz in _UTC_NAMES else _short(kind.tz)
        return cut(f"timestamp[{kind.unit}, {zone}]", MAX_CELL_CHARACTERS)
    return _short(str(kind))


def is_numeric(kind: pa.DataType) -> bool:
    """Whether values of this type are numbers, which stand at the right."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _short(text: str) -> str:
    # Cut first: a value may be megabytes long.
    return cut(printable(cut(text, MAX_CELL_CHARACTERS)), MAX_CELL_CHARACTERS)


def _texts(column: pa.ChunkedArray) -> list[str | None]:
    kind = column.type
    if not (pa.types.is_nested(kind) or _is_bytes(kind)):
        try:
            texts: list[str | None] = _cast(column).to_pylist()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError):
            pass  # an interval, an extension type, what is no text: written value by value
        else:
            return [None if text is None else _tidy(kind)(text) for text in texts]
    return [_scalar_text(scalar, depth=0) if scalar.is_valid else None for scalar in column]


def _cast(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        # A value may be megabytes long, and Python needs only its beginning.
        return pc.utf8_slice_codeunits(column, 0, MAX_CELL_CHARACTERS + 1)
    return column.cast(pa.string())


def _tidy(kind: pa.DataType) -> Callable[[str], str]:
    if pa.types.is_duration(kind):
        return lambda text: f"{text} {kind.unit}"
    if pa.types.is_timestamp(kind) and kind.tz in _UTC_NAMES:
        # The type's line names the zone.
        return lambda text: text.removesuffix("+0000").removesuffix("Z")
    return lambda text: text


def _scalar_text(scalar: pa.Scalar, *, depth: int) -> str:
    if not scalar.is_valid:
        return "null"
    if pa.types.is_dictionary(scalar.type):
        return _scalar_text(scalar.value, depth=depth)
    if _is_bytes(scalar.type):
        return _bytes_text(scalar.as_py())
    if pa.types.is_nested(scalar.type):
        return "…" if depth == _MAX_DEPTH else _nested_text(scalar, depth=depth + 1)
    return _plain_text(scalar)


def _plain_text(scalar: pa.Scalar) -> str:
    try:
        return str(scalar)
    except UnicodeDecodeError:
        return _bytes_text(scalar.cast(pa.binary()).as_py())
    except (ValueError, LookupError, ArithmeticError, TypeError, NotImplementedError, pa.ArrowException):
        return _in_utc(scalar) if pa.types.is_timestamp(scalar.type) else _UNWRITABLE


def _in_utc(scalar: pa.Scalar) -> str:
    """Return a time whose zone nobody knows; its end says that this is UTC."""
    return str(scalar.cast(pa.timestamp(scalar.type.unit, "UTC")).cast(pa.string()))


def _nested_text(scalar: pa.Scalar, *, depth: int) -> str:
    kind = scalar.type
    if pa.types.is_struct(kind):
        fields = (f"{kind[index].name}: {_scalar_text(scalar[index], depth=depth)}" for index in range(len(kind)))
        return "{" + ", ".join(fields) + "}"
    if pa.types.is_map(kind):
        pairs = (f"{_member(entry, 0, depth)}: {_member(entry, 1, depth)}" for entry in _first(scalar.values))
        return "{" + ", ".join(pairs) + _rest(scalar.values) + "}"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        items = (_scalar_text(item, depth=depth) for item in _first(scalar.values))
        return "[" + ", ".join(items) + _rest(scalar.values) + "]"
    return _plain_text(scalar)


def _member(entry: pa.StructScalar, index: int, depth: int) -> str:
    return _scalar_text(entry[index], depth=depth)


def _first(values: pa.Array) -> pa.Array:
    return values.slice(0, _MAX_SHOWN_ITEMS)


def _rest(values: pa.Array) -> str:
    return ", …" if len(values) > _MAX_SHOWN_ITEMS else ""


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_bytes(kind.value_type)
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def _bytes_text(data: bytes) -> str:
    shown = data[:_MAX_SHOWN_BYTES].hex()
    return f"0x{shown}" if len(data) <= _MAX_SHOWN_BYTES else f"0x{shown}… ({len(data):,} bytes)"
