"""Statements of one row run while they are planned, with the same outcome; any other statement does not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from datafusion import SessionContext

from micromegas_jupyter.engine import StatementRequest, WorkClass
from micromegas_jupyter.engine.one_row import ReadyQuery, is_one_row, may_be_one_row
from micromegas_jupyter.errors import InternalError, InvalidStatement, MicromegasError

if TYPE_CHECKING:
    from micromegas_jupyter.engine import PlannedQuery
    from tests.unit.engine.conftest import Asker

ONE_ROW = [
    "SELECT 1 AS one",
    "SELECT 1 AS one, 'Projection: a\nSort: b' AS text",
    "SELECT a + 1 AS b FROM (SELECT 41 AS a) t",
    "SELECT upper('x') AS u LIMIT 1",
    "SELECT 1 AS one LIMIT 0",
    "SELECT current_user",
    "SELECT now() < now() AS never",
    "SELECT arrow_cast('a', 'Dictionary(Int32, Utf8)') AS d",
    "SELECT to_timestamp(1) AS t",
]
MORE = [
    "SELECT count(*) AS n FROM log_entries",
    "SELECT (SELECT max(value) FROM generate_series(1, 3)) AS m",
    "SELECT 1 WHERE EXISTS (SELECT 1)",
    "SELECT x FROM (VALUES (1), (2)) v(x)",
    "SELECT 1 AS x UNION ALL SELECT 2",
    "SELECT DISTINCT 1 AS x",
    "SELECT count(1) AS n",
    "SELECT sum(1) OVER () AS n",
    "SELECT unnest([1, 2]) AS n",
    "SELECT value FROM generate_series(1, 2)",
    "EXPLAIN SELECT 1",
    "SHOW TABLES",
    "SELECT * FROM my_rights()",
]


@pytest.mark.parametrize("sql", ONE_ROW)
def test_a_statement_of_one_row_gives_the_same_whether_it_runs_at_once_or_not(ask: Asker, sql: str) -> None:
    planned = ask.plan(sql, runs_at_once=True)

    assert isinstance(planned, ReadyQuery) == ("\n" not in sql)
    assert ask.table(sql, runs_at_once=True).equals(ask.table(sql), check_metadata=True)


@pytest.mark.parametrize("sql", MORE)
def test_any_other_statement_runs_when_its_rows_are_read(ask: Asker, sql: str) -> None:
    assert not isinstance(ask.plan(sql, runs_at_once=True), ReadyQuery)


def test_a_statement_that_only_gets_planned_does_not_run(ask: Asker) -> None:
    assert not isinstance(ask.plan("SELECT now()"), ReadyQuery)


def test_parameters_and_limits_hold(ask: Asker) -> None:
    values = pa.record_batch({"0": [41]})

    assert ask.rows("SELECT ? + 1 AS n", parameters=values, runs_at_once=True) == [{"n": 42}]
    assert ask.rows("SELECT 1 AS n", row_limit=0, runs_at_once=True) == []
    with pytest.raises(InvalidStatement):
        ask.rows("SELECT ? + 1 AS n", runs_at_once=True)


@pytest.mark.parametrize("sql", ["SELECT 1 / 0 AS x", "SELECT CAST('a' AS INT) AS x", "SELECT arrow_cast(1, 'no')"])
def test_a_statement_that_fails_fails_the_same_way(ask: Asker, sql: str) -> None:
    def failure(*, runs_at_once: bool) -> tuple[type[MicromegasError], str]:
        with pytest.raises(MicromegasError) as caught:
            ask.rows(sql, runs_at_once=runs_at_once)
        return caught.type, str(caught.value)

    assert failure(runs_at_once=True) == failure(runs_at_once=False)


def test_a_failure_of_the_run_is_told_when_the_rows_are_read(ask: Asker) -> None:
    planned = ask.plan("SELECT 1 / 0 AS x", runs_at_once=True)

    assert planned.schema.names == ["x"]
    with pytest.raises(InvalidStatement):
        asyncio.run(_drain(planned))


def test_what_ran_at_once_has_figures_and_is_read_once(ask: Asker) -> None:
    planned = ask.plan("SELECT 1 + 0 AS one", runs_at_once=True)

    assert asyncio.run(_drain(planned)) == 1
    assert planned.work_class is WorkClass.SMALL
    assert planned.parameter_schema == pa.schema([])
    figures = planned.figures
    assert (figures.bytes_scanned, figures.spilled_bytes, figures.spill_count) == (0, 0, 0)
    assert figures.execution_seconds > 0
    with pytest.raises(InternalError):
        asyncio.run(_drain(planned))


def test_what_is_computed_anew_is_new_each_time(ask: Asker) -> None:
    times = {ask.rows("SELECT now() AS t", runs_at_once=True)[0]["t"] for _ in range(3)}

    assert len(times) == 3


def test_a_subquery_in_an_expression_shows_in_the_plan() -> None:
    plan = SessionContext().sql("SELECT (SELECT max(value) FROM generate_series(1, 3)) AS m").logical_plan()

    assert not is_one_row(plan.display_indent())


def test_words_tell_which_statements_are_worth_trying() -> None:
    assert may_be_one_row(frozenset({"select", "one"}))
    assert not may_be_one_row(frozenset({"select", "one", "order", "by"}))


def test_a_request_says_whether_it_runs_at_once() -> None:
    assert not StatementRequest(sql="SELECT 1").runs_at_once


async def _drain(planned: PlannedQuery) -> int:
    return sum([batch.num_rows async for batch in planned.batches()])
