"""Headers are read before Arrow sees them, rows are measured as if nothing were shared, and views hide no trap."""

import pyarrow as pa
import pytest

from micromegas_jupyter.errors import ResourcesExhausted, UnsupportedRequest, UsageError
from micromegas_jupyter.flightsql.framing import (
    clean_views,
    is_view,
    read_header,
    row_sizes,
    split_rows,
    view_lengths,
)

_TEXTS = ["a", None, "long enough for a buffer"]


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"\0" * 64,
        b"\x04\0\0\0" + b"\xff" * 60,
        b"\x04\0\0\0" + b"\x64\0\0\0" + b"\0" * 56,
    ],
    ids=["one byte", "zeros", "a table after its fields", "a table before the start"],
)
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(UsageError):
        read_header(data)


@pytest.mark.parametrize(
    ("column", "sizes"),
    [
        (pa.array([1, None]), [8, 8]),
        (pa.nulls(2), [1, 1]),
        (pa.array(["abc", None]), [3, 1]),
        (pa.array(["abc", "a text that is longer"], pa.string_view()), [3, 21]),
        (pa.array(["abc", "d", None]).dictionary_encode(), [3, 1, 3]),
        (pa.DictionaryArray.from_arrays(pa.array([None], pa.int8()), pa.array([], pa.utf8())), [1]),
        (pa.array([[1, 2], None, []]), [16, 1, 1]),
        (pa.array([["abc", "d"], None]), [4, 1]),
        (pa.array([{"a": "abc", "b": 1}, None]), [11, 9]),
        (pa.array([[("key", 1)], None], pa.map_(pa.utf8(), pa.int64())), [11, 1]),
        (pa.array([["abc", "d"], ["e", "f"]], pa.list_(pa.utf8(), 2)), [4, 2]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_each_kind_is_measured(column: pa.Array, sizes: list[int]) -> None:
    batch = pa.record_batch({"c": column})

    assert row_sizes(batch).tolist() == sizes
    assert row_sizes(batch.slice(1)).tolist() == sizes[1:]


def test_rows_are_cut_by_their_size() -> None:
    batch = pa.record_batch({"c": ["x" * 4, "x" * 4, "x" * 9, "x"]})

    parts = list(split_rows(batch, max_bytes=10))

    assert [(part.num_rows, size) for part, size in parts] == [(2, 8), (2, 10)]
    assert pa.Table.from_batches([part for part, _ in parts]) == pa.Table.from_batches([batch])


def test_a_row_that_is_larger_than_a_part_is_refused() -> None:
    with pytest.raises(ResourcesExhausted):
        list(split_rows(pa.record_batch({"c": ["x", "x" * 11]}), max_bytes=10))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([{}], pa.struct([])),
        pa.Array.from_buffers(pa.list_(pa.int8(), 0), 5, [None], children=[pa.array([], pa.int8())]),
        pa.array([[1]], pa.list_view(pa.int8())),
    ],
    ids=["empty struct", "lists of nothing", "list view"],
)
def test_what_cannot_be_measured_is_refused(column: pa.Array) -> None:
    with pytest.raises(UnsupportedRequest):
        row_sizes(pa.record_batch({"c": column}))


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view()])
def test_values_stay(kind: pa.DataType) -> None:
    array = pa.array(_TEXTS, pa.string_view()).cast(kind)

    cleaned = clean_views(array)

    cleaned.validate(full=True)
    assert is_view(kind)
    assert cleaned.equals(array)
    assert clean_views(array.slice(1)).equals(array.slice(1))
    assert view_lengths(array).tolist() == [1, 0, 24]


def test_a_null_value_that_points_far_away_is_emptied() -> None:
    validity, views, text = pa.array(_TEXTS, pa.string_view()).buffers()
    trap = views.to_pybytes()[:16] + (2**31 - 1).to_bytes(4, "little") + b"\xff" * 12 + views.to_pybytes()[32:]
    array = pa.Array.from_buffers(pa.string_view(), 3, [validity, pa.py_buffer(trap), text])

    cleaned = clean_views(array)

    assert view_lengths(array).tolist() == [1, 2**31 - 1, 24]
    assert view_lengths(cleaned).tolist() == [1, 0, 24]
    assert cleaned.cast(pa.string()).to_pylist() == _TEXTS
