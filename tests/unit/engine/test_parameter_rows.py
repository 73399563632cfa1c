"""Rows of parameter values in the forms that clients send, and a statement with several of them."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from micromegas_jupyter.engine import DataFusionEngine, StatementRequest
from micromegas_jupyter.engine.planning.parameters import with_plain_parameters
from micromegas_jupyter.errors import InternalError, InvalidStatement
from tests.fakes.fixed_tables import LOG_SCHEMA, FixedTables, empty_table
from tests.unit.engine.conftest import SETTINGS, Asker

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


def test_a_statement_runs_for_each_row_in_order(ask: Asker) -> None:
    rows = pa.record_batch({"0": [3, 1, 2]})

    found = ask.table("SELECT ? * 10 AS n", parameters=rows)

    assert found["n"].to_pylist() == [30, 10, 20]


def test_each_row_is_bound_over_the_table(ask: Asker) -> None:
    rows = pa.record_batch({"0": ["p1", "no such process", "p2"]})
    planned = ask.plan("SELECT DISTINCT process_id FROM log_entries WHERE process_id = ?", parameters=rows)

    found = [row["process_id"] for batch in planned.batches() for row in batch.to_pylist()]

    assert found == ["p1", "p2"]
    assert planned.parameter_schema.names == ["0"]


def test_what_all_rows_took_is_added_up(ask: Asker) -> None:
    sql = "SELECT msg FROM log_entries WHERE level = ?"
    one = ask.plan(sql, parameters=pa.record_batch({"0": [4]}))
    three = ask.plan(sql, parameters=pa.record_batch({"0": [4, 4, 4]}))

    for planned in (one, three):
        list(planned.batches())

    assert one.statistics.bytes_scanned
    assert three.statistics.bytes_scanned == 3 * one.statistics.bytes_scanned


def test_a_null_among_the_values_changes_no_columns(ask: Asker) -> None:
    found = ask.table("SELECT ? AS n", parameters=pa.record_batch({"0": pa.array([1, None], pa.int64())}))

    assert found.schema == pa.schema([pa.field("n", pa.int64())])
    assert found["n"].to_pylist() == [1, None]


@pytest.mark.parametrize(("limit", "rows"), [(0, 0), (3, 3), (100, 40)])
def test_a_limit_counts_over_all_rows(ask: Asker, limit: int, rows: int) -> None:
    parameters = pa.record_batch({"0": [0, 1]})

    found = ask.table("SELECT * FROM log_entries WHERE level > ?", parameters=parameters, row_limit=limit)

    assert found.num_rows == rows


def test_a_row_that_gives_other_columns_is_refused() -> None:
    tables = FixedTables([empty_table()])
    engine = DataFusionEngine(tables, SETTINGS)
    sql = "SELECT * FROM measures WHERE level > ?"
    planned = Asker(engine, tables).plan(sql, parameters=pa.record_batch({"0": [1, 2]}))

    tables.tables = [replace(empty_table(), schema=LOG_SCHEMA.remove(0))]

    with pytest.raises(InvalidStatement, match="Row 2 of the parameters"):
        list(planned.batches())
    engine.close()


def test_values_in_unions_are_bound_row_by_row(ask: Asker) -> None:
    rows = pa.record_batch({"param_0": dense([0, 0], [1, 0])})

    assert ask.table("SELECT ? AS n", parameters=rows)["n"].to_pylist() == [8, 7]


def test_a_statement_with_several_rows_runs_once(ask: Asker) -> None:
    planned = ask.plan("SELECT ? AS n", parameters=pa.record_batch({"0": [1, 2]}))
    list(planned.batches())

    with pytest.raises(InternalError):
        planned.batches()


def test_no_row_of_values_is_refused(ask: Asker) -> None:
    with pytest.raises(InvalidStatement, match="no row of values"):
        ask.plan("SELECT ? AS n", parameters=pa.record_batch({"0": pa.array([], pa.int64())}))
