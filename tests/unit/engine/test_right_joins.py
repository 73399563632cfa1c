"""A condition on one side of a right or full join is about that side, also where both have a column of that name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.contracts import TableSnapshot
from micromegas_jupyter.engine import DataFusionEngine, EngineSettings
from micromegas_jupyter.engine.right_joins import keeps_the_right_side
from tests.fakes.fixed_tables import FixedTables
from tests.unit.engine.conftest import Asker

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    folder = tmp_path_factory.mktemp("joined")
    tables = []
    for name, rows in (
        ("t", pa.table({"a": [1, 1, 2, 2], "f": [1.0, None, 2.0, None], "n": [1, 2, 3, 4]})),
        ("u", pa.table({"a": [1, 3, None], "f": [1.0, 1.0, 5.0], "n": [1, 2, 3]})),
    ):
        pq.write_table(rows, folder / f"{name}.parquet")
        tables.append(TableSnapshot(name=name, schema=rows.schema, files=(str(folder / f"{name}.parquet"),)))
    engine = DataFusionEngine(FixedTables(tables), EngineSettings(planning_threads=1, target_partitions=1))
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
    ],
)
def test_a_condition_stays_with_its_side(joined: Asker, sql: str, count: int) -> None:
    rows = joined.rows(f"SELECT t.a AS ta, t.f AS tf, u.a AS ua, u.f AS uf {sql}")

    assert len(rows) == count


@pytest.mark.parametrize(
    ("plan", "kept"),
    [
        ("Projection: t.a\n  Right Join:  Filter: t.a = u.a\n    TableScan: t", True),
        ("Full Join: Using t.a = u.a", True),
        ("Left Join:  Filter: t.a = u.a", False),
        ("RightSemi Join: t.a = u.a", False),
        ("Projection: Utf8('Right Join:')", False),
    ],
)
def test_only_joins_that_keep_the_right_side_count(plan: str, *, kept: bool) -> None:
    assert keeps_the_right_side(plan) is kept


def test_what_a_join_has_seen_filters_no_column_of_another_table(joined: Asker) -> None:
    plan = joined.rows("EXPLAIN SELECT t.n, u.n AS m FROM t JOIN u ON t.a = u.a WHERE u.f > 0")

    assert "HashJoinExec" in str(plan)
    assert "DynamicFilter" not in str(plan)
