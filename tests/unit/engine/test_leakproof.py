"""Which statements can fail on a value, and so need the barrier."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from datafusion import SessionConfig, SessionContext

from micromegas_jupyter.engine.security.barrier import is_leakproof
from tests.unit.engine.telling_statements import TELLING

if TYPE_CHECKING:
    from datafusion import DataFrame

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


def frame(sql: str) -> DataFrame:
    context = SessionContext(SessionConfig({"datafusion.sql_parser.map_string_types_to_utf8view": "false"}))
    rows = context.read_batch(pa.RecordBatch.from_pylist([{"id": 1, "secret": "a"}], schema=COLUMNS))
    context.register_table("ledger", rows.filter("id > 0").into_view())
    return context.sql(sql)


def leakproof(sql: str) -> bool:
    return is_leakproof(frame(sql), nested_columns={"tags"})


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
def test_comparisons_and_plain_aggregates_are_leakproof(sql: str) -> None:
    assert leakproof(sql)


@pytest.mark.parametrize("sql", [sql for sql in TELLING if any(word in sql for word in FAILING_WORDS)])
def test_a_statement_that_can_fail_is_not(sql: str) -> None:
    assert not leakproof(sql)


@pytest.mark.parametrize(
    "sql",
    [
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
def test_what_is_not_known_to_be_leakproof_is_not(sql: str) -> None:
    assert not leakproof(sql)
