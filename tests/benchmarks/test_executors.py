"""What small statements wait for while other callers run heavy ones; printed, never judged.

The same statements are timed alone and beside the heavy ones in turns. A ratio is the median of the rounds, with the
least and the greatest behind it.
"""

import json
import statistics
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import flight

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.flightsql.commands import statement_ticket
from tests.integration.executors.server_process import ROOT, ServerProcess, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(3600)]

CALL_SECONDS = 600
HEAVY_CLIENTS = 16
# Of all small clients together, so few that an idle machine hardly notices.
SMALL_CALLS_A_SECOND, SMALL_CLIENTS = 40, 4
# Of the server, since the heavy clients came, until all their first statements have begun.
BEGUN_CPU_SECONDS = 5.0

KEYS = {f"caller-{number}": f"a-key-for-benchmarks-only-of-{number}" for number in range(HEAVY_CLIENTS + 1)}
*HEAVY_KEYS, SMALL_KEY = KEYS.values()

FEW_ROWS, MANY_ROWS = 10_000, 4_000_000
SMALL = {"SELECT 1": "SELECT 1 AS one", "lookup": "SELECT * FROM few WHERE key = 77"}
HEAVY = (
    "SELECT key, count(*), avg(amount) FROM many GROUP BY key ORDER BY 2 DESC LIMIT 10",
    "SELECT key % 1000, count(DISTINCT key) FROM many GROUP BY 1",
    "SELECT a.key, count(*) FROM many a JOIN many b ON a.key = b.key GROUP BY 1 LIMIT 5",
    "SELECT * FROM many ORDER BY amount LIMIT 100000",
)


def ratio(ours, theirs):
    values = [new / old for new, old in zip(ours, theirs, strict=True)]
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _keys_and_amounts(count):
    numbers = np.arange(count)
    # In no order, each about four times; in the small table one by one.
    keys = numbers if count == FEW_ROWS else numbers * 2654435761 & 0xFFFFF
    return {"key": keys, "amount": keys / 7}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two tables: `many` for heavy statements, `few` for lookups."""
    found = tmp_path_factory.mktemp("tables")
    for name, count in (("many", MANY_ROWS), ("few", FEW_ROWS)):
        pq.write_table(pa.table(_keys_and_amounts(count)), found / f"{name}.parquet", row_group_size=200_000)
    return found


@pytest.fixture(scope="module")
def ours(folder, tmp_path_factory):
    with ServerProcess(
        tmp_path_factory.mktemp("server"), lake=folder, keys=KEYS, options=("--no-telemetry",)
    ) as server:
        yield server


@contextmanager
def small_query(uri, sql):
    options = flight.FlightCallOptions(
        headers=[(b"authorization", f"Bearer {SMALL_KEY}".encode())], timeout=CALL_SECONDS
    )
    # Without this all clients of a process share one connection.
    with flight.connect(uri, generic_options=[("grpc.use_local_subchannel_pool", 1)]) as client:
        yield lambda: client.do_get(flight.Ticket(statement_ticket(sql)), options).read_all()


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
