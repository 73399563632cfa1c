"""Arrow tables become the DataFrames that upstream's client gives."""

from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd
import pyarrow as pa
import pytest
from micromegas.flightsql.client import FlightSQLClient as UpstreamClient
from pandas.testing import assert_frame_equal

from micromegas_jupyter.client.frames import to_frame
from micromegas_jupyter.errors import UsageError


def _table() -> pa.Table:
    nested = pa.array([[1], [1, 2]], pa.list_(pa.int64()))
    struct = pa.array([{"k": 1}, {"k": None}], pa.struct([("k", pa.int64())]))
    return pa.table(
        {
            "whole": pa.array([1, 2, 3], pa.int64()),
            "gaps": pa.array([1, None, 3], pa.int64()),
            "small": pa.array([1, 2, 3], pa.int32()),
            "real": pa.array([0.5, None, 1.5]),
            "text": pa.array(["a", None, "c"]),
            "flag": pa.array([True, None, False]),
            "time": pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * 3, pa.timestamp("ns", "+00:00")),
            "span": pa.array([1, 2, None], pa.duration("ns")),
            "bytes": pa.array([b"a", b"\0", None]),
            "word": pa.array(["x", "y", "x"]).dictionary_encode(),
            "list": pa.array([[1], None, []], pa.list_(pa.int64())),
            "lists": pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int32()), nested),
            "structs": pa.DictionaryArray.from_arrays(pa.array([1, 0, 0], pa.int32()), struct),
        }
    )


def test_types_and_values_are_those_of_upstream() -> None:
    upstream = UpstreamClient("grpc://localhost:1")
    expected = upstream._prepare_table_for_pandas(_table()).to_pandas()

    frame = to_frame(_table())

    assert_frame_equal(frame, expected)


def test_times_keep_their_zone() -> None:
    frame = to_frame(_table())

    assert str(frame["time"].dtype) == "datetime64[ns, UTC]"


def test_a_frame_can_be_written_to() -> None:
    frame = to_frame(pa.table({"n": [1, 2], "x": [0.5, 1.5]}))

    frame.loc[0, "n"] = 7

    assert frame["n"].tolist() == [7, 2]


def test_several_chunks_with_dictionaries_of_their_own_are_joined() -> None:
    first = pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), pa.array([[1]]))
    second = pa.DictionaryArray.from_arrays(pa.array([1], pa.int32()), pa.array([[2], [3]]))

    frame = to_frame(pa.table({"l": pa.chunked_array([first, second])}))

    assert [list(value) for value in frame["l"]] == [[1], [3]]


def test_no_rows_keep_their_columns() -> None:
    frame = to_frame(_table().schema.empty_table())

    assert frame.columns.tolist() == _table().column_names
    assert len(frame) == 0
    assert isinstance(frame["word"].dtype, pd.CategoricalDtype)


def test_arrow_types_keep_the_rows_as_they_came() -> None:
    frame = to_frame(_table(), dtype_backend="pyarrow")

    assert all(isinstance(dtype, pd.ArrowDtype) for dtype in frame.dtypes)
    assert frame["gaps"].dtype == pd.ArrowDtype(pa.int64())
    assert frame["gaps"].tolist() == [1, pd.NA, 3]
    assert frame["structs"].tolist() == [{"k": None}, {"k": 1}, {"k": 1}]


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(UsageError):
        to_frame(_table(), dtype_backend="numpy_nullable")
