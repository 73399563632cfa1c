import datetime as dt
import decimal

import pyarrow as pa
import pytest

from micromegas_jupyter.notebook.results.table import column_order


def order(array: pa.Array) -> list[int | None] | None:
    return column_order(pa.chunked_array([array]))


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([10, 9, None, 9]), [2, 1, None, 1]),
        (pa.array([2**62 + 1, 2**62]), [2, 1]),
        (pa.array([float("nan"), -1.5, float("inf"), None]), [None, 1, 2, None]),
        (pa.array([1.5, 0.5], pa.float16()), [2, 1]),
        (pa.array([decimal.Decimal("10.01"), decimal.Decimal("9.99")]), [2, 1]),
        (pa.array([True, False]), [2, 1]),
        (pa.array([1_700_000_000_000_000_001, 1_700_000_000_000_000_000], pa.timestamp("ns", "Nobody/Knows")), [2, 1]),
        (pa.array([dt.date(2024, 1, 1), dt.date(2023, 12, 31)]), [2, 1]),
        (pa.array([1500, 20], pa.duration("ms")), [2, 1]),
        (pa.array([30, 7, 30]).dictionary_encode(), [2, 1, 2]),
        (pa.array([], pa.int64()), []),
    ],
)
def test_values_have_places_by_their_size_and_nulls_have_none(array: pa.Array, expected: list[int | None]) -> None:
    assert order(array) == expected


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["b", "a"]),
        pa.array([b"b", b"a"]),
        pa.array([[2], [1]]),
        pa.array([pa.MonthDayNano([1, 2, 3])]),
        pa.nulls(1),
        pa.nulls(1, pa.decimal32(5, 2)),
    ],
)
def test_other_values_are_left_to_the_order_of_their_texts(array: pa.Array) -> None:
    assert order(array) is None


def test_a_column_in_several_chunks_has_one_order() -> None:
    assert column_order(pa.chunked_array([[3], [1], [2]])) == [3, 1, 2]
    assert column_order(pa.chunked_array([], pa.int64())) == []
