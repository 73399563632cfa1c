"""How query results are printed."""

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pytest

from micromegas_jupyter.cli.query_commands import disk_errors_reported, print_rows
from micromegas_jupyter.errors import UsageError

SCHEMA = pa.schema(
    [
        ("time", pa.timestamp("ns", tz="+00:00")),
        ("name", pa.string()),
        ("n", pa.int64()),
        ("properties", pa.map_(pa.string(), pa.string())),
        ("raw", pa.binary()),
    ]
)
NANOSECONDS = 1_790_000_000_123_456_789
BATCH = pa.record_batch(
    [
        pa.array([NANOSECONDS, None], SCHEMA.field("time").type),
        pa.array(["a\nb\x1b[31m", 'quote " and, comma'], pa.string()),
        pa.array([1, None], pa.int64()),
        pa.array([[("k", "v")], None], SCHEMA.field("properties").type),
        pa.array([b"\x00\xff", None], pa.binary()),
    ],
    schema=SCHEMA,
)


def _printed(output_format, batches, **options):
    output = io.StringIO()
    print_rows(SCHEMA, batches, output=output, output_format=output_format, **options)
    return output.getvalue()


def test_json_is_a_list_of_objects_with_all_digits_of_a_time():
    rows = json.loads(_printed("json", [BATCH, BATCH]))

    assert rows[:2] == [
        {
            "time": "2026-09-21T14:13:20.123456789Z",
            "name": "a\nb\x1b[31m",
            "n": 1,
            "properties": {"k": "v"},
            "raw": "AP8=",
        },
        {"time": None, "name": 'quote " and, comma', "n": None, "properties": None, "raw": None},
    ]
    assert len(rows) == 4


@pytest.mark.parametrize(("output_format", "expected"), [("json", "[]\n"), ("csv", "time,name,n,properties,raw\n")])
def test_no_rows_are_still_valid_output(output_format, expected):
    assert _printed(output_format, []) == expected


def test_a_table_shows_control_characters_instead_of_sending_them_to_the_terminal():
    text = _printed("table", [BATCH])

    assert "\x1b" not in text
    assert "a\\nb\\x1b[31m" in text


def test_long_cells_of_a_table_are_cut_unless_asked_otherwise():
    wide = pa.record_batch({"text": pa.array(["x" * 80])})
    cut, whole = io.StringIO(), io.StringIO()

    print_rows(wide.schema, [wide], output=cut, output_format="table")
    print_rows(wide.schema, [wide], output=whole, output_format="table", max_column_width=0)

    assert cut.getvalue().splitlines()[2] == "x" * 47 + "..."
    assert "x" * 80 in whole.getvalue()


@pytest.mark.parametrize(
    ("held", "kind", "cell"),
    [
        ([float("nan"), None, 0.5], pa.list_(pa.float64()), '["NaN", null, 0.5]'),
        (
            {"a": [float("inf")], "b": None},
            pa.struct({"a": pa.list_(pa.float64()), "b": pa.float64()}),
            '{"a": ["inf"], "b": null}',
        ),
        (float("-inf"), pa.float64(), "-inf"),
        ([("k", float("-inf")), ("l", None)], pa.map_(pa.string(), pa.float64()), '{"k": "-inf", "l": null}'),
    ],
)
def test_csv_and_tables_have_words_for_numbers_that_json_lacks(held, kind, cell):
    batch = pa.record_batch({"x": pa.array([held], kind)})
    text, table = io.StringIO(newline=""), io.StringIO()

    print_rows(batch.schema, [batch], output=text, output_format="csv")
    print_rows(batch.schema, [batch], output=table, output_format="table")

    assert list(csv.reader(io.StringIO(text.getvalue()))) == [["x"], [cell]]
    assert table.getvalue().splitlines()[2] == cell


def test_json_loses_no_column_to_another_of_its_name():
    batch = pa.record_batch([pa.array([1]), pa.array([2])], names=["a", "a"])
    output = io.StringIO()

    with pytest.raises(UsageError, match="Several columns of the result are called a"):
        print_rows(batch.schema, [batch], output=output, output_format="json")

    assert output.getvalue() == ""
    print_rows(batch.schema, [batch], output=output, output_format="csv")
    assert output.getvalue() == "a,a\n1,2\n"


def _write_to(output):
    with disk_errors_reported(output):
        print("rows", file=output)
        output.flush()


def test_a_full_disk_is_said_to_be_one_and_nothing_is_written_later():
    with Path("/dev/full").open("w", encoding="utf-8") as output:
        with pytest.raises(UsageError, match="cannot be written: No space left on device"):
            _write_to(output)

        output.flush()  # what is left goes nowhere
