"""Arrow tables become the DataFrames that upstream's client gives."""

import decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from micromegas.flightsql.client import FlightSQLClient as UpstreamClient
from pandas.testing import assert_frame_equal

from micromegas_jupyter.client.json_columns import to_frame


def of_upstream(table):
    return UpstreamClient("grpc://localhost:1")._prepare_table_for_pandas(table).to_pandas()


def test_a_small_frame_is_that_of_upstream_and_can_be_written_to():
    nested = pa.array([[1], [1, 2]], pa.list_(pa.int64()))
    struct = pa.array([{"k": 1}, {"k": None}], pa.struct([("k", pa.int64())]))
    table = pa.table(
        {
            "whole": pa.array([1, 2, 3], pa.int64()),
            "gaps": pa.array([1, None, 3], pa.int64()),
            "text": pa.array(["a", None, "c"]),
            "span": pa.array([1, 2, None], pa.duration("ns")),
            "lists": pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int32()), nested),
            "structs": pa.DictionaryArray.from_arrays(pa.array([1, 0, 0], pa.int32()), struct),
        }
    )

    frame = to_frame(table)
    arrows = to_frame(table, dtype_backend="pyarrow")

    assert_frame_equal(frame, of_upstream(table))
    frame.loc[0, "whole"] = 7
    assert frame["whole"].tolist() == [7, 2, 3]
    assert all(isinstance(dtype, pd.ArrowDtype) for dtype in arrows.dtypes)
    assert arrows["gaps"].tolist() == [1, pd.NA, 3]
    assert arrows["structs"].tolist() == [{"k": None}, {"k": 1}, {"k": 1}]


ROWS = 70_000
NUMBERS = np.arange(ROWS)
# Where the nulls stand decides when a column of whole numbers stops being one.
NULLS = {
    "never": None,
    "first": NUMBERS < 3,
    "last": NUMBERS > ROWS - 3,
    "often": NUMBERS % 7 == 0,
    "always": NUMBERS >= 0,
}
FEW = [f"name-{number % 5000}" for number in range(ROWS)]
DIFFERENT = [f"a message of number {number}" for number in range(ROWS)]


def assert_as_upstream(columns):
    table = pa.concat_tables([pa.table(columns).slice(0, 9000), pa.table(columns).slice(9000)])

    frame = to_frame(table)

    expected = of_upstream(table)
    assert_frame_equal(frame, expected)
    assert frame.equals(expected)
    return frame


@pytest.mark.parametrize("nulls", NULLS)
def test_numbers_times_and_texts_are_those_of_upstream(nulls):
    mask = NULLS[nulls]
    kinds = ("int8", "int64", "uint16", "uint64", "float16", "float32", "bool")
    numbers = {kind: pa.array((NUMBERS % 100).astype(kind), mask=mask) for kind in kinds}
    units = pa.timestamp("s"), pa.timestamp("us", "UTC"), pa.timestamp("ns", "Europe/Paris"), pa.duration("ms")
    times = {str(kind): pa.array(NUMBERS, mask=mask).cast(kind) for kind in units}
    texts = {
        "few": pa.array(np.array(FEW, object), pa.string(), mask=mask),
        "different": pa.array(np.array(DIFFERENT, object), pa.large_string(), mask=mask),
        "bytes": pa.array(np.array(FEW, object), pa.string(), mask=mask).cast(pa.binary()),
    }

    assert_as_upstream({**numbers, **times, **texts, "large": pa.array(2**62 + NUMBERS, mask=mask)})


def test_other_types_are_those_of_upstream():
    rows = 20_000
    assert_as_upstream(
        {
            "date": pa.array(NUMBERS[:rows].astype("int32"), mask=NULLS["often"][:rows]).cast(pa.date32()),
            "time": pa.array(NUMBERS[:rows]).cast(pa.time64("us")),
            "decimal": pa.array([decimal.Decimal(number) for number in range(rows)], pa.decimal128(20, 2)),
            "nothing": pa.nulls(rows),
            "view": pa.array(FEW[:rows]).cast(pa.string_view()),
            "list": pa.array([[number, 2 if number < rows - 1 else None] for number in range(rows)]),
            "struct": pa.array([{"k": number} if number % 3 else None for number in range(rows)]),
            "uuid": pa.array([bytes(16)] * rows, pa.uuid()),
        }
    )


def test_dictionaries_are_those_of_upstream():
    rows = 20_000
    index = pa.array((NUMBERS[:rows] % 2).astype("int32"), mask=NULLS["often"][:rows])
    frame = assert_as_upstream(
        {
            "word": pa.array(FEW[:rows]).dictionary_encode(),
            "number": pa.array(NUMBERS[:rows] % 10).dictionary_encode(),
            "lists": pa.DictionaryArray.from_arrays(index, pa.array([[1], [1, 2]])),
            "structs": pa.DictionaryArray.from_arrays(index, pa.array([{"k": 1}, {"k": None}])),
        }
    )

    assert isinstance(frame["word"].dtype, pd.CategoricalDtype)


def test_names_may_occur_twice():
    text, different = pa.array(FEW), pa.array(DIFFERENT)
    table = pa.table([text, different, pa.array(NUMBERS), pa.array(NUMBERS), text], names=["a", "a", "b", "b", "c"])

    assert_frame_equal(to_frame(table), table.to_pandas())


def test_equal_texts_are_one_object():
    (first, *others) = to_frame(pa.table({"text": ["a text"] * 50_000, "other": DIFFERENT[:50_000]}))["text"]

    assert all(other is first for other in others)
