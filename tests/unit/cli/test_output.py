"""How query results are printed."""

import csv
import io
import json
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import wcwidth

from micromegas_jupyter.cli.query_commands import RowOptions, open_output, write_rows
from micromegas_jupyter.core.jsonb import encode
from micromegas_jupyter.errors import QueryError, UsageError

SCHEMA = pa.schema(
    [
        ("time", pa.timestamp("ns", tz="+00:00")),
        ("name", pa.string()),
        ("n", pa.int64()),
        ("properties", pa.map_(pa.string(), pa.string())),
        ("raw", pa.binary()),
    ]
)
BATCH = pa.record_batch(
    [
        pa.array([1_790_000_000_123_456_789, None], SCHEMA.field("time").type),
        pa.array(["a\nb\x1b[31m", 'quote " and, comma'], pa.string()), pa.array([1, None], pa.int64()),
        pa.array([[("k", "v")], None], SCHEMA.field("properties").type), pa.array([b"\x00\xff", None], pa.binary()),
    ],
    schema=SCHEMA,
)  # fmt: skip


def _printed(output_format, *batches, schema=None, **options):
    output = io.StringIO(newline="")
    schema = batches[0].schema if schema is None else schema
    write_rows(schema, batches, output, RowOptions(file_format=output_format, **options))
    return output.getvalue()


def test_json_is_a_list_of_objects_with_all_digits_of_a_time():
    first, second, *others = json.loads(_printed("json", BATCH, BATCH))

    time = "2026-09-21T14:13:20.123456789Z"
    assert first == {"time": time, "name": "a\nb\x1b[31m", "n": 1, "properties": {"k": "v"}, "raw": "AP8="}
    assert second == {"time": None, "name": 'quote " and, comma', "n": None, "properties": None, "raw": None}
    assert others == [first, second]


@pytest.mark.parametrize(
    ("output_format", "expected"),
    [
        ("json", "[]\n"), ("jsonl", ""), ("csv", "time,name,n,properties,raw\n"),
        ("markdown", "| time | name | n | properties | raw |\n| --- | --- | ---: | --- | --- |\n"),
        ("table", "time    name      n  properties    raw\n------  ------  ---  ------------  -----\n"),
    ],
)  # fmt: skip
def test_no_rows_are_still_valid_output(output_format, expected):
    assert _printed(output_format, schema=SCHEMA) == expected


def test_binary_json_is_printed_as_json_and_as_base64_on_request():
    values = [encode({"n": 7, "list": [None, "x\n"], "nan": float("nan")}), None, encode("text")]
    batches = [pa.record_batch({"p": values[1:2]}, pa.schema({"p": pa.binary()})), pa.record_batch({"p": values}),
               pa.record_batch({"p": [b"other"]})]  # fmt: skip

    asked = {name: _printed(name, *batches) for name in ("json", "csv", "table")}

    assert json.loads(asked["json"]) == [
        {"p": None}, {"p": {"n": 7, "list": [None, "x\n"], "nan": None}}, {"p": None}, {"p": "text"}, {"p": "b3RoZXI="},
    ]  # fmt: skip
    text = '{"list":[null,"x\\n"],"n":7,"nan":null}'
    assert [row[0] if row else "" for row in csv.reader(io.StringIO(asked["csv"]))] == [
        "p", "", text, "", '"text"', "b3RoZXI=",
    ]  # fmt: skip
    assert text in asked["table"]
    assert json.loads(_printed("json", batches[1], shows_json=False))[2] == {"p": "IAAAABAAAAR0ZXh0"}


def test_a_table_shows_control_characters_and_cuts_long_cells_unless_asked_otherwise():
    text, wide = _printed("table", BATCH), pa.record_batch({"text": ["x" * 80]})

    assert "\x1b" not in text
    assert "a\\nb\\x1b[31m" in text
    assert _printed("table", wide).splitlines()[2] == "x" * 47 + "..."
    assert "x" * 80 in _printed("table", wide, max_column_width=0)


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

    assert list(csv.reader(io.StringIO(_printed("csv", batch)))) == [["x"], [cell]]
    assert _printed("table", batch).splitlines()[2] == cell


def test_csv_tells_null_from_an_empty_text_and_quotes_what_rfc_4180_quotes():
    texts = pa.array([None, "", 'say "hi"', "a,b", "a\nb", "a\rb", "plain", " x "])
    one, two = pa.record_batch({"t": texts}), pa.record_batch([texts.dictionary_encode(), texts], names=["", 'q"'])

    assert _printed("csv", one) == 't\n\n""\n"say ""hi"""\n"a,b"\n"a\nb"\n"a\rb"\nplain\n x \n'
    assert _printed("csv", two).startswith('"","q"""\n,\n"",""\n"say ""hi""","say ""hi"""\n')
    for kind in (pa.string_view(), pa.large_string()):
        assert _printed("csv", pa.record_batch({"t": texts.cast(kind)})) == _printed("csv", one)


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, 2**60], pa.timestamp("ns"), ["1970-01-01T00:00:00.000000001", "2006-07-14T23:58:24.606846976"]),
        ([1], pa.timestamp("s", "Europe/Berlin"), ["1970-01-01T00:00:01Z"]), ([1], pa.date32(), ["1970-01-02"]),
        ([86_400_000], pa.date64(), ["1970-01-02"]), ([1], pa.time64("ns"), ["00:00:00.000000001"]),
        ([3], pa.time32("s"), ["00:00:03"]),
        ([2**60 + 1, -1], pa.duration("ns"), ["1152921504.606846977", "-0.000000001"]),
        ([1500], pa.duration("ms"), ["1.500"]), ([2**62], pa.duration("s"), ["4611686018427387904"]),
    ],
)  # fmt: skip
def test_times_have_all_digits_in_text(values, kind, expected):
    integers = pa.array(values, pa.int32() if kind.bit_width == 32 else pa.int64())
    batch = pa.record_batch({"t": integers.cast(kind), "n": [0] * len(values)})

    assert _printed("csv", batch).splitlines()[1:] == [f"{text},0" for text in expected]
    printed = [json.loads(line)["t"] for line in _printed("jsonl", batch).splitlines()]
    assert [str(value) if isinstance(value, str) else float(value) for value in printed] == [
        float(text) if pa.types.is_duration(kind) else text for text in expected
    ]


def test_numbers_are_written_as_short_as_they_are_exact():
    batch = pa.record_batch(
        {
            "float": pa.array([0.1, 1e20, None], pa.float32()),
            "decimal": pa.array([Decimal("1E-10"), Decimal(-2), None], pa.decimal128(38, 10)),
            "map": pa.array([[("a", 1), ("a", 2)], [("a", 1)], None], pa.map_(pa.string(), pa.int32())),
            "interval": pa.array([pa.MonthDayNano([1, -2, 3_000_000_001]), None, None]),
        }
    )

    assert _printed("csv", batch).splitlines()[1:] == [
        '0.1,0.0000000001,"[[""a"", 1], [""a"", 2]]",P1M-2DT3.000000001S',
        '1e+20,-2.0000000000,"{""a"": 1}",',
        ",,,",
    ]


@pytest.mark.parametrize("file_format", ["csv", "jsonl", "table", "markdown"])
def test_a_value_that_cannot_be_text_is_rejected_with_a_reason(file_format):
    far = pa.array([[10**8]], pa.list_(pa.int32())).cast(pa.list_(pa.date32()))
    far_times = pa.array([2**62], pa.timestamp("us")), pa.array([2**31 - 1], pa.date32())
    damaged = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())
    for column in (far, *far_times, damaged):
        with pytest.raises(UsageError, match="The column x holds a value that cannot be written"):
            _printed(file_format, pa.record_batch({"x": column}))


def test_json_loses_no_column_to_another_of_its_name():
    batch = pa.record_batch([pa.array([1]), pa.array([2])], names=["a", "a"])
    output = io.StringIO()

    with pytest.raises(UsageError, match="Several columns of the result are called a"):
        write_rows(batch.schema, [batch], output, RowOptions(file_format="json"))

    assert output.getvalue() == ""
    assert _printed("csv", batch) == "a,a\n1,2\n"


def test_rows_are_lines_of_json_and_of_markdown():
    batch = pa.record_batch({"n": [1, None], "text": ["a|b\\", "x\ny"]})

    assert _printed("jsonl", batch) == '{"n": 1, "text": "a|b\\\\"}\n{"n": null, "text": "x\\ny"}\n'
    assert _printed("markdown", batch).splitlines() == [
        "| n | text |", "| ---: | --- |", "| 1 | a\\|b\\\\ |", "|  | x\\\\ny |",
    ]  # fmt: skip


def test_a_table_shows_each_batch_as_it_comes_below_columns_as_wide_as_the_first():
    output = io.StringIO()
    batches = [pa.record_batch({"n": [12345], "t": ["日本"]}), pa.record_batch({"n": [7, 123456], "t": ["語", "x"]})]

    def arriving():
        for batch in batches:
            yield batch
            assert output.getvalue().count("\n") >= 2 + batch.num_rows

    write_rows(batches[0].schema, arriving(), output, RowOptions())

    assert output.getvalue().splitlines() == [
        "    n  t", "-----  ----", "12345  日本", "    7  語", "123456  x",
    ]  # fmt: skip


@pytest.mark.parametrize("shows_json", [None, True])
def test_parquet_and_arrow_hold_the_types_and_bytes_or_json_on_request(tmp_path, shows_json):
    rows = pa.table({"t": pa.array([1, None], pa.timestamp("ns", "UTC")), "p": [encode({"n": 7}), None]})
    expected = rows.column("p") if shows_json is None else pa.chunked_array([['{"n":7}', None]])
    for name in ("parquet", "arrow"):
        with (tmp_path / name).open("wb") as file:
            write_rows(rows.schema, rows.to_batches(), file, RowOptions(file_format=name, shows_json=shows_json))

    for found in (pq.read_table(tmp_path / "parquet"), pa.ipc.open_file(tmp_path / "arrow").read_all()):
        assert found.column("p").to_pylist() == expected.to_pylist()
        assert found.schema.field("t").type == pa.timestamp("ns", "UTC")


def test_a_file_is_there_only_once_all_rows_are_in_it(tmp_path):
    target = tmp_path / "rows.csv"
    target.write_text("before")

    def batches():
        yield pa.record_batch({"n": [1]})
        raise QueryError("The server stopped.")

    options = RowOptions(file_format="csv")
    with pytest.raises(QueryError), open_output(str(target), options) as output:
        write_rows(pa.schema({"n": pa.int64()}), batches(), output, options)

    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_columns_of_a_table_are_straight_below_wide_combined_and_joined_characters():
    family, accent, joined = "👩\u200d👩\u200d👧", "e\u0301", "می\u200cخواهم"
    names = ["日本語", family, accent, joined, "🇩🇪", "한국어" * 20, "x" * 80]

    lines = _printed("table", pa.record_batch({"名前": names, "n": list(range(7))})).splitlines()

    assert {wcwidth.width(line) for line in lines} == {50 + 2 + 3}
    assert [line.split()[0] for line in lines[2:7]] == names[:5]
    assert [line[:50].split("  ")[0].endswith("...") for line in lines[7:]] == [True, True]
