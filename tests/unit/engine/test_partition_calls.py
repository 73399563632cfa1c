"""Which statements change partitions or denials, and which only look like it: DataFusion's planner decides."""

from contextlib import closing, nullcontext
from datetime import UTC, datetime

import pytest

from micromegas_jupyter.engine.contract import EngineSettings
from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
from micromegas_jupyter.engine.functions.denial_store import DenialStore
from micromegas_jupyter.errors import InvalidStatement, PermissionDenied, QueryError, ReadOnlyCall
from tests.fakes.fixed_tables import FixedTables, empty_table
from tests.unit.engine.conftest import SMALL, Asker

CALL = "retire_partitions('view', 'global', '2024-01-01', '2024-01-02')"
DENY = "deny_queries('client = ''x''', 'y')"
REMOVE = "remove_query_denial('r-1')"

MENTIONS = [
    f"SELECT 1 -- FROM {CALL}",
    f"SELECT 1 /* /* */ FROM {CALL} */",
    "SELECT '{}'".format(CALL.replace("'", "''")),
    f"SELECT $${CALL}$$",
    f"SELECT $a$ $$ {CALL}$a$",
    'SELECT retire_partitions."retire_partitions" FROM (SELECT 1 AS "retire_partitions") AS retire_partitions',
    "WITH retire_partitions AS (SELECT 1) SELECT * FROM retire_partitions",
    "WITH retire_partitions (a, b) AS (SELECT 1, 2) SELECT a FROM retire_partitions",
    "SELECT a FROM (VALUES (1, 2)) AS retire_partitions (a, b)",
    "SELECT a AS deny_queries FROM (VALUES (1, 2)) AS deny_queries (a, b)",
    "WITH list_view_set_definitions (a) AS (SELECT 1) SELECT a AS remove_query_denial FROM list_view_set_definitions",
]
CALLS = [
    f"SELECT * FROM {CALL}",
    f"SELECT * FROM {CALL.replace('(', ' /* x */ (').upper().replace('VIEW', 'view')}",
    f'SELECT * FROM "retire_partitions"{CALL.removeprefix("retire_partitions")}',
    f"SELECT * FROM `retire_partitions`{CALL.removeprefix('retire_partitions')}",
    f"SELECT * FROM retire_partitions.anything{CALL.removeprefix('retire_partitions')}",
    f"SELECT E'\\'' FROM {CALL}",
    f"SELECT $$x$$ FROM {CALL}",
    f'SELECT $x$"$x$ FROM "retire_partitions"{CALL.removeprefix("retire_partitions")}',
    f"SELECT /* /* */ */ 1 FROM Retire_Partitions{CALL.removeprefix('retire_partitions')}",
    "SELECT * FROM retire_partitions($$view$$, concat('glo', 'bal'), DATE '2024-01-01', TIMESTAMP '2024-01-02')",
    "SELECT * FROM retire_partitions('v' || 'iew', lower('GLOBAL'), '2024-01-01'::timestamp, '2024-01-02T00:00:00Z')",
    f"WITH a AS (SELECT * FROM {CALL}) SELECT 1 -- '",
    f"WITH retire_partitions AS (SELECT * FROM {CALL}) SELECT * FROM retire_partitions, retire_partitions AS b",
    f"SELECT 1 WHERE EXISTS (SELECT 1 FROM {CALL})",
    f"SELECT (SELECT max(msg) FROM {CALL}) AS retire_partitions",
    f"SELECT * FROM (SELECT 1) AS a, LATERAL {CALL} AS b LIMIT 0",
    f"SELECT 1 UNION ALL SELECT 2 FROM {CALL} WHERE false",
    f"FROM {CALL} SELECT msg",
]
#: With U&, the engine's parser stops; it has no other escapes in names. It prepares nothing.
NEITHER = [
    f'SELECT * FROM U&"retire\\005fpartitions"{CALL.removeprefix("retire_partitions")}',
    f"SELECT {CALL}",
    f"SELECT * FROM public.{CALL}",
    f"PREPARE p AS SELECT * FROM {CALL}",
    "EXECUTE retire_partitions",
    f"CREATE VIEW v AS SELECT * FROM {CALL}",
    f"SELECT 1; SELECT * FROM {CALL}",
]


@pytest.fixture
def store(tmp_path, clock):
    return DenialStore(tmp_path / "query_denials.json", clock=clock)


@pytest.fixture
def user(store):
    tables = FixedTables([empty_table()])
    with closing(DataFusionEngine(tables, EngineSettings(**SMALL), denials=store)) as engine:
        yield Asker(engine, tables)


@pytest.fixture
def admin(user):
    return user.as_administrator()


@pytest.mark.parametrize("sql", MENTIONS)
def test_what_only_looks_like_a_call_changes_nothing(user, admin, sql):
    for one in (user, admin):
        for is_read_only in (False, True):
            planned = one.plan(sql, is_read_only=is_read_only)

            assert planned.change is None
            assert sum(batch.num_rows for batch in planned.batches()) == 1


@pytest.mark.parametrize("sql", CALLS)
def test_a_call_is_found_wherever_it_is(user, admin, sql):
    found = admin.plan(sql).change

    assert found is not None
    assert (found.function, found.view_set) == ("retire_partitions", "view")
    assert (found.begin, found.end) == (datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
    with pytest.raises(ReadOnlyCall):
        admin.plan(sql, is_read_only=True)
    with pytest.raises(PermissionDenied, match="Only administrators may call retire_partitions"):
        user.plan(sql)


@pytest.mark.parametrize("sql", NEITHER)
def test_what_the_planner_does_not_take_for_a_call_fails(admin, sql):
    with pytest.raises((InvalidStatement, QueryError)):
        admin.plan(sql)


@pytest.mark.parametrize("keyword", ["EXPLAIN", "/* x */ explain analyze", "EXPLAIN VERBOSE", "DESCRIBE"])
@pytest.mark.parametrize("call", [f"* FROM {CALL}", f"{DENY} AS a", f"* FROM {DENY}", f"{REMOVE} AS a"])
def test_explain_runs_nothing(admin, store, keyword, call):
    rule = store.add("client = 'z'", "kept", created_by="root")

    planned = admin.plan(f"{keyword} SELECT {call.replace('r-1', rule)}")
    runs = "analyze" in keyword and CALL not in call
    with pytest.raises(InvalidStatement, match="EXPLAIN ANALYZE") if runs else nullcontext():
        list(planned.batches())

    assert planned.change is None
    assert [one.rule_id for one in store.rules()] == [rule]


@pytest.mark.parametrize(
    "sql",
    [
        f"SELECT {DENY}",
        f"SELECT upper(DENY_Queries{DENY.removeprefix('deny_queries')}) AS a",
        f'SELECT $$x$$, "deny_queries"{DENY.removeprefix("deny_queries")}',
        f"SELECT * FROM {DENY}",
        f"WITH a AS (SELECT {DENY} AS b) SELECT b FROM a",
        f"SELECT 1 WHERE (SELECT {DENY}) <> ''",
        "SELECT deny_queries(a, b) FROM (VALUES ('client = ''x''', 'y')) AS t (a, b)",
        f"EXPLAIN ANALYZE SELECT {DENY}",
        f"SELECT {REMOVE}",
        "SELECT remove_query_denial(rule_id) FROM list_query_denials()",
    ],
)
def test_a_read_only_call_changes_no_denial(admin, store, sql):
    rule = store.add("client = 'z'", "kept", created_by="root")

    with pytest.raises(ReadOnlyCall):
        list(admin.plan(sql, is_read_only=True).batches())

    assert [one.rule_id for one in store.rules()] == [rule]
    assert admin.rows("SELECT rule_id FROM list_query_denials()", is_read_only=True) == [{"rule_id": rule}]


@pytest.mark.parametrize("name", ["list_view_set_definitions", '"list_view_set_definitions"'])
def test_definitions_of_views_are_for_administrators_however_they_are_asked_for(user, name):
    with pytest.raises((PermissionDenied, InvalidStatement)) as rejected:
        user.plan(f"SELECT $$x$$, * FROM {name}()")

    assert isinstance(rejected.value, PermissionDenied) or "not found" in str(rejected.value)
