"""What executors cost and what they bring, beside pyarrow's own server; printed, never judged.

All servers run at once and take turns in short rounds, so that each ratio compares neighbours in time: what else the
machine does hits both. A ratio is the median of the rounds, with the least and the greatest behind it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

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
from tests.benchmarks.measuring import load_text
from tests.integration.executors.server_process import ROOT, ServerProcess, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable


pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(3600)]

NEW, PEER = "this server", "pyarrow.flight"
CALL_SECONDS = 600
CLIENTS = 8
HEAVY_CLIENTS = 16
# Of all small clients together, so few that an idle machine hardly notices.
SMALL_CALLS_A_SECOND, SMALL_CLIENTS = 40, 4
# Of the server, since the heavy clients came, until all their first statements have begun.
BEGUN_CPU_SECONDS = 5.0
PERCENTILES = {"p50": 50, "p99": 99}
COLUMNS = 5
HOURS = 2

CALLERS = [f"caller-{number}" for number in range(HEAVY_CLIENTS + 1)]
KEYS = {name: f"a-key-for-benchmarks-only-of-{name}" for name in CALLERS}
SMALL_KEY = KEYS[CALLERS[-1]]

FEW_ROWS, MANY_ROWS, MEMORY_ROWS = 10_000, 4_000_000, 10_000_000
LOOKUP = "SELECT * FROM few WHERE key = 77"
HEAVY = (
    "SELECT key, count(*), avg(amount) FROM many GROUP BY key ORDER BY 2 DESC LIMIT 10",
    "SELECT key % 1000, count(DISTINCT key) FROM many GROUP BY 1",
    "SELECT a.key, count(*) FROM many a JOIN many b ON a.key = b.key GROUP BY 1 LIMIT 5",
    "SELECT * FROM many ORDER BY amount LIMIT 100000",
)
# It would take hours, and gives rows all the time.
ALL_ROWS = "SELECT * FROM rows"
# The engine makes one column and gives it five times, which costs next to nothing: what is measured is the way out.
FROM_MEMORY = "SELECT {columns} FROM generate_series(1, {{rows}})".format(
    columns=", ".join(f"value AS c{number}" for number in range(COLUMNS))
)


@dataclass(frozen=True)
class Served:
    """A running server."""

    uri: str
    cpu_seconds: Callable[[], float]


@dataclass
class Rounds:
    """Figures of servers that took turns, one for each round."""

    figures: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name, figure):
        self.figures.setdefault(name, []).append(figure)

    def median(self, name):
        return statistics.median(self.figures[name])

    def ratio(self, other, name=NEW):
        return spread([new / old for new, old in zip(self.figures[name], self.figures[other], strict=True) if old])

    def ratios(self):
        return ", ".join(f"to {other} {self.ratio(other)}" for other in self.figures if other != NEW)


def in_turns(names, rounds):
    for number in range(rounds):
        yield from names if number % 2 == 0 else reversed(names)


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else "unknown"


def percentile(values, name):
    return statistics.quantiles(values, n=100, method="inclusive")[PERCENTILES[name] - 1]


def _write(folder, name, table):
    (folder / name).mkdir()
    pq.write_table(table, folder / name / "part.parquet", row_group_size=200_000)


def _keys_and_amounts(count):
    numbers = np.arange(count)
    # In no order, each about four times; in the small table one by one.
    keys = numbers if count == FEW_ROWS else numbers * 2654435761 & 0xFFFFF
    return pa.table({"key": keys, "amount": keys / 7})


@pytest.fixture(scope="module")
def row_count(pytestconfig):
    return 10_000_000 if pytestconfig.getoption("--long") else 1_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory, row_count):
    """Three tables: `rows` with five columns, `many` for heavy statements, `few` for look-ups."""
    found = tmp_path_factory.mktemp("tables")
    numbers = np.arange(row_count)
    names = pa.array([f"name-{number}" for number in range(5000)])
    rows = {
        "id": numbers,
        "part": numbers % 1000,
        "amount": numbers / 3,
        "time": pa.array(numbers * 1_000_007).cast(pa.timestamp("ns", "UTC")),
        "name": names.take(pa.array(numbers % 5000)),
    }
    _write(found, "rows", pa.table(rows))
    _write(found, "many", _keys_and_amounts(MANY_ROWS))
    _write(found, "few", _keys_and_amounts(FEW_ROWS))
    return found


@pytest.fixture(scope="module")
def versions(folder, tmp_path_factory):
    own = tmp_path_factory.mktemp("server")
    with ServerProcess(own, lake=folder, keys=KEYS, options=("--no-telemetry",), checkout=ROOT) as server:
        yield {NEW: Served(server.uri, server.cpu_seconds)}


@pytest.fixture(scope="module")
def peer(folder):
    command = [sys.executable, "-m", "tests.benchmarks.flight_peer", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        process = psutil.Process(child.pid)
        yield Served(child.stdout.readline().strip(), lambda: sum(process.cpu_times()[:2]))
        child.terminate()


@pytest.fixture
def say(capsys):
    def say(text):
        with capsys.disabled():
            print(f"\n{text} ({load_text()})")

    return say


@contextmanager
def flight_client(served, key=SMALL_KEY):
    headers = [(b"authorization", f"Bearer {key}".encode())]
    # Without this all clients of a process share one connection.
    with flight.connect(served.uri, generic_options=[("grpc.use_local_subchannel_pool", 1)]) as client:

        def drain(ticket, timeout=CALL_SECONDS):
            options = flight.FlightCallOptions(headers=headers, timeout=timeout)
            rows = size = 0
            for chunk in client.do_get(flight.Ticket(ticket), options):
                rows += chunk.data.num_rows
                size += chunk.data.get_total_buffer_size()
            return rows, size

        yield drain


@contextmanager
def small_query(served, sql, *, is_adbc, is_peer):
    if is_adbc:
        settings = {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {SMALL_KEY}"}
        with (
            adbc_driver_flightsql.dbapi.connect(served.uri, db_kwargs=settings, autocommit=True) as connection,
            connection.cursor() as cursor,
        ):

            def execute():
                cursor.execute(sql)
                return cursor.fetchall()

            yield execute
        return
    ticket = sql.encode() if is_peer else statement_ticket(sql)
    with flight_client(served) as drain:
        yield lambda: drain(ticket, CALL_SECONDS)


def calls_a_second(queries, seconds):
    """Run each query again and again on a thread of its own; return the rate of all, and how many they were."""
    counts = [0] * len(queries)
    together = threading.Barrier(len(queries) + 1)
    stop = threading.Event()

    def run(number):
        together.wait()
        while not stop.is_set():
            queries[number]()
            counts[number] += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(queries))]
    for thread in threads:
        thread.start()
    together.wait()
    started = SYSTEM_CLOCK.monotonic()
    stop.wait(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    return sum(counts) / (SYSTEM_CLOCK.monotonic() - started), sum(counts)


@pytest.mark.parametrize(
    ("title", "sql", "is_adbc"),
    [
        ("look-up", LOOKUP, False),
        ("look-up by ADBC", LOOKUP, True),
        ("SELECT 1 + 1", "SELECT 1 + 1 AS two", False),
        ("SELECT 1", "SELECT 1 AS one", False),
    ],
    ids=["look-up", "ADBC look-up", "SELECT 1+1", "SELECT 1"],
)
def test_small_statements_of_eight_clients(  # noqa: PLR0917
    versions,
    peer,
    say,
    title,
    sql,
    is_adbc,
    pytestconfig,
):
    rounds, seconds = (16, 3.0) if pytestconfig.getoption("--long") else (2, 0.5)
    # pyarrow's server speaks Flight, not Flight SQL.
    servers = versions if is_adbc else versions | {PEER: peer}
    rates, cpu = Rounds(), Rounds()
    with ExitStack() as stack:
        queries = {
            name: [
                stack.enter_context(small_query(served, sql, is_adbc=is_adbc, is_peer=name == PEER))
                for _ in range(CLIENTS)
            ]
            for name, served in servers.items()
        }
        for name in servers:
            calls_a_second(queries[name], 0.5)

        for name in in_turns(list(servers), rounds):
            before = servers[name].cpu_seconds()
            rate, count = calls_a_second(queries[name], seconds)
            rates.add(name, rate)
            cpu.add(name, (servers[name].cpu_seconds() - before) / count * 1e3)

    assert all(len(found) == rounds for found in rates.figures.values())
    lines = [f"  {name}: {rates.median(name):.0f} a second, {cpu.median(name):.1f} ms CPU each" for name in servers]
    say("\n".join([f"{title}, {CLIENTS} clients; rates {rates.ratios()}; CPU {cpu.ratios()}", *lines]))


@pytest.mark.parametrize("source", ["memory", "Parquet"])
def test_many_rows(  # noqa: PLR0917
    versions,
    peer,
    say,
    row_count,
    source,
    pytestconfig,
):
    is_long = pytestconfig.getoption("--long")
    row_count = MEMORY_ROWS if source == "memory" else row_count
    sql = FROM_MEMORY.format(rows=row_count) if source == "memory" else ALL_ROWS
    peers = MEMORY_TICKET.format(rows=row_count, columns=COLUMNS) if source == "memory" else sql
    servers = versions | {PEER: peer}
    tickets = {name: peers.encode() if name == PEER else statement_ticket(sql) for name in servers}
    speeds, cpu = Rounds(), Rounds()
    with ExitStack() as stack:
        drains = {name: stack.enter_context(flight_client(served)) for name, served in servers.items()}
        for name in servers:
            drains[name](tickets[name], CALL_SECONDS)

        for name in in_turns(list(servers), 8 if is_long else 3):
            before, started = servers[name].cpu_seconds(), SYSTEM_CLOCK.monotonic()
            rows, size = drains[name](tickets[name], CALL_SECONDS)
            speeds.add(name, size / (SYSTEM_CLOCK.monotonic() - started) / 1e6)
            cpu.add(name, servers[name].cpu_seconds() - before)
            assert rows == row_count

    lines = [f"  {name}: {speeds.median(name):.0f} MB/s, {cpu.median(name):.2f} s CPU" for name in servers]
    title = f"{row_count:,} rows × {COLUMNS} columns from {source}, one client"
    say("\n".join([f"{title}; speed {speeds.ratios()}; CPU {cpu.ratios()}", *lines]))


class HeavyClients:
    """Sixteen callers who repeat heavy statements, in a process of their own."""

    def __init__(self, served):
        command = [sys.executable, "-m", "tests.benchmarks.heavy_clients"]
        self._child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        keys = [KEYS[name] for name in CALLERS[:HEAVY_CLIENTS]]
        self._send(json.dumps({"uri": served.uri, "keys": keys, "statements": HEAVY}))
        assert self._hear() == "begun"

    def _send(self, line):
        assert self._child.stdin is not None
        self._child.stdin.write(f"{line}\n")
        self._child.stdin.flush()

    def _hear(self):
        assert self._child.stdout is not None
        return self._child.stdout.readline().strip()

    def start(self):
        self._send("start")

    def stop(self):
        self._send("stop")
        return json.loads(self._hear())

    def close(self):
        self._child.kill()
        self._child.communicate()


def latencies(queries, seconds):
    """Begin statements at fixed times, each of `queries` on its own thread; return how many ms each took."""
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

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(queries))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def wait_until_quiet(served):
    def is_quiet():
        before = served.cpu_seconds()
        threading.Event().wait(0.5)
        return served.cpu_seconds() - before < 0.1

    wait_until(is_quiet, "the server is quiet")


def test_small_statements_beside_sixteen_heavy_clients(versions, say, pytestconfig):
    rounds, seconds = (12, 10.0) if pytestconfig.getoption("--long") else (1, 3.0)
    statements = {"SELECT 1": "SELECT 1 AS one", "look-up": LOOKUP}
    heavy_rates, heavy_cpu = Rounds(), Rounds()
    outcomes = {name: Counter() for name in versions}
    alone, beside = ({name: {title: Rounds() for title in statements} for name in versions} for _ in range(2))

    def run_beside(name):
        served = versions[name]
        before = served.cpu_seconds()
        heavy = HeavyClients(served)
        try:
            wait_until(lambda: served.cpu_seconds() - before > BEGUN_CPU_SECONDS, "all have begun")
            heavy.start()
            started, used = SYSTEM_CLOCK.monotonic(), served.cpu_seconds()
            found = latencies(queries[name], 3 * seconds)
            ended = heavy.stop()
            heavy_rates.add(name, ended.get("ok", 0) / (SYSTEM_CLOCK.monotonic() - started))
            heavy_cpu.add(name, (served.cpu_seconds() - used) / max(1, ended.get("ok", 0)))
            outcomes[name].update(ended)
        finally:
            heavy.close()
        return found

    with ExitStack() as stack:
        queries = {
            name: [
                (title, stack.enter_context(small_query(served, sql, is_adbc=False, is_peer=False)))
                for _ in range(SMALL_CLIENTS // len(statements))
                for title, sql in statements.items()
            ]
            for name, served in versions.items()
        }
        for name in in_turns(list(versions), rounds):
            wait_until_quiet(versions[name])
            for title, times in latencies(queries[name], seconds).items():
                for percent in PERCENTILES:
                    alone[name][title].add(percent, percentile(times, percent))
            for title, times in run_beside(name).items():
                for percent in PERCENTILES:
                    beside[name][title].add(percent, percentile(times, percent))
            wait_until_quiet(versions[name])

    title = f"{HEAVY_CLIENTS} heavy clients beside {SMALL_CALLS_A_SECOND} small statements a second"
    lines = [f"{title}; heavy throughput {heavy_rates.ratios()}; CPU of each {heavy_cpu.ratios()}"]
    for name in versions:
        lines.append(
            f"  {name}: {heavy_rates.median(name):.2f} heavy statements a second, "
            f"{heavy_cpu.median(name):.2f} s CPU each, outcomes {dict(outcomes[name])}"
        )
        for title in statements:
            quiet, busy = alone[name][title], beside[name][title]
            shown = ", ".join(f"{each} {quiet.median(each):.1f} → {busy.median(each):.1f} ms" for each in PERCENTILES)
            ratios = [late / early for late, early in zip(busy.figures["p99"], quiet.figures["p99"], strict=True)]
            lines.append(f"    {title}: {shown}; ratio of p99 {spread(ratios)}")
    say("\n".join(lines))
