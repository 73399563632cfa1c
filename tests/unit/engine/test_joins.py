"""A condition or a limit above joins is about the table that it names, also where another has a column of that name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.contracts import TableSnapshot
from micromegas_jupyter.engine import DataFusionEngine, EngineSettings
from micromegas_jupyter.engine.joins import has_stray_conditions, may_join
from micromegas_jupyter.errors import UnsupportedStatement
from tests.fakes.fixed_tables import FixedTables
from tests.unit.engine.conftest import Asker

if TYPE_CHECKING:
    from collections.abc import Iterator

ORDERS = 40
NO_TEXTS = pa.nulls(4, pa.string())


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    folder = tmp_path_factory.mktemp("joined")
    tables = []
    for name, rows in (
        ("t", pa.table({"a": [1, 1, 2, 2], "f": [1.0, None, 2.0, None], "n": [1, 2, 3, 4], "s": NO_TEXTS})),
        ("u", pa.table({"a": [1, 3, None], "f": [1.0, 1.0, 5.0], "n": [1, 2, 3]})),
        ("v", pa.table({"a": [0, 1, 3, None], "n": [9, 1, 2, 3]})),
        ("orders", pa.table({"id": range(ORDERS), "amount": range(1000, 1000 + ORDERS)})),
        ("payments", pa.table({"id": range(0, ORDERS, 3), "amount": range(ORDERS, 0, -3)})),
        ("customers", pa.table({"id": range(ORDERS)})),
    ):
        pq.write_table(rows, folder / f"{name}.parquet", row_group_size=8)
        tables.append(TableSnapshot(name=name, schema=rows.schema, files=(str(folder / f"{name}.parquet"),)))
    settings = EngineSettings(target_partitions=1, batch_rows=4)
    engine = DataFusionEngine(FixedTables(tables), settings)
    yield Asker(engine, FixedTables(tables))
    engine.close()


@pytest.mark.parametrize(
    ("sql", "count"),
    [
        ("FROM t RIGHT JOIN u ON t.a = u.a WHERE t.f IS NULL", 3),
        ("FROM t RIGHT JOIN u ON t.a = u.a AND t.n > u.n - 3 WHERE t.f IS NULL", 3),
        ("FROM t RIGHT JOIN u ON t.a = u.a WHERE t.a IS NULL", 2),
        ("FROM t RIGHT JOIN u ON t.a = u.a WHERE t.f IS DISTINCT FROM u.f", 3),
        ("FROM u RIGHT JOIN t ON t.a = u.a AND u.n > t.n - 3 WHERE coalesce(u.f, 0) < coalesce(t.f, 9)", 3),
        ("FROM t FULL JOIN u ON t.a = u.a WHERE u.n > 0 AND t.f IS NULL", 3),
        ("FROM u LEFT JOIN t ON t.a = u.a WHERE u.n < 3 AND t.a IS NULL", 1),
        ("FROM u LEFT JOIN t ON t.a = u.a AND u.n > t.n WHERE u.n < 3 AND t.a IS NULL AND u.f > 0", 2),
    ],
)
def test_a_condition_stays_with_its_side(joined: Asker, sql: str, count: int) -> None:
    rows = joined.rows(f"SELECT t.a AS ta, t.f AS tf, u.a AS ua, u.f AS uf {sql}")

    assert len(rows) == count


@pytest.mark.parametrize(
    ("sql", "count"),
    [
        ("FROM t RIGHT JOIN u ON t.a = u.a WHERE t.f IS NULL AND coalesce(t.s, 'q') <> 'z AND z'", 3),
        ("FROM t RIGHT JOIN u ON t.a = u.a WHERE coalesce(t.s, '(') <> 'z' AND t.f IS NULL", 3),
        ("FROM t LEFT JOIN u ON t.a = u.a WHERE coalesce(t.s, 'OR') = 'OR' AND coalesce(u.n, 0) < 9", 4),
        ("FROM t JOIN u ON t.a = u.a GROUP BY 1, 2 HAVING max(coalesce(t.s, 'R AND D')) = 'R AND D'", 2),
        ("FROM t JOIN u ON t.a = u.a WHERE t.n > (SELECT min(u.n) - 1 FROM u JOIN v ON u.a = v.a)", 2),
        ("FROM t JOIN u ON t.a = u.a WHERE t.n > (SELECT min(n) - 1 FROM u WHERE a IN (SELECT a FROM v))", 2),
    ],
)
def test_texts_and_sub_queries_are_no_conditions_above_joins(joined: Asker, sql: str, count: int) -> None:
    assert len(joined.rows(f"SELECT t.n AS tn, u.n AS un {sql}")) == count


def test_texts_in_the_conditions_of_roles_are_no_conditions_either(joined: Asker) -> None:
    person = joined.seeing({"t": ("n < 4 AND (s IS NULL OR s <> '(')", "s = 'R AND D'"), "u": ("n > 0",)})

    assert person.rows("SELECT t.n FROM t JOIN u ON t.a = u.a WHERE coalesce(t.f, 0) < 9 ORDER BY 1") == [
        {"n": 1},
        {"n": 2},
    ]


def test_texts_that_are_bound_are_no_conditions_either(joined: Asker) -> None:
    sql = "SELECT u.n AS un FROM t RIGHT JOIN u ON t.a = u.a WHERE t.f IS NULL AND coalesce(t.s, 'q') <> ?"

    assert len(joined.rows(sql, parameters=pa.record_batch({"0": ["z AND (z"]}))) == 3


@pytest.mark.parametrize(
    "kept",
    ["v", "(SELECT * FROM v WHERE a < 2)"],
)
def test_where_a_condition_would_go_astray_all_the_same_the_statement_is_refused(joined: Asker, kept: str) -> None:
    condition = "ON t.a = v.n AND v.n > t.n"

    with pytest.raises(UnsupportedStatement, match="columns of one name") as refused:
        joined.rows(f"SELECT v.a FROM t RIGHT JOIN {kept} AS v {condition} WHERE v.a < 2 AND t.a IS NULL")

    assert "LEFT JOIN" in (refused.value.remedy or "")
    exchanged = f"SELECT v.a FROM {kept} AS v LEFT JOIN t {condition} WHERE v.a < 2 AND t.a IS NULL"
    assert len(joined.rows(exchanged)) == 2
    renamed = f"(SELECT a AS t_a, n FROM t) AS t RIGHT JOIN {kept} AS v ON t.t_a = v.n AND v.n > t.n"
    assert len(joined.rows(f"SELECT v.a FROM {renamed} WHERE v.a < 2 AND t.t_a IS NULL")) == 2


def test_the_first_rows_above_joins_are_the_first_by_the_column_that_is_named(joined: Asker) -> None:
    found = joined.rows(
        "SELECT o.amount AS ordered, p.amount AS paid FROM orders o JOIN payments p ON o.id = p.id "
        "JOIN customers c ON p.id = c.id ORDER BY p.amount LIMIT 1"
    )

    assert found == [{"ordered": 1039, "paid": 1}]


@pytest.mark.parametrize(
    ("plan", "joins"),
    [
        ("Projection: t.a\n  Right Join:  Filter: t.a = u.a\n    TableScan: t", True),
        ("Cross Join: \n  TableScan: t", True),
        ("Filter: EXISTS (<subquery>)\n  Subquery:\n    TableScan: u", True),
        ("Filter: t.a > Int64(1)\n  TableScan: t", False),
        ("Projection: Utf8('Right Join:')", False),
    ],
)
def test_only_statements_with_joins_are_looked_at(plan: str, *, joins: bool) -> None:
    assert may_join(plan) is joins


@pytest.mark.parametrize(
    ("logical", "physical", "strayed"),
    [
        ("Filter: u.a IS NULL\n  Left Join: t.a = u.a", "FilterExec: a@1 IS NULL\n  HashJoinExec: on=[]", False),
        ("Filter: u.a IS NULL\n  Left Join: t.a = u.a", "HashJoinExec: on=[]\n  FilterExec: a@0 IS NULL", True),
        (
            "Filter: u.a IS NULL AND (u.b > t.b AND u.b < Int64(3) OR u.c)\n  Projection: u.a\n    Left Join: x",
            "FilterExec: a@1 IS NULL AND (b@2 > b@3 AND b@2 < 3 OR c@4), projection=[a@1], fetch=3\n  HashJoinExec: ",
            False,
        ),
        (
            "Filter: u.a IS NULL AND u.b > t.b\n  Left Join: t.a = u.a",
            "FilterExec: b@2 > b@3\n  HashJoinExec: on=[]\n    FilterExec: a@0 IS NULL",
            True,
        ),
        (
            "Filter: u.a AND u.b OR u.c\n  Left Join: t.a = u.a\n    Filter: t.b AND t.c",
            "FilterExec: c@2 OR a@1 AND b@3\n  HashJoinExec: on=[]\n    DataSourceExec: predicate=b@0",
            False,
        ),
        ("Filter: t.a\n  TableScan: t", "DataSourceExec: predicate=a@0", False),
        (
            "Filter: t.a > (<subquery>)\n  Subquery:\n    Filter: u.b\n      Left Join: x\n  Left Join: y",
            "FilterExec: a@0 > scalar_subquery(0)\n  HashJoinExec: \nFilterExec: b@1\n  HashJoinExec: ",
            False,
        ),
        ("Filter: t.a = b ( c\n  Left Join: x", "FilterExec: a@0 = b ( c\n  HashJoinExec: ", True),
        ("Left Join: x\n  Filter: t.a = b ( c", "HashJoinExec: \n  FilterExec: a@0 = b ( c", False),
    ],
)
def test_conditions_have_gone_astray_where_fewer_are_above_joins(logical: str, physical: str, *, strayed: bool) -> None:
    assert has_stray_conditions(logical, physical) is strayed


def test_what_runs_filters_no_scan_of_a_join(joined: Asker) -> None:
    plan = joined.rows("EXPLAIN SELECT t.n, u.n AS m FROM t JOIN u ON t.a = u.a WHERE u.f > 0 ORDER BY u.n LIMIT 1")

    assert "HashJoinExec" in str(plan)
    assert "DynamicFilter" not in str(plan)


def test_the_latest_rows_of_one_table_filter_its_scan(joined: Asker) -> None:
    plan = joined.rows("EXPLAIN SELECT a FROM t ORDER BY n LIMIT 1")

    assert "DynamicFilter" in str(plan)
