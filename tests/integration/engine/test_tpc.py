"""The queries of TPC-H and TPC-DS give the rows that DuckDB gives; DuckDB's extensions bring data and queries."""

from __future__ import annotations

import math
import numbers
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.contracts import TableSnapshot
from micromegas_jupyter.engine import DataFusionEngine, EngineSettings
from micromegas_jupyter.errors import InvalidStatement, UnsupportedStatement
from tests.fakes.fixed_tables import FixedTables
from tests.unit.engine.conftest import Asker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

SCALE = 0.01
SCALE_LONG = 0.1
#: Queries that DataFusion 55 cannot plan or run.
UNSUPPORTED: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Benchmark:
    """Tables and queries, in DuckDB and in the engine."""

    duckdb: duckdb.DuckDBPyConnection
    engine: Asker
    queries: dict[int, str]

    def run(self, sql: str) -> pa.Table:
        """Return the result of the server under test."""
        return self.engine.table(sql)

    def expected(self, sql: str) -> pa.Table:
        return self.duckdb.execute(sql).to_arrow_table()


@pytest.fixture(scope="module")
def tpch(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Benchmark]:
    with opened("tpch", "dbgen", pytestconfig, tmp_path_factory.mktemp("tpch")) as benchmark:
        yield benchmark


@pytest.fixture(scope="module")
def tpcds(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Benchmark]:
    with opened("tpcds", "dsdgen", pytestconfig, tmp_path_factory.mktemp("tpcds")) as benchmark:
        yield benchmark


@contextmanager
def opened(name: str, generate: str, config: pytest.Config, folder: Path) -> Iterator[Benchmark]:
    scale = SCALE_LONG if config.getoption("--long") else SCALE
    (extension,) = (files(f"duckdb_extension_{name}") / "extensions" / f"v{duckdb.__version__}").iterdir()
    with duckdb.connect() as connection:
        connection.load_extension(str(extension))
        connection.execute(f"CALL {generate}(sf={scale})")
        tables = []
        for (table,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            file = folder / f"{table}.parquet"
            connection.execute(f"COPY {table} TO '{file}' (FORMAT parquet)")
            tables.append(TableSnapshot(name=table, schema=pq.read_schema(file), files=(str(file),)))
        engine = DataFusionEngine(FixedTables(tables), EngineSettings())
        queries = dict(connection.execute(f"SELECT query_nr, query FROM {name}_queries()").fetchall())
        yield Benchmark(connection, Asker(engine, FixedTables(tables)), queries)
        engine.close()


def check(benchmark: Benchmark, name: str, number: int) -> None:
    sql = benchmark.queries[number]
    if name in UNSUPPORTED:
        with pytest.raises((InvalidStatement, UnsupportedStatement)):
            benchmark.run(sql)
        return
    found, expected = benchmark.run(sql), benchmark.expected(sql)
    assert found.num_columns == expected.num_columns
    assert found.num_rows == expected.num_rows
    for one, other in zip(in_order(found), in_order(expected), strict=True):
        assert all(map(is_same, one, other)), (one, other)


def in_order(table: pa.Table) -> list[tuple[Any, ...]]:
    return sorted(
        zip(*(column.to_pylist() for column in table.columns), strict=True), key=lambda row: list(map(key, row))
    )


def key(value: Any) -> tuple[str, float, str]:
    """Return what values are ordered by: numbers by their first digits, since averages have others behind."""
    if isinstance(value, numbers.Number) and not isinstance(value, bool):
        return "number", float(f"{value:.4g}"), ""
    return type(value).__name__, 0.0, str(value)


def is_same(one: Any, other: Any) -> bool:
    """Return whether two values are equal; DuckDB averages decimals as floats, DataFusion to four more digits."""
    if isinstance(one, numbers.Number) and isinstance(other, numbers.Number):
        return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6)
    return one == other


@pytest.mark.parametrize("number", range(1, 23))
def test_tpch_gives_the_rows_of_duckdb(tpch: Benchmark, number: int) -> None:
    check(tpch, f"tpch {number}", number)


@pytest.mark.parametrize("number", range(1, 100))
def test_tpcds_gives_the_rows_of_duckdb(tpcds: Benchmark, number: int) -> None:
    check(tpcds, f"tpcds {number}", number)


def test_all_queries_are_run(tpch: Benchmark, tpcds: Benchmark) -> None:
    assert list(tpch.queries) == list(range(1, 23))
    assert list(tpcds.queries) == list(range(1, 100))
