import datetime as dt
import decimal

import pyarrow as pa
import pytest

from micromegas_jupyter.notebook.values import MAX_CELL_CHARACTERS, column_texts, is_numeric, type_text


def texts(array: pa.Array) -> list[str | None]:
    return column_texts(pa.chunked_array([array]))


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([1, None]), ["1", None]),
        (pa.array([True, None]), ["true", None]),
        (pa.array([float("nan"), 1e300]), ["nan", "1e+300"]),
        (pa.array(["a", None]).dictionary_encode(), ["a", None]),
        (pa.array([decimal.Decimal("1.20")]), ["1.20"]),
        (pa.array([1500], pa.duration("ms")), ["1500 ms"]),
        (pa.array([dt.date(2020, 1, 1)]), ["2020-01-01"]),
        (pa.array([1_700_000_000_123_456_789], pa.timestamp("ns", "+00:00")), ["2023-11-14 22:13:20.123456789"]),
        (pa.array([1_700_000_000], pa.timestamp("s", "UTC")), ["2023-11-14 22:13:20"]),
        (pa.array([1_700_000_000], pa.timestamp("s", "Europe/Paris")), ["2023-11-14 23:13:20+0100"]),
        (pa.array([1_700_000_000], pa.timestamp("s")), ["2023-11-14 22:13:20"]),
        (pa.array([b"\x80ab", None]), ["0x806162", None]),
        (pa.array([b"x" * 100]), ["0x" + "78" * 24 + "… (100 bytes)"]),
        (pa.array([b"\x80", None]).dictionary_encode(), ["0x80", None]),
        (pa.array([[1, None], None]), ["[1, null]", None]),
        (pa.array([{"a": 1, "b": b"\x01"}]), ["{a: 1, b: 0x01}"]),
        (pa.array([[("k", "v")]], pa.map_(pa.string(), pa.string())), ["{k: v}"]),
        (pa.array([list(range(100))]), ["[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …]"]),
        (pa.array([[[[[1]]]]]), ["[[[…]]]"]),
        (pa.nulls(1), [None]),
        (pa.array(["a\nb\x1b[0m"]), ["a\\nb\\x1b[0m"]),
        (pa.array(["x" * 1_000_000]), ["x" * 199 + "…"]),
    ],
)  # fmt: skip
def test_a_value_is_written_in_short(array: pa.Array, expected: list[str | None]) -> None:
    assert texts(array) == expected


NO_TEXT = pa.array([b"\xff\xfe"]).view(pa.string())
UNKNOWN_ZONE = pa.array([1_700_000_000], pa.timestamp("s", "Nobody/Knows"))


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (NO_TEXT, "0xfffe"),
        (pa.DictionaryArray.from_arrays(pa.array([0]), NO_TEXT), "0xfffe"),
        (pa.StructArray.from_arrays([NO_TEXT], ["a"]), "{a: 0xfffe}"),
        (UNKNOWN_ZONE, "2023-11-14 22:13:20Z"),
        (pa.StructArray.from_arrays([UNKNOWN_ZONE], ["a"]), "{a: 2023-11-14 22:13:20Z}"),
        (pa.StructArray.from_arrays([pa.array([2**62], pa.date64())], ["a"]), "{a: (cannot be written)}"),
    ],
)
def test_what_the_type_does_not_allow_is_written_all_the_same(array: pa.Array, expected: str) -> None:
    assert texts(array) == [expected]


def test_a_value_of_a_type_without_a_cast_to_text_is_still_written() -> None:
    array = pa.array([pa.MonthDayNano([1, 2, 3])])

    assert texts(array) == ["MonthDayNano(months=1, days=2, nanoseconds=3)"]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (pa.int32(), "int32"),
        (pa.dictionary(pa.int32(), pa.string()), "string"),
        (pa.timestamp("ns", "+00:00"), "timestamp[ns, UTC]"),
        (pa.timestamp("us", "Europe/Paris"), "timestamp[us, Europe/Paris]"),
        (pa.timestamp("us"), "timestamp[us, no time zone]"),
    ],
)
def test_a_type_is_named_as_a_person_needs_it(kind: pa.DataType, text: str) -> None:
    assert type_text(kind) == text


def test_a_type_with_an_endless_time_zone_is_cut() -> None:
    assert len(type_text(pa.timestamp("us", "x" * 100_000))) == MAX_CELL_CHARACTERS


def test_numbers_are_known() -> None:
    kinds = (pa.int8(), pa.float64(), pa.decimal128(5), pa.string(), pa.bool_())

    assert [is_numeric(kind) for kind in kinds] == [True, True, True, False, False]
