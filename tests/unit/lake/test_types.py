"""What a column may hold, and what to send in place of what it may not."""

from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.lake.types import check_fits, convert_rows, stored_schema

TIME = pa.timestamp("us", "UTC")


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        (pa.large_utf8(), pa.utf8()),
        (pa.string_view(), pa.utf8()),
        (pa.dictionary(pa.int32(), pa.utf8()), pa.utf8()),
        (pa.run_end_encoded(pa.int32(), pa.int64()), pa.int64()),
        (pa.binary(5), pa.binary()),
        (pa.date64(), pa.date32()),
        (pa.decimal128(38, 38), pa.decimal128(38, 38)),
        (pa.decimal32(5, 2), pa.decimal128(5, 2)),
        (pa.decimal256(38, 2), pa.decimal128(38, 2)),
        (pa.decimal128(5, -2), pa.decimal128(7, 0)),
        (pa.uint8(), pa.int16()),
        (pa.uint16(), pa.int32()),
        (pa.list_(pa.uint32()), pa.list_(pa.field("element", pa.int64()))),
        (pa.uint64(), pa.decimal128(20, 0)),
        (pa.float16(), pa.float32()),
        (pa.timestamp("ns", "Europe/Berlin"), TIME),
        (pa.timestamp("s"), pa.timestamp("us")),
        (pa.list_(pa.large_utf8(), 3), pa.list_(pa.field("element", pa.utf8()))),
        (pa.list_view(pa.int8()), pa.list_(pa.field("element", pa.int8()))),
        (pa.map_(pa.utf8(), pa.timestamp("ns", "UTC")), pa.map_(pa.utf8(), TIME)),
        (pa.struct([("a b", pa.date64())]), pa.struct([("a b", pa.date32())])),
    ],
)
def test_a_type_becomes_one_of_deltas(sent, stored):
    assert stored_schema(pa.schema([("x", sent)])).field("x").type == stored


@pytest.mark.parametrize(
    ("sent", "instead"),
    [
        (pa.time32("ms"), "as a string"),
        (pa.duration("ns"), "int64"),
        (pa.month_day_nano_interval(), "as a string"),
        (pa.decimal256(40, 2), "38 digits"),
        (pa.decimal128(38, -2), "38 digits"),
        (pa.null(), "type"),
        (pa.map_(pa.utf8(), pa.struct([("a", pa.time64("us"))])), "as a string"),
        (pa.struct([]), "structs"),
        (pa.struct([("a", pa.int8()), ("A", pa.int8())]), "structs"),
        (pa.dense_union([pa.field("a", pa.int8())]), "column"),
    ],
)
def test_a_type_that_delta_lacks_is_refused_with_what_to_send(sent, instead):
    with pytest.raises(UsageError) as refusal:
        stored_schema(pa.schema([("odd", sent)]))

    assert "'odd'" in refusal.value.what
    assert instead in refusal.value.remedy


@pytest.mark.parametrize("name", ["", "a\x00b", "a\nb", "x" * 129])
def test_a_column_name_that_cannot_be_stored_is_refused(name):
    with pytest.raises(UsageError):
        stored_schema(pa.schema([(name, pa.int8())]))


def test_columns_that_differ_in_case_only_are_refused():
    with pytest.raises(UsageError):
        stored_schema(pa.schema([("a", pa.int8()), ("A", pa.int8())]))


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        (pa.float64(), pa.float32()),
        (pa.int64(), pa.float64()),
        (pa.utf8(), pa.int64()),
        (pa.uint8(), pa.utf8()),
        (pa.timestamp("us"), TIME),
        (TIME, pa.timestamp("us")),
    ],
)
def test_a_column_whose_values_would_change_is_refused(sent, stored):
    with pytest.raises(UsageError):
        check_fits(pa.schema([("x", sent)]), pa.schema([("x", stored)]))


@pytest.mark.parametrize(
    ("values", "stored"),
    [
        (pa.array([1], pa.timestamp("ns", "UTC")), TIME),
        (pa.array([1 << 40]), pa.int32()),
        (pa.array([300], pa.uint64()), pa.int8()),
    ],
)
def test_a_value_that_does_not_fit_is_refused(values, stored):
    schema = pa.schema([("x", stored)])
    rows = pa.record_batch({"x": values})
    check_fits(rows.schema, schema)

    with pytest.raises(UsageError, match="'x'"):
        convert_rows(rows, schema)


@pytest.mark.parametrize(
    ("values", "stored", "shown"),
    [
        (pa.array([2000, None, 1001, 1], pa.timestamp("ns", "UTC")), TIME, "1970-01-01 00:00:00.000001001Z in row 13"),
        (pa.array([0, 1]).view(pa.date64()), pa.date32(), "1970-01-01 00:00:00.001 in row 12"),
    ],
)
def test_an_error_about_a_value_names_its_row(values, stored, shown):
    with pytest.raises(UsageError) as error:
        convert_rows(pa.record_batch({"x": values}), pa.schema([("x", stored)]), first_row=10)

    assert "'x'" in error.value.what
    assert shown in error.value.what


def test_values_survive_their_conversion():
    rows = pa.record_batch(
        {
            "big": pa.array([2**64 - 1], pa.uint64()),
            "half": pa.array([1.5], pa.float16()),
            "hundreds": pa.array([Decimal(12300)], pa.decimal128(5, -2)),
            "wide": pa.array([Decimal("1.25")], pa.decimal256(38, 2)),
        }
    )
    stored = stored_schema(rows.schema)
    check_fits(rows.schema, stored)

    assert convert_rows(rows, stored).to_pylist() == [
        {"big": 2**64 - 1, "half": 1.5, "hundreds": 12300, "wide": Decimal("1.25")}
    ]


def test_rows_become_those_of_the_table():
    schema = pa.schema([("time", TIME), ("n", pa.int64()), ("text", pa.utf8()), ("new", pa.int8())])
    rows = pa.record_batch(
        {
            "text": pa.array(["a", None]).dictionary_encode(),
            "n": pa.array([1, 2], pa.uint8()),
            "time": pa.array([1000, 2000], pa.timestamp("ns", "Asia/Tokyo")),
        }
    )
    check_fits(rows.schema, schema)

    found = convert_rows(rows, schema).to_pydict()

    assert found.pop("time") == [datetime(1970, 1, 1, microsecond=number, tzinfo=UTC) for number in (1, 2)]
    assert found == {"n": [1, 2], "text": ["a", None], "new": [None, None]}
