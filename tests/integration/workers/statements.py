"""Twelve kinds of statements that keep a processor busy for longer than any test, most of them for ever."""

from __future__ import annotations

MANY = "generate_series(1, 100000000000)"

STATEMENTS = {
    "cross join": "SELECT sum(x * y) FROM generate_series(1, 1000000) a(x) CROSS JOIN generate_series(1, 1000000) b(y)",
    "nested-loop join": "SELECT count(*) FROM generate_series(1, 1000000) a(x) JOIN generate_series(1, 1000000) b(y)"
    " ON x + y < 0 AND x * y % 7 = 3",
    "hash join with many matches": "SELECT count(*) FROM (SELECT value % 2 AS k FROM generate_series(1, 300000)) a"
    " JOIN (SELECT value % 2 AS k FROM generate_series(1, 300000)) b USING (k)",
    "large sort": "SELECT value FROM generate_series(1, 300000000) ORDER BY value % 1000, -value",
    "recursive query": "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
    "aggregate without an end": f"SELECT count(*) FROM {MANY} WHERE value % 7 = 3",
    "large window": "SELECT max(s) FROM (SELECT sum(value) OVER (ORDER BY -value) AS s"
    " FROM generate_series(1, 80000000))",
    "many distinct values": "SELECT count(DISTINCT value * 7) FROM generate_series(1, 1000000000)",
    "long texts": "SELECT max(levenshtein(repeat('ab', value), repeat('c', value))) FROM generate_series(90000, 90100)",
    "union of many": " UNION ALL ".join(
        f"SELECT count(*) AS n FROM {MANY} WHERE value % {part} = 1" for part in range(3, 19)
    ),
    "array functions": "SELECT sum(array_length(array_sort(range(value, value + 2000000))))"
    " FROM generate_series(1, 100000)",
    "long planning": "SELECT levenshtein(repeat('ab', 150000), repeat('c', 300000)) AS distance",
}
