"""A join of each row with each other row ends for want of memory; it never leaves rows out or counts them twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datafusion import RuntimeEnvBuilder, SessionConfig, SessionContext

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.engine.contract import EngineSettings
from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
from micromegas_jupyter.errors import ResourcesExhausted
from tests.fakes.fixed_tables import FixedTables
from tests.unit.engine.conftest import Asker

if TYPE_CHECKING:
    from collections.abc import Iterator


FILES = 4
ROWS = 20_000  # of each file
ROOMY = EngineSettings(memory_limit_bytes=256 << 20, target_partitions=2, batch_rows=1024)
NARROW = replace(ROOMY, memory_limit_bytes=256 << 10)

#: Twice the numbers, of which no planner knows how many there are.
_MANY = "(SELECT unnest([n, -n]) AS n FROM numbers) AS many"
_FEW = "(SELECT n FROM numbers WHERE n < 2) AS few"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> FixedTables:
    folder = tmp_path_factory.mktemp("numbers")
    files = []
    for index in range(FILES):
        numbers = pa.table({"n": pa.array(range(index * ROWS, (index + 1) * ROWS))})
        pq.write_table(numbers, folder / f"{index}.parquet")
        files.append(str(folder / f"{index}.parquet"))
    return FixedTables([TableSnapshot(name="numbers", schema=numbers.schema, files=tuple(files))])


@pytest.fixture(scope="module")
def roomy(tables: FixedTables) -> Iterator[Asker]:
    engine = DataFusionEngine(tables, ROOMY)
    yield Asker(engine, tables)
    engine.close()


@pytest.fixture
def narrow(tables: FixedTables) -> Iterator[Asker]:
    engine = DataFusionEngine(tables, NARROW)
    yield Asker(engine, tables)
    engine.close()


@pytest.mark.parametrize(
    ("sql", "count"),
    [
        (f"SELECT count(*) AS c FROM {_MANY} JOIN {_FEW} ON many.n > few.n", 2 * FILES * ROWS - 3),
        (f"SELECT count(*) AS c FROM {_MANY} CROSS JOIN {_FEW} WHERE many.n > few.n", 2 * FILES * ROWS - 3),
        (f"SELECT count(*) AS c FROM {_MANY} LEFT JOIN {_FEW} ON many.n > few.n + 1", 2 * FILES * ROWS + 79_997),
        (f"SELECT count(*) AS c FROM {_MANY} WHERE EXISTS (SELECT 1 FROM {_FEW} WHERE many.n > few.n)", 79_999),
        (f"SELECT count(*) AS c FROM {_MANY} WHERE NOT EXISTS (SELECT 1 FROM {_FEW} WHERE many.n > few.n)", 80_001),
    ],
)
def test_a_join_without_equality_is_whole_or_ends_for_want_of_memory(
    roomy: Asker, narrow: Asker, sql: str, count: int
) -> None:
    assert roomy.rows(sql) == [{"c": count}]
    with pytest.raises(ResourcesExhausted):
        narrow.rows(sql)


def test_datafusion_still_loses_rows_when_such_a_join_spills(tables: FixedTables) -> None:
    runtime = RuntimeEnvBuilder().with_fair_spill_pool(256 << 10).with_disk_manager_os()
    session = SessionContext(SessionConfig().with_target_partitions(2).with_batch_size(1024), runtime)
    session.register_parquet("numbers", str(Path(tables.snapshot()[0].files[0]).parent))

    found = session.sql(f"SELECT count(*) AS c FROM {_MANY} JOIN {_FEW} ON many.n > few.n").to_pylist()

    assert found != [{"c": 2 * FILES * ROWS - 3}], "mended: delete `has_nested_loops` of `workarounds.joins`"


def test_the_same_holds_for_who_sees_some_rows_only(narrow: Asker) -> None:
    person = narrow.seeing({"numbers": ("n >= 0",)})

    with pytest.raises(ResourcesExhausted):
        person.rows(f"SELECT count(*) AS c FROM {_MANY} JOIN {_FEW} ON many.n > few.n")


def test_a_join_by_equality_may_still_use_the_disk(tables: FixedTables) -> None:
    settings = replace(ROOMY, memory_limit_bytes=20 << 20, target_partitions=1)
    engine = DataFusionEngine(tables, settings)
    sql = (
        "SELECT a.n, repeat(CAST(a.n * 7919 % 100003 AS VARCHAR), 60) AS word FROM numbers a "
        "JOIN (SELECT n FROM numbers WHERE n < 60000) b ON a.n = b.n ORDER BY word"
    )

    planned = Asker(engine, tables).plan(sql)
    rows = sum(batch.num_rows for batch in planned.batches())

    assert rows == 60_000
    assert planned.statistics.spill_count
    engine.close()
