"""A client that is killed in the middle of a long query: the query stops on the server within two seconds."""

import json
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import psutil
import pytest

from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.wiring import ServerStack

pytestmark = pytest.mark.integration

STOP_TIMEOUT_SECONDS = 2.0
BUSY_SECONDS = 0.5
SHAPES = {
    "endless stream of rows": "SELECT value FROM generate_series(1, 100000000000)",
    "aggregate without an end": "SELECT count(*) FROM generate_series(1, 100000000000) WHERE value % 7 = 3",
}
CLIENT = """
import sys
from micromegas_jupyter import FlightSQLClient
with FlightSQLClient(sys.argv[1]) as client:
    print("connected", client.query_arrow("SELECT 1 AS one").num_rows, flush=True)
    for batch in client.query_stream(sys.argv[2]):
        pass
"""


class AuditLines:
    """Keeps the audit lines and says when one came."""

    def __init__(self):
        self.lines = []
        self.arrived = threading.Event()

    def watch(self, monkeypatch):
        import logging

        handler = logging.Handler()
        handler.emit = self._take
        logging.getLogger("micromegas_jupyter.audit").addHandler(handler)
        return handler

    def _take(self, record):
        self.lines.append(json.loads(record.getMessage()))
        if self.lines[-1].get("status") == "incomplete":
            self.arrived.set()


def _computed_seconds(process):
    """Return the CPU time of the front and of the executors that run now."""
    seconds = 0.0
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            seconds += times.user + times.system
    return seconds


def _wait_until_busy(process, seconds=60.0):
    deadline, pause = SYSTEM_CLOCK.monotonic() + seconds, threading.Event()
    enough = _computed_seconds(process) + BUSY_SECONDS
    while _computed_seconds(process) < enough:
        assert SYSTEM_CLOCK.monotonic() < deadline, "the query never kept the server busy"
        pause.wait(0.05)


def _wait_until_idle(process, seconds=60.0):
    deadline = SYSTEM_CLOCK.monotonic() + seconds
    while (busy := process.cpu_percent(0.25)) >= 20:  # what else this process does comes and goes
        assert SYSTEM_CLOCK.monotonic() < deadline, busy


@pytest.mark.parametrize("shape", SHAPES)
def test_the_query_stops_when_its_client_is_killed(tmp_path, monkeypatch, shape):
    import logging

    audit = AuditLines()
    handler = audit.watch(monkeypatch)
    server_process = psutil.Process()
    try:
        with ServerStack(
            ServerSettings(no_http=True, lake=tmp_path / "lake", port=0, disable_auth=True, no_telemetry=True)
        ) as server:
            with subprocess.Popen(
                [sys.executable, "-c", CLIENT, server.uri, SHAPES[shape]], stdout=subprocess.PIPE, text=True
            ) as client:
                assert client.stdout.readline().startswith("connected")
                _wait_until_busy(server_process)
                client.send_signal(signal.SIGKILL)
                computed = _computed_seconds(server_process)

                # On a busy machine it takes longer; what the query computed since then does not depend on others.
                assert audit.arrived.wait(60)

            assert _computed_seconds(server_process) - computed < STOP_TIMEOUT_SECONDS * psutil.cpu_count()
            _wait_until_idle(server_process)
    finally:
        logging.getLogger("micromegas_jupyter.audit").removeHandler(handler)
