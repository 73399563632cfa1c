"""Rules over what is known of a query, and the SQL functions by which administrators make them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
from micromegas_jupyter.engine.functions.denial_store import Denial
from micromegas_jupyter.engine.functions.denials import MatchRules, check_match, names_denial_function
from micromegas_jupyter.errors import InvalidStatement, Unavailable
from tests.fakes.fixed_tables import CALLER, FixedTables, empty_table
from tests.unit.engine.conftest import SETTINGS, Asker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ADMIN = replace(CALLER, is_admin=True)
RULE = Denial(
    rule_id="r-1",
    created_at=datetime(2026, 11, 24, 12, tzinfo=UTC),
    created_by="ann",
    reason="too many",
    match_expr="client = 'grafana'",
)
FACTS = {"user_id": "ann", "client": "grafana", "sql": "SELECT * FROM thread_spans", "notebook": None}


class KeptDenials:
    """Stands for an `engine.denial_store.DenialStore`."""

    def __init__(self) -> None:
        self.added: list[tuple[str, str, str]] = []
        self.removed: list[str] = []
        self.is_reachable = True

    def rules(self) -> Sequence[Denial]:
        return [RULE]

    def add(self, match_expr: str, reason: str, *, created_by: str) -> str:
        if not self.is_reachable:
            raise Unavailable("The list cannot be changed now.")
        check_match(match_expr)
        self.added.append((match_expr, reason, created_by))
        return f"r-{len(self.added) + 1}"

    def remove(self, rule_id: str) -> bool:
        self.removed.append(rule_id)
        return rule_id == "r-1"


@pytest.fixture(scope="module")
def engine_and_denials() -> Iterator[tuple[DataFusionEngine, KeptDenials]]:
    denials = KeptDenials()
    engine = DataFusionEngine(FixedTables([empty_table()]), SETTINGS, denials=denials)
    yield engine, denials
    engine.close()


@pytest.fixture
def denials(engine_and_denials: tuple[DataFusionEngine, KeptDenials]) -> KeptDenials:
    kept = engine_and_denials[1]
    kept.added.clear()
    kept.removed.clear()
    kept.is_reachable = True
    return kept


@pytest.fixture
def admin(engine_and_denials: tuple[DataFusionEngine, KeptDenials], denials: KeptDenials) -> Asker:
    return Asker(engine_and_denials[0], FixedTables(), ADMIN)


@pytest.mark.parametrize(
    "expression",
    [
        "client = 'grafana'",
        "sql_hash = 'h1' AND client = 'grafana'",
        "sql_hash='h2' and \"client\" = 'grafana' -- two",
        "sql LIKE '%thread_spans%' OR client_ip = '10.4.9.221'",
        "notebook IS NULL",
        "upper(client) IN ('GRAFANA')",
        "regexp_like(sql, 'thread_(spans|calls)')",
    ],
)
def test_a_rule_is_found_that_is_true_for_a_query(expression: str) -> None:
    rules = MatchRules(["client = 'web'", expression, "sql IS NOT NULL"])

    assert rules.first_match(FACTS, ("h1", "h2")) == 1


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("true", "column"),
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
        ("bogus = 'a'", "names none of the columns"),
        ("upper(sql = 'a'", "cannot be used. It ends too early"),
        ("client = '" + "x" * 5000 + "'", "longer"),
    ],
)
def test_an_expression_that_cannot_be_a_rule_is_refused(expression: str, told: str) -> None:
    with pytest.raises(InvalidStatement) as refused:
        check_match(expression)

    assert told in str(refused.value)


def test_a_rule_is_made_when_the_statement_runs_and_not_before(admin: Asker, denials: KeptDenials) -> None:
    sql = "SELECT msg AS rule_id FROM deny_queries('client = ''a, (b''', 'too many') AS d WHERE time <= now();"

    planned = admin.plan(sql)
    made_by_planning = list(denials.added)
    rows = admin.rows(sql)

    assert planned.schema.names == ["rule_id"]
    assert made_by_planning == []
    assert rows == [{"rule_id": "r-2"}]
    assert denials.added == [("client = 'a, (b'", "too many", "ann")]


def test_rules_are_listed_and_removed(admin: Asker, denials: KeptDenials) -> None:
    listed = admin.table("SELECT * FROM list_query_denials() WHERE rule_id = 'r-1'")
    removed = admin.rows("SELECT remove_query_denial('r-1') AS result")
    unknown = admin.rows("SELECT remove_query_denial('r-9') AS result")

    assert listed.schema.names == ["rule_id", "created_at", "created_by", "reason", "match_expr", "last_hit_at"]
    assert listed.to_pylist()[0]["match_expr"] == "client = 'grafana'"
    assert removed == [{"result": "SUCCESS: rule r-1 was removed"}]
    assert unknown == [{"result": "ERROR: there is no rule r-9"}]
    assert denials.removed == ["r-1", "r-9"]


def test_what_a_function_refuses_arrives_in_its_own_class(admin: Asker, denials: KeptDenials) -> None:
    with pytest.raises(InvalidStatement, match="column"):
        admin.rows("SELECT * FROM deny_queries('true', 'x')")
    denials.is_reachable = False
    with pytest.raises(Unavailable, match="cannot be changed now"):
        admin.rows("SELECT * FROM deny_queries('client = ''x''', 'y')")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM deny_queries('client = ''x''', 'y')",
        "SELECT * FROM list_query_denials()",
        "SELECT remove_query_denial('r-1')",
    ],
)
def test_for_others_the_functions_do_not_exist(admin: Asker, denials: KeptDenials, sql: str) -> None:
    other = Asker(admin.engine, admin.tables, CALLER)

    with pytest.raises(InvalidStatement, match=r"no function named|There is no"):
        other.rows(sql)

    assert denials.added == denials.removed == []


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT * FROM list_query_denials()", True),
        ("select Remove_Query_Denial('x')", True),
        ("SELECT 'deny_queries' -- deny_queries", False),
        ("SELECT 1", False),
    ],
)
def test_a_statement_names_a_function_only_outside_of_texts_and_comments(sql: str, *, expected: bool) -> None:
    assert names_denial_function(sql) is expected
