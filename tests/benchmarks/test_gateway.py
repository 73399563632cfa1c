"""What the way through this server costs in front of another engine; printed, never judged.

Direct calls and calls through the server take turns in short rounds, so that each ratio compares neighbours in time.
"""

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import flight

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.flightsql.commands import messages, pack_any
from tests.benchmarks.test_executors import ratio
from tests.integration.executors.server_process import ServerProcess
from tests.integration.gateway import bare_engine, sail

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(3600)]

ROUNDS, CALLS = 5, 50
STATEMENTS = {
    "many rows": "SELECT * FROM numbers",
    "look-up": "SELECT count(*) AS n FROM numbers WHERE c0 = 77",
    "SELECT 1": "SELECT 1 AS one",
}


@pytest.fixture(scope="module")
def rows(pytestconfig):
    count = 10_000_000 if pytestconfig.getoption("--long") else 1_000_000
    numbers = np.arange(count)
    return pa.table({f"c{number}": numbers + number for number in range(7)})


@pytest.fixture(scope="module", params=["sail", "bare"])
def engine(request, rows, tmp_path_factory):
    """The address of an engine with the rows as a table, and its dialect."""
    folder = tmp_path_factory.mktemp(request.param)
    tables = folder / "tables"
    tables.mkdir()
    if request.param == "sail":
        deltalake.write_deltalake(str(tables / "numbers"), rows)
        with sail.running(folder) as found:
            found.add_tables(tables)
            yield found.uri, "spark"
    else:
        pq.write_table(rows, tables / "numbers.parquet", row_group_size=1 << 20)
        with bare_engine.running(tables) as uri:
            yield uri, "datafusion"


@pytest.fixture(scope="module")
def clients(engine, tmp_path_factory):
    """A client of the engine and one of the server before it."""
    uri, dialect = engine
    options = ("--engine", uri, "--engine-dialect", dialect)
    with (
        ServerProcess(tmp_path_factory.mktemp("front"), lake=None, keys={}, options=options) as front,
        flight.connect(uri) as direct,
        flight.connect(front.uri) as through,
    ):
        yield direct, through


def _read(client, sql):
    command = pack_any(messages.CommandStatementQuery(query=sql))
    info = client.get_flight_info(flight.FlightDescriptor.for_command(command))
    reader, count = client.do_get(info.endpoints[0].ticket).to_reader(), 0
    for batch in reader:
        count += batch.num_rows
    return count


def _seconds(client, sql, calls):
    started = SYSTEM_CLOCK.monotonic()
    counts = [_read(client, sql) for _ in range(calls)]
    return SYSTEM_CLOCK.monotonic() - started, counts


@pytest.mark.parametrize("what", STATEMENTS)
def test_the_way_through_the_server(clients, rows, engine, say, what):
    sql = STATEMENTS[what]
    calls = 1 if what == "many rows" else CALLS
    times = {client: [] for client in clients}
    for client in clients:
        _seconds(client, sql, calls)
    for number in range(ROUNDS):
        for client in clients if number % 2 == 0 else reversed(clients):
            seconds, counts = _seconds(client, sql, calls)
            assert set(counts) == {rows.num_rows if calls == 1 else 1}
            times[client].append(seconds / calls)
    direct, through = (times[client] for client in clients)
    best = " and ".join(f"{min(one) * 1000:,.2f} ms" for one in (direct, through))
    say(f"{engine[1]}, {what}: through / direct {ratio(through, direct)}; at best {best}")
