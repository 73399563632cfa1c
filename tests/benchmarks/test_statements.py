"""What statements cost beside bare pyarrow.flight and the previous version; printed, never judged.

`--previous PYTHON` names the interpreter of another version. All servers run at once and take turns in random order,
so that what else the machine does hits all of them. CPU is that of whole processes, the front's and all others'.
"""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib.resources import files

import adbc_driver_flightsql.dbapi
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datafusion import SessionConfig, SessionContext

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from tests.benchmarks.servers import BARE, BATCH_ROWS, Costs, connected, running

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(3600)]

CLIENTS = 8
PEOPLE, ROWS, MEMORY_ROWS = 100_000, 1_000_000, 10_000_000
SMALL = {
    "SELECT 1": lambda: "SELECT 1",
    "SELECT 1+1": lambda: f"SELECT 1+{random.randrange(1_000_000)}",
    "lookup": lambda: f"SELECT * FROM people WHERE id = {random.randrange(PEOPLE)}",
}
FROM_MEMORY = (
    f"SELECT value AS a, value AS b, value AS c, value AS d, value AS e FROM generate_series(1, {MEMORY_ROWS})"
)


@pytest.fixture(scope="module")
def is_long(pytestconfig):
    return pytestconfig.getoption("--long")


@pytest.fixture(scope="module")
def row_count(is_long):
    return MEMORY_ROWS if is_long else ROWS


@pytest.fixture(scope="module")
def folder(tmp_path_factory, row_count):
    """Two tables: `many` with five columns, `people` for lookups."""
    found = tmp_path_factory.mktemp("tables")
    numbers, few = np.arange(row_count), np.arange(PEOPLE)
    many = {
        "id": numbers,
        "part": numbers % 1000,
        "amount": numbers / 3,
        "time": pa.array(numbers * 1_000_007).cast(pa.timestamp("ns", "UTC")),
        "name": pa.array([f"name-{number}" for number in range(5000)]).take(pa.array(numbers % 5000)),
    }
    people = {"id": few, "name": [f"name {number}" for number in few], "amount": few / 7}
    pq.write_table(pa.table(many), found / "many.parquet", row_group_size=500_000)
    pq.write_table(pa.table(people), found / "people.parquet", row_group_size=20_000)
    return found


@pytest.fixture(scope="module")
def servers(request, folder, tmp_path_factory):
    previous = request.config.getoption("--previous")
    with running(folder, tmp_path_factory.mktemp("servers"), previous=previous) as found:
        yield found


@pytest.fixture(scope="module")
def bulk_servers(request, folder, tmp_path_factory):
    previous = request.config.getoption("--previous")
    with running(folder, tmp_path_factory.mktemp("servers"), previous=previous, batches="large") as found:
        yield found


@contextmanager
def adbc(uri):
    with adbc_driver_flightsql.dbapi.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:

        def run(sql):
            cursor.execute(sql)
            return len(cursor.fetchall())

        yield run


def repeat(runs, make, seconds):
    """Run statements again and again, each of `runs` on a thread of its own; return (statements, seconds)."""
    together = threading.Barrier(len(runs) + 1)

    def on_thread(run):
        count = 0
        together.wait()
        ends_at = SYSTEM_CLOCK.monotonic() + seconds
        while SYSTEM_CLOCK.monotonic() < ends_at:
            assert run(make()) == 1
            count += 1
        return count

    with ThreadPoolExecutor(len(runs)) as threads:
        found = [threads.submit(on_thread, run) for run in runs]
        together.wait()
        started = SYSTEM_CLOCK.monotonic()
        count = sum(one.result() for one in found)
    return count, SYSTEM_CLOCK.monotonic() - started


@pytest.mark.parametrize("used", [("Flight", 1), ("Flight", CLIENTS), ("ADBC", 1), ("ADBC", CLIENTS)], ids=str)
@pytest.mark.parametrize("name", SMALL)
def test_small_statements(servers, say, name, used, is_long):
    way, clients = used
    # The bare server speaks Flight only.
    compared = {key: one for key, one in servers.items() if way == "Flight" or key != BARE}
    costs, open_one, seconds = Costs(compared), connected if way == "Flight" else adbc, 2.0 if is_long else 0.5
    with ExitStack() as stack:
        runs = {key: [stack.enter_context(open_one(one.uri)) for _ in range(clients)] for key, one in compared.items()}
        for of in runs.values():
            repeat(of, SMALL[name], seconds / 2)
        for key in costs.in_turns(9 if is_long else 2):
            with costs.measured(key) as result:
                result.extend(repeat(runs[key], SMALL[name], seconds))
    say("\n".join([f"{name} by {way}, {clients} client{'s' * (clients > 1)}:", *costs.lines()]))


@pytest.mark.parametrize("source", ["memory", "Parquet"])
def test_many_rows(bulk_servers, say, row_count, source, is_long):
    sql, expected = (FROM_MEMORY, MEMORY_ROWS) if source == "memory" else ("SELECT * FROM many", row_count)
    costs = Costs(bulk_servers)
    with ExitStack() as stack:
        runs = {key: stack.enter_context(connected(one.uri)) for key, one in bulk_servers.items()}
        for run in runs.values():
            run(sql)
        for key in costs.in_turns(9 if is_long else 2):
            with costs.measured(key) as result:
                started = SYSTEM_CLOCK.monotonic()
                assert runs[key](sql) == expected
                result.extend((1, SYSTEM_CLOCK.monotonic() - started))
    say("\n".join([f"{expected:,} rows × 5 columns from {source}:", *costs.lines()]))


@pytest.fixture(scope="module")
def tpcds(tmp_path_factory, is_long):
    """A folder with the tables of TPC-DS, and its 99 queries."""
    found = tmp_path_factory.mktemp("tpcds")
    (extension,) = (files("duckdb_extension_tpcds") / "extensions" / f"v{duckdb.__version__}").iterdir()
    with duckdb.connect() as connection:
        connection.load_extension(str(extension))
        connection.execute(f"CALL dsdgen(sf={0.1 if is_long else 0.01})")
        for (table,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            connection.execute(f"COPY {table} TO '{found / f'{table}.parquet'}' (FORMAT parquet)")
        return found, [sql for (sql,) in connection.execute("SELECT query FROM tpcds_queries()").fetchall()]


def test_tpcds_beside_datafusion_alone(request, tpcds, say, tmp_path, is_long):
    folder, queries = tpcds
    rounds = 3 if is_long else 1
    session = SessionContext(SessionConfig().with_batch_size(BATCH_ROWS["large"]))
    for table in folder.iterdir():
        session.register_parquet(table.stem, str(table))
    alone = 0.0
    with running(folder, tmp_path, previous=request.config.getoption("--previous")) as servers, ExitStack() as stack:
        del servers[BARE]
        runs = {key: stack.enter_context(connected(one.uri)) for key, one in servers.items()}
        cpu = dict.fromkeys(servers, 0.0)
        for _ in range(rounds):
            for sql in queries:
                started = time.process_time()
                rows = sum(batch.num_rows for batch in session.sql(sql).collect())
                alone += time.process_time() - started
                for key, one in servers.items():
                    before = sum(one.cpu())
                    assert runs[key](sql) == rows
                    cpu[key] += sum(one.cpu()) - before
    found = [f"{key} {cost / rounds:.1f} s ({cost / alone:.2f})" for key, cost in cpu.items()]
    say(f"TPC-DS, {len(queries)} queries: DataFusion alone {alone / rounds:.1f} s of CPU; {', '.join(found)}")
