"""What `/sql` costs beside Flight's `DoGet`, for the same rows; printed, never judged."""

import json
import secrets
import shutil
import statistics
import subprocess
import time

import pytest
from pyarrow import flight

from micromegas_jupyter.flightsql.commands import statement_ticket
from tests.benchmarks.test_frames import write_rows
from tests.integration.executors.server_process import ServerProcess

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

ROWS, LONG_ROWS = 1_000_000, 10_000_000
SQL = "SELECT id, part, amount, name, time FROM events"


def test_rows_over_http_beside_flight(pytestconfig, tmp_path, say):
    is_long = pytestconfig.getoption("--long")
    served = tmp_path / "served"
    served.mkdir()
    write_rows(served, LONG_ROWS if is_long else ROWS)
    key, took, rows = secrets.token_hex(32), {"flight": [], "curl": []}, tmp_path / "rows"
    with ServerProcess(
        tmp_path / "server", lake=served, keys={"bench": key}, options=("--no-telemetry",), memory_mib=1024
    ) as server:
        headers = ["-H", f"Authorization: Bearer {key}", "-H", "Content-Type: application/json"]
        url = f"{server.ready['http']}/sql"
        curl = [shutil.which("curl"), "-sSf", "-o", "/dev/null", *headers, "-d", json.dumps({"sql": SQL}), url]
        options = flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {key}".encode())])

        def read_flight():
            with flight.connect(server.uri) as client:
                for _chunk in client.do_get(flight.Ticket(statement_ticket(SQL)), options):
                    pass

        ways = {"flight": read_flight, "curl": lambda: subprocess.run(curl, check=True, timeout=600)}
        for _ in range(6 if is_long else 4):
            for name, way in ways.items():
                began_at = time.perf_counter()
                way()
                took[name].append(time.perf_counter() - began_at)
        curl[curl.index("/dev/null")] = rows
        subprocess.run(curl, check=True, timeout=600)
    medians = {name: statistics.median(seconds[1:]) for name, seconds in took.items()}
    shown = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in medians.items())
    say(f"{rows.stat().st_size / 2**20:.0f} MiB: {shown}, ×{medians['curl'] / medians['flight']:.2f}")
