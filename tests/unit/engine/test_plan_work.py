"""How much work is foreseen for a plan."""

from __future__ import annotations

import pyarrow as pa
import pytest
from datafusion import SessionContext

from micromegas_jupyter.engine.plan_work import PlanWork, plan_work
from tests.unit.engine.growing_statements import GROWING, growing


def work(sql: str) -> PlanWork:
    context = SessionContext()
    context.register_record_batches("t", [pa.table({"n": [1], "m": [2], "s": ["a"]}).to_batches()])
    return plan_work(context.sql(sql).logical_plan())


@pytest.mark.parametrize(
    ("sql", "size"),
    [
        ("SELECT n FROM t", 0),
        ("SELECT n + m AS x FROM t", 0),
        ("SELECT abs(n) AS x FROM t", 2),
        ("SELECT n FROM t WHERE n > 1", 3),
        ("SELECT x FROM (SELECT n + m AS x FROM t) WHERE x > 1", 5),
        ("SELECT x FROM (SELECT n + m AS x FROM t) WHERE x > x", 7),
        ("SELECT n FROM t WHERE n BETWEEN 1 AND 2", 5),
        ("SELECT n FROM t WHERE n IN (1, 2, 3)", 7),
        ("SELECT n FROM t ORDER BY n + m", 3),
        ("SELECT x FROM (SELECT n AS x FROM t UNION ALL SELECT m FROM t) WHERE x > 1", 4),
    ],
)
def test_names_count_as_what_they_stand_for(sql: str, size: int) -> None:
    assert work(sql).size == size


@pytest.mark.parametrize("shape", [shape for shape in GROWING if shape not in {"exists", "in", "scalar subquery"}])
def test_each_step_of_a_growing_chain_at_least_doubles(shape: str) -> None:
    assert work(growing(shape, 9)).size >= 1.9 * work(growing(shape, 8)).size


def test_the_work_is_foreseen_without_doing_it() -> None:
    found = work(growing("filter", 60))

    assert found.size == 1 << 40
    assert found.visited < 400


def test_functions_are_named() -> None:
    found = work("SELECT abs(n) AS a, sum(m) OVER () AS b FROM t WHERE upper(s) = 'A'")

    assert {"abs", "upper"} <= found.functions


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT (SELECT max(n) FROM t) AS x",
        "SELECT n FROM t WHERE n IN (SELECT m FROM t)",
        "SELECT n FROM t WHERE NOT EXISTS (SELECT 1 FROM t)",
    ],
)
def test_a_subquery_in_an_expression_is_noticed(sql: str) -> None:
    assert work(sql).has_subqueries


def test_a_subquery_in_from_is_a_part_of_the_plan() -> None:
    assert not work("SELECT n FROM (SELECT n FROM t WHERE n > 1) AS q").has_subqueries
