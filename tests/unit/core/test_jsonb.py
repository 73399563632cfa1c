"""Binary JSON is written and read as databend's `jsonb` is, noise is refused. The first vector is upstream's own."""

import json
import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from micromegas_jupyter.core.jsonb import (
    MAX_DEPTH,
    MalformedJsonb,
    array_of,
    decode,
    encode,
    find,
    items,
    to_json,
)


def _bytes(text):
    return bytes.fromhex(text.replace(" ", ""))


NAME_VALUE = _bytes("40000001 10000004 10000005") + b"namevalue"


def _scalar(kind, data):
    return _bytes("20000000") + (kind << 28 | len(data)).to_bytes(4, "big") + data


VECTORS = [
    (NAME_VALUE, {"name": "value"}), (_bytes("40000000"), {}), (_bytes("80000000"), []), (_scalar(0, b""), None),
    (_scalar(1, "ü".encode()), "ü"), (_scalar(3, b""), False), (_scalar(4, b""), True), (_scalar(2, b"\x00"), 0),
    (_scalar(2, b"\x40\xff"), -1), (_scalar(2, b"\x50\xff"), 255), (_scalar(2, b"\x50\x01\x00"), 256),
    (_scalar(2, b"\x40\xff\x7f"), -129), (_scalar(2, b"\x60\x3f\xf8" + bytes(6)), 1.5),
    (_scalar(2, b"\x20"), math.inf), (_scalar(2, b"\x30"), -math.inf),
    (_scalar(2, b"\x50" + b"\xff" * 8), 2**64 - 1), (_scalar(2, b"\x40\x80" + bytes(7)), -(2**63)),
    (_bytes("80000002 20000001 50000004 00") + _bytes("40000000"), [0, {}]),
    (_bytes("40000002 10000001 10000001 00000000 40000000") + b"ab", {"b": True, "a": None}),
]  # fmt: skip


@pytest.mark.parametrize(("data", "value"), VECTORS)
def test_values_are_written_and_read(data, value):
    assert decode(data) == value
    assert encode(value) == data


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (_scalar(2, b"\x41\xff"), -1), (_scalar(2, b"\x58" + bytes(7) + b"\x01"), 1),
        (_scalar(2, b"\x70" + (-12345).to_bytes(8, "big", signed=True) + b"\x02"), Decimal("-123.45")),
    ],
)  # fmt: skip
def test_what_other_writers_write_is_read(data, value):
    assert decode(data) == value


def test_signed_integers_are_written_for_otlp():
    assert encode({"n": 255}, is_signed=True) == _bytes("40000001 10000001 20000003") + b"n\x40\x00\xff"
    assert encode(7) == _scalar(2, b"\x50\x07")
    assert encode(7, is_signed=True) == _scalar(2, b"\x40\x07")
    assert encode(2**63, is_signed=True) == _scalar(2, b"\x60\x43\xe0" + bytes(6))


_json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@given(_json_values)
def test_every_json_value_comes_back(value):
    assert decode(encode(value)) == value


def test_json_text_is_compact_and_valid():
    value = {"b": [1, 2.5, "ü", None, True], "a": math.nan, "d": Decimal("1.5")}

    assert to_json(value) == '{"b":[1,2.5,"ü",null,true],"a":null,"d":1.5}'
    assert json.loads(to_json(value))["b"][2] == "ü"


def _nested(depth):
    data = _bytes("80000000")
    for _ in range(depth):
        data = _bytes("80000001") + (5 << 28 | len(data)).to_bytes(4, "big") + data
    return data


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0", b"text", NAME_VALUE[:-1], NAME_VALUE + b"x", _bytes("4fffffff"), _bytes("9fffffff"),
        _scalar(7, b""), _scalar(3, b"x"), _scalar(1, b"\xff"), _scalar(2, b"\x40\0\0\0"), _scalar(2, b"\x60\0"),
        _scalar(2, b"\x99"), _scalar(2, b""), _nested(MAX_DEPTH), _bytes("40000001 00000000 00000000"),
    ],
)  # fmt: skip
def test_noise_is_refused(data):
    with pytest.raises(MalformedJsonb):
        decode(data)


def _lists(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", [{1: 2}, {"a": object()}, "\ud800", {"\ud800": 1}, 10**400, _lists(MAX_DEPTH)])
def test_what_has_no_binary_form_is_refused(value):
    with pytest.raises(MalformedJsonb):
        encode(value)


def test_members_keep_their_own_bytes():
    data = encode({"a": 7, "B": [1, None]}, is_signed=True)

    assert items(data) == {"B": encode([1, None], is_signed=True), "a": _scalar(2, b"\x40\x07")}
    assert find(data, "a") == _scalar(2, b"\x40\x07")
    assert items(find(data, "b")) == [_scalar(2, b"\x40\x01"), _scalar(0, b"")]
    assert array_of([find(data, "a"), find(data, "B")]) == encode([7, [1, None]], is_signed=True)


def test_a_member_of_that_very_name_comes_before_one_in_other_case():
    data = encode({"KEY": 1, "Key": 2, "key": 3})

    assert [decode(find(data, name)) for name in ("Key", "key", "kEY")] == [2, 3, 1]
    assert find(data, "k") is None
    assert find(encode([1]), "key") is None


@given(st.binary(max_size=64))
def test_noise_is_refused_member_by_member_too(data):
    for read in (items, lambda data: find(data, "a")):
        try:
            read(data)
        except MalformedJsonb:
            continue


@given(st.dictionaries(st.text(max_size=5), st.one_of(st.integers(0, 300), st.text(max_size=9), st.lists(st.none()))))
def test_members_are_what_the_whole_holds(value):
    data = encode(value)

    assert {key: decode(member) for key, member in items(data).items()} == value
    assert all(decode(find(data, key)) == member for key, member in value.items())
    assert array_of(list(items(data).values())) == encode([value[key] for key in items(data)])
