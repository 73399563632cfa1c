import datetime as dt
import decimal

import numpy as np
import pyarrow as pa
import pytest

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.charts.series import time_series

T0 = 1_700_000_000
TIMES = pa.array([T0, T0 + 1, T0 + 2], pa.timestamp("s", "UTC"))


def lines(table: pa.Table) -> dict[str, list[float]]:
    return {line.name: list(line.values) for line in time_series(table).lines}


def test_each_column_of_numbers_is_a_line_over_the_first_column_of_times() -> None:
    later = pa.array([0, 0, 0], pa.timestamp("s"))
    series = time_series(pa.table({"at": TIMES, "seen": later, "n": [1, 2, 3], "x": [0.5, 1.5, 2.5]}))

    assert (series.time_name, series.zone.label, series.value_name) == ("at", "UTC", "value")
    assert [(line.name, list(line.values)) for line in series.lines] == [("n", [1, 2, 3]), ("x", [0.5, 1.5, 2.5])]
    assert list(series.lines[0].times) == [(T0 + second) * 1_000_000 for second in range(3)]


def test_a_text_column_makes_a_line_of_each_of_its_values() -> None:
    host = pa.array(["a", None, "a"]).dictionary_encode()

    assert lines(pa.table({"time": TIMES, "host": host, "n": [1, 2, 3]})) == {"a": [1, 3], "null": [2]}


def test_text_columns_that_vary_name_the_lines_together_and_others_do_not() -> None:
    table = pa.table(
        {
            "time": TIMES,
            "host": ["a", "b", "b"],
            "site": ["x", "x", "x"],
            "name": ["cpu", "cpu", "memory"],
            "n": [1, 2, 3],
            "m": [4, 5, 6],
        }
    )

    assert lines(table) == {
        "a · cpu · n": [1],
        "b · cpu · n": [2],
        "b · memory · n": [3],
        "a · cpu · m": [4],
        "b · cpu · m": [5],
        "b · memory · m": [6],
    }


def test_a_unit_that_is_the_same_everywhere_stands_at_the_axis() -> None:
    series = time_series(pa.table({"time": TIMES, "unit": ["percent"] * 3, "load": [1, 2, 3]}))

    assert (series.value_name, [line.name for line in series.lines]) == ("load (percent)", ["load"])


def test_durations_are_seconds() -> None:
    series = time_series(pa.table({"time": TIMES, "took": pa.array([1, 1_500, None], pa.duration("ms"))}))

    assert series.value_name == "took (s)"
    assert list(series.lines[0].values) == [0.001, 1.5]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([decimal.Decimal("1.5"), decimal.Decimal("2.5"), None]),
        pa.array([1.5, 2.5, None], pa.float16()),
        pa.array([1.5, 2.5, None]).dictionary_encode(),
    ],
)
def test_numbers_of_every_kind_are_drawn(values: pa.Array) -> None:
    assert lines(pa.table({"time": TIMES, "n": values})) == {"n": [1.5, 2.5]}


def test_rows_are_put_in_the_order_of_their_times() -> None:
    times = pa.array([T0 + 2, T0, None, T0 + 1], pa.timestamp("s"))

    assert lines(pa.table({"time": times, "n": [3, 1, 9, 2]})) == {"n": [1, 2, 3]}


def test_days_are_times() -> None:
    series = time_series(pa.table({"day": pa.array([dt.date(2024, 1, 2), dt.date(2024, 1, 1)]), "n": [2, 1]}))

    assert list(series.lines[0].values) == [1, 2]
    assert list(series.lines[0].times) == [1_704_067_200_000_000, 1_704_153_600_000_000]


def test_what_is_no_number_ends_a_stretch() -> None:
    times = pa.array(range(6), pa.timestamp("s"))
    (line,) = time_series(pa.table({"time": times, "n": [1, None, 2, float("nan"), float("inf"), 3]})).lines

    assert list(line.values) == [1, 2, 3]
    assert list(np.diff(line.stretches) > 0) == [True, True]


@pytest.mark.parametrize(
    ("table", "what"),
    [
        (pa.table({"n": [1], "msg": ["a"]}), "--plot needs a column of times, and this result has none (n int64, msg"),
        (pa.table({"time": TIMES, "msg": ["a"] * 3}), "--plot needs a column of numbers, and this result has none"),
        (pa.table({}), "this result has none (no columns)"),
        (pa.table({"time": TIMES, "n": pa.nulls(3, pa.int64())}), "no row has both a time and a number"),
        (pa.table({"time": TIMES.slice(0, 0), "n": pa.array([], pa.int64())}), "the result has no rows"),
        (pa.table({"time": pa.array([2**60], pa.timestamp("s")), "n": [1]}), "no row has both a time and a number"),
    ],
)
def test_a_result_that_is_no_time_series_says_what_is_missing(table: pa.Table, what: str) -> None:
    with pytest.raises(UsageError) as raised:
        time_series(table)

    assert what in raised.value.what


def _table(rows: int, **columns: list[str]) -> pa.Table:
    return pa.table({"time": pa.array(range(rows), pa.timestamp("s")), **columns, "n": range(rows)})


@pytest.mark.parametrize(
    ("table", "what"),
    [
        (_table(26, host=[f"host{row // 2}" for row in range(26)]), "host would make 13 lines, and --plot draws"),
        (_table(16, host=list("aabbccddeeffgghh"), name=list("xy" * 8)), "host and name would make 16 lines"),
        (pa.table({"time": TIMES} | {f"n{index}": [1, 2, 3] for index in range(13)}), "numbers would make 13 lines"),
    ],
)
def test_too_many_lines_are_refused_by_the_columns_that_make_them(table: pa.Table, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        time_series(table)
