"""Filters of the grid: words are contained in texts, and everything else has a sign."""

import time
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.formats import choose_format
from micromegas_jupyter.notebook.results.filters import condition

MESSAGES = [
    "file not found", "found it", "Job IN PROGRESS", "after timeout: retried", "before", "null", "a..b", "= x", "",
    "x = 1", "done!", 'say "hi"', "../up", "wait... what", "in a, b", "/api/v1/", "<>", None,
]  # fmt: skip
NUMBERS = [1, 5, 9, 10, None, -3]
TIME = datetime(2026, 11, 27, 12, 0, 1, 5, UTC)
DAYS = ["2026-11-01", "2026-11-07", "2026-11-08", None]


def matched(values, typed, kind=None):
    """Return the values that a filter leaves."""
    column = pa.chunked_array([pa.array(values, kind)])
    form = choose_format(pa.field("c", column.type), column)
    mask = condition(column, form, typed)
    return [value for value, matches in zip(values, mask.to_pylist(), strict=True) if matches]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("not found", ["file not found"]), ("in progress", ["Job IN PROGRESS"]),
        ("after timeout", ["after timeout: retried"]), ("before", ["before"]), ("null", ["null"]), ("not null", []),
        ("in a, b", ["in a, b"]), ("between a and b", []), ("= x", []), ("= '= x'", ["= x"]), ("'= x'", ["= x"]),
        ("== before", ["before"]), ("FOUND", ["file not found", "found it"]), ("= FOUND IT", []), ("= ''", [""]),
        ("=", [None]), ("done!", ["done!"]), ('say "hi"', ['say "hi"']), ("../up", ["../up"]),
        ("wait... what", ["wait... what"]), ("'a..b'", ["a..b"]), ("'<>'", ["<>"]),
        ("/^.o/", ["Job IN PROGRESS", "found it", "done!"]),
        ("after..b", ["after timeout: retried"]), ("'after timeout'..<before", ["after timeout: retried"]),
        ("after..before", ["after timeout: retried", "before"]), ("after..<before", ["after timeout: retried"]),
        ("/o{2,}|rog/", ["Job IN PROGRESS"]), (">= x", ["x = 1"]),
    ],
)  # fmt: skip
def test_words_are_contained_in_a_text_and_operators_have_a_sign(typed, expected):
    assert sorted(matched(MESSAGES, typed), key=str) == sorted(expected, key=str)


def test_an_exclamation_mark_negates_and_leaves_nulls_out():
    texts = [value for value in MESSAGES if value is not None]

    assert matched(MESSAGES, "!found") == [value for value in texts if "found" not in value]
    assert matched(MESSAGES, "!/^.*found/") == [value for value in texts if "found" not in value]
    assert matched(MESSAGES, "!= before") == [value for value in texts if value != "before"]
    assert matched(MESSAGES, "!=") == texts
    assert matched(NUMBERS, "!1..9") == [10, -3]
    assert matched([True, False, None], "!true") == [False]


@pytest.mark.parametrize(
    ("values", "kind", "typed", "expected"),
    [
        (NUMBERS, None, "5", [5]), (NUMBERS, None, "1..9", [1, 5, 9]), (NUMBERS, None, "1..<9", [1, 5]),
        (NUMBERS, None, "-3..<1", [-3]), (NUMBERS, None, "<= 1", [1, -3]), (NUMBERS, None, "=", [None]),
        (NUMBERS, None, "!=", [1, 5, 9, 10, -3]), ([0.1, 0.5, 1.0], None, "0.1..<1", [0.1, 0.5]),
        (DAYS, pa.date32(), "2026-11-01..2026-11-07", DAYS[:2]),
        (DAYS, pa.date32(), "2026-11-01..<2026-11-07", DAYS[:1]),
        (DAYS, pa.date32(), "> 2026-11-01", DAYS[1:3]), (DAYS, pa.date32(), "2026-11-08", DAYS[2:3]),
    ],
)  # fmt: skip
def test_numbers_and_times_are_equal_compared_or_within_a_range(values, kind, typed, expected):
    if kind is not None:
        values = pa.array(values).cast(kind).to_pylist()
        expected = pa.array(expected).cast(kind).to_pylist()

    assert matched(values, typed, kind) == expected


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint8(), pa.decimal128(10, 2), pa.duration("ms"), pa.float32()])
def test_a_number_that_is_far_too_large_for_a_column_is_compared_at_once(kind):
    begun = time.thread_time()

    assert matched([1, None], "< 1e999990", kind) == [1]
    assert matched([1, None], "> 1e999990", kind) == []
    assert time.thread_time() - begun < 5


@pytest.mark.parametrize(
    ("values", "typed", "what", "remedy"),
    [
        (MESSAGES, ">", "A value is missing after >.", "Try: contains, = exact, !not, /regex/."),
        (MESSAGES, "!", "A value is missing after !.", "Try: contains"),
        (MESSAGES, "!/(/", "This is not a valid regular expression.", "Use RE2 syntax"),
        (NUMBERS, "not found", '"not found" does not fit this column.', "Try: > 1, 1..9."),
        (NUMBERS, "after 5", '"after 5" does not fit this column.', "Try: > 1, 1..9."),
        (NUMBERS, "/5/", '"/5/" does not fit this column.', "Try: > 1, 1..9."),
        ([TIME, TIME], "before 2026", '"before 2026" does not fit', "Try: > 2026-11-27 12:00:01, 20"),
        ([None, 2**60], "x", '"x" does not fit this column.', "Try: > 1,152,921,504,606,846,976, "),
        ([True], "maybe", '"maybe" does not fit this column.', "Try: true, false."),
        ([[1]], "1", '"1" does not fit this column.', "Try: = for null, != for others."),
    ],
)  # fmt: skip
def test_an_error_names_filters_that_fit_the_column_with_values_from_it(values, typed, what, remedy):
    with pytest.raises(UsageError) as raised:
        matched(values, typed)

    assert raised.value.what.startswith(what)
    assert raised.value.remedy.startswith(remedy)
