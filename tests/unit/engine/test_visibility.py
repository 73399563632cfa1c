"""A table that a caller may not see does not exist for them, however it is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.core.protocols import TableAccess
from micromegas_jupyter.engine.tables import Visibility
from micromegas_jupyter.errors import InvalidStatement, MicromegasError
from tests.fakes.fixed_tables import CALLER, empty_table

if TYPE_CHECKING:
    from tests.unit.engine.conftest import Asker

# `{}` is a name: of a hidden table, or of one that never was. It is as long and as unlike any visible name.
ASKING = [
    "SELECT * FROM {}",
    "SELECT * FROM {} AS x WHERE 1 = 1",
    'SELECT * FROM "{}"',
    "SELECT * FROM public.{}",
    "SELECT * FROM datafusion.public.{}",
    'SELECT * FROM datafusion."public"."{}"',
    "SELECT {}.x FROM measures",
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM {})",
    "SELECT (SELECT count(*) FROM {})",
    "SELECT * FROM measures JOIN {} USING (process_id)",
    "WITH c AS (SELECT * FROM {}) SELECT * FROM c",
    "TABLE {}",
    "DESCRIBE {}",
    "SHOW COLUMNS FROM {}",
    "SHOW CREATE TABLE {}",
    "SELECT * FROM information_schema.{}",
    "SELECT * FROM {}()",
    "SELECT {}(1)",
    "SELECT * FROM generate_series({})",
    "EXPLAIN SELECT * FROM {}",
    "EXPLAIN ANALYZE SELECT * FROM {}",
    "SELECT * FROM $${}$$",
    "SELECT * FROM `{}`",
    "SELECT * FROM '{}'",
    "INSERT INTO {} VALUES (1)",
    "DROP TABLE {}",
]


def said(ask: Asker, sql: str) -> object:
    """Return the whole error, or the rows."""
    try:
        return ask.rows(sql)
    except MicromegasError as error:
        return type(error), error.what, error.remedy, getattr(error, "line", None), getattr(error, "column", None)


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize(
    ("hidden", "unknown"), [("processes", "prxcesses"), ("__processes__partitions", "__prxcesses__partitions")]
)
@pytest.mark.parametrize("sql", ASKING)
def test_a_hidden_table_is_a_table_that_never_was(
    ask: Asker, sql: str, hidden: str, unknown: str, *, upper: bool
) -> None:
    caller = ask.seeing({"measures": (), "log_entries": ()})
    hidden, unknown = (hidden.upper(), unknown.upper()) if upper else (hidden, unknown)

    of_hidden = said(caller, sql.format(hidden))
    of_unknown = said(caller, sql.format(unknown))

    assert str(of_hidden).replace(hidden, unknown).replace(hidden.lower(), unknown.lower()) == str(of_unknown)


def test_the_statements_find_the_table_when_it_is_visible(ask: Asker) -> None:
    found = [sql for sql in ASKING if isinstance(said(ask, sql.format("processes")), list)]

    assert len(found) >= 14


def test_no_list_names_a_hidden_table(ask: Asker) -> None:
    caller = ask.seeing({"measures": ()})

    for sql in (
        "SHOW TABLES",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM information_schema.columns",
        "SELECT * FROM information_schema.views",
        "SELECT * FROM information_schema.schemata",
        'SELECT table_name AS "processes" FROM "information_schema"."tables" WHERE table_name <> \'log_entries\'',
    ):
        listed = str([tuple(row.values()) for row in caller.rows(sql)])

        assert "processes" not in listed
        assert "log_entries" not in listed
    assert [name for name, _ in ask.engine.tables(caller.caller)] == ["measures"]
    assert "measures" in str(caller.rows("SHOW TABLES"))


@pytest.mark.parametrize("near", ["processing", "log_entriez"])
def test_no_suggestion_names_a_hidden_table(ask: Asker, near: str) -> None:
    caller = ask.seeing({"measures": ()})

    with pytest.raises(InvalidStatement) as caught:
        caller.rows(f"SELECT * FROM {near}")

    assert "Did you mean" not in str(caught.value)
    with pytest.raises(InvalidStatement, match="Did you mean"):
        ask.rows(f"SELECT * FROM {near}")


def test_a_caller_without_any_table_can_still_compute(ask: Asker) -> None:
    caller = ask.seeing({})

    assert caller.rows("SELECT 1 AS one") == [{"one": 1}]
    assert ask.engine.tables(caller.caller) == []
    assert [row for row in caller.rows("SHOW TABLES") if row["table_schema"] == "public"] == []


def test_allowed_tables_are_listed_and_described_as_ever(ask: Asker) -> None:
    caller = ask.seeing({"processes": (), "measures": ("level > 3",)})

    assert [name for name, _ in ask.engine.tables(caller.caller)] == ["processes", "measures"]
    assert caller.rows("DESCRIBE processes") == ask.rows("DESCRIBE processes")
    assert {row["definition"] for row in caller.rows("SHOW CREATE TABLE measures")} == {None}
    assert caller.rows("SELECT count(*) AS n FROM processes") == [{"n": 2}]


def test_an_administrator_sees_everything() -> None:
    visibility = Visibility({"measures": "false"})

    (seen,) = visibility.tables([empty_table()], replace(CALLER, is_admin=True))

    assert seen.conditions == ()


def test_rights_of_their_own_count_for_an_administrator_too() -> None:
    visibility = Visibility({})
    caller = replace(CALLER, is_admin=True, table_access=TableAccess(filters={"other": ()}))

    assert visibility.tables([empty_table()], caller) == []


def test_a_default_condition_is_used_without_rights_only() -> None:
    visibility = Visibility({"measures": "level > 3"})

    (seen,) = visibility.tables([empty_table()], CALLER)
    (allowed,) = visibility.tables([empty_table()], replace(CALLER, table_access=TableAccess(filters={"*": ()})))

    assert seen.conditions == ("level > 3",)
    assert allowed.conditions == ()


@pytest.mark.parametrize("sql", ["SHOW TABLES", "show tables;", "SELECT * FROM information_schema.tables"])
def test_raw_rows_are_listed_nowhere_and_read_by_whoever_knows_of_them(ask: Asker, sql: str) -> None:
    listed = {row["table_name"] for row in ask.rows(sql)}

    assert "processes" in listed
    assert "__processes__partitions" not in listed
    assert ask.rows("SELECT count(*) AS n FROM __processes__partitions")[0]["n"] >= 1
