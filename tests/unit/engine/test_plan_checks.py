"""What is read from a plan before it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from datafusion import SessionConfig, SessionContext

from micromegas_jupyter.engine.planning.plan_checks import PathScrubber, check_plan, placeholder_types
from micromegas_jupyter.errors import InvalidStatement, StatementRefused

if TYPE_CHECKING:
    from datafusion.plan import LogicalPlan

    from tests.unit.engine.conftest import Asker


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


FILES = ["/srv/my lake/date=1/a.parquet", "/srv/my lake/date=2/b.parquet"]


def test_file_groups_become_their_number() -> None:
    plan = (
        "DataSourceExec: file_groups={2 groups: [[srv/my%20lake/date=1/a.parquet:0..10, x.parquet], "
        "[srv/my%20lake/date=2/b.parquet:3..9, ...]]}, projection=[x], predicate=x@1 IN ([1])"
    )

    cleaned = PathScrubber([FILES]).clean(plan)

    assert cleaned == "DataSourceExec: file_groups={2 groups}, projection=[x], predicate=x@1 IN ([1])"


def test_any_other_mention_of_a_folder_is_removed() -> None:
    scrubber = PathScrubber([FILES, ["/mnt/a/x.parquet"], ["s3://bucket/lake/y.parquet"]])

    assert scrubber.clean("see /srv/my lake/date=1/a.parquet, ok") == "see …, ok"
    assert scrubber.clean("see srv/my%20lake/date=9/z, ok") == "see …, ok"
    assert scrubber.clean("[mnt/a/x.parquet:1..2]") == "[…]"
    assert scrubber.clean("s3://bucket/lake/y.parquet") == "s3:/…"


def test_files_without_a_common_folder_are_all_known() -> None:
    scrubber = PathScrubber([["/one/a.parquet", "/two/b.parquet"]])

    assert scrubber.clean("one/a.parquet two/b.parquet three") == "… … three"


def test_every_text_column_of_a_batch_is_cleaned() -> None:
    batch = pa.record_batch({"plan_type": ["p", None], "plan": ["/srv/my lake/x", "y"], "n": [1, 2]})

    cleaned = PathScrubber([FILES]).clean_batch(batch)

    assert cleaned.to_pydict() == {"plan_type": ["p", None], "plan": ["…", "y"], "n": [1, 2]}


def test_parameters_and_limits_hold(ask: Asker) -> None:
    values = pa.record_batch({"0": [41]})

    assert ask.rows("SELECT ? + 1 AS n", parameters=values) == [{"n": 42}]
    assert ask.rows("SELECT 1 AS n", row_limit=0) == []
    assert ask.rows("SELECT 1 AS n LIMIT 0") == []
    with pytest.raises(InvalidStatement, match="has no value"):
        ask.rows("SELECT ? + 1 AS n")
