"""What a logical plan tells before it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from datafusion import SessionConfig, SessionContext

from micromegas_jupyter.engine.planning.plan_checks import check_plan, is_explain, placeholder_types
from micromegas_jupyter.errors import StatementRefused

if TYPE_CHECKING:
    from datafusion.plan import LogicalPlan


def plan(sql: str) -> LogicalPlan:
    context = SessionContext(SessionConfig().with_information_schema())
    context.register_record_batches("t", [pa.table({"x": [1], "s": ["a"]}).to_batches()])
    return context.sql(sql).logical_plan()


@pytest.mark.parametrize(
    "sql",
    [
        "SHOW ALL",
        'SELECT 1 FROM information_schema."Df_Settings" AS z',
        "SELECT x FROM t WHERE s IN (SELECT value FROM information_schema.df_settings)",
        "SELECT 1 UNION ALL SELECT 2 FROM information_schema.df_settings",
    ],
)
def test_the_settings_are_found_wherever_they_are_read(sql: str) -> None:
    with pytest.raises(StatementRefused, match="settings"):
        check_plan(plan(sql))


@pytest.mark.parametrize(
    "sql", ["SELECT 'df_settings' AS df_settings", "SHOW TABLES", "SELECT s AS df_settings FROM t"]
)
def test_their_name_alone_is_harmless(sql: str) -> None:
    check_plan(plan(sql))


def test_only_explain_describes_a_plan() -> None:
    assert is_explain(plan("EXPLAIN SELECT 1"))
    assert is_explain(plan("EXPLAIN ANALYZE SELECT 1"))
    assert not is_explain(plan("SELECT 'Explain' AS \"Explain\""))
    assert not is_explain(plan("DESCRIBE t"))


def test_types_of_placeholders_are_those_that_the_plan_inferred() -> None:
    found = placeholder_types(
        plan("SELECT $name FROM t WHERE x = $1 AND (s LIKE $2 OR x BETWEEN $3 AND 9 OR x IN ($4, 1)) AND NOT x > $5")
    )

    assert {name: found.get(name) for name in ("1", "2", "3", "4")} == {
        "1": pa.int64(),
        "2": pa.string(),
        "3": pa.int64(),
        "4": pa.int64(),
    }
