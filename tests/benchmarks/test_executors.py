"""What executors cost and what they bring, beside pyarrow's own server; printed, never judged.

Both servers run at once and take turns in short rounds, so that each ratio compares neighbours in time: what else the
machine does hits both. A ratio is the median of the rounds, with the least and the greatest behind it.
"""

import json
import statistics
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import adbc_driver_flightsql.dbapi
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from adbc_driver_flightsql import DatabaseOptions
from pyarrow import flight

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.flightsql.commands import statement_ticket
from tests.benchmarks.flight_peer import MEMORY_TICKET
from tests.integration.executors.server_process import ROOT, ServerProcess, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(3600)]

OURS, PEER = "this server", "pyarrow.flight"
CALL_SECONDS = 600
CLIENTS = 8
HEAVY_CLIENTS = 16
# Of all small clients together, so few that an idle machine hardly notices.
SMALL_CALLS_A_SECOND, SMALL_CLIENTS = 40, 4
# Of the server, since the heavy clients came, until all their first statements have begun.
BEGUN_CPU_SECONDS = 5.0
COLUMNS = 5

KEYS = {f"caller-{number}": f"a-key-for-benchmarks-only-of-{number}" for number in range(HEAVY_CLIENTS + 1)}
*HEAVY_KEYS, SMALL_KEY = KEYS.values()

FEW_ROWS, MANY_ROWS, MEMORY_ROWS = 10_000, 4_000_000, 10_000_000
LOOKUP = "SELECT * FROM few WHERE key = 77"
SMALL = {"SELECT 1": "SELECT 1 AS one", "look-up": LOOKUP}
HEAVY = (
    "SELECT key, count(*), avg(amount) FROM many GROUP BY key ORDER BY 2 DESC LIMIT 10",
    "SELECT key % 1000, count(DISTINCT key) FROM many GROUP BY 1",
    "SELECT a.key, count(*) FROM many a JOIN many b ON a.key = b.key GROUP BY 1 LIMIT 5",
    "SELECT * FROM many ORDER BY amount LIMIT 100000",
)
# The engine makes one column and gives it five times, which costs next to nothing: what is measured is the way out.
FROM_MEMORY = "SELECT {columns} FROM generate_series(1, {{rows}})".format(
    columns=", ".join(f"value AS c{number}" for number in range(COLUMNS))
)


def ratio(ours, theirs):
    values = [new / old for new, old in zip(ours, theirs, strict=True)]
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def in_turns(rounds):
    for number in range(rounds):
        yield from (OURS, PEER) if number % 2 == 0 else (PEER, OURS)


def _keys_and_amounts(count):
    numbers = np.arange(count)
    # In no order, each about four times; in the small table one by one.
    keys = numbers if count == FEW_ROWS else numbers * 2654435761 & 0xFFFFF
    return {"key": keys, "amount": keys / 7}


@pytest.fixture(scope="module")
def row_count(pytestconfig):
    return 10_000_000 if pytestconfig.getoption("--long") else 1_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory, row_count):
    """Three tables: `rows` with five columns, `many` for heavy statements, `few` for look-ups."""
    found = tmp_path_factory.mktemp("tables")
    numbers = np.arange(row_count)
    rows = {
        "id": numbers,
        "part": numbers % 1000,
        "amount": numbers / 3,
        "time": pa.array(numbers * 1_000_007).cast(pa.timestamp("ns", "UTC")),
        "name": pa.array([f"name-{number}" for number in range(5000)]).take(pa.array(numbers % 5000)),
    }
    tables = {"rows": rows, "many": _keys_and_amounts(MANY_ROWS), "few": _keys_and_amounts(FEW_ROWS)}
    for name, columns in tables.items():
        (found / name).mkdir()
        pq.write_table(pa.table(columns), found / name / "part.parquet", row_group_size=200_000)
    return found


@pytest.fixture(scope="module")
def ours(folder, tmp_path_factory):
    with ServerProcess(
        tmp_path_factory.mktemp("server"), lake=folder, keys=KEYS, options=("--no-telemetry",)
    ) as server:
        yield server


@pytest.fixture(scope="module")
def servers(ours, folder):
    """The addresses of both servers, and what each has used of the processor."""
    command = [sys.executable, "-m", "tests.benchmarks.flight_peer", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        process, uri = psutil.Process(child.pid), child.stdout.readline().strip()
        yield {OURS: (ours.uri, ours.cpu_seconds), PEER: (uri, lambda: sum(process.cpu_times()[:2]))}
        child.terminate()


@contextmanager
def flight_client(uri):
    headers = [(b"authorization", f"Bearer {SMALL_KEY}".encode())]
    # Without this all clients of a process share one connection.
    with flight.connect(uri, generic_options=[("grpc.use_local_subchannel_pool", 1)]) as client:

        def drain(ticket):
            options = flight.FlightCallOptions(headers=headers, timeout=CALL_SECONDS)
            rows = size = 0
            for chunk in client.do_get(flight.Ticket(ticket), options):
                rows += chunk.data.num_rows
                size += chunk.data.get_total_buffer_size()
            return rows, size

        yield drain


@contextmanager
def small_query(uri, sql, *, name=OURS, is_adbc=False):
    if not is_adbc:
        # pyarrow's server speaks Flight, not Flight SQL.
        ticket = sql.encode() if name == PEER else statement_ticket(sql)
        with flight_client(uri) as drain:
            yield lambda: drain(ticket)
        return
    settings = {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {SMALL_KEY}"}
    with (
        adbc_driver_flightsql.dbapi.connect(uri, db_kwargs=settings, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):

        def execute():
            cursor.execute(sql)
            return cursor.fetchall()

        yield execute


def calls_a_second(queries, seconds):
    """Run each query again and again on a thread of its own; return the rate of all."""
    together = threading.Barrier(len(queries) + 1)
    stop = threading.Event()

    def run(query):
        count = 0
        together.wait()
        while not stop.is_set():
            query()
            count += 1
        return count

    with ThreadPoolExecutor(len(queries)) as threads:
        running = [threads.submit(run, query) for query in queries]
        together.wait()
        started = SYSTEM_CLOCK.monotonic()
        stop.wait(seconds)
        stop.set()
        count = sum(one.result() for one in running)
    return count / (SYSTEM_CLOCK.monotonic() - started)


@pytest.mark.parametrize(
    ("sql", "is_adbc"),
    [(LOOKUP, False), (LOOKUP, True), ("SELECT 1 + 1 AS two", False), ("SELECT 1 AS one", False)],
    ids=["look-up", "ADBC look-up", "SELECT 1+1", "SELECT 1"],
)
def test_small_statements_of_eight_clients(servers, say, sql, is_adbc, pytestconfig):
    rounds, seconds = (16, 3.0) if pytestconfig.getoption("--long") else (2, 0.5)
    rates = defaultdict(list)
    with ExitStack() as stack:
        queries = {
            name: [
                stack.enter_context(small_query(uri, sql, name=name, is_adbc=is_adbc and name == OURS))
                for _ in range(CLIENTS)
            ]
            for name, (uri, _) in servers.items()
        }
        for name in servers:
            calls_a_second(queries[name], 0.5)
        for name in in_turns(rounds):
            rates[name].append(calls_a_second(queries[name], seconds))

    rate = statistics.median(rates[OURS])
    clients = f"{CLIENTS} clients{' by ADBC' * is_adbc}"
    say(f"{sql}, {clients}: {rate:.0f} a second, to {PEER} {ratio(rates[OURS], rates[PEER])}")


@pytest.mark.parametrize("source", ["memory", "Parquet"])
def test_many_rows(servers, say, row_count, source, pytestconfig):
    if source == "memory":
        row_count, sql = MEMORY_ROWS, FROM_MEMORY.format(rows=MEMORY_ROWS)
        theirs = MEMORY_TICKET.format(rows=MEMORY_ROWS, columns=COLUMNS)
    else:
        theirs = sql = "SELECT * FROM rows"
    tickets = {OURS: statement_ticket(sql), PEER: theirs.encode()}
    speeds, cpu = defaultdict(list), defaultdict(list)
    with ExitStack() as stack:
        drains = {name: stack.enter_context(flight_client(uri)) for name, (uri, _) in servers.items()}
        for name in servers:
            drains[name](tickets[name])
        for name in in_turns(8 if pytestconfig.getoption("--long") else 3):
            cpu_seconds = servers[name][1]
            before, started = cpu_seconds(), SYSTEM_CLOCK.monotonic()
            rows, size = drains[name](tickets[name])
            speeds[name].append(size / (SYSTEM_CLOCK.monotonic() - started) / 1e6)
            cpu[name].append(cpu_seconds() - before)
            assert rows == row_count

    speed = statistics.median(speeds[OURS])
    say(
        f"{row_count:,} rows × {COLUMNS} columns from {source}, one client: {speed:.0f} MB/s, "
        f"to {PEER} {ratio(speeds[OURS], speeds[PEER])}; processor {ratio(cpu[OURS], cpu[PEER])}"
    )


@contextmanager
def heavy_clients(server):
    """Sixteen callers who repeat heavy statements, in a process of their own; tells how many ended in which way."""
    before = server.cpu_seconds()
    command = [sys.executable, "-m", "tests.benchmarks.heavy_clients"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:

        def outcomes(line=""):
            child.stdin.write(f"{line}\n")
            child.stdin.flush()
            return Counter(json.loads(child.stdout.readline()))

        try:
            child.stdin.write(json.dumps({"uri": server.uri, "keys": HEAVY_KEYS, "statements": HEAVY}) + "\n")
            outcomes()
            wait_until(lambda: server.cpu_seconds() - before > BEGUN_CPU_SECONDS, "all have begun")
            yield outcomes
        finally:
            child.kill()


def latencies(queries, seconds):
    """Begin statements at fixed times, each of `queries` on its own thread; return the 99th percentiles in ms."""
    interval = len(queries) / SMALL_CALLS_A_SECOND
    began = SYSTEM_CLOCK.monotonic()
    found = {name: [] for name, _ in queries}

    def run(number):
        pause = threading.Event()
        name, query = queries[number]
        for call in range(int(seconds / interval)):
            due = began + (call + number / len(queries)) * interval
            pause.wait(max(0.0, due - SYSTEM_CLOCK.monotonic()))
            query()
            found[name].append((SYSTEM_CLOCK.monotonic() - due) * 1e3)

    with ThreadPoolExecutor(len(queries)) as threads:
        list(threads.map(run, range(len(queries))))
    return {name: statistics.quantiles(times, n=100, method="inclusive")[98] for name, times in found.items()}


def wait_until_quiet(server):
    def is_quiet():
        before = server.cpu_seconds()
        threading.Event().wait(0.5)
        return server.cpu_seconds() - before < 0.1

    wait_until(is_quiet, "the server is quiet")


def test_small_statements_beside_sixteen_heavy_clients(ours, say, pytestconfig):
    rounds, seconds = (12, 10.0) if pytestconfig.getoption("--long") else (1, 3.0)
    alone, beside, rates, outcomes = [], [], [], Counter()
    with ExitStack() as stack:
        queries = [
            (title, stack.enter_context(small_query(ours.uri, sql)))
            for _ in range(SMALL_CLIENTS // len(SMALL))
            for title, sql in SMALL.items()
        ]
        for _ in range(rounds):
            wait_until_quiet(ours)
            alone.append(latencies(queries, seconds))
            with heavy_clients(ours) as ended:
                before, started = ended(), SYSTEM_CLOCK.monotonic()
                beside.append(latencies(queries, 3 * seconds))
                found = ended() - before
                rates.append(found["ok"] / (SYSTEM_CLOCK.monotonic() - started))
                outcomes += found

    lines = [
        f"  p99 of {title}: {statistics.median(found[title] for found in beside):.1f} ms, to the same alone "
        f"{ratio([found[title] for found in beside], [found[title] for found in alone])}"
        for title in SMALL
    ]
    title = f"{HEAVY_CLIENTS} heavy clients beside {SMALL_CALLS_A_SECOND} small statements a second"
    say("\n".join([f"{title}: {statistics.median(rates):.2f} heavy a second, outcomes {dict(outcomes)}", *lines]))
