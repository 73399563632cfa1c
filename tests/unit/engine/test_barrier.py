"""The security barrier, and the statements that need none."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datafusion import SessionConfig, SessionContext, col

from micromegas_jupyter.engine.plans.terms import is_leakproof
from micromegas_jupyter.engine.security import barrier_holds, behind_barrier
from tests.unit.engine.statements import REVEALING

STATEMENTS = [
    "SELECT x FROM t WHERE CAST(s AS INT) = 1",
    "SELECT shown, CAST(s AS INT) + x AS n FROM t",
    "SELECT x FROM t ORDER BY CAST(s AS INT) LIMIT 3",
    "SELECT max(CAST(s AS INT)) AS n FROM t",
    "SELECT t.x FROM t JOIN (VALUES (1), (2)) AS u (k) ON CAST(t.s AS INT) = u.k WHERE u.k < 2",
    "SELECT CAST(s AS INT) AS n, count(*) AS c FROM t GROUP BY 1 ORDER BY 2 DESC LIMIT 1",
    "SELECT x FROM t WHERE EXISTS (SELECT 1 FROM t AS b WHERE CAST(b.s AS INT) = t.x)",
]


@pytest.fixture(params=["pushed into the reader", "above the reader"])
def context(request, tmp_path):
    """`t` is the shown rows of four files, behind the barrier; the filter lies in the reader or on it."""
    for number in range(4):
        rows = pa.table({"shown": [True, False] * 4, "s": ["1", "hidden"] * 4, "x": [number, 0] * 4})
        pq.write_table(rows, tmp_path / f"{number}.parquet", row_group_size=4)
    pushes = str(request.param == "pushed into the reader").lower()
    config = SessionConfig({"datafusion.execution.parquet.pushdown_filters": pushes}).with_target_partitions(2)
    context = SessionContext(config)
    shown = context.read_parquet(str(tmp_path)).filter(col("shown"))
    context.register_table("t", behind_barrier(shown).into_view())
    return context


def below(plan, node):
    """Return the lines of a plan that are deeper than each `node`."""
    found = []
    depth = None
    for line in plan.splitlines():
        indent = len(line) - len(line.lstrip())
        if depth is not None and indent > depth:
            found.append(line)
        else:
            depth = indent if line.lstrip().startswith(node) else None
    return "\n".join(found)


@pytest.mark.parametrize("sql", STATEMENTS)
def test_nothing_of_a_statement_is_below_the_barrier(context, sql):
    frame = context.sql(sql)
    optimised = frame.optimized_logical_plan().display_indent()
    physical = frame.execution_plan().display_indent()

    for plan, node in ((optimised, "Limit: skip=0, fetch=9223372036854775807"), (physical, "UnnestExec")):
        lower = below(plan, node)
        assert "shown" in lower
        assert not any(part in lower for part in ("CAST", "DynamicFilter", "SortExec", "AggregateExec", "Int32"))
    assert frame.to_pydict()


def test_the_self_test_passes():
    assert barrier_holds(SessionContext())


@pytest.mark.parametrize("barrier", [lambda rows: rows, lambda rows: rows.limit((1 << 63) - 1)], ids=["none", "limit"])
def test_the_self_test_knows_a_weak_barrier(barrier, caplog):
    one_partition = SessionContext(SessionConfig().with_target_partitions(1))

    assert not barrier_holds(one_partition, barrier)  # type: ignore[arg-type]

    assert "self-test" in caplog.text


COLUMNS = pa.schema(
    [
        ("id", pa.int64()),
        ("shown", pa.bool_()),
        ("secret", pa.string()),
        ("word", pa.string()),
        ("x", pa.int64()),
        ("small", pa.int32()),
        ("tags", pa.list_(pa.int64())),
        ("time", pa.timestamp("ns", "+00:00")),
    ]
)
FAILING_WORDS = ("CAST(", " / ", "regexp_like", "unnest", "approx", "array_agg")


def leakproof(sql):
    context = SessionContext(SessionConfig({"datafusion.sql_parser.map_string_types_to_utf8view": "false"}))
    rows = context.read_batch(pa.RecordBatch.from_pylist([{"id": 1, "secret": "a"}], schema=COLUMNS))
    context.register_table("ledger", rows.filter("id > 0").into_view())
    frame = context.sql(sql)
    try:
        optimized = frame.optimized_logical_plan()
    except Exception:  # noqa: BLE001 - it fails when it is run, too
        return False
    return is_leakproof(context, frame.logical_plan(), optimized, {})


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id FROM ledger",
        "SELECT id, secret AS s FROM ledger WHERE x = 1 AND (secret <> 'a' OR small IN (1, 2, 3, 4, 5))",
        "SELECT count(*) FROM ledger",
        "SELECT word, count(*) AS n, max(time), sum(x), count(DISTINCT id) FROM ledger GROUP BY word ORDER BY n DESC",
        "SELECT * EXCLUDE (tags) FROM ledger ORDER BY time DESC LIMIT 100",
        "SELECT id FROM ledger WHERE time >= now() - INTERVAL '1 hour' AND secret LIKE '%x%' AND word NOT ILIKE 'b'",
        "SELECT id FROM ledger WHERE time BETWEEN '2026-01-01T00:00:00Z' AND '2026-01-02T00:00:00Z'",
        "SELECT id FROM ledger WHERE NOT shown OR shown IS NOT TRUE OR x IS NULL OR x IS DISTINCT FROM 2",
        "SELECT a.id FROM ledger a JOIN ledger b ON a.id = b.x AND a.time < b.time",
        "SELECT id FROM ledger WHERE x IN (SELECT id FROM ledger)",
        "SELECT id FROM ledger UNION ALL SELECT x FROM ledger",
        "WITH c AS (SELECT DISTINCT word FROM ledger) SELECT * FROM c LIMIT 5",
    ],
)
def test_comparisons_and_plain_aggregates_are_leakproof(sql):
    assert leakproof(sql)


@pytest.mark.parametrize(
    "sql",
    [
        *(sql for sql in REVEALING if any(word in sql for word in FAILING_WORDS)),
        "SELECT id FROM ledger WHERE secret = 1",
        "SELECT id FROM ledger WHERE secret LIKE word",
        "SELECT id FROM ledger WHERE tags = [1]",
        "SELECT tags AS t FROM ledger",
        "SELECT lower(secret) FROM ledger",
        "SELECT x + 1 FROM ledger",
        "SELECT -x FROM ledger",
        "SELECT secret || word FROM ledger",
        "SELECT secret ~ word FROM ledger",
        "SELECT id FROM ledger WHERE secret SIMILAR TO word",
        "SELECT CASE WHEN x = 1 THEN id END FROM ledger",
        "SELECT max(id) FILTER (WHERE x = 1) FROM ledger",
        "SELECT first_value(id ORDER BY x) FROM ledger",
        "SELECT string_agg(secret, ',') FROM ledger",
        "SELECT id, row_number() OVER (ORDER BY x) FROM ledger",
        "SELECT id FROM ledger WHERE x = (SELECT max(id) FROM ledger)",
        "SELECT DISTINCT ON (x) id FROM ledger ORDER BY x, id",
        "SELECT id FROM ledger WHERE x = $1",
        "SELECT id FROM ledger WHERE random() < 0.5",
        "WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r WHERE i < 3) SELECT * FROM r",
        "SELECT id FROM ledger WHERE x = 1 / 0",
    ],
)
def test_what_can_fail_or_is_not_known_to_be_leakproof_is_not(sql):
    assert not leakproof(sql)
