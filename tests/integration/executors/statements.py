"""Statements that end their process or keep it busy; each was tried with DataFusion 55 in a process of its own.

With 2 GiB of memory (RLIMIT_DATA) and a pool of 512 MiB, each of `CRASHING` and `GROWING` ends such a process by
SIGABRT, as Rust's allocator does when it gets no more memory; `stack overflow` ends it by SIGSEGV.
"""

from tests.integration.executors.callers import TABLE

# One step asks for gigabytes: it ends the process at once, or after a second.
CRASHING = {
    "fixed-size list": "SELECT arrow_cast([1], 'FixedSizeList(2147483647, Int64)')",
    "nested fixed-size list": "SELECT arrow_cast(NULL, 'FixedSizeList(65536, FixedSizeList(65536, Int64))')",
    "fixed-size binary": "SELECT arrow_cast(X'00', 'FixedSizeBinary(2147483647)')",
    "fixed-size binary for each row": f"SELECT arrow_cast(NULL, 'FixedSizeBinary(1000000)') FROM {TABLE}",
    "quantile": "SELECT approx_percentile_cont(value, 0.5, 1000000000) FROM generate_series(1, 10)",
    "weighted quantile": "SELECT approx_percentile_cont_with_weight(value, 1, 0.5, 2000000000) "
    "FROM generate_series(1, 10)",
    "repeat": "SELECT repeat('x', CAST('2000000000' AS INT))",
    "repeat for each row": "SELECT length(repeat('x', value * 100000)) FROM generate_series(1, 100000)",
    "lpad for each row": f"SELECT lpad('x', 2000000000 - number, 'ab') FROM {TABLE}",
    "rpad": "SELECT rpad('x', CAST(10 AS BIGINT) * 200000000, 'y')",
    "array_repeat in each other": "SELECT array_repeat(array_repeat(array_repeat(1, 40000), 10), 10000 - 1)",
    "array_repeat for each row": f"SELECT array_length(array_repeat(number, 200000)) FROM {TABLE}",
    "regexp_replace": "SELECT length(regexp_replace(repeat('x', 100000), 'x', repeat('y', 100000), 'g'))",
    "replace": "SELECT replace(replace(repeat('x', 10000), 'x', repeat('x', 1000)), 'x', repeat('x', 1000))",
    "encode": "SELECT encode(encode(encode(encode(repeat('x', 9999999) || repeat('x', 9999999), 'hex'), 'hex'), "
    "'hex'), 'hex')",
    "concat_ws": f"SELECT length(concat_ws(s, s, s, s, s, s)) FROM (SELECT repeat('ab', 9000000) || process_id AS s "
    f"FROM {TABLE} LIMIT 100)",
    "overlay for each row": f"SELECT overlay(repeat('x', 9999999) placing process_id from 3) FROM {TABLE}",
    "digest for each row": "SELECT max(length(encode(sha512(repeat('ab', 1000000 + value % 10)), 'hex'))) "
    "FROM generate_series(1, 1000000)",
    "range for each row": "SELECT count(n) FROM (SELECT unnest(range(0, 100000)) AS n "
    "FROM generate_series(1, 1000000)) WHERE n % 7 = 3",
    "unnest": f"SELECT unnest(array_repeat(array_repeat(number, 1000), 200)) FROM {TABLE}",
    "recursive text": "WITH RECURSIVE r AS (SELECT 'x' AS s UNION ALL SELECT s || s FROM r) "
    "SELECT max(length(s)) FROM r",
    "recursive list": "WITH RECURSIVE r AS (SELECT [1] AS s UNION ALL SELECT array_concat(s, s) FROM r) "
    "SELECT max(array_length(s)) FROM r",
    "stack overflow": f"SELECT x FROM (SELECT number AS x FROM {TABLE}) ORDER BY x{'+x' * 32000}",
}

# Memory grows over seconds, past what the memory pool counts.
GROWING = {
    "array_to_string": "SELECT length(array_to_string(array_repeat('a', 9999999), repeat('b', 9999)))",
    "array_replace_all": "SELECT array_replace_all(array_repeat('a', 9999999), 'a', repeat('b', 9999))",
    "make_array": f"SELECT make_array({', '.join('a' * 40)}) FROM "
    f"(SELECT array_repeat(number, 1000) AS a FROM {TABLE})",
    "series of times": "SELECT generate_series(TIMESTAMP '1900-01-01', TIMESTAMP '2200-01-01', INTERVAL '1 second')",
    "string_agg": f"SELECT length(string_agg(repeat(process_id, 99999), '')) FROM {TABLE}",
    "array_agg": f"SELECT array_agg(repeat(process_id, 99999)) FROM {TABLE}",
    "distinct texts": f"SELECT count(DISTINCT repeat(process_id, 99999)) FROM {TABLE}",
    "groups of texts": f"SELECT count(*) FROM {TABLE} GROUP BY repeat(process_id, 99999)",
    "window of lists": "SELECT array_agg(value) OVER (ORDER BY value) FROM generate_series(1, 100000)",
    "window of texts": "SELECT max(length(a)) FROM (SELECT string_agg(repeat(process_id, 99), '') "
    f"OVER (ORDER BY number) AS a FROM {TABLE})",
    "least text": f"SELECT min(repeat(process_id, 150000)) FROM {TABLE}",
    "join of texts": f"SELECT count(*) FROM (SELECT repeat(process_id, 30000) AS t FROM {TABLE}) a "
    f"JOIN (SELECT repeat(process_id, 30000) AS t FROM {TABLE}) b ON a.t < b.t",
    "string_to_array": f"SELECT string_to_array(repeat('x,', 9999999), ',') FROM {TABLE}",
    "map": "SELECT map(range(0, 100000000 - 1), range(0, 100000000 - 1))",
    "cube": f"SELECT count(*) FROM {TABLE} GROUP BY CUBE({', '.join(f'number % {part}' for part in range(2, 27))})",
}

_MANY = "generate_series(1, 100000000000)"
_TEXTS = f"(SELECT repeat(process_id, 20) AS text, number FROM {TABLE})"

# Each keeps a processor busy for longer than a test waits.
BUSY = {
    "cross join": "SELECT sum(x * y) FROM generate_series(1, 1000000) a(x) CROSS JOIN generate_series(1, 1000000) b(y)",
    "join without an equality": "SELECT count(*) FROM generate_series(1, 1000000) a(x) "
    "JOIN generate_series(1, 1000000) b(y) ON x + y < 0 AND x * y % 7 = 3",
    "join by a range": f"SELECT count(*) FROM generate_series(1, 3000000) a(x) JOIN {TABLE} b "
    "ON x BETWEEN b.number AND b.number + 1000000",
    "fan-out join": "SELECT count(*) FROM (SELECT value % 2 AS k FROM generate_series(1, 300000)) a "
    "JOIN (SELECT value % 2 AS k FROM generate_series(1, 300000)) b USING (k)",
    "fan-out join with rows": "SELECT a.k FROM (SELECT value % 2 AS k FROM generate_series(1, 300000)) a "
    "JOIN (SELECT value % 2 AS k FROM generate_series(1, 300000)) b USING (k) ORDER BY random() LIMIT 5",
    "sort": f"SELECT value * 7919 % 100003 AS n FROM {_MANY} ORDER BY n",
    "window": "SELECT max(s) FROM (SELECT sum(value) OVER (ORDER BY -value) AS s FROM generate_series(1, 80000000))",
    "window with a wide frame": "SELECT max(s) FROM (SELECT median(value) OVER (ORDER BY value "
    "ROWS BETWEEN 20000 PRECEDING AND CURRENT ROW) AS s FROM generate_series(1, 10000000))",
    "recursion": "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
    "regular expression": "SELECT sum(regexp_count(text, '(p|r|o)+[a-z]*(c|e|s)+.*[0-9]$')) FROM "
    f"{_TEXTS} CROSS JOIN generate_series(1, 1000000)",
    "lists": "SELECT sum(array_length(array_sort(range(value, value + 2000000)))) FROM generate_series(1, 100000)",
    "string_agg": "SELECT sum(length(s)) FROM (SELECT string_agg(CAST(value AS VARCHAR), ',') AS s "
    "FROM generate_series(1, 2000000000) GROUP BY value / 1000)",
    "series": f"SELECT count(*) FROM {_MANY} WHERE value % 7 = 3",
    "distinct values": "SELECT count(DISTINCT value * 7) FROM generate_series(1, 1000000000)",
    "quantile": f"SELECT approx_percentile_cont(sqrt(value), 0.5) FROM {_MANY}",
    "unnest": "SELECT count(n) FROM (SELECT unnest(range(0, 1000)) AS n FROM generate_series(1, 100000000)) "
    "WHERE n % 7 = 3",
    "unions": " UNION ALL ".join(
        f"SELECT count(*) AS n FROM {_MANY} WHERE value % {part} = 1" for part in range(3, 19)
    ),
    "IN list": f"SELECT count(*) FROM {_MANY} WHERE value % 100000 IN ({', '.join(str(n * 97) for n in range(1000))})",
    "levenshtein": "SELECT max(levenshtein(repeat('ab', value), repeat('c', value))) "
    "FROM generate_series(90000, 90100)",
    "digests": "SELECT max(length(encode(sha512(repeat('ab', 2000 + value % 10)), 'hex'))) "
    "FROM generate_series(1, 100000000)",
    "correlated sub-query": "SELECT count(*) FROM generate_series(1, 2000000) a(x) WHERE EXISTS "
    "(SELECT 1 FROM generate_series(1, 1000000) b(y) WHERE y * 3 % 1000003 > x AND y + x < 0)",
    "except": f"SELECT count(*) FROM (SELECT value % 1000 FROM {_MANY} EXCEPT SELECT value % 999 FROM {_MANY})",
    "rows for the client": f"SELECT value, repeat('x', 100) FROM {_MANY}",
    "planning, one value": "SELECT levenshtein(repeat('ab', 150000), repeat('c', 300000)) AS distance",
}
