from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from micromegas_jupyter.engine import StatementRequest
from micromegas_jupyter.engine.parameter_rows import with_plain_parameters
from micromegas_jupyter.errors import InvalidStatement

if TYPE_CHECKING:
    from tests.unit.engine.conftest import Asker

NUMBERS = pa.array([7, 8], pa.int64())
WORDS = pa.array(["a"])


def dense(codes: list[int], offsets: list[int]) -> pa.Array:
    return pa.UnionArray.from_dense(pa.array(codes, pa.int8()), pa.array(offsets, pa.int32()), [NUMBERS, WORDS])


def plain(batch: pa.RecordBatch | None, columns: tuple[str, ...] = ("0", "1")) -> pa.RecordBatch | None:
    return with_plain_parameters(StatementRequest(sql="x", parameters=batch), columns).parameters


def test_values_of_the_usual_form_stay_as_they_are() -> None:
    batch = pa.record_batch({"0": [1], "1": ["x"]})

    assert plain(batch) is batch
    assert plain(None) is None


@pytest.mark.parametrize("names", [["param_0", "param_1"], ["", ""], ["", "param_1"]])
def test_names_that_a_client_made_up_are_positions(names: list[str]) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array(["x"])], names=names)

    assert plain(batch) == pa.record_batch({"0": [1], "1": ["x"]})


@pytest.mark.parametrize("names", [["param_1", "param_0"], ["a", "b"], ["1", "0"]])
def test_other_names_stay(names: list[str]) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array(["x"])], names=names)

    assert plain(batch) is batch


def test_a_name_that_the_statement_knows_stays() -> None:
    batch = pa.record_batch({"param_0": [1]})

    assert plain(batch, ("param_0",)) is batch


def test_a_union_is_the_value_in_it() -> None:
    sparse = pa.UnionArray.from_sparse(pa.array([1], pa.int8()), [pa.array([0]), WORDS])

    assert plain(pa.record_batch({"0": dense([0], [1]), "1": sparse})) == pa.record_batch({"0": [8], "1": ["a"]})
    assert plain(pa.record_batch({"0": dense([1], [0])})) == pa.record_batch({"0": ["a"]})


def test_a_union_without_rows_is_null() -> None:
    assert plain(pa.record_batch({"0": dense([], [])})) == pa.record_batch({"0": pa.nulls(0)})


def test_a_union_of_several_types_is_refused() -> None:
    with pytest.raises(InvalidStatement, match="several types"):
        plain(pa.record_batch({"0": dense([0, 1], [0, 0])}))


def test_such_values_are_bound(ask: Asker) -> None:
    batch = pa.record_batch({"param_0": dense([0], [1]), "param_1": dense([1], [0])})

    table = ask.table("SELECT ? + 1 AS a, ? AS b", parameters=batch)

    assert table.to_pylist() == [{"a": 9, "b": "a"}]
