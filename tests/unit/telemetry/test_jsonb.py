"""Binary JSON reads as the same JSON, noise is refused. The first vector is that of upstream's own test."""

import math

import pytest

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.telemetry.conversion import parse_jsonb, parse_properties


def _bytes(text):
    return bytes.fromhex(text.replace(" ", ""))


NAME_VALUE = _bytes("40000001 10000004 10000005") + b"namevalue"


def _scalar(kind, data):
    return _bytes("20000000") + (kind << 28 | len(data)).to_bytes(4, "big") + data


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (NAME_VALUE, {"name": "value"}), (_bytes("40000000"), {}), (_bytes("80000000"), []), (_scalar(0, b""), None),
        (_scalar(1, "ü".encode()), "ü"), (_scalar(3, b""), False), (_scalar(4, b""), True), (_scalar(2, b"\x00"), 0),
        (_scalar(2, b"\x40\xff"), -1), (_scalar(2, b"\x41\xff"), -1), (_scalar(2, b"\x50\xff"), 255),
        (_scalar(2, b"\x58" + bytes(7) + b"\x01"), 1), (_scalar(2, b"\x60\x3f\xf8" + bytes(6)), 1.5),
        (_scalar(2, b"\x20"), math.inf), (_bytes("80000002 20000001 50000004 00") + _bytes("40000000"), [0, {}]),
    ],
)  # fmt: skip
def test_values_are_read(data, value):
    assert parse_jsonb(data) == value


def test_members_that_are_not_text_become_json_text():
    data = _bytes("40000002 10000001 10000001 20000002 50000004") + b"ab\x50\x07" + _bytes("80000000")

    assert parse_properties(data) == {"a": "7", "b": "[]"}
    with pytest.raises(UsageError, match="not a JSON object"):
        parse_properties(_bytes("80000000"))


def _nested(depth):
    data = _bytes("80000000")
    for _ in range(depth):
        data = _bytes("80000001") + (5 << 28 | len(data)).to_bytes(4, "big") + data
    return data


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0", b"text", NAME_VALUE[:-1], _bytes("4fffffff"), _bytes("9fffffff"), _scalar(7, b""),
        _scalar(1, b"\xff"), _scalar(2, b"\x40\0\0\0"), _scalar(2, b"\x60\0"), _scalar(2, b"\x99"), _nested(40),
        _bytes("40000001 00000000 00000000"),
    ],
)  # fmt: skip
def test_noise_is_refused(data):
    with pytest.raises(UsageError):
        parse_jsonb(data)
