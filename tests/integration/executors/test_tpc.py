"""TPC-H and TPC-DS through a server give the rows that DuckDB gives; DuckDB's extensions bring data and queries."""

import math
import numbers
from contextlib import contextmanager
from importlib.resources import files
from types import SimpleNamespace

import duckdb
import pytest

from micromegas_jupyter import FlightSQLClient
from tests.integration.executors.server_process import ServerProcess

SCALE = 0.01
SCALE_LONG = 0.1


GENERATORS = {"tpch": "dbgen", "tpcds": "dsdgen"}
# By benchmark, the number of its queries.
COUNTS = {"tpch": 22, "tpcds": 99}


@pytest.fixture(scope="module")
def tpch(request, tmp_path_factory):
    with _running("tpch", request, tmp_path_factory.mktemp("tpch")) as benchmark:
        yield benchmark


@pytest.fixture(scope="module")
def tpcds(request, tmp_path_factory):
    with _running("tpcds", request, tmp_path_factory.mktemp("tpcds")) as benchmark:
        yield benchmark


@contextmanager
def _running(name, request, folder):
    """Tables and queries, in DuckDB and behind a server."""
    scale = SCALE_LONG if request.config.getoption("--long") else SCALE
    (extension,) = (files(f"duckdb_extension_{name}") / "extensions" / f"v{duckdb.__version__}").iterdir()
    with duckdb.connect() as connection:
        connection.load_extension(str(extension))
        connection.execute(f"CALL {GENERATORS[name]}(sf={scale})")
        lake = folder / "lake"
        lake.mkdir()
        for (table,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            connection.execute(f"COPY {table} TO '{lake / f'{table}.parquet'}' (FORMAT parquet)")
        queries = dict(connection.execute(f"SELECT query_nr, query FROM {name}_queries()").fetchall())
        assert list(queries) == list(range(1, COUNTS[name] + 1))
        with (
            ServerProcess(folder / "server", lake=lake, keys={}, options=("--no-telemetry",)) as server,
            FlightSQLClient(server.uri) as client,
        ):
            yield SimpleNamespace(duckdb=connection, client=client, queries=queries)


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


@pytest.mark.parametrize(
    ("name", "number"),
    [
        pytest.param(name, number + 1, marks=pytest.mark.long if number % 8 else ())
        for name, count in COUNTS.items()
        for number in range(count)
    ],
)
def test_a_query_gives_the_rows_of_duckdb(request, name, number):
    benchmark = request.getfixturevalue(name)  # an indirect parameter would make it anew for each query
    sql = benchmark.queries[number]
    found, expected = benchmark.client.query_arrow(sql), benchmark.duckdb.execute(sql).to_arrow_table()

    assert (found.num_columns, found.num_rows) == (expected.num_columns, expected.num_rows)
    for one, other in zip(in_order(found), in_order(expected), strict=True):
        assert all(map(is_same, one, other)), (one, other)
