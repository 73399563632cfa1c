"""What the engine would leave out of a statement is refused with its place; a name is a name."""

from __future__ import annotations

import pytest
from datafusion import SessionContext

from micromegas_jupyter.engine.planning.guard import check_no_ignored_clause
from micromegas_jupyter.engine.scanner import scan
from micromegas_jupyter.errors import UnsupportedStatement

LEFT_OUT = [
    ("SELECT n FROM t TABLESAMPLE (10)", "TABLESAMPLE", (1, 17)),
    ("SELECT n FROM t AS o\n TableSample bernoulli (10)", "TABLESAMPLE", (2, 2)),
    ("SELECT n FROM (SELECT n FROM t) TABLESAMPLE SYSTEM (10) REPEATABLE (1)", "TABLESAMPLE", (1, 33)),
    ("SELECT n FROM t PREWHERE n = 1", "PREWHERE", (1, 17)),
    ('SELECT n FROM "t" PREWHERE (n = 1) WHERE n < 3', "PREWHERE", (1, 19)),
    ("SELECT n FROM t o PREWHERE NOT n = 1", "PREWHERE", (1, 19)),
    ("SELECT n, count(*) FROM t GROUP BY n WITH ROLLUP", "WITH ROLLUP", (1, 38)),
    ("SELECT n, count(*) FROM t GROUP BY n WITH CUBE ORDER BY n", "WITH CUBE", (1, 38)),
    ("SELECT n, count(*) FROM t GROUP BY ROLLUP (n) WITH TOTALS", "WITH TOTALS", (1, 47)),
    ("SELECT n FROM t START WITH n = 1 CONNECT BY PRIOR n = n", "CONNECT BY", (1, 34)),
    ("SELECT * ILIKE '%a%' FROM t", "ILIKE", (1, 8)),
    ("SELECT n FROM t SAMPLE 0.1", "SAMPLE", (1, 17)),
    ("SELECT n FROM t SAMPLE .1", "SAMPLE", (1, 17)),
    ("SELECT n FROM t AS o SAMPLE (10)", "SAMPLE", (1, 22)),
    ("SELECT n FROM (SELECT n FROM t) SAMPLE (1 ROWS)", "SAMPLE", (1, 33)),
    ("SELECT n FROM t PARTITION (p0) WHERE n = 1", "PARTITION", (1, 17)),
    ("SELECT n FROM t WITH ORDINALITY", "WITH ORDINALITY", (1, 17)),
    ("SELECT n FROM t WITH ORDINALITY AS o", "WITH ORDINALITY", (1, 17)),
    ("SELECT n FROM t FOR XML PATH", "FOR XML", (1, 17)),
    ("SELECT n FROM t WHERE n > 0 FOR JSON AUTO", "FOR JSON", (1, 29)),
    ("SELECT n FROM t PREWHERE -n = -1", "PREWHERE", (1, 17)),
    ("SELECT n FROM t PREWHERE +n = 1", "PREWHERE", (1, 17)),
    ("SELECT n FROM t PREWHERE :n = 1", "PREWHERE", (1, 17)),
    ("SELECT n FROM t PREWHERE left('One', 1) = 'O'", "PREWHERE", (1, 17)),
    ("SELECT n FROM t PREWHERE right('One', 1) = 'e'", "PREWHERE", (1, 17)),
]
HEEDED = [
    "SELECT prewhere, tablesample, connect, rollup FROM named",
    "SELECT n AS prewhere, n tablesample FROM t ORDER BY prewhere DESC, tablesample",
    "SELECT n prewhere FROM t WHERE n = 1",
    "SELECT tablesample FROM named WHERE prewhere AND prewhere IS NOT NULL OR NOT prewhere",
    "SELECT CASE WHEN prewhere THEN connect ELSE rollup END FROM named GROUP BY connect, prewhere, 1",
    "SELECT prewhere FROM named AS connect",
    "SELECT 'n TABLESAMPLE (10)', \"prewhere\" FROM named -- WITH ROLLUP",
    "WITH rollup AS (SELECT 1 AS x), cube (y) AS (SELECT 2) SELECT * FROM rollup, cube",
    "SELECT n, count(*) FROM t GROUP BY ROLLUP (n)",
    "SELECT n * 2, count(*) FROM t WHERE 'A' ILIKE 'a' GROUP BY n",
    "SELECT sample, partition, ordinality, xml FROM others WHERE sample > 0.1",
    "SELECT n sample FROM t AS partition",
    "SELECT sample.n FROM t AS sample (n) WHERE sample.n = 1 AND n > -1",
    "SELECT n AS sample, sum(n) OVER (PARTITION BY (n)) FROM t ORDER BY sample",
    "WITH sample (x) AS (SELECT 1), partition (x) AS (SELECT 2) SELECT sample.x FROM sample, partition",
    "WITH ordinality AS (SELECT 1 AS x) SELECT x FROM ordinality",
    "EXPLAIN WITH ordinality AS (SELECT 1 AS x) SELECT x FROM ordinality",
    "EXPLAIN WITH ordinality (x) AS (SELECT 1) SELECT x FROM ordinality",
    "SELECT substring('abc' FOR xml) FROM others",
    "SELECT tablesample FROM named AS prewhere LEFT JOIN (SELECT 1 AS n) AS o ON tablesample = n",
    "SELECT n prewhere FROM (SELECT n FROM t) UNION (SELECT 2)",
    "SELECT prewhere - 1, sum(prewhere) + 1 FROM (SELECT 1 AS prewhere) WHERE -prewhere < 0 GROUP BY prewhere",
    "WITH RECURSIVE r (k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM r WHERE k < 3) SELECT * FROM r",
]


@pytest.fixture(scope="module")
def session() -> SessionContext:
    session = SessionContext()
    session.sql("CREATE TABLE t AS SELECT 1 AS n")
    session.sql("CREATE TABLE named AS SELECT true AS prewhere, 1 AS tablesample, 2 AS connect, 3 AS rollup")
    session.sql("CREATE TABLE others AS SELECT 1 AS sample, 2 AS partition, 3 AS ordinality, 4 AS xml")
    return session


@pytest.mark.parametrize(("sql", "clause", "place"), LEFT_OUT)
def test_a_clause_that_would_be_left_out_is_refused_with_its_place(
    session: SessionContext, sql: str, clause: str, place: tuple[int, int]
) -> None:
    with pytest.raises(UnsupportedStatement, match=clause) as refused:
        check_no_ignored_clause(scan(sql))

    assert (refused.value.line, refused.value.column) == place
    session.sql(sql).collect()  # once the engine refuses or heeds it by itself, this and the rule may go


@pytest.mark.parametrize("sql", HEEDED)
def test_a_name_or_a_clause_that_is_heeded_passes(session: SessionContext, sql: str) -> None:
    check_no_ignored_clause(scan(sql))

    session.sql(sql).collect()


def test_what_may_be_a_part_of_a_quote_is_left_to_the_engine() -> None:
    check_no_ignored_clause(scan("SELECT $a$ FROM t PREWHERE n = 1 $a$"))
