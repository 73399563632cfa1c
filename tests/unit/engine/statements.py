"""Statements that fail, each with the line and column that its error names, and those that reveal hidden rows."""

from __future__ import annotations

from typing import Final

Failing = tuple[str, tuple[int, int] | None]

INVALID: Final[tuple[Failing, ...]] = (
    ("SELECT", (1, 7)),
    ("SELEC 1", (1, 1)),
    ("SELECT * FORM log_entries", (1, 10)),
    ("SELECT 1)", (1, 9)),
    ("SELECT 'abc", (1, 8)),
    ("SELECT 1 /* open", (1, 17)),
    ("SELECT * FROM log_entries LIMIT x", (1, 33)),
    ("SELECT * FROM nowhere", (1, 15)),
    ("SELECT nofunc(1)", (1, 8)),
    ("SELECT process_id FROM log_entries a, processes b", (1, 8)),
    ("SELECT level, count(*) FROM log_entries", (1, 8)),
    ("SELECT sum(msg) FROM log_entries", (1, 8)),
    ("SELECT level || 1 FROM log_entries WHERE level", (1, 8)),
    ("SELECT date_trunc('x', now())", None),
    ("SELECT 1/0", None),
    ("SELECT regexp_like('a', '(')", None),
    ("SELECT s['nope'] FROM nested", None),
    ("SELECT * FROM log_entries ORDER BY 99", None),
    ("SELECT approx_percentile_cont('x') WITHIN GROUP (ORDER BY level) FROM log_entries", (1, 8)),
    ("SELECT * FROM (VALUES (1, 2), (3)) AS t", None),
    ("SELECT $1", None),
    ("SELECT * FROM log_entries WHERE level = $level", None),
    ("SELECT * FROM '/etc/passwd'", None),
    ('SELECT * FROM "/etc/passwd"', (1, 15)),
    ("SELECT * FROM parquet_metadata('/etc/x.parquet')", (1, 15)),
    ("EXPLAIN", (1, 8)),
    ("EXPLAIN SELECT nobody FROM log_entries", (1, 16)),
    ("EXPLAIN ANALYZE SELECT 1 / (level - level) FROM log_entries", None),
    ("SELECT E'\\u00'", (1, 8)),
)

UNSUPPORTED: Final[tuple[Failing, ...]] = (
    ("SELECT 'a\0b'", None),
    ("SELECT CAST(1 AS nonsense)", (1, 18)),
    ("SELECT CAST(s AS INT) FROM nested", None),
    ("SELECT * FROM log_entries PIVOT (count(level) FOR level IN (1, 2))", None),
    ('SELECT msg COLLATE "x" FROM log_entries', None),
)

REFUSED: Final[tuple[Failing, ...]] = (
    ("SELECT 1; SELECT 2", None),
    ("DROP TABLE log_entries", None),
    ("CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'", None),
    ("KILL 1", None),
)

_PAIRS: Final = "SELECT a.value x, b.value y FROM generate_series(1,3000) a, generate_series(1,3000) b"
_LONG: Final = "generate_series(1,2000000)"
EXHAUSTED: Final[tuple[Failing, ...]] = (
    (f"SELECT x, y, count(*) FROM ({_PAIRS}) GROUP BY x, y", None),
    (f"SELECT a.value FROM {_LONG} a JOIN {_LONG} b ON a.value = b.value ORDER BY b.value", None),
    ("SELECT approx_percentile_cont(level, 0.5, 9223372036854775807) FROM log_entries", None),
)


REVEALING: Final = (
    "SELECT id FROM ledger WHERE CAST(secret AS INT) = 7",
    "SELECT id FROM ledger WHERE CAST(word AS INT) = 7",
    "SELECT id FROM ledger WHERE 1 / (x - 5) < 3",
    "SELECT id FROM ledger WHERE shown AND CAST(secret AS INT) = 7",
    "SELECT id FROM ledger WHERE 1 / (x - 5) = 0 OR shown",
    "SELECT id FROM ledger WHERE CASE WHEN secret = 'hidden' THEN 1 / (x - 5) > 0 ELSE true END",
    "SELECT id FROM ledger WHERE COALESCE(CAST(secret AS INT), 1 / (x - 5)) = 7",
    "SELECT id FROM ledger WHERE regexp_like('7', CASE WHEN secret = 'hidden' THEN '(' ELSE secret END)",
    "SELECT CAST(secret AS INT) AS n FROM ledger",
    "SELECT CAST(word AS INT) AS n FROM ledger",
    "SELECT CASE WHEN x = 5 THEN 1 / (x - 5) ELSE 0 END AS n FROM ledger",
    "SELECT COALESCE(CAST(secret AS INT), 1) AS n FROM ledger",
    "SELECT shown, CAST(secret AS INT) + id AS n FROM ledger",
    "SELECT tags, CAST(secret AS INT) + id AS n FROM ledger",
    "SELECT tags, 1 / (x - 5) + id AS n FROM ledger ORDER BY n LIMIT 1",
    "SELECT id, 1 / (x - 5) + length(secret) AS n FROM ledger",
    "SELECT tags, shown, id, CAST(secret AS INT) + x AS n FROM ledger",
    "SELECT id FROM (SELECT id, tags, shown, CAST(secret AS INT) + x AS n FROM ledger) WHERE n = 8",
    "SELECT id FROM ledger ORDER BY 1 / (x - 5), id LIMIT 3",
    "SELECT id FROM ledger ORDER BY CAST(secret AS INT) DESC, id LIMIT 3",
    "SELECT sum(1 / (x - 5)) AS n FROM ledger",
    "SELECT max(CAST(secret AS INT)) AS n, min(1 / (x - 5)) AS m FROM ledger",
    "SELECT count(*) FILTER (WHERE CAST(secret AS INT) = 7) AS n FROM ledger",
    "SELECT array_agg(id ORDER BY CAST(secret AS INT), id) AS n FROM ledger",
    "SELECT 1 / (x - 5) AS q, count(*) AS n FROM ledger GROUP BY 1",
    "SELECT secret FROM ledger GROUP BY secret HAVING CAST(secret AS INT) = 7",
    "SELECT DISTINCT CAST(secret AS INT) AS n FROM ledger",
    "SELECT id, row_number() OVER (PARTITION BY CAST(secret AS INT) ORDER BY 1 / (x - 5), id) AS n FROM ledger",
    "SELECT id FROM (SELECT *, rank() OVER (PARTITION BY secret ORDER BY id) AS r FROM ledger) WHERE 7 / (x - 5) < r",
    "SELECT l.id FROM ledger l JOIN (VALUES (7)) AS u (k) ON CAST(l.secret AS INT) = u.k",
    "SELECT l.id, u.k FROM (VALUES (7)) AS u (k) LEFT JOIN ledger l ON CAST(l.secret AS INT) = u.k",
    "SELECT l.id, u.k FROM (VALUES (0)) AS u (k) RIGHT JOIN ledger l ON 1 / (l.x - 5) = u.k",
    "SELECT l.id, u.k FROM (VALUES (0)) AS u (k) FULL JOIN ledger l ON 1 / (l.x - 5) = u.k",
    "SELECT l.id FROM ledger l, (VALUES (0)) AS u (k) WHERE 1 / (l.x - 5) >= u.k",
    "SELECT a.id FROM ledger a, ledger b WHERE CAST(a.secret AS INT) = CAST(b.secret AS INT) AND a.id = b.id",
    "WITH c AS (SELECT CAST(secret AS INT) AS c, id FROM ledger) SELECT a.c FROM c a JOIN c b ON a.id = b.id",
    "SELECT k FROM (VALUES (7), (8)) AS u (k) WHERE k IN (SELECT CAST(secret AS INT) FROM ledger)",
    "SELECT k FROM (VALUES (7), (8)) AS u (k) WHERE k NOT IN (SELECT CAST(secret AS INT) FROM ledger)",
    "SELECT k FROM (VALUES (7)) AS u (k) WHERE EXISTS (SELECT 1 FROM ledger l WHERE CAST(l.secret AS INT) = u.k)",
    "SELECT id FROM ledger WHERE CAST(secret AS INT) IN (SELECT k FROM (VALUES (7)) AS u (k))",
    "SELECT id FROM ledger WHERE 1 / (x - 5) < (SELECT max(k) FROM (VALUES (7)) AS u (k))",
    "SELECT (SELECT max(CAST(secret AS INT)) FROM ledger) AS n",
    "SELECT CAST(secret AS INT) AS n FROM ledger UNION ALL SELECT 1",
    "SELECT CAST(secret AS INT) AS n FROM ledger UNION SELECT x FROM ledger",
    "SELECT CAST(secret AS INT) AS n FROM ledger EXCEPT SELECT 1",
    "SELECT unnest([CAST(secret AS INT), 1 / (x - 5)]) AS n FROM ledger",
    "SELECT count(*) AS n FROM ledger",
    "SELECT min(x) AS a, max(x) AS b, count(x) AS c, min(secret) AS d, max(secret) AS e, min(word) AS f FROM ledger",
    "SELECT max(id) AS a, max(time) AS b FROM ledger",
    "SELECT count(DISTINCT secret) AS a, count(DISTINCT word) AS b FROM ledger",
    "SELECT approx_distinct(secret) AS n FROM ledger",
    "SELECT * FROM ledger WHERE NOT shown OR shown IS NULL OR x = 5",
    "SELECT id FROM ledger WHERE secret = 'hidden' OR word LIKE 'h%' OR id IN (1, 3, 5)",
    "SELECT * FROM ledger ORDER BY id DESC LIMIT 4",
    "SELECT word, count(*) AS n FROM ledger GROUP BY word",
)
