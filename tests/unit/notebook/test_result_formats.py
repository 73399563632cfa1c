"""One notation for each column of a result, and the names of SQL's types."""

from datetime import date, time
from decimal import Decimal

import pyarrow as pa
import pytest

from micromegas_jupyter.notebook.formats import choose_format, sql_type, sql_type_of
from micromegas_jupyter.notebook.results.view import RowQuery, RowsView
from micromegas_jupyter.notebook.units import quantity

NO_TEXT = pa.array([b"\xff\xfe"]).view(pa.string())
UNKNOWN_ZONE = pa.array([1_700_000_000], pa.timestamp("s", "Nobody/Knows"))
MAX_INT = 2**63 - 1


def shown(array, name="a", metadata=None):
    """Return the column's unit and texts."""
    column, field = pa.chunked_array([array]), pa.field(name, array.type, metadata=metadata)
    form = choose_format(field, column)
    return form.unit, form.texts(column)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.5, 2.25, 100.0], ["1.50", "2.25", "100.00"]),
        ([1.0, 20000.0], ["1", "20,000"]),
        ([25_000_000_000.0, 256_682_902.2], ["25,000,000,000.0", "256,682,902.2"]),
        ([0.1, 0.2, None], ["0.1", "0.2", None]),
        ([1 / 3, 2 / 3], ["0.333", "0.667"]),
        ([1000.001, 1000.002], ["1,000.001", "1,000.002"]),
        ([1e300, 1.5], ["1.0000e+300", "1.5000e+00"]),
        ([1e-12, 2e-12], ["1.0000e-12", "2.0000e-12"]),
        ([float("nan"), float("inf"), -1.5], ["nan", "inf", "-1.5"]),
        ([float("nan")], ["nan"]),
        ([0.0], ["0.0"]),
        ([None], [None]),
        ([], []),
    ],
)
def test_floats_of_a_column_have_the_same_decimals_and_as_many_as_tell_them_apart(values, expected):
    assert shown(pa.array(values, pa.float64())) == ("", expected)


def test_a_small_float_is_the_shortest_text_that_stands_for_it():
    assert shown(pa.array([0.1, 0.2], pa.float32()))[1] == ["0.1", "0.2"]
    assert shown(pa.array([0.5], pa.float16()))[1] == ["0.5"]


@pytest.mark.parametrize(
    ("array", "name", "expected"),
    [
        (pa.array([1234567, -5]), "rows", ("", ["1,234,567", "-5"])),
        (pa.array([2**64 - 1], pa.uint64()), "n", ("", ["18,446,744,073,709,551,615"])),
        (pa.array([1234567]), "process_id", ("", ["1234567"])),
        (pa.array([2026]), "year", ("", ["2026"])),
        (pa.array([1500]), "size_bytes", ("bytes", ["1,500"])),
        (pa.array([1.5]), "cpu_percent", ("%", ["1.5"])),
        (pa.array([Decimal("1234.5000")], pa.decimal128(20, 4)), "n", ("", ["1,234.5000"])),
        (pa.array([Decimal("1e-10")], pa.decimal128(20, 10)), "n", ("", ["0.0000000001"])),
        (pa.array([Decimal(0)], pa.decimal256(50, 20)), "n", ("", ["0.00000000000000000000"])),
        (pa.array([Decimal("1.5")], pa.decimal32(5, 1)), "n", ("", ["1.5"])),
        (pa.array([1500, 20], pa.duration("ms")), "took", ("ms", ["1,500", "20"])),
        (pa.array([90_000_000_000, 1_500_000_000], pa.duration("ns")), "took", ("s", ["90.0", "1.5"])),
        (pa.array([-1], pa.duration("ns")), "took", ("ns", ["-1"])),
        (pa.array([MAX_INT], pa.duration("s")), "took", ("h", ["2,562,047,788,015,215.5019"])),
        (pa.array([30, 7]).dictionary_encode(), "n", ("", ["30", "7"])),
    ],
)
def test_numbers_have_separators_unless_they_name_something_and_their_unit_stands_in_the_head(array, name, expected):
    assert shown(array, name) == expected


def test_a_unit_comes_from_the_columns_metadata():
    assert shown(pa.array([5]), metadata={"unit": "requests/s"})[0] == "requests/s"
    assert shown(pa.array([5]), metadata={"unit": b"\xff\x1b" * 50})[0].isprintable()


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([1_700_000_000_123_456_789], pa.timestamp("ns", "+00:00")), ["2023-11-14 22:13:20.123456789"]),
        (pa.array([1_700_000_000_123_000_000], pa.timestamp("ns", "UTC")), ["2023-11-14 22:13:20.123"]),
        (pa.array([1_700_000_000_000_000_000], pa.timestamp("ns")), ["2023-11-14 22:13:20"]),
        (pa.array([1_700_000_000 // 60 * 60], pa.timestamp("s", "Europe/Paris")), ["2023-11-14 23:13"]),
        (pa.array([1_700_000_000 // 86400 * 86400, None], pa.timestamp("s")), ["2023-11-14", None]),
        (pa.array([1792888200, 1792891800], pa.timestamp("s", "Europe/Berlin")), ["2026-10-25 02:30"] * 2),
        (pa.array([date(2026, 11, 27)]), ["2026-11-27"]),
        (pa.array([time(12, 30, 5)], pa.time32("s")), ["12:30:05"]),
        (pa.array([1], pa.time64("ns")), ["00:00:00.000000001"]),
        (UNKNOWN_ZONE, ["2023-11-14 22:13:20"]),
    ],
)  # fmt: skip
def test_times_are_as_short_as_the_column_allows(array, expected):
    assert shown(array)[1] == expected


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([True, None]), ["true", None]),
        (pa.array(["a", None, ""]).dictionary_encode(), ["a", None, ""]),
        (pa.array(["a"], pa.string_view()), ["a"]),
        (pa.array(['{\n  "a": 1\n}']), ['{ "a": 1 }']),
        (pa.array([b"\x80ab", None]), ["0x806162", None]),
        (pa.array([b"x" * 100]), ["0x" + "78" * 24 + "… (100 bytes)"]),
        (pa.array([[1, None], None]), ["[1, null]", None]),
        (pa.array([{"a": 1, "b": b"\x01", "c": date(2026, 1, 1)}]), ['{"a": 1, "b": "0x01", "c": "2026-01-01"}']),
        (pa.array([[("k", "v")]], pa.map_(pa.string(), pa.string())), ['{"k": "v"}']),
        (pa.array([[("k", "v"), ("k", "w")]], pa.map_(pa.string(), pa.string())), ['[["k", "v"], ["k", "w"]]']),
        (pa.array([[(b"k", 1)]], pa.map_(pa.binary(), pa.int64())), ['[["0x6b", 1]]']),
        (pa.array([list(range(2000))]), ["[2,000 values]"]),
        (pa.array([(1, 2, 3)], pa.month_day_nano_interval()), ["1 months 2 days 0.000000003 s"]),
        (pa.RunEndEncodedArray.from_arrays([2], ["a"]), ["a", "a"]),
        (pa.nulls(1), [None]),
        (pa.array(["a\nb\x1b[0m\u202e"]), ["a\\nb\\x1b[0m\\u202e"]),
        (pa.array(["x" * 1_000_000]), ["x" * 199 + "…"]),
        # What the type does not allow:
        (pa.DictionaryArray.from_arrays(pa.array([0]), NO_TEXT), ["0xfffe"]),
        (pa.StructArray.from_arrays([NO_TEXT], ["a"]), ["(cannot be written)"]),
        (pa.StructArray.from_arrays([pa.array([2**62], pa.date64())], ["a"]), ["(cannot be written)"]),
    ],
)  # fmt: skip
def test_a_value_is_one_short_line(array, expected):
    assert shown(array)[1] == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (pa.int64(), "bigint"),
        (pa.uint8(), "tinyint unsigned"),
        (pa.float64(), "double precision"),
        (pa.decimal128(18, 4), "decimal(18,4)"),
        (pa.dictionary(pa.int32(), pa.string_view()), "text"),
        (pa.list_(pa.large_string()), "text[]"),
        (pa.binary(16), "bytea"),
        (pa.timestamp("ns", "Etc/UTC"), "timestamp (UTC)"),
        (pa.timestamp("ns", "Europe/Berlin"), "timestamp (Europe/Berlin)"),
        (pa.timestamp("ns"), "timestamp"),
        (pa.duration("s"), "interval"),
        (pa.struct([("a", pa.int8())]), "struct"),
        (pa.map_(pa.string(), pa.int8()), "map"),
        (pa.run_end_encoded(pa.int32(), pa.bool_()), "boolean"),
        (pa.uuid(), "bytea"),
        (UNKNOWN_ZONE.type, "timestamp (UTC)"),
    ],
)
def test_types_have_their_names_of_sql(kind, expected):
    assert sql_type(kind) == sql_type_of(pa.field("c", kind)) == expected


def test_the_type_of_binary_json_is_jsonb():
    named = pa.field("c", pa.binary(), metadata={"ARROW:FLIGHT:SQL:TYPE_NAME": "jsonb"})

    assert sql_type_of(named) == sql_type_of(pa.field("c", pa.dictionary(pa.int32(), pa.binary()))) == "jsonb"


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([0.1], pa.float32()), "0.1"),
        (pa.array([Decimal("1e-10")], pa.decimal128(20, 10)), "0.0000000001"),
        (pa.array([1_700_000_000_123_456_789], pa.timestamp("ns", "UTC")), "2023-11-14 22:13:20.123456789Z"),
        (pa.array([1792891800], pa.timestamp("s", "Europe/Berlin")), "2026-10-25 02:30:00+0100"),
        (pa.array([1500], pa.duration("ms")), "1500 ms"),
        (pa.array(["x\ny" * 1000]), "x\ny" * 1000),
        (pa.array([""]), ""),
        (pa.array(['{"b":[1,2.5],"a":1e3}']), '{"b":[1,2.5],"a":1e3}'),
        (pa.array(['{"b":[1,2.5]}']), '{\n  "b": [\n    1,\n    2.5\n  ]\n}'),
        (pa.array([{"a": [1]}]), '{\n  "a": [\n    1\n  ]\n}'),
        (pa.array([b"x" * 100]), "0x" + "78" * 100),
        (pa.array([None], pa.int8()), "null"),
        (NO_TEXT, "0xfffe"),
        (UNKNOWN_ZONE, "2023-11-14 22:13:20Z"),
    ],
)
def test_a_value_that_is_looked_at_is_whole_and_exact(array, expected):
    assert RowsView(pa.table({"a": array})).value(RowQuery(), 0, 0) == (expected, False)


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (25_312_345_678, "By", "25.3 GB"),
        (1.5, "KiBy", "1.54 kB"),
        (999.96, "bytes", "1 kB"),
        (-2048.0, "By", "-2.05 kB"),
        (0, "By", "0 B"),
        (99.5, "%", "99.5 %"),
        (99.987, "percent", "99.99 %"),
        (0.0000123, "s", "12.3 µs"),
        (90, "s", "1.5 min"),
        (1500, "us", "1.5 ms"),
        (0.2, "ns", "0.2 ns"),
        (200_000, "s", "2.31 d"),
        (1_234, "{request}", "1,234 request"),
        (12.5, "{request}/s", "12.5 request/s"),
        (1_234_567.0, "1", "1,234,567"),
        (0.25, None, "0.25"),
        (2.5e9, "Hz", "2.5 GHz"),
        (36.6, "Cel", "36.6 Cel"),
        (float("nan"), "s", "nan"),
        (1e300, "By", "1.00e+285 PB"),
        (3, "a\n\x1b[2J<b>" + "x" * 90, r"3 a\n\x1b[2J<b>xxxxxx…"),
    ],
)
def test_a_number_with_a_unit_has_about_three_digits(value, unit, expected):
    assert quantity(value, unit) == expected


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.decimal128(18, 2)])
def test_values_have_the_unit_of_their_row_and_are_copied_exactly(kind):
    values = pa.array([25_000_000_000, 99.5, None], pa.float64()).cast(kind)
    units = pa.array(["By", "%", "s"]).dictionary_encode()
    view = RowsView(pa.table({"value": values, "unit": units, "other": [1.5, 2, 3]}))

    assert view.texts(RowQuery(), first=0, count=3, columns=3)[0] == ["25 GB", "99.5 %", None]
    copied = view.copied(RowQuery(sort=((0, False),)), rows=(0, 1), columns=[0, 1], header=False)
    assert [line.split("\t")[0] for line in copied.split("\n")] == view.exact_texts(view.table["value"].take([1, 0]), 0)
    assert float(view.value(RowQuery(), 1, 0)[0]) == 99.5


@pytest.mark.parametrize("units", [[1, 2], pa.array([b"\xff\xfe", b"s"]).view(pa.string())])
def test_what_is_no_text_is_no_unit(units):
    view = RowsView(pa.table({"value": [1_000, 2_000], "unit": units}))

    assert view.texts(RowQuery(), first=0, count=1, columns=1)[0][0].startswith("1,000")
