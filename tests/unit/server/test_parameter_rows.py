"""A statement with several rows of parameters gives the rows of each, one after another."""

import asyncio
from dataclasses import replace

import pyarrow as pa
import pytest

from micromegas_jupyter.engine import StatementRequest
from micromegas_jupyter.errors import InvalidStatement
from micromegas_jupyter.server.parameter_rows import plan_rows
from tests.fakes.engine import FakeEngine, FakePlannedQuery
from tests.fakes.validator import FakeValidator

CALLER = FakeValidator().validate_token("alice")
ROWS = pa.record_batch({"0": pa.array([1, 2, 3], pa.int64())})


def _run(request: StatementRequest, engine: FakeEngine) -> list[int]:
    async def scenario() -> list[int]:
        planned = await plan_rows(engine, request, CALLER)
        assert planned.schema == ROWS.schema
        assert planned.figures.execution_seconds >= 0
        found = [row["0"] async for batch in planned.batches() for row in batch.to_pylist()]
        assert planned.figures.bytes_scanned == 4096 * len(engine.requests)  # as each of the fake engine's plans says
        return found

    return asyncio.run(scenario())


def test_each_row_is_run_in_order() -> None:
    engine = FakeEngine()

    assert _run(StatementRequest(sql="echo ?", parameters=ROWS), engine) == [1, 2, 3]
    assert [request.parameters.num_rows for request in engine.requests if request.parameters] == [1, 1, 1]


def test_a_null_among_the_values_changes_no_columns() -> None:
    async def scenario() -> tuple[pa.Schema, list[pa.RecordBatch]]:
        planned = await plan_rows(NullTelling(), StatementRequest(sql="echo ?", parameters=rows), CALLER)
        return planned.schema, [batch async for batch in planned.batches()]

    class NullTelling(FakeEngine):
        """Says whether a column has nulls by the value, as DataFusion does."""

        async def plan(self, request, caller):  # type: ignore[no-untyped-def]
            values = request.parameters
            field = pa.field("0", pa.int64(), nullable=values.column(0).null_count > 0)
            batch = pa.RecordBatch.from_arrays(values.columns, schema=pa.schema([field]))
            return await super().plan(replace(request, parameters=batch), caller)

    rows = pa.record_batch({"0": pa.array([1, None], pa.int64())})

    schema, batches = asyncio.run(scenario())

    assert schema == rows.schema
    assert pa.Table.from_batches(batches, schema)["0"].to_pylist() == [1, None]


def test_a_limit_counts_over_all_rows() -> None:
    engine = FakeEngine()

    _run(StatementRequest(sql="echo ?", parameters=ROWS, row_limit=2), engine)

    assert [request.row_limit for request in engine.requests] == [2, 1]


@pytest.mark.parametrize("parameters", [None, ROWS.slice(0, 1)])
def test_none_or_one_row_is_the_engines_own_plan(parameters: pa.RecordBatch | None) -> None:
    engine, request = FakeEngine(), StatementRequest(sql="echo ?", parameters=parameters)

    planned = asyncio.run(plan_rows(engine, request, CALLER))

    assert isinstance(planned, FakePlannedQuery)
    assert engine.requests == [request]


def test_rows_that_give_other_columns_are_refused() -> None:
    class Changing(FakeEngine):
        """Gives another column for the value 2."""

        async def plan(self, request, caller):  # type: ignore[no-untyped-def]
            if request.parameters.column(0)[0].as_py() == 2:
                request = replace(request, sql="numbers")
            return await super().plan(request, caller)

    with pytest.raises(InvalidStatement, match="Row 2 of the parameters"):
        _run(StatementRequest(sql="echo ?", parameters=ROWS), Changing())
