"""Which materialized views callers may read if conditions decide which rows of the source they see."""

import random
from dataclasses import replace

import pyarrow as pa
import pytest
from datafusion import SessionContext

from micromegas_jupyter.core.protocols import Materialized, TableAccess, TableSnapshot
from micromegas_jupyter.engine import view_rights
from micromegas_jupyter.engine.security import condition_problem
from micromegas_jupyter.engine.tables import restrict_past
from micromegas_jupyter.errors import UnsupportedStatement
from tests.fakes.fixed_tables import CALLER

SOURCE = pa.schema(
    [
        ("exe", pa.string()),
        ("msg", pa.string()),
        ("level", pa.int32()),
        ("value", pa.float64()),
        ("Exe", pa.string()),
        ("time", pa.timestamp("us", "UTC")),
    ]
)
NONE = pa.schema([])
KEYS = "SELECT exe, level, count(*) AS n FROM logs GROUP BY exe, level"
MERGE = "SELECT exe, level, sum(n) AS n FROM {source} GROUP BY exe, level"
MERGED = "SELECT exe, sum(n) AS n FROM {source} GROUP BY exe"


def view_condition(view, conditions):
    return view_rights.view_condition(view, conditions, condition_problem)


def context(source=(), schema=SOURCE):
    found = SessionContext()
    found.register_record_batches("logs", [[pa.RecordBatch.from_pylist(list(source), schema=schema)]])
    return found


def snapshot(extract, merge=MERGED, *, schema=SOURCE, stored=None, **source):
    """Return a view with the columns that its extract_query has."""
    stored = stored or context(schema=schema).sql(extract).schema()
    facts = Materialized(
        source=TableSnapshot(name="logs", schema=schema, files=(), **source), extract_sql=extract, properties={}
    )
    return TableSnapshot(
        name="v",
        schema=stored,
        files=(),
        raw_name="__v__partitions",
        merge_sql=merge.replace("{source}", '"__v__partitions"'),
        materialized=facts,
    )


READABLE = (
    (KEYS, MERGE, "exe = 'x' AND level < 3"),
    (KEYS, MERGE, "EXE = 'x'"),
    (KEYS, MERGE, "\"exe\" IN ('x', 'y')"),
    ("SELECT EXE, count(*) AS n FROM Logs GROUP BY 1", MERGED, "exe = 'x'"),
    ('SELECT "Exe", count(*) AS n FROM logs GROUP BY 1', MERGED.replace("exe", '"Exe"'), "\"Exe\" = 'x'"),
    ("SELECT l.exe, count(*) AS n FROM logs AS l WHERE level < 3 GROUP BY l.exe ORDER BY n", MERGED, "exe = 'x'"),
    ("SELECT exe, count(*) AS n FROM logs GROUP BY exe HAVING count(*) > 2", MERGED, "exe = 'x'"),
    ("SELECT exe, n FROM (SELECT exe, msg, count(*) AS n FROM logs GROUP BY 1, 2) AS inner_rows", MERGED, "exe = 'x'"),
    ("WITH c AS (SELECT * FROM logs) SELECT exe, count(*) AS n FROM c GROUP BY ALL", MERGED, "exe = 'x'"),
    ("SELECT p AS exe, n FROM (SELECT exe AS p, count(*) AS n FROM logs GROUP BY exe) AS t", MERGED, "exe = 'x'"),
    ("SELECT * FROM logs", "SELECT * FROM {source}", "exe = 'x' OR msg IS NULL"),
    ("SELECT date_trunc('hour', time) AS t, exe, count(*) AS n FROM logs GROUP BY 1, 2", MERGED, "exe = 'x'"),
    ("SELECT exe, level AS msg, count(*) AS n FROM logs GROUP BY 1, 2", MERGED, "exe = 'x'"),
)
HIDDEN = (
    # Names: another column, or another value, has the name of the condition's column.
    ("SELECT msg AS exe, count(*) AS n FROM logs GROUP BY msg", MERGED, "exe = 'x'"),
    ("SELECT msg AS exe, exe AS msg, 1 AS n FROM logs GROUP BY exe, msg", MERGED, "exe = 'x'"),
    ("SELECT exe AS program, count(*) AS n FROM logs GROUP BY exe", MERGED.replace("exe", "program"), "exe = 'x'"),
    ('SELECT "Exe" AS exe, count(*) AS n FROM logs GROUP BY "Exe"', MERGED, "exe = 'x'"),
    ('SELECT exe AS "Exe", count(*) AS n FROM logs GROUP BY exe', MERGED.replace("exe", '"Exe"'), "exe = 'x'"),
    ("SELECT exe, count(*) AS n FROM logs AS t(msg, exe, level, v, e, at) GROUP BY exe", MERGED, "exe = 'x'"),
    (
        "WITH logs AS (SELECT msg AS exe FROM logs) SELECT exe, count(*) AS n FROM logs GROUP BY exe",
        MERGED,
        "exe = 'x'",
    ),
    ("WITH logs AS (SELECT 'x' AS exe) SELECT exe, count(*) AS n FROM logs GROUP BY exe", MERGED, "exe = 'x'"),
    ("SELECT exe, 1 AS n FROM (SELECT msg AS exe, exe AS msg FROM logs) AS t GROUP BY exe", MERGED, "exe = 'x'"),
    # Values that are computed.
    ("SELECT first_value(exe) AS exe, count(*) AS n FROM logs GROUP BY level", MERGED, "exe = 'x'"),
    ("SELECT max(exe) AS exe, count(*) AS n FROM logs GROUP BY msg", MERGED, "exe = 'x'"),
    ("SELECT coalesce(exe, 'x') AS exe, count(*) AS n FROM logs GROUP BY 1", MERGED, "exe = 'x'"),
    (
        "SELECT CASE WHEN level = 1 THEN 'x' ELSE exe END AS exe, count(*) AS n FROM logs GROUP BY 1",
        MERGED,
        "exe = 'x'",
    ),
    ("SELECT CAST(exe AS VARCHAR) || '' AS exe, count(*) AS n FROM logs GROUP BY 1", MERGED, "exe = 'x'"),
    ("SELECT trim(exe) AS exe, count(*) AS n FROM logs GROUP BY 1", MERGED, "exe = 'x'"),
    ("SELECT 'x' AS exe, count(*) AS n FROM logs", MERGED, "exe = 'x'"),
    (
        "SELECT CAST(level AS BIGINT) AS level, count(*) AS n FROM logs GROUP BY 1",
        MERGED.replace("exe", "level"),
        "level < 3",
    ),
    # Rows that stand for rows of several groups.
    ("SELECT exe, count(*) AS n FROM logs GROUP BY CUBE(exe, level)", MERGED, "exe = 'x'"),
    ("SELECT exe, count(*) AS n FROM logs GROUP BY ROLLUP(exe)", MERGED, "exe IS NULL"),
    ("SELECT exe, count(*) AS n FROM logs GROUP BY level, ROLLUP(exe)", MERGED, "exe IS NULL"),
    ("SELECT exe, level, count(*) AS n FROM logs GROUP BY GROUPING SETS ((exe), (level))", MERGE, "exe IS NULL"),
    ("SELECT a.exe, count(*) AS n FROM logs a JOIN logs b ON a.level = b.level GROUP BY a.exe", MERGED, "exe = 'x'"),
    ("SELECT exe, count(*) AS n FROM logs CROSS JOIN (SELECT 1 AS one) AS t GROUP BY exe", MERGED, "exe = 'x'"),
    ("SELECT exe, 1 AS n FROM logs UNION ALL SELECT 'x', level FROM logs", MERGED, "exe = 'x'"),
    ("SELECT exe, 1 AS n FROM logs EXCEPT SELECT msg, 1 FROM logs", MERGED, "exe = 'x'"),
    ("SELECT exe, level AS n FROM logs LIMIT 5", MERGED, "exe = 'x'"),
    ("SELECT exe, level AS n FROM logs ORDER BY time LIMIT 5", MERGED, "exe = 'x'"),
    ("SELECT exe, n FROM (SELECT exe, level AS n FROM logs ORDER BY time LIMIT 5) AS t", MERGED, "exe = 'x'"),
    ("SELECT exe, level AS n FROM logs OFFSET 1", MERGED, "exe = 'x'"),
    ("SELECT exe, count(*) OVER () AS n FROM logs", MERGED, "exe = 'x'"),
    ("SELECT exe, lag(msg) OVER (ORDER BY time) AS n FROM logs", "SELECT exe, n FROM {source}", "exe = 'x'"),
    ("SELECT DISTINCT ON (level) exe, level AS n FROM logs ORDER BY level, time", MERGED, "exe = 'x'"),
    ("SELECT exe, (SELECT count(*) FROM logs) AS n FROM logs GROUP BY exe", MERGED, "exe = 'x'"),
    (
        "SELECT exe, count(*) AS n FROM logs WHERE level = (SELECT max(level) FROM logs) GROUP BY exe",
        MERGED,
        "exe = 'x'",
    ),
    ("SELECT exe, count(*) AS n FROM logs WHERE msg IN (SELECT exe FROM logs) GROUP BY exe", MERGED, "exe = 'x'"),
    (
        "SELECT exe, count(*) AS n FROM logs l WHERE EXISTS (SELECT 1 FROM logs o WHERE o.msg = l.exe) GROUP BY exe",
        MERGED,
        "exe = 'x'",
    ),
    ("SELECT exe, count(*) AS n FROM logs WHERE random() < 0.5 GROUP BY exe", MERGED, "exe = 'x'"),
    ("SELECT exe, uuid() AS n FROM logs", "SELECT exe, n FROM {source}", "exe = 'x'"),
    ("SELECT exe, unnest(make_array(level, 1)) AS n FROM logs", MERGED, "exe = 'x'"),
    # The condition uses what isn't a key.
    (KEYS, MERGE, "msg = 'x'"),
    (KEYS, MERGE, "exe = 'x' OR value > 1"),
    (KEYS, MERGE, "n > 1"),
    ("SELECT count(*) AS n FROM logs", "SELECT sum(n) AS n FROM {source}", "TRUE"),
    ("SELECT value, count(*) AS n FROM logs GROUP BY value", MERGED.replace("exe", "value"), "value > 0.0"),
    # The merge_partitions_query changes it.
    (KEYS, "SELECT 'x' AS exe, level, sum(n) AS n FROM {source} GROUP BY level", "exe = 'x'"),
    (KEYS, "SELECT max(exe) AS exe, level, sum(n) AS n FROM {source} GROUP BY level", "exe = 'x'"),
    (KEYS, "SELECT exe, level, sum(n) OVER () AS n FROM {source}", "exe = 'x'"),
    (KEYS, "SELECT exe, level, sum(n) AS n FROM {source} GROUP BY exe, level LIMIT 3", "exe = 'x'"),
    (KEYS, "SELECT exe, level, sum(n) AS n FROM {source} GROUP BY CUBE(exe, level)", "exe = 'x'"),
    (KEYS, "SELECT a.exe, a.level, a.n FROM {source} a JOIN {source} b ON a.level = b.level", "exe = 'x'"),
    (KEYS, "SELECT exe, level, sum(n) AS n FROM missing GROUP BY exe, level", "exe = 'x'"),
    (
        "SELECT exe, msg, count(*) AS n FROM logs GROUP BY exe, msg",
        "SELECT msg AS exe, exe AS msg, sum(n) AS n FROM {source} GROUP BY msg, exe",
        "exe = 'x'",
    ),
)  # fmt: skip


@pytest.mark.parametrize(("extract", "merge", "condition"), READABLE)
def test_a_condition_on_keys_of_both_queries_holds_on_the_view(extract, merge, condition):
    assert view_condition(snapshot(extract, merge), (condition,)) == (condition,)


@pytest.mark.parametrize(("extract", "merge", "condition"), HIDDEN)
def test_a_view_does_not_exist_for_other_conditions(extract, merge, condition):
    assert view_condition(snapshot(extract, merge), (condition,)) is None


def test_all_conditions_must_be_about_keys():
    view = snapshot(KEYS, MERGE)

    assert view_condition(view, ()) == ()
    assert view_condition(view, ("exe = 'x'", "level = 1")) == ("exe = 'x'", "level = 1")
    assert view_condition(view, ("exe = 'x'", "msg = 'x'")) is None
    assert view_condition(view, ("exe =",)) is None


def test_a_column_that_is_stored_in_another_form_is_not_the_source_s():
    nanoseconds = pa.schema([("exe", pa.string()), ("at", pa.timestamp("ns", "UTC"))])
    stored = pa.schema([("at", pa.timestamp("us", "UTC")), ("n", pa.int64())])
    extract, merge = "SELECT at, count(*) AS n FROM logs GROUP BY at", MERGED.replace("exe", "at")
    condition = ("at > '2026-01-01T00:00:00Z'",)

    assert view_condition(snapshot(extract, merge, schema=nanoseconds), condition) == condition
    assert view_condition(snapshot(extract, merge, schema=nanoseconds, stored=stored), condition) is None
    assert view_condition(snapshot(extract, merge, schema=nanoseconds, split_times=("at",)), condition) is None


def test_a_source_whose_rows_are_computed_has_no_conditions_for_views():
    assert view_condition(snapshot(KEYS, MERGE, merge_sql="SELECT * FROM raw", raw_name="raw"), ("exe = 'x'",)) is None


def test_an_earlier_version_of_a_view_without_its_source_is_not_read():
    view = snapshot(KEYS, MERGE)
    past = replace(
        view, materialized=replace(view.materialized, source=TableSnapshot(name="logs", schema=NONE, files=()))
    )
    filtered = replace(CALLER, table_access=TableAccess(filters={"logs": ("exe = 'x'",), "v": ()}))

    assert restrict_past(view, filtered, {}).source_conditions == ("exe = 'x'",)
    with pytest.raises(UnsupportedStatement):
        restrict_past(past, filtered, {})


#: What a query may do that changes which rows a row stands for; most queries do none of it.
_KEYS = (
    "msg AS exe", "exe AS msg", "coalesce(exe, 'x') AS exe", "lower(msg) AS msg", "nullif(level, 2) AS level",
    "CASE WHEN level = 1 THEN 'x' ELSE exe END AS exe", "level AS exe", '"Exe" AS exe',
)  # fmt: skip
_FROM = (
    '(SELECT msg AS exe, exe AS msg, level, "Exe" FROM logs) AS t', "(SELECT DISTINCT * FROM logs) AS t",
    "(SELECT * FROM logs WHERE exe <> 'y') AS t", "logs LEFT JOIN (SELECT level AS l FROM logs) AS o ON level = l",
    '(SELECT * FROM logs ORDER BY exe, msg, level, "Exe" LIMIT 2) AS t', "logs WHERE msg IN (SELECT exe FROM logs)",
    "(SELECT * FROM logs UNION ALL SELECT * FROM logs) AS t", "logs WHERE level > 1",
    '(SELECT first_value(exe) AS exe, msg, level, "Exe" FROM logs GROUP BY 2, 3, 4) AS t',
    '(SELECT exe, msg, level, "Exe", count(*) AS c FROM logs GROUP BY 1, 2, 3, 4) AS t',
)  # fmt: skip
_GROUPS = ("CUBE({})", "ROLLUP({})", "GROUPING SETS (({}), ())")
_MERGED = ("max({0}) AS {0}", "coalesce({0}, {0}) AS {0}", "nullif({0}, {0}) AS {0}")
_HAVING = ("HAVING count(*) > 1", "HAVING count(*) > (SELECT count(*) FROM logs) / 2")
_CONDITIONS = (
    "exe = 'x'", "exe IS NULL", "exe IS DISTINCT FROM 'x'", "exe IN ('x', '')", "msg = 'x'", "level = 1",
    "level IS NULL", "\"Exe\" = 'x'", "exe = 'x' AND level = 1", "exe = 'x' OR msg = 'x'",
)  # fmt: skip


def _queries(chance):
    """Return the queries of a view that has some keys, and the number of rows that a row stands for."""

    def perhaps(unusual, usual):
        return chance.choice(unusual) if chance.random() < 0.15 else usual

    chosen = {key.rpartition(" AS ")[2]: perhaps([one for one in _KEYS if one.endswith(f" AS {key}")] or [key], key)
              for key in chance.sample(["exe", "msg", "level", '"Exe"'], chance.randint(1, 4))}  # fmt: skip
    grouped = perhaps(_GROUPS, "{}").format(", ".join(key.rpartition(" AS ")[0] or key for key in chosen.values()))
    extract = f"SELECT {', '.join(chosen.values())}, count(*) AS n FROM {perhaps(_FROM, 'logs')} GROUP BY {grouped}"
    merged = [perhaps(_MERGED, "{0}").format(name) for name in chosen]
    places = [str(at) for at, key in enumerate(merged, 1) if not key.startswith("max")]
    by = f"GROUP BY {', '.join(places)}" if places else ""
    return f"{extract} {perhaps(_HAVING, '')}", f"SELECT {', '.join(merged)}, sum(n) AS n FROM {{source}} {by}"


def _rows(chance):
    texts = ("x", "y", "", None)
    return [
        {**{name: chance.choice(texts) for name in ("exe", "msg", "Exe")}, "level": chance.choice((1, 2, None))}
        for _ in range(chance.randint(1, 9))
    ]


def _results(view, rows, condition=None):
    """Return the rows of a view of these rows, those that meet a condition."""
    session = context(rows)
    found = session.sql(view.materialized.extract_sql).to_arrow_table().combine_chunks()
    batches = found.to_batches() or [pa.RecordBatch.from_pylist([], found.schema)]
    session.register_record_batches(view.raw_name, [batches])
    merged = session.sql(view.merge_sql)
    merged = merged if condition is None else merged.filter(merged.parse_sql_expr(condition))
    return sorted(map(str, merged.to_pylist()))


def _meeting(rows, condition):
    found = context(rows).sql("SELECT * FROM logs")
    return found.filter(found.parse_sql_expr(condition)).to_pylist()


@pytest.mark.parametrize("count", [60, pytest.param(3000, marks=pytest.mark.long)])
def test_a_condition_on_a_view_gives_what_the_view_of_the_visible_rows_gives(count):
    different, readable, planned = [], 0, 0
    for seed in range(count):
        chance = random.Random(seed)
        sql, condition, rows = _queries(chance), chance.choice(_CONDITIONS), _rows(chance)
        try:
            view = snapshot(*sql)
        except ValueError:  # it can't be planned
            continue
        known, planned = view_condition(view, (condition,)), planned + 1
        if known is not None:
            readable += 1
            if _results(view, rows, *known) != _results(view, _meeting(rows, condition)):
                different.append((seed, sql, condition))

    assert different == []
    assert planned / 10 < readable < planned / 2
    assert planned > count / 2
