"""EXISTS and IN (SELECT …) give the rows of the SQL standard in each place of a statement, also in ON."""

import sqlite3
from contextlib import closing

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datafusion import SessionContext

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.errors import UnsupportedStatement
from tests.fakes.fixed_tables import data_files
from tests.unit.engine.conftest import asking

TABLES = {
    "t": [(None, 1), (1, 1), (2, 2), (3, 4), (5, 9)],
    "u": [(None, 1), (1, 3), (2, None), (5, 1)],
    "v": [(1, 1), (7, 2)],
    "w": [],
}
SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.int64())])


@pytest.fixture(scope="module")
def asker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    snapshots = []
    for name, rows in TABLES.items():
        file = folder / f"{name}.parquet"
        pq.write_table(pa.Table.from_pylist([dict(zip("ab", row, strict=True)) for row in rows], schema=SCHEMA), file)
        snapshots.append(TableSnapshot(name=name, schema=SCHEMA, files=data_files(file)))
    with asking(snapshots, target_partitions=1) as opened:
        yield opened


def rows_of_sqlite(sql):
    with closing(sqlite3.connect(":memory:")) as database:
        for name, rows in TABLES.items():
            database.execute(f"CREATE TABLE {name} (a INTEGER, b INTEGER)")
            database.executemany(f"INSERT INTO {name} VALUES (?, ?)", rows)
        return sorted(map(repr, database.execute(sql).fetchall()))


def rows_of(asker, sql):
    return sorted(map(repr, zip(*(column.to_pylist() for column in asker.table(sql).columns), strict=True)))


@pytest.mark.parametrize(
    "condition",
    [
        "a NOT IN (SELECT a FROM u)",
        "a NOT IN (SELECT a FROM v) OR b = 9",
        "a NOT IN (SELECT a FROM u) OR b = 9",
        "a NOT IN (SELECT a FROM w) OR b = 100",
        "NOT (a IN (SELECT a FROM u) AND b > 0)",
        "NOT (a IN (SELECT a FROM v) AND NOT (b IN (SELECT a FROM u) OR b = 1))",
        "(a IN (SELECT a FROM u)) IS NULL",
        "(b > 2) = (a IN (SELECT a FROM v))",
        "CASE WHEN a NOT IN (SELECT a FROM v) THEN true ELSE b = 1 END",
        "t.a NOT IN (SELECT a FROM u WHERE u.b = t.b)",
        "t.a NOT IN (SELECT a FROM u WHERE u.b < t.b)",
        "a NOT IN (SELECT a FROM u WHERE u.b < t.b)",
        "t.a NOT IN (SELECT a FROM u WHERE u.b = t.b) OR b = 9",
        "t.a + 1 NOT IN (SELECT u.a FROM u JOIN v ON u.a = v.a WHERE u.b > t.b)",
        "a NOT IN (SELECT a FROM v WHERE b NOT IN (SELECT a FROM u WHERE a IS NOT NULL) OR b = 2)",
        "EXISTS (SELECT max(a) FROM u WHERE u.b = t.b)",
        "NOT EXISTS (SELECT count(*) FROM u WHERE u.b = t.b) OR b = 9",
        "NOT EXISTS (SELECT DISTINCT count(*) FROM u WHERE u.b = t.b)",
        "NOT EXISTS (SELECT max(a) FROM u WHERE u.b = t.b ORDER BY 1)",
        "t.a NOT IN (WITH x AS (SELECT a FROM v) SELECT a FROM x) OR b = 9",
    ],
)
def test_a_condition_passes_the_rows_that_sqlite_passes(asker, condition):
    sql = f"SELECT a, b FROM t WHERE {condition}"

    assert rows_of(asker, sql) == rows_of_sqlite(sql)


@pytest.mark.parametrize("name", ["value", "VALUE", "value_", "list_of_subquery_1"])
def test_a_column_may_have_any_name(asker, name):
    sql = f"SELECT {name} FROM (SELECT a AS {name}, b FROM t) AS s WHERE {name} NOT IN (SELECT a FROM v) OR b = 9"

    assert rows_of(asker, sql) == rows_of_sqlite(sql)


SUBQUERIES = [
    "EXISTS (SELECT 1 FROM v q WHERE q.b = t.a)",
    "NOT EXISTS (SELECT 1 FROM v q WHERE q.b < u.b)",
    "EXISTS (SELECT 1 FROM v)",
    "(EXISTS (SELECT 1 FROM v q WHERE q.b = t.b) OR u.b = 3)",
    "t.a IN (SELECT a FROM v)",
    "u.b NOT IN (SELECT b FROM v)",
    "NOT (t.a IN (SELECT a FROM u q WHERE q.b = t.b) OR u.b IS NULL)",
    "EXISTS (SELECT 1 FROM v q WHERE q.b = t.a) AND NOT EXISTS (SELECT 1 FROM v q WHERE q.a = t.a)",
]


@pytest.mark.parametrize("join", ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"])
@pytest.mark.parametrize("condition", SUBQUERIES)
def test_a_subquery_in_on_decides_which_rows_are_joined(asker, join, condition):
    sql = f"SELECT t.a, t.b, u.a, u.b FROM t {join} u ON t.a = u.a AND {condition}"

    assert rows_of(asker, sql) == rows_of_sqlite(sql)


TWO_JOINS = "SELECT t.a, u.b, v.b FROM t LEFT JOIN u ON t.a = u.a"


@pytest.mark.parametrize(
    "sql",
    [
        # Rows of u are replaced by NULL before the subquery is about them.
        f"{TWO_JOINS} LEFT JOIN v ON NOT EXISTS (SELECT 1 FROM w WHERE w.a = u.b)",
        f"{TWO_JOINS} LEFT JOIN v ON EXISTS (SELECT 1 FROM v q WHERE coalesce(u.b, 1) = q.b)",
        f"{TWO_JOINS} FULL JOIN v ON v.a = u.a AND EXISTS (SELECT 1 FROM v q WHERE t.a IS NULL)",
        # A later join replaces the rows of an inner join by NULL.
        "SELECT t.a, u.b, v.b FROM t JOIN u ON EXISTS (SELECT 1 FROM v WHERE v.a = t.a) RIGHT JOIN v ON u.a = v.a",
        # Both sides of an inner join.
        "SELECT t.a, u.b FROM t JOIN u ON EXISTS (SELECT 1 FROM v WHERE v.a = t.a AND v.b < u.b)",
        # In a derived table, a table of WITH, and a union.
        "SELECT x.a FROM (SELECT t.a FROM t LEFT JOIN u ON EXISTS (SELECT 1 FROM v WHERE v.a = t.a)) x",
        "WITH x AS (SELECT a FROM v) SELECT t.a, u.b FROM t LEFT JOIN u ON EXISTS (SELECT 1 FROM x WHERE x.a = t.a)",
        "SELECT t.a FROM t LEFT JOIN u ON EXISTS (SELECT 1 FROM v WHERE v.a = t.a) UNION ALL SELECT b FROM v",
    ],
)
def test_a_subquery_in_on_of_several_joins_gives_the_rows_of_sqlite(asker, sql):
    assert rows_of(asker, sql) == rows_of_sqlite(sql)


def test_what_is_added_to_a_table_is_not_shown(asker):
    on = "t.a = x.c AND EXISTS (SELECT 1 FROM v q WHERE q.b = t.a)"
    sql = f"FROM t LEFT JOIN (SELECT a AS c FROM u) x ON {on}"

    assert asker.table(f"SELECT *, count(*) OVER () AS n {sql}").schema.names == ["a", "b", "c", "n"]
    assert asker.table(f"SELECT t.* {sql}").schema.names == ["a", "b"]


def test_the_same_holds_for_those_who_see_some_rows(asker):
    some = asker.seeing({"t": ("b < 9",), "u": (), "v": ("a = 1",)})

    on = "t.a = u.a AND EXISTS (SELECT 1 FROM v q WHERE q.b = t.b)"

    assert some.rows(f"SELECT t.a FROM t LEFT JOIN u ON {on} WHERE u.a IS NOT NULL") == [{"a": 1}]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 FROM t LEFT JOIN u ON EXISTS (SELECT 1 FROM v WHERE v.a = t.a AND v.b < u.b)",
        "SELECT 1 FROM t WHERE a NOT IN (SELECT max(u.a) FROM u WHERE u.b = t.b)",
        "SELECT 1 FROM t JOIN (SELECT a AS c FROM v) ON true WHERE c NOT IN (SELECT u.a FROM u WHERE u.b = t.b)",
    ],
)
def test_a_statement_that_cannot_be_written_anew_is_rejected_with_what_to_do(asker, sql):
    with pytest.raises(UnsupportedStatement, match="EXISTS or IN") as caught:
        asker.rows(sql)

    assert "NOT EXISTS" in caught.value.remedy


def test_long_statements_are_rewritten(asker):
    terms = " OR ".join(f"b = {number}" for number in range(900))
    sums = "+ 1 " * 300

    assert asker.rows(f"SELECT 1 AS n FROM t WHERE a NOT IN (SELECT a FROM v) AND ({terms})") == [{"n": 1}] * 3
    assert asker.rows(f"SELECT 1 AS n FROM t WHERE a NOT IN (SELECT a FROM v) OR a {sums}= 1") == [{"n": 1}] * 3


@pytest.mark.parametrize(
    ("sql", "right"),
    [
        ("SELECT a FROM t WHERE a NOT IN (SELECT a FROM v) OR b = 9", 3),
        ("SELECT a FROM t WHERE t.a NOT IN (SELECT a FROM u WHERE u.b < t.b)", 2),
        ("SELECT a FROM t WHERE EXISTS (SELECT max(a) FROM u WHERE u.b = t.b)", 5),
        ("SELECT 1 FROM t LEFT JOIN u ON EXISTS (SELECT 1 FROM v WHERE v.a = t.a)", 8),
    ],
)
def test_datafusion_still_has_the_defects(sql, right):
    session = SessionContext()
    for name, rows in TABLES.items():
        batch = pa.RecordBatch.from_pylist([dict(zip("ab", row, strict=True)) for row in rows], schema=SCHEMA)
        session.register_record_batches(name, [[batch]])
    try:
        found = len(session.sql(sql).to_pylist())
    except Exception:  # noqa: BLE001 - DataFusion has no class for it
        found = None

    assert found != right, "mended: delete this part of `workarounds.subqueries`"
    assert len(rows_of_sqlite(sql)) == right
