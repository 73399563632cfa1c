"""Rules over what is known of a query, and the SQL functions by which administrators make them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
from micromegas_jupyter.engine.functions.denial_store import DenialStore
from micromegas_jupyter.engine.functions.denials import MatchRules, check_match
from micromegas_jupyter.errors import InvalidStatement
from tests.fakes.fixed_tables import CALLER, FixedTables, empty_table
from tests.unit.engine.conftest import SETTINGS, Asker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FACTS = {"user_id": "ann", "client": "grafana", "sql": "SELECT * FROM thread_spans", "notebook": None}


@pytest.fixture
def store(tmp_path: Path) -> DenialStore:
    return DenialStore(tmp_path / "denials.json")


@pytest.fixture
def admin(store: DenialStore) -> Iterator[Asker]:
    engine = DataFusionEngine(FixedTables([empty_table()]), SETTINGS, denials=store)
    yield Asker(engine, FixedTables(), replace(CALLER, is_admin=True))
    engine.close()


@pytest.mark.parametrize(
    "expression",
    [
        "client = 'grafana'",
        "sql_hash='h2' and \"client\" = 'grafana' -- two",
        "sql LIKE '%thread_spans%' OR client_ip = '10.4.9.221'",
        "notebook IS NULL",
        "regexp_like(sql, 'thread_(spans|calls)')",
    ],
)
def test_a_rule_is_found_that_is_true_for_a_query(expression: str) -> None:
    rules = MatchRules(["client = 'web'", expression, "sql IS NOT NULL"])

    assert rules.first_match(FACTS, ("h1", "h2")) == 1


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("1 = 1", "column"),
        ("'sql' = 'sql'", "column"),
        ("client = ", "missing"),
        ("client", "true or false"),
        ("client = 42", "cannot be used"),
        ("client = (SELECT 'x')", "subquery"),
        ("client = 'x'; SELECT 1", "several"),
        ("client = $1", "placeholder"),
        ("client = 'x' AND nobody = 'y'", "nobody"),
        ("client = 'x' AND nothing(sql)", "nothing"),
        ("", "empty"),
        ("upper(sql = 'a'", "cannot be used. It ends too early"),
        ("client = '" + "x" * 5000 + "'", "longer"),
    ],
)
def test_an_expression_that_cannot_be_a_rule_is_refused(expression: str, told: str) -> None:
    with pytest.raises(InvalidStatement) as refused:
        check_match(expression)

    assert told in str(refused.value)


def test_a_rule_is_made_when_the_statement_runs_and_not_before(admin: Asker, store: DenialStore) -> None:
    sql = "SELECT msg AS rule_id FROM deny_queries('client = ''a, (b''', 'too many') AS d WHERE time <= now();"

    admin.plan(sql)
    planned = store.rules()
    (row,) = admin.rows(sql)

    assert planned == ()
    (rule,) = store.rules()
    assert (row["rule_id"], rule.match_expr, rule.created_by) == (rule.rule_id, "client = 'a, (b'", "ann")
    with pytest.raises(InvalidStatement, match="column"):
        admin.rows("SELECT * FROM deny_queries('true', 'x')")


def test_rules_are_listed_and_removed(admin: Asker, store: DenialStore) -> None:
    rule_id = store.add("client = 'grafana'", "too many", created_by="ann")

    listed = admin.table(f"SELECT * FROM list_query_denials() WHERE rule_id = '{rule_id}'")
    removed, unknown = (admin.rows(f"SELECT remove_query_denial('{one}') AS r") for one in (rule_id, "r-9"))

    assert listed.schema.names == ["rule_id", "created_at", "created_by", "reason", "match_expr", "last_hit_at"]
    assert listed.to_pylist()[0]["match_expr"] == "client = 'grafana'"
    assert removed == [{"r": f"SUCCESS: rule {rule_id} was removed"}]
    assert unknown == [{"r": "ERROR: there is no rule r-9"}]
    assert store.rules() == ()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM deny_queries('client = ''x''', 'y')",
        "SELECT * FROM list_query_denials()",
        "SELECT remove_query_denial('r-1')",
    ],
)
def test_for_others_the_functions_do_not_exist(admin: Asker, store: DenialStore, sql: str) -> None:
    with pytest.raises(InvalidStatement, match=r"no function named|There is no"):
        Asker(admin.engine, admin.tables, CALLER).rows(sql)

    assert store.rules() == ()
