"""Protobuf messages without their schema."""

from __future__ import annotations

import pytest

from micromegas_jupyter.engine.workarounds.joins import Field, WireType, read_fields, write_fields

# The first two fields are the protobuf encoding guide's examples; then fixed64, fixed32 and a number over 15.
MESSAGE = bytes.fromhex("08 96 01 12 07 74 65 73 74 69 6e 67 19 0102030405060708 25 01020304 8a 01 00")
FIELDS = [
    Field(1, WireType.VARINT, b"\x96\x01"),
    Field(2, WireType.LENGTH_DELIMITED, b"testing"),
    Field(3, WireType.FIXED64, b"\1\2\3\4\5\6\7\x08"),
    Field(4, WireType.FIXED32, b"\1\2\3\4"),
    Field(17, WireType.LENGTH_DELIMITED, b""),
]


def test_a_message_comes_apart_into_its_fields() -> None:
    assert read_fields(MESSAGE) == FIELDS


def test_fields_make_the_message_again() -> None:
    assert write_fields(FIELDS) == MESSAGE


def test_a_long_value_has_a_long_length() -> None:
    message = write_fields([Field(1, WireType.LENGTH_DELIMITED, b"x" * 300)])

    assert message[:3] == b"\x0a\xac\x02"
    assert read_fields(message) == [Field(1, WireType.LENGTH_DELIMITED, b"x" * 300)]


@pytest.mark.parametrize(
    "message", [b"\x08", b"\x12\x07test", b"\x19\1", b"\x25\1", b"\x0b", b"\x08" + b"\xff" * 11, b"\xff"]
)
def test_what_is_cut_short_or_unknown_is_an_error(message: bytes) -> None:
    with pytest.raises(ValueError, match=r"cut short|WireType"):
        read_fields(message)
