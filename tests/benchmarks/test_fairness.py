"""What dashboards notice of one caller who runs all that a caller may; printed, never judged.

The dashboards are 30 callers with a small aggregate a second each, begun at fixed times. Rounds alone and rounds beside
24 threads of one caller with heavy statements take turns, so that each ratio compares neighbors in time.
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

DASHBOARDS, THREADS = 30, 24
INTERVAL_SECONDS = 1.0
CALL_SECONDS = 120
# Of the server, since the abusive caller came, until that caller's use is known.
BEGUN_CPU_SECONDS = 5.0
KEYS = {f"caller-{number}": f"a-key-for-benchmarks-only-of-{number}" for number in range(DASHBOARDS + 1)}
*DASHBOARD_KEYS, ABUSIVE_KEY = KEYS.values()
ROWS = {"panel": 100_000, "many": 4_000_000}
PANEL = "SELECT key % 24 AS hour, count(*) AS calls, avg(amount) AS mean FROM panel GROUP BY 1 ORDER BY 1"
HEAVY = (
    "SELECT key, count(*), avg(amount) FROM many GROUP BY key ORDER BY 2 DESC LIMIT 10",
    "SELECT key % 1000, count(DISTINCT key) FROM many GROUP BY 1",
    "SELECT key % 7, avg(amount), stddev(amount) FROM many GROUP BY 1",
    "SELECT count(*) FROM many WHERE sqrt(amount) > 5 AND sin(amount) > 0",
)


def write_tables(folder):
    for name, count in ROWS.items():
        numbers = np.arange(count)
        (folder / name).mkdir()
        pq.write_table(
            pa.table({"key": numbers * 2654435761 & 0xFFFFF, "amount": numbers / 7}),
            folder / name / "part.parquet",
            row_group_size=200_000,
        )


@contextmanager
def abusive_caller(server):
    """One caller with 24 threads, in another process; yields how many of the statements have ended, by outcome."""
    before = server.cpu_seconds()
    command = [sys.executable, "-m", "tests.benchmarks.heavy_clients"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:

        def outcomes():
            child.stdin.write("\n")
            child.stdin.flush()
            return Counter(json.loads(child.stdout.readline()))

        try:
            task = {"uri": server.uri, "keys": [ABUSIVE_KEY] * THREADS, "statements": HEAVY}
            child.stdin.write(json.dumps(task) + "\n")
            outcomes()
            wait_until(lambda: server.cpu_seconds() - before > BEGUN_CPU_SECONDS, "the caller has begun")
            yield outcomes
        finally:
            child.kill()


def dashboard_times(clients, seconds):
    """Return how long the dashboards' statements took, in ms, from when they were due."""
    began = SYSTEM_CLOCK.monotonic()
    ticket = flight.Ticket(statement_ticket(PANEL))

    def run(number):
        client, key = clients[number], DASHBOARD_KEYS[number]
        headers = [(b"authorization", f"Bearer {key}".encode())]
        pause, times = threading.Event(), []
        for call in range(int(seconds / INTERVAL_SECONDS)):
            due = began + (call + number / DASHBOARDS) * INTERVAL_SECONDS
            pause.wait(max(0.0, due - SYSTEM_CLOCK.monotonic()))
            client.do_get(ticket, flight.FlightCallOptions(headers=headers, timeout=CALL_SECONDS)).read_all()
            times.append((SYSTEM_CLOCK.monotonic() - due) * 1e3)
        return times

    with ThreadPoolExecutor(DASHBOARDS) as threads:
        return [time for times in threads.map(run, range(DASHBOARDS)) for time in times]


def wait_until_quiet(server):
    def is_quiet():
        before = server.cpu_seconds()
        threading.Event().wait(0.5)
        return server.cpu_seconds() - before < 0.1

    wait_until(is_quiet, "the server is quiet")


def measure(server, *, rounds, seconds):
    """Return p50 and p95 in ms of each round alone and beside, the heavy statements a second, and their outcomes."""
    found, rates, ended = {"alone": [], "beside": []}, [], Counter()
    with ExitStack() as stack:
        options = [("grpc.use_local_subchannel_pool", 1)]
        clients = [stack.enter_context(flight.connect(server.uri, generic_options=options)) for _ in range(DASHBOARDS)]
        dashboard_times(clients, 2.0)
        for _ in range(rounds):
            wait_until_quiet(server)
            found["alone"].append(dashboard_times(clients, seconds))
            with abusive_caller(server) as outcomes:
                before, started = outcomes(), SYSTEM_CLOCK.monotonic()
                found["beside"].append(dashboard_times(clients, seconds))
                new = outcomes() - before
                rates.append(new["ok"] / (SYSTEM_CLOCK.monotonic() - started))
                ended += new
    percentiles = {
        name: [[statistics.quantiles(times, n=100, method="inclusive")[at] for at in (49, 94)] for times in measured]
        for name, measured in found.items()
    }
    return percentiles, rates, ended


def test_dashboards_beside_an_abusive_caller(tmp_path, say, pytestconfig):
    rounds, seconds = (8, 20.0) if pytestconfig.getoption("--long") else (1, 5.0)
    (tmp_path / "tables").mkdir()
    write_tables(tmp_path / "tables")
    options = ("--no-telemetry",)
    with ServerProcess(tmp_path / "server", lake=tmp_path / "tables", keys=KEYS, options=options) as server:
        found, rates, ended = measure(server, rounds=rounds, seconds=seconds)

    title = f"{DASHBOARDS} dashboards beside {THREADS} threads of one caller"
    lines = [f"{title}: {statistics.median(rates):.2f} heavy a second, outcomes {dict(ended)}"]
    for place, name in enumerate(("p50", "p95")):
        alone, beside = ([round_[place] for round_ in found[kind]] for kind in ("alone", "beside"))
        ratios = [new / old for new, old in zip(beside, alone, strict=True)]
        lines.append(
            f"  {name}: {statistics.median(beside):.1f} ms, to the same alone "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    say("\n".join(lines))
