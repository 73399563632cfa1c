"""Reads the binary JSON in which telemetry keeps properties (databend's `jsonb`); numbers are big-endian.

A container is a word (kind, count), a word for each element (type, length), the elements; keys before values.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from typing import Final

from micromegas_jupyter.errors import UsageError

_MAX_DEPTH: Final = 32
_WORD: Final = 4
_KIND_BITS: Final = 29
_TYPE_BITS: Final = 28
_OBJECT: Final = 2
_ARRAY: Final = 4
_SCALAR: Final = 1
_CONTAINER: Final = 5
_CONSTANTS: Final[Mapping[int, object]] = {0: None, 3: False, 4: True}
_STRING: Final = 1
_NUMBER: Final = 2
_SPECIAL_NUMBERS: Final = {0x00: 0, 0x10: float("nan"), 0x20: float("inf"), 0x30: float("-inf")}
_INT: Final = 0x4
_UINT: Final = 0x5
_FLOAT: Final = 0x6


def parse_jsonb(data: bytes) -> object:
    """Return the value as `json.loads` would."""
    try:
        return _parse(data, depth=0)
    except (struct.error, ValueError, IndexError):
        raise UsageError(
            "A value is not binary JSON (JSONB).", remedy="Send properties as a map or a list of key and value."
        ) from None


def parse_properties(data: bytes) -> Mapping[str, str]:
    """Return an object's members as text: strings as they are, all else as JSON."""
    found = parse_jsonb(data)
    if not isinstance(found, dict):
        raise UsageError("Properties are not a JSON object.", remedy="Send key and value pairs.")
    return {key: value if isinstance(value, str) else _as_text(value) for key, value in found.items()}


def _as_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _parse(data: bytes, *, depth: int) -> object:
    if depth > _MAX_DEPTH:
        raise ValueError("too deep")
    word = _word(data, 0)
    kind, count = word >> _KIND_BITS, word & ((1 << _KIND_BITS) - 1)
    if kind == _SCALAR:
        return next(_elements(data, 1, depth=depth))
    if kind == _ARRAY:
        return list(_elements(data, count, depth=depth))
    if kind != _OBJECT:
        raise ValueError("no container")
    found = list(_elements(data, 2 * count, depth=depth))
    keys = found[:count]
    if not all(isinstance(key, str) for key in keys):
        raise ValueError("a key is no text")
    return dict(zip(keys, found[count:], strict=True))


def _elements(data: bytes, count: int, *, depth: int) -> Iterator[object]:
    position = _WORD * (1 + count)
    if position > len(data):
        raise ValueError("more elements than fit")
    for index in range(count):
        entry = _word(data, _WORD * (1 + index))
        length = entry & ((1 << _TYPE_BITS) - 1)
        if position + length > len(data):
            raise ValueError("an element ends outside")
        yield _value((entry >> _TYPE_BITS) & 0x7, data[position : position + length], depth=depth)
        position += length


def _value(kind: int, data: bytes, *, depth: int) -> object:
    if kind == _STRING:
        return data.decode("utf-8")
    if kind == _NUMBER:
        return _number(data)
    if kind == _CONTAINER:
        return _parse(data, depth=depth + 1)
    if kind not in _CONSTANTS:
        raise ValueError("an unknown type")
    return _CONSTANTS[kind]


def _number(data: bytes) -> int | float:
    tag, rest = data[0], data[1:]
    if not rest:
        special = _SPECIAL_NUMBERS.get(tag)
        if special is None:
            raise ValueError("an unknown number")
        return special
    kind = tag >> 4
    if kind == _FLOAT:
        number: float = struct.unpack(">d", rest)[0]
        return number
    if kind in {_INT, _UINT} and len(rest) in {1, 2, 4, 8}:
        return int.from_bytes(rest, "big", signed=kind == _INT)
    raise ValueError("an unknown number")


def _word(data: bytes, position: int) -> int:
    word: int = struct.unpack_from(">I", data, position)[0]
    return word
