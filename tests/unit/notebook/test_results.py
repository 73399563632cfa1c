"""A result as text, as HTML, and as data for the browser."""

import json

import pyarrow as pa
import pytest

from micromegas_jupyter.errors import InvalidStatement, Unavailable
from micromegas_jupyter.notebook.results.table import MAX_DATA_BYTES, column_order, column_texts, result_data
from micromegas_jupyter.notebook.shell import error_lines, lines_html, printable

NO_TEXT = pa.array([b"\xff\xfe"]).view(pa.string())
UNKNOWN_ZONE = pa.array([1_700_000_000], pa.timestamp("s", "Nobody/Knows"))


def test_nothing_in_it_can_end_the_element_that_it_stands_in():
    assert "<" not in result_data(pa.table({"msg": ["</script><b>", None, "plain"]}), max_rows=1_000).text


def test_large_values_leave_room_for_fewer_rows_and_all_columns_are_equally_long():
    table = pa.table({"large": ["é" * 1_000] * 5_000, "n": range(5_000)})

    data = result_data(table, max_rows=5_000)

    decoded = json.loads(data.text)
    assert 500 < data.rows < 700
    assert MAX_DATA_BYTES * 0.9 < len(data.text.encode()) < MAX_DATA_BYTES + 1_000
    assert {len(column["texts"]) for column in decoded["columns"]} == {data.rows}


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([10, 9, None, 9]), [2, 1, None, 1]),
        (pa.array([2**62 + 1, 2**62]), [2, 1]),
        (pa.array([float("nan"), -1.5, float("inf"), None]), [None, 1, 2, None]),
        (pa.array([1.5, 0.5], pa.float16()), [2, 1]),
        (pa.array([1_700_000_000_000_000_001, 1_700_000_000_000_000_000], pa.timestamp("ns", "Nobody/Knows")), [2, 1]),
        (pa.array([30, 7, 30]).dictionary_encode(), [2, 1, 2]),
        (pa.array([], pa.int64()), []),
    ],
)
def test_values_have_places_by_their_size_and_nulls_have_none(array, expected):
    assert column_order(pa.chunked_array([array])) == expected


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([1, None]), ["1", None]),
        (pa.array([float("nan"), 1e300]), ["nan", "1e+300"]),
        (pa.array(["a", None]).dictionary_encode(), ["a", None]),
        (pa.array([1500], pa.duration("ms")), ["1500 ms"]),
        (pa.array([1_700_000_000_123_456_789], pa.timestamp("ns", "+00:00")), ["2023-11-14 22:13:20.123456789"]),
        (pa.array([1_700_000_000], pa.timestamp("s", "Europe/Paris")), ["2023-11-14 23:13:20+0100"]),
        (pa.array([1_700_000_000], pa.timestamp("s")), ["2023-11-14 22:13:20"]),
        (pa.array([b"\x80ab", None]), ["0x806162", None]),
        (pa.array([b"x" * 100]), ["0x" + "78" * 24 + "… (100 bytes)"]),
        (pa.array([[1, None], None]), ["[1, null]", None]),
        (pa.array([{"a": 1, "b": b"\x01"}]), ["{a: 1, b: 0x01}"]),
        (pa.array([[("k", "v")]], pa.map_(pa.string(), pa.string())), ["{k: v}"]),
        (pa.array([list(range(100))]), ["[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …]"]),
        (pa.array([[[[[1]]]]]), ["[[[…]]]"]),
        (pa.nulls(1), [None]),
        (pa.array(["a\nb\x1b[0m"]), ["a\\nb\\x1b[0m"]),
        (pa.array(["x" * 1_000_000]), ["x" * 199 + "…"]),
        # What the type does not allow:
        (pa.DictionaryArray.from_arrays(pa.array([0]), NO_TEXT), ["0xfffe"]),
        (pa.StructArray.from_arrays([NO_TEXT], ["a"]), ["{a: 0xfffe}"]),
        (UNKNOWN_ZONE, ["2023-11-14 22:13:20Z"]),
        (pa.StructArray.from_arrays([UNKNOWN_ZONE], ["a"]), ["{a: 2023-11-14 22:13:20Z}"]),
        (pa.StructArray.from_arrays([pa.array([2**62], pa.date64())], ["a"]), ["{a: (cannot be written)}"]),
    ],
)  # fmt: skip
def test_a_value_is_written_in_short(array, expected):
    assert column_texts(pa.chunked_array([array])) == expected


def test_control_and_direction_characters_are_written_out():
    assert printable("a\x1b[31mb\u202ec\nd\x9be") == "a\\x1b[31mb\\u202ec\\nd\\x9be"


@pytest.mark.parametrize(
    ("sql", "line", "column", "shown"),
    [
        ("SELECT\n\t'山', x", 2, 7, ["     '山', x", "           ^ line 2, column 7"]),
        ("a" * 500 + "b" + "c" * 500, 1, 501, [f"    …{'a' * 80}b{'c' * 39}…", " " * 85 + "^ line 1, column 501"]),
    ],
    ids=["wide characters", "long line"],
)
def test_the_caret_stands_below_the_place_of_the_error(sql, line, column, shown):
    error = InvalidStatement("No.", line=line, column=column, remedy="")

    assert error_lines(error, sql=sql)[1:3] == shown


def test_what_a_server_says_cannot_move_the_cursor_or_fill_the_page():
    (line,) = error_lines(Unavailable("\x1b[2J" + "x" * 5000, remedy=""))

    assert line.startswith("✗ \\x1b[2J")
    assert len(line) < 2100


def test_the_html_form_holds_no_markup_of_the_error():
    html = lines_html(["✗ <script>alert(1)</script> & more"])

    assert html.count("<") == 2
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in html
