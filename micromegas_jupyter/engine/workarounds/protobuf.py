"""Takes a protobuf message apart into its fields and puts it together again, without knowing its schema.

For plans of DataFusion; messages of the wire belong to `flightsql`.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

_VARINT_MORE = 0x80
_VARINT_BITS = 0x7F
_LONGEST_VARINT = 10


class WireType(enum.IntEnum):
    """How a field's value is written (protobuf encoding guide, "Message Structure")."""

    VARINT = 0
    FIXED64 = 1
    LENGTH_DELIMITED = 2
    FIXED32 = 5


class Field(NamedTuple):
    """One field: its number, its wire type and its value's bytes, without the length of a length-delimited one."""

    number: int
    wire_type: WireType
    value: bytes


def read_fields(message: bytes) -> list[Field]:
    """Return the fields of `message` in order.

    Raises:
        ValueError: The bytes are no protobuf message.
    """
    fields: list[Field] = []
    place = 0
    while place < len(message):
        key, place = _read_varint(message, place)
        wire_type = WireType(key & 7)
        start, end = _extent(message, place, wire_type)
        if end > len(message):
            raise ValueError("a protobuf field is cut short")
        fields.append(Field(key >> 3, wire_type, message[start:end]))
        place = end
    return fields


def write_fields(fields: list[Field]) -> bytes:
    """Return the message that has `fields` in order; the inverse of `read_fields`."""
    parts: list[bytes] = []
    for field in fields:
        parts.append(_varint(field.number << 3 | field.wire_type))
        if field.wire_type is WireType.LENGTH_DELIMITED:
            parts.append(_varint(len(field.value)))
        parts.append(field.value)
    return b"".join(parts)


def _extent(message: bytes, place: int, wire_type: WireType) -> tuple[int, int]:
    match wire_type:
        case WireType.VARINT:
            return place, _read_varint(message, place)[1]
        case WireType.FIXED64:
            return place, place + 8
        case WireType.FIXED32:
            return place, place + 4
        case WireType.LENGTH_DELIMITED:
            length, start = _read_varint(message, place)
            return start, start + length


def _read_varint(message: bytes, place: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(message[place : place + _LONGEST_VARINT]):
        value |= (byte & _VARINT_BITS) << (7 * index)
        if byte < _VARINT_MORE:
            return value, place + index + 1
    raise ValueError("a protobuf number is cut short")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > _VARINT_BITS:
        out.append(value & _VARINT_BITS | _VARINT_MORE)
        value >>= 7
    out.append(value)
    return bytes(out)
