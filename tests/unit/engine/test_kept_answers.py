"""The answers to statements of literals are kept; nothing else is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from micromegas_jupyter.engine import DataFusionEngine, StatementRequest
from micromegas_jupyter.engine.kept_answers import KeptAnswers
from micromegas_jupyter.engine.one_row import Ran, ReadyQuery
from micromegas_jupyter.errors import QueryError, ResourcesExhausted
from tests.fakes.fixed_tables import CALLER, FixedTables
from tests.unit.engine.conftest import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from micromegas_jupyter.engine import PlannedQuery

SCHEMA = pa.schema([pa.field("one", pa.int64(), nullable=False)])
RAN = Ran(batches=(pa.record_batch({"one": [1]}, schema=SCHEMA),), seconds=1.0)


@pytest.fixture
def engine() -> Iterator[DataFusionEngine]:
    engine = DataFusionEngine(FixedTables([]), SETTINGS)
    yield engine
    engine.close()


def plan(engine: DataFusionEngine, sql: str, *, runs_at_once: bool = False) -> PlannedQuery:
    return asyncio.run(engine.plan(StatementRequest(sql=sql, runs_at_once=runs_at_once), CALLER))


async def drain(planned: PlannedQuery) -> list[pa.RecordBatch]:
    return [batch async for batch in planned.batches()]


def test_a_select_of_literals_runs_once(engine: DataFusionEngine) -> None:
    first = plan(engine, "SELECT 1 AS one", runs_at_once=True)
    second = plan(engine, "SELECT 1 AS one", runs_at_once=True)

    assert second.schema.equals(first.schema, check_metadata=True)
    assert asyncio.run(drain(second)) == asyncio.run(drain(first))
    assert first.figures.execution_seconds > 0
    assert second.figures.execution_seconds == 0


def test_its_answer_is_there_for_who_only_plans_it_too(engine: DataFusionEngine) -> None:
    planned = plan(engine, "SELECT 1 AS one")

    assert isinstance(planned, ReadyQuery)
    assert asyncio.run(drain(planned)) == asyncio.run(drain(plan(engine, "SELECT 1 AS one", runs_at_once=True)))
    assert not isinstance(plan(engine, "SELECT 1 + 0 AS one"), ReadyQuery)


@pytest.mark.parametrize("sql", ["SELECT now() AS t", "SELECT random() AS r", "SELECT uuid() AS u"])
def test_what_differs_each_time_is_not_kept(engine: DataFusionEngine, sql: str) -> None:
    answers = [asyncio.run(drain(plan(engine, sql, runs_at_once=True))) for _ in range(2)]

    assert answers[0] != answers[1]


def test_a_failure_is_not_kept(engine: DataFusionEngine) -> None:
    for _ in range(2):
        with pytest.raises(QueryError):
            plan(engine, "SELECT '1' AS one, CAST", runs_at_once=True)


def test_an_engine_that_is_closed_answers_nothing(engine: DataFusionEngine) -> None:
    plan(engine, "SELECT 1 AS one", runs_at_once=True)

    engine.close()

    with pytest.raises(ResourcesExhausted):
        plan(engine, "SELECT 1 AS one", runs_at_once=True)


def test_a_request_that_asks_for_more_than_the_text_is_not_answered() -> None:
    answers = KeptAnswers()
    answers.keep(StatementRequest(sql="a", row_limit=0), SCHEMA, RAN)
    answers.keep(StatementRequest(sql="a", parameters=pa.record_batch({"0": [1]})), SCHEMA, RAN)
    answers.keep(StatementRequest(sql="a"), SCHEMA, Ran(failure=QueryError("no"), seconds=1.0))
    assert answers.get(StatementRequest(sql="a")) is None

    answers.keep(StatementRequest(sql="a"), SCHEMA, RAN)

    assert answers.get(StatementRequest(sql="a")) is not None
    assert answers.get(StatementRequest(sql="a", row_limit=0)) is None
    assert answers.get(StatementRequest(sql="a", parameters=pa.record_batch({"0": [1]}))) is None


def test_the_oldest_answer_goes_when_there_are_too_many() -> None:
    answers = KeptAnswers()
    for number in range(257):
        answers.keep(StatementRequest(sql=str(number)), SCHEMA, RAN)

    assert answers.get(StatementRequest(sql="0")) is None
    assert answers.get(StatementRequest(sql="1")) is not None
    assert answers.get(StatementRequest(sql="256")) is not None
