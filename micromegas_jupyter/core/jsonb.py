"""Binary JSON as Micromegas stores properties: databend's `jsonb`, version 0.5, big-endian.

A container is a header (kind, count), a header per element (type, length), and the elements. An object's keys, sorted
by their bytes, precede its values. A lone scalar is a container with one element.

In results, this project's server sets the type's name in the field's metadata, but upstream's does not: a binary column
is treated as JSONB if its first values all are. Wrong guesses are harmless, because other bytes stay bytes.
"""

import json
import math
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from operator import itemgetter
from typing import Final

import pyarrow as pa

TYPE_METADATA: Final = {b"ARROW:FLIGHT:SQL:TYPE_NAME": b"jsonb"}
"""The metadata of an Arrow field whose values are binary JSON (Flight SQL's key for a type's name)."""
MAX_DEPTH: Final = 64
_SAMPLE_ROWS: Final = 10_000
_SAMPLE_VALUES: Final = 100
_LARGE_BYTES: Final = 256 * 1024 * 1024
_BYTES: Final = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
_HEADER: Final = 4
_KIND_BITS: Final = 29
_TYPE_BITS: Final = 28
_LENGTH = (1 << _TYPE_BITS) - 1
_SCALAR, _OBJECT, _ARRAY = 1, 2, 4
_STRING, _NUMBER, _CONTAINER = 1, 2, 5
_CONSTANTS: Final[Mapping[int, object]] = {0: None, 3: False, 4: True}
_SPECIAL_NUMBERS: Final = {0x00: 0, 0x10: math.nan, 0x20: math.inf, 0x30: -math.inf}
_INT, _UINT, _FLOAT, _DECIMAL = 0x40, 0x50, 0x60, 0x70


class MalformedJsonb(ValueError):
    """The bytes are not binary JSON, or a value cannot be encoded as binary JSON."""


def encode(value: object, *, is_signed: bool = False) -> bytes:
    """Encode a value of a type that `json.loads` returns; raise MalformedJsonb for other types.

    With `is_signed`, nonnegative integers are encoded as signed, like OTLP's; otherwise as unsigned, like JSON text's.
    """
    if isinstance(value, Mapping | list | tuple):
        return _encode_container(value, is_signed=is_signed, depth=1)
    kind, data = _encode_element(value, is_signed=is_signed, depth=1)
    return struct.pack(">II", _SCALAR << _KIND_BITS, kind << _TYPE_BITS | len(data)) + data


def _encode_container(value: object, *, is_signed: bool, depth: int) -> bytes:
    if depth > MAX_DEPTH:
        raise MalformedJsonb("too deep")
    if isinstance(value, Mapping):
        try:
            pairs = sorted(((key.encode(), item) for key, item in value.items()), key=itemgetter(0))
        except AttributeError:
            raise MalformedJsonb("a key is not a string") from None
        except UnicodeEncodeError:
            raise MalformedJsonb("a key contains a lone surrogate") from None
        head = _OBJECT << _KIND_BITS | len(pairs)
        elements = [(_STRING, key) for key, _ in pairs]
        elements += [_encode_element(item, is_signed=is_signed, depth=depth) for _, item in pairs]
    else:
        items: Sequence[object] = value if isinstance(value, list | tuple) else []
        head = _ARRAY << _KIND_BITS | len(items)
        elements = [_encode_element(item, is_signed=is_signed, depth=depth) for item in items]
    headers = struct.pack(f">{1 + len(elements)}I", head, *(kind << _TYPE_BITS | len(data) for kind, data in elements))
    return headers + b"".join(data for _, data in elements)


def _encode_element(value: object, *, is_signed: bool, depth: int) -> tuple[int, bytes]:
    match value:
        case None:
            return 0, b""
        case bool():
            return (4 if value else 3), b""
        case str():
            try:
                return _STRING, value.encode()
            except UnicodeEncodeError:
                raise MalformedJsonb("a string contains a lone surrogate") from None
        case int():
            return _NUMBER, _encode_integer(value, is_signed=is_signed)
        case float():
            return _NUMBER, _encode_float(value)
        case Mapping() | list() | tuple():
            return _CONTAINER, _encode_container(value, is_signed=is_signed, depth=depth + 1)
    raise MalformedJsonb(f"a value has the unsupported type {type(value).__name__}")


def _encode_integer(value: int, *, is_signed: bool) -> bytes:
    if value == 0:
        return b"\x00"
    signed = value < 0 or is_signed
    for size in (1, 2, 4, 8):
        bits = size * 8 - (1 if signed else 0)
        if -(1 << bits) <= value < 1 << bits:
            return bytes([_INT if signed else _UINT]) + value.to_bytes(size, "big", signed=signed)
    try:
        return _encode_float(float(value))
    except OverflowError:
        raise MalformedJsonb("a number is too large") from None


def _encode_float(value: float) -> bytes:
    if math.isfinite(value):
        return bytes([_FLOAT]) + struct.pack(">d", value)
    return b"\x10" if math.isnan(value) else b"\x20" if value > 0 else b"\x30"


def decode(data: bytes) -> object:
    """Return the value as `json.loads` would; NaN and infinities are floats, decimals are `Decimal`."""
    try:
        value, size = _decode(data, depth=1)
    except (struct.error, ValueError, LookupError):
        raise MalformedJsonb("not binary JSON") from None
    if size != len(data):
        raise MalformedJsonb("there are extra bytes after the value")
    return value


def items(data: bytes) -> dict[str, bytes] | list[bytes] | None:
    """Return an object's members or an array's elements, each as separate binary JSON; None for a scalar.

    Doesn't decode them, so numbers keep their original encoding.
    """
    try:
        return _items(data)
    except (struct.error, ValueError, LookupError):
        raise MalformedJsonb("not binary JSON") from None


def find(data: bytes, key: str) -> bytes | None:
    """Return an object's member as separate binary JSON; exact names take precedence over case-insensitive ones."""
    try:
        return _find(data, key.encode())
    except (struct.error, ValueError, LookupError):
        raise MalformedJsonb("not binary JSON") from None


def _items(data: bytes) -> dict[str, bytes] | list[bytes] | None:
    kind, count, headers = _head(data)
    position = _HEADER * (1 + len(headers))
    found: list[bytes] = []
    for header in headers:
        found.append(_element(data, position, header))
        position += header & _LENGTH
    if position != len(data):
        raise ValueError("there are extra bytes after the value")
    if kind == _SCALAR:
        return None
    values = [_as_value(header, element) for header, element in zip(headers[-count:], found[-count:], strict=True)]
    if kind == _ARRAY:
        return values if count else []
    if any(header >> _TYPE_BITS != _STRING for header in headers[:count]):
        raise ValueError("a key is not a string")
    return dict(zip((key.decode("utf-8") for key in found[:count]), values, strict=True)) if count else {}


def _find(data: bytes, wanted: bytes) -> bytes | None:
    kind, count, headers = _head(data)
    if kind != _OBJECT:
        return None
    place, folded = -1, wanted.lower()
    position = _HEADER * (1 + len(headers))
    for index in range(count):
        name = data[position : (position := position + (headers[index] & _LENGTH))]
        if name == wanted:
            place = index
            break
        if place < 0 and name.lower() == folded:
            place = index
    if place < 0:
        return None
    place += count
    start = _HEADER * (1 + len(headers)) + sum(header & _LENGTH for header in headers[:place])
    return _as_value(headers[place], _element(data, start, headers[place]))


def array_of(elements: Sequence[bytes]) -> bytes:
    """Return a binary JSON array of values that are already encoded."""
    headers, data = [_ARRAY << _KIND_BITS | len(elements)], []
    for element in elements:
        kind, _, inner = _head(element)
        header, found = (inner[0], element[2 * _HEADER :]) if kind == _SCALAR else (_CONTAINER << _TYPE_BITS, element)
        headers.append(header & ~_LENGTH | len(found))
        data.append(found)
    return struct.pack(f">{len(headers)}I", *headers) + b"".join(data)


def _head(data: bytes) -> tuple[int, int, tuple[int, ...]]:
    """Return a container's kind, its number of items, and the headers of its elements."""
    header: int = struct.unpack_from(">I", data)[0]
    kind, count = header >> _KIND_BITS, header & ((1 << _KIND_BITS) - 1)
    total = {_SCALAR: 1, _ARRAY: count, _OBJECT: 2 * count}[kind]
    if _HEADER * (1 + total) > len(data):
        raise ValueError("more elements than fit in the data")
    return kind, count, struct.unpack_from(f">{total}I", data, _HEADER)


def _element(data: bytes, position: int, header: int) -> bytes:
    element = data[position : position + (header & _LENGTH)]
    if len(element) != header & _LENGTH:
        raise ValueError("an element extends past the end of the data")
    return element


def _as_value(header: int, element: bytes) -> bytes:
    """Return an element as separate binary JSON."""
    if header >> _TYPE_BITS == _CONTAINER:
        return element
    return struct.pack(">II", _SCALAR << _KIND_BITS, header) + element


def to_json(value: object) -> str:
    """Return a decoded value as compact JSON; numbers that JSON cannot represent become null."""
    return json.dumps(to_plain(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def to_text(value: object) -> str:
    """Return a decoded value as a string: strings unchanged, other values as JSON."""
    return value if isinstance(value, str) else to_json(value)


def to_plain(value: object) -> object:
    """Return a decoded value for `json.dumps`; numbers that JSON cannot represent become None."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Decimal():
            return float(value)
        case dict():
            return {key: to_plain(item) for key, item in value.items()}
        case list():
            return [to_plain(item) for item in value]
    return value


def _decode(data: bytes, *, depth: int) -> tuple[object, int]:
    """Decode a container; return its value and its size in bytes."""
    if depth > MAX_DEPTH:
        raise ValueError("too deep")
    kind, count, headers = _head(data)
    elements = [*_elements(data, headers, depth=depth)]
    size = _HEADER * (1 + len(elements)) + sum(size for _, size in elements)
    values = [value for value, _ in elements]
    if kind == _SCALAR:
        return values[0], size
    if kind == _ARRAY:
        return values, size
    if not all(isinstance(key, str) for key in values[:count]):
        raise ValueError("a key is not a string")
    return dict(zip(values[:count], values[count:], strict=True)), size


def _elements(data: bytes, headers: tuple[int, ...], *, depth: int) -> Iterator[tuple[object, int]]:
    position = _HEADER * (1 + len(headers))
    for header in headers:
        element = _element(data, position, header)
        yield _value(header >> _TYPE_BITS, element, depth=depth), len(element)
        position += len(element)


def _value(kind: int, data: bytes, *, depth: int) -> object:
    if kind == _STRING:
        return data.decode("utf-8")
    if kind == _NUMBER:
        return _number(data)
    if kind == _CONTAINER:
        value, size = _decode(data, depth=depth + 1)
        if size != len(data):
            raise ValueError("there are extra bytes after a container")
        return value
    if kind not in _CONSTANTS or data:
        raise ValueError("an unknown type")
    return _CONSTANTS[kind]


def _number(data: bytes) -> object:
    tag, rest = data[0], data[1:]
    if not rest:
        if tag not in _SPECIAL_NUMBERS:
            raise ValueError("an unknown number")
        return _SPECIAL_NUMBERS[tag]
    tag &= 0xF0  # some writers repeat the size in the lower four bits
    if tag == _FLOAT:
        number: float = struct.unpack(">d", rest)[0]
        return number
    if tag in {_INT, _UINT} and len(rest) in {1, 2, 4, 8}:
        return int.from_bytes(rest, "big", signed=tag == _INT)
    if tag == _DECIMAL and len(rest) in {9, 17, 33}:
        return Decimal(int.from_bytes(rest[:-1], "big", signed=True)).scaleb(-rest[-1])
    raise ValueError("an unknown number")


def is_declared_jsonb(field: pa.Field) -> bool:
    """Whether a schema marks a column as JSONB, by the type's name or as a dictionary (like upstream)."""
    is_named = TYPE_METADATA.items() <= (field.metadata or {}).items()
    return _is_bytes(field.type) and (is_named or pa.types.is_dictionary(field.type))


def holds_jsonb(field: pa.Field, column: pa.ChunkedArray) -> bool:
    """Whether to show a column as JSON: its first values are all JSONB, or it is empty and declared as JSONB."""
    if not _is_bytes(field.type):
        return False
    rows = column.slice(0, _SAMPLE_ROWS)
    if rows.null_count == len(rows) and column.null_count < len(column):
        rows = column.drop_null().slice(0, _SAMPLE_ROWS)
    values = pa.chunked_array(map(_plain, rows.chunks), pa.large_binary()).drop_null().unique()[:_SAMPLE_VALUES]
    return all(json_text(one) is not None for one in values.to_pylist()) if len(values) else is_declared_jsonb(field)


def json_text(data: bytes) -> str | None:
    """Return JSONB as compact JSON, or None for other bytes."""
    try:
        return to_json(decode(data))
    except MalformedJsonb:
        return None


def json_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a JSONB column as a dictionary-encoded column of JSON strings; other bytes become `0x…`."""
    texts, _ = _texts(column)
    return texts


def with_json(table: pa.Table, names: Collection[str | None] | None = None) -> pa.Table:
    """Convert the columns that contain only JSONB (all, or only those in `names`) to JSON strings."""
    for index, field in enumerate(table.schema):
        column = table.column(index)
        if (names is not None and field.name not in names) or not holds_jsonb(field, column):
            continue
        texts, are_json = _texts(column)
        if are_json:
            if not pa.types.is_dictionary(field.type):
                texts = texts.cast(texts.type.value_type)
            table = table.set_column(index, field.with_type(texts.type), texts)
    return table


def _texts(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, bool]:
    """Return the column's strings, computed once per distinct value, and whether all of them are JSON."""
    kind = pa.string() if column.get_total_buffer_size() < _LARGE_BYTES else pa.large_string()
    known: dict[bytes, str] = {}
    are_json = True
    chunks = []
    for chunk in column.chunks:
        distinct = chunk if _is_worth_its_dictionary(chunk) else _plain(chunk).dictionary_encode()
        texts = []
        for value in distinct.dictionary.to_pylist():
            text = known.get(value)
            if text is None:
                text = json_text(value)
                if text is None:
                    are_json, text = False, f"0x{value.hex()}"
                known[value] = text
            texts.append(text)
        chunks.append(pa.DictionaryArray.from_arrays(distinct.indices.cast(pa.int32()), pa.array(texts, kind)))
    return pa.chunked_array(chunks, pa.dictionary(pa.int32(), kind)), are_json


def _is_worth_its_dictionary(chunk: pa.Array) -> bool:
    """Whether a dictionary has no nulls and no more values than rows; slices of results often have more values."""
    if not pa.types.is_dictionary(chunk.type):
        return False
    return len(chunk.dictionary) <= len(chunk) and not chunk.dictionary.null_count


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(check(kind) for check in _BYTES)


def _plain(chunk: pa.Array) -> pa.Array:
    """Return the rows' bytes without dictionary encoding."""
    if pa.types.is_dictionary(chunk.type):
        chunk = chunk.dictionary.cast(pa.large_binary()).take(chunk.indices)
    return chunk.cast(pa.large_binary())
