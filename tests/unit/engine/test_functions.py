"""Functions of SQL: who calls and with which rights, and the denied queries of administrators."""

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.core.protocols import AuthContext, AuthType, TableAccess, TableSnapshot
from micromegas_jupyter.engine.contract import EngineSettings
from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
from micromegas_jupyter.engine.functions.denial_store import DenialStore
from micromegas_jupyter.engine.functions.denials import MatchRules, check_match
from micromegas_jupyter.engine.security import check_role_conditions
from micromegas_jupyter.errors import ConfigurationError, InvalidStatement, PermissionDenied
from tests.fakes.fixed_tables import CALLER, FixedTables, data_files, empty_table
from tests.unit.engine.conftest import SMALL, Asker, asking

ALICE = AuthContext(
    subject="al'ice",
    issuer="https://id.example",
    auth_type=AuthType.OIDC,
    email="alice@example.com",
    email_verified=True,
    name="Alice",
    expires_at=datetime(2026, 11, 25, 12, tzinfo=UTC),
    groups=("team-a", "it's"),
    roles=("analyst",),
)


def _as(ask, caller, filters=None):
    access = None if filters is None else TableAccess(filters=filters)
    return Asker(ask.engine, ask.tables, replace(caller, table_access=access))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("current_user", "al'ice"),
        ("current_user()", "al'ice"),
        ("user", "al'ice"),
        ("current_email()", "alice@example.com"),
        ("current_issuer()", "https://id.example"),
        ("is_admin()", False),
        ("current_groups()", ["team-a", "it's"]),
        ("current_roles()", ["analyst"]),
        ("'current_user()'", "current_user()"),
    ],
)
def test_a_function_tells_the_callers_own_value(ask, expression, expected):
    (row,) = _as(ask, ALICE).rows(f"SELECT {expression} AS found")

    assert row == {"found": expected}


def test_an_address_that_nobody_vouches_for_is_null(ask):
    caller = replace(ALICE, email_verified=False)

    assert _as(ask, caller).rows("SELECT current_email() AS found") == [{"found": None}]


def test_rows_can_be_compared_with_the_caller(ask):
    caller = replace(ALICE, subject="web")
    plan = _as(ask, caller).rows("EXPLAIN SELECT msg FROM log_entries WHERE exe = current_user()")[1]["plan"]

    assert _as(ask, caller).rows("SELECT DISTINCT exe FROM log_entries WHERE exe = current_user()") == [{"exe": "web"}]
    assert "pruning_predicate" in plan


@pytest.mark.parametrize("sql", ["SHOW RIGHTS", "show rights ;", "SELECT * FROM my_rights()"])
def test_rights_are_the_callers_own(ask, sql):
    caller = _as(ask, ALICE, {"log_entries": ("level <= 2",)})

    rows = [(row["kind"], row["name"], row["value"]) for row in caller.rows(sql)]

    assert rows == [
        ("identity", "user", "al'ice"),
        ("identity", "issuer", "https://id.example"),
        ("identity", "email", "alice@example.com"),
        ("identity", "email_verified", "true"),
        ("identity", "name", "Alice"),
        ("identity", "credential", "oidc"),
        ("identity", "expires_at", "2026-11-25T12:00:00+00:00"),
        ("identity", "administrator", "false"),
        ("scope", "read", None),
        ("role", "analyst", None),
        ("group", "team-a", None),
        ("group", "it's", None),
        ("table", "log_entries", "some rows"),
    ]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("exe = current_user()", "web"),
        ("exe = user -- a comment", "web"),
        ("array_has(current_groups(), exe)", "job"),
        ("exe = 'web' AND NOT is_admin ( ) AND 'current_user()' LIKE 'current%'", "web"),
        ("exe IN (session_user, current_issuer(), current_email())", "web"),
    ],
)
def test_a_condition_may_be_about_the_caller(ask, condition, expected):
    caller = replace(ALICE, subject="web", groups=("job", "x"))
    check_role_conditions(ask.tables, {"log_entries": [condition]})

    found = _as(ask, caller, {"log_entries": (condition,)}).rows("SELECT DISTINCT exe FROM log_entries")

    assert found == [{"exe": expected}]


@pytest.mark.parametrize("condition", ["exe = current_user()", "array_has(current_groups(), exe)"])
def test_a_name_with_quotes_opens_nothing(ask, condition):
    hostile = replace(ALICE, subject="x' OR 'a'='a", groups=("x', exe, 'y",))

    assert _as(ask, hostile, {"log_entries": (condition,)}).rows("SELECT * FROM log_entries") == []


def seen(folder, rows, condition, caller, **options):
    """Return the first column of a table as a caller sees it, with a condition that is accepted at the start."""
    pq.write_table(rows, folder / "rows.parquet")
    files = data_files(folder / "rows.parquet")
    tables = FixedTables([TableSnapshot(name="notes", schema=rows.schema, files=files, **options)])
    check_role_conditions(tables, {"notes": [condition]})
    with asking(tables) as ask:
        return _as(ask, caller, {"notes": (condition,)}).table("SELECT * FROM notes").column(0).to_pylist()


@pytest.mark.parametrize("name", ["user", "USER", '"user"'])
def test_a_condition_does_not_take_a_column_for_the_caller(tmp_path, name):
    rows = pa.table({"user": ["al'ice", "bob"]})

    assert seen(tmp_path, rows, f"{name} = current_user()", ALICE) == ["al'ice"]


def test_a_condition_does_not_take_a_merged_tables_column_for_the_caller(tmp_path):
    merge = 'SELECT DISTINCT owner AS "user" FROM notes_states'
    states = pa.table({"owner": ["al'ice", "bob", "bob"]})

    found = seen(tmp_path, states, "user = current_user()", ALICE, merge_sql=merge, raw_name="notes_states")

    assert found == ["al'ice"]


@pytest.mark.parametrize(
    "condition",
    [
        "array_position(current_groups(), team) > 0",
        "array_has_any(current_groups(), make_array(team))",
        "array_has_all(current_groups(), make_array(team))",
        "array_has(current_groups(), team)",
        "cardinality(array_intersect(current_groups(), make_array(team))) > 0",
    ],
)
def test_a_caller_without_groups_is_in_no_group(tmp_path, condition):
    rows = pa.table({"team": pa.array([None, None], pa.string())})

    assert seen(tmp_path, rows, condition, replace(ALICE, groups=())) == []


TEAMS = pa.table({"team": ["job", "web", None]})


@pytest.mark.parametrize(
    ("condition", "in_a_group", "in_no_group"),
    [
        ("NOT array_has(current_groups(), team)", ["web"], ["job", "web"]),
        ("array_has(current_groups(), team) IS NOT TRUE", ["web", None], ["job", "web", None]),
        ("cardinality(current_groups()) = 0", [], ["job", "web", None]),
        ("cardinality(current_roles()) > 0 OR team = 'web'", ["web"], ["web"]),
        ("NOT array_has(current_groups(), team) AND NOT array_has(current_roles(), team)", ["web"], ["job", "web"]),
    ],
)
def test_a_condition_that_denies_holds_for_a_caller_without_groups(tmp_path, condition, in_a_group, in_no_group):
    for groups, expected in ((("job",), in_a_group), ((), in_no_group)):
        assert seen(tmp_path, TEAMS, condition, replace(ALICE, groups=groups, roles=())) == expected


@pytest.mark.parametrize(
    "condition",
    [
        "CAST(cardinality(current_groups()) AS INT) / cardinality(current_groups()) = 1",
        "CAST(coalesce(current_email(), 'x') AS INT) = 1 OR current_email() IS NOT NULL",
    ],
)
def test_a_condition_that_fails_for_a_caller_without_groups_or_address_is_refused_at_the_start(tmp_path, condition):
    with pytest.raises(ConfigurationError):
        seen(tmp_path, TEAMS, condition, ALICE)


FACTS = {"user_id": "ann", "client": "grafana", "sql": "SELECT * FROM thread_spans", "notebook": None}


@pytest.fixture
def store(tmp_path):
    return DenialStore(tmp_path / "denials.json")


@pytest.fixture
def admin(store):
    tables = FixedTables([empty_table()])
    with closing(DataFusionEngine(tables, EngineSettings(**SMALL), denials=store)) as engine:
        yield Asker(engine, tables, replace(CALLER, is_admin=True))


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
def test_a_rule_is_found_that_is_true_for_a_query(expression):
    rules = MatchRules(["client = 'web'", expression, "sql IS NOT NULL"])

    assert rules.first_match(FACTS, ("h1", "h2")) == 1


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("1 = 1", "column"),
        ("'sql' = 'sql'", "column"),
        ("client = ", "missing before the end"),
        ("client", "condition is needed"),
        ("client = 42", "cannot be used"),
        ("client = (SELECT 'x')", "subquery"),
        ("client = 'x'; SELECT 1", "several"),
        ("client = $1", "placeholder"),
        ("client = 'x' AND nobody = 'y'", "nobody"),
        ("client = 'x' AND nothing(sql)", "nothing"),
        ("", "empty"),
        ("upper(sql = 'a'", "never closed"),
        ("client = '" + "x" * 5000 + "'", "longer"),
    ],
)
def test_an_expression_that_cannot_be_a_rule_is_refused(expression, told):
    with pytest.raises(InvalidStatement) as refused:
        check_match(expression)

    assert told in str(refused.value)


def test_a_rule_is_made_when_the_statement_runs_and_not_before(admin, store):
    sql = "SELECT msg AS rule_id FROM deny_queries('client = ''a, (b''', $$too many$$) AS d WHERE time <= now();"

    admin.plan(sql)
    planned = store.rules()
    (row,) = admin.rows(sql)

    assert planned == ()
    (rule,) = store.rules()
    assert (row["rule_id"], rule.match_expr, rule.created_by) == (rule.rule_id, "client = 'a, (b'", "ann")
    with pytest.raises(InvalidStatement, match="column"):
        admin.rows("SELECT * FROM deny_queries('true', 'x')")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM deny_queries('client = ''x''', 'y')",
        "SELECT * FROM list_query_denials()",
        "SELECT remove_query_denial('r-1')",
        "SELECT time, msg FROM retire_partitions('log_entries', 'global', '2026-01-01', '2026-01-02')",
        "EXPLAIN SELECT 1 FROM (SELECT * FROM  Materialize_Partitions ()) AS x",
        "SELECT retire_partition_by_metadata('log_entries', 'global', '2026-01-01', '2026-01-02')",
    ],
)
def test_others_are_told_that_the_functions_are_for_administrators(admin, store, sql):
    with pytest.raises(PermissionDenied, match="Only administrators may call"):
        Asker(admin.engine, admin.tables, CALLER).rows(sql)

    assert store.rules() == ()
