"""TPC-H and TPC-DS through a server give the rows that DuckDB gives; DuckDB's extensions bring data and queries."""

from __future__ import annotations

import math
import numbers
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files

import duckdb
import pytest

from micromegas_jupyter import FlightSQLClient
from tests.integration.executors.server_process import ServerProcess

SCALE = 0.01
SCALE_LONG = 0.1


@dataclass(frozen=True)
class Benchmark:
    """Tables and queries, in DuckDB and behind a server."""

    duckdb: duckdb.DuckDBPyConnection
    client: FlightSQLClient
    queries: dict[int, str]


@pytest.fixture(scope="module")
def tpch(pytestconfig, tmp_path_factory):
    with opened("tpch", "dbgen", pytestconfig, tmp_path_factory.mktemp("tpch")) as benchmark:
        yield benchmark


@pytest.fixture(scope="module")
def tpcds(pytestconfig, tmp_path_factory):
    with opened("tpcds", "dsdgen", pytestconfig, tmp_path_factory.mktemp("tpcds")) as benchmark:
        yield benchmark


@contextmanager
def opened(name, generate, config, folder):
    scale = SCALE_LONG if config.getoption("--long") else SCALE
    (extension,) = (files(f"duckdb_extension_{name}") / "extensions" / f"v{duckdb.__version__}").iterdir()
    with duckdb.connect() as connection:
        connection.load_extension(str(extension))
        connection.execute(f"CALL {generate}(sf={scale})")
        lake = folder / "lake"
        lake.mkdir()
        for (table,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            connection.execute(f"COPY {table} TO '{lake / f'{table}.parquet'}' (FORMAT parquet)")
        queries = dict(connection.execute(f"SELECT query_nr, query FROM {name}_queries()").fetchall())
        with (
            ServerProcess(folder / "server", lake=lake, keys={}, options=("--no-telemetry",)) as server,
            FlightSQLClient(server.uri) as client,
        ):
            yield Benchmark(connection, client, queries)


def check(benchmark, number):
    sql = benchmark.queries[number]
    found, expected = benchmark.client.query_arrow(sql), benchmark.duckdb.execute(sql).to_arrow_table()
    assert found.num_columns == expected.num_columns
    assert found.num_rows == expected.num_rows
    for one, other in zip(in_order(found), in_order(expected), strict=True):
        assert all(map(is_same, one, other)), (one, other)


def in_order(table):
    return sorted(
        zip(*(column.to_pylist() for column in table.columns), strict=True), key=lambda row: list(map(key, row))
    )


def key(value):
    """Return what values are ordered by: numbers by their first digits, since averages have others behind."""
    if isinstance(value, numbers.Number) and not isinstance(value, bool):
        return "number", float(f"{value:.4g}"), ""
    return type(value).__name__, 0.0, str(value)


def is_same(one, other):
    """Return whether two values are equal; DuckDB averages decimals as floats, DataFusion to four more digits."""
    if isinstance(one, numbers.Number) and isinstance(other, numbers.Number):
        return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6)
    return one == other


@pytest.mark.parametrize("number", range(1, 23))
def test_tpch_gives_the_rows_of_duckdb(tpch, number):
    check(tpch, number)


@pytest.mark.parametrize("number", range(1, 100))
def test_tpcds_gives_the_rows_of_duckdb(tpcds, number):
    check(tpcds, number)


def test_all_queries_are_run(tpch, tpcds):
    assert list(tpch.queries) == list(range(1, 23))
    assert list(tpcds.queries) == list(range(1, 100))
