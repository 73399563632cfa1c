"""A statement of one row that is made of nothing is told from all others, and gives its row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from datafusion import SessionContext

from micromegas_jupyter.engine.planning.plan_checks import is_one_row
from micromegas_jupyter.errors import InvalidStatement, MicromegasError

if TYPE_CHECKING:
    from tests.unit.engine.conftest import Asker

ONE_ROW = {
    "SELECT 1 AS one": 1,
    "SELECT a + 1 AS b FROM (SELECT 41 AS a) t": 42,
    "SELECT upper('x') AS u LIMIT 1": "X",
    "SELECT current_user": "ann",
    "SELECT now() < now() AS never": False,
    "SELECT arrow_cast('a', 'Dictionary(Int32, Utf8)') AS d": "a",
}
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
]


def plan_text(sql: str) -> str:
    context = SessionContext()
    context.from_pydict({"level": [1]}, name="log_entries")
    return context.sql(sql.replace("current_user", "1")).logical_plan().display_indent()


@pytest.mark.parametrize("sql", ONE_ROW)
def test_a_statement_of_one_row_is_found_and_gives_it(ask: Asker, sql: str) -> None:
    assert is_one_row(plan_text(sql))
    assert [list(row.values()) for row in ask.rows(sql)] == [[ONE_ROW[sql]]]


@pytest.mark.parametrize("sql", [sql for sql in MORE if not sql.startswith("SHOW")])
def test_any_other_statement_is_not_taken_for_one(sql: str) -> None:
    assert not is_one_row(plan_text(sql))


@pytest.mark.parametrize("sql", MORE)
def test_any_other_statement_runs(ask: Asker, sql: str) -> None:
    assert ask.table(sql).num_rows > 0


def test_parameters_and_limits_hold(ask: Asker) -> None:
    values = pa.record_batch({"0": [41]})

    assert ask.rows("SELECT ? + 1 AS n", parameters=values) == [{"n": 42}]
    assert ask.rows("SELECT 1 AS n", row_limit=0) == []
    assert ask.rows("SELECT 1 AS n LIMIT 0") == []
    with pytest.raises(InvalidStatement, match="has no value"):
        ask.rows("SELECT ? + 1 AS n")


@pytest.mark.parametrize("sql", ["SELECT 1 / 0 AS x", "SELECT CAST('a' AS INT) AS x", "SELECT arrow_cast(1, 'no')"])
def test_a_statement_of_one_row_fails_as_any_other(ask: Asker, sql: str) -> None:
    def failure(text: str) -> tuple[type[MicromegasError], str]:
        with pytest.raises(MicromegasError) as caught:
            ask.rows(text)
        return caught.type, str(caught.value)

    assert failure(sql) == failure(f"{sql} ORDER BY 1")


def test_a_statement_of_one_row_has_statistics(ask: Asker) -> None:
    planned = ask.plan("SELECT 1 + 0 AS one")

    assert sum(batch.num_rows for batch in planned.batches()) == 1
    found = planned.statistics
    assert (found.bytes_scanned, found.spilled_bytes, found.spill_count) == (0, 0, 0)
    assert found.execution_seconds > 0


def test_what_is_computed_anew_is_new_each_time(ask: Asker) -> None:
    times = {ask.rows("SELECT now() AS t")[0]["t"] for _ in range(3)}

    assert len(times) == 3
