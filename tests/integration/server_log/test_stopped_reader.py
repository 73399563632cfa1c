"""A log that nothing reads: statements run or are rejected with the reason, and the server stays in control."""

import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest

from micromegas_jupyter.flightsql.commands import messages
from tests.fakes.waiting import wait_until
from tests.integration.executors.callers import Caller, end_of
from tests.integration.executors.server_process import ServerProcess
from tests.integration.server_log.stopped_reader import PipedServer

pytestmark = pytest.mark.integration

REASON = "the log hasn't accepted data for 2 seconds"
DRAIN_SECONDS = 1
MAX_STATEMENTS = 3000
MIN_STATEMENTS = 20
LONG_SECONDS = 600.0
ROUND_SECONDS = 5.0
CALLERS = 4


def run(caller, sql):
    """Run a statement; return None, or what it was rejected with. This client does not retry."""
    answer = caller.run(sql)
    assert answer.code in {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    return None if answer.code is grpc.StatusCode.OK else answer.text


def run_until_rejected(caller, start):
    """Run statements until one is rejected; return how many ran."""
    for count in range(MAX_STATEMENTS):
        if (text := run(caller, f"SELECT {start + count}")) is not None:
            assert REASON in text
            return count
    pytest.fail("no statement was rejected")


@pytest.fixture
def piped_server(tmp_path):
    with PipedServer(tmp_path, f"--drain-timeout={DRAIN_SECONDS}") as server:
        yield server


@pytest.fixture
def caller(piped_server):
    found = Caller(piped_server, "any")
    yield found
    found.close()


def is_logged(server, number):
    return f'"SELECT {number}"' in server.log()


def check_stalled(server, caller):
    """Check that a server whose log is not read reports that everywhere, and still works."""
    began = time.monotonic()
    assert REASON in run(caller, "SELECT 1")
    assert server.get("/ready").json()["reason"] == "log"
    assert server.get("/health").status_code == 200  # a restart would not help
    who = messages.Action(type="MicromegasWhoAmI").SerializeToString()
    assert end_of(caller.call("DoAction", [who])).code is grpc.StatusCode.OK
    assert time.monotonic() - began < ROUND_SECONDS


def check_children(server):
    """Check that no other process of the server could hang while it writes to the log."""
    log = Path(f"/proc/{server.process.pid}/fd/2")
    for child in psutil.Process(server.process.pid).children(recursive=True):
        assert not log.samefile(f"/proc/{child.pid}/fd/2")


def test_a_server_whose_log_is_not_read_rejects_statements_until_it_is_read(piped_server, caller, pytestconfig):
    stop_seconds = LONG_SECONDS if pytestconfig.getoption("--long") else 0.0
    server = piped_server
    assert run(caller, "SELECT 1") is None
    assert server.get("/ready").json() == {"status": "ready"}
    server.stop_reading()

    count = run_until_rejected(caller, 1000)
    until = time.monotonic() + stop_seconds
    check_stalled(server, caller)
    while time.monotonic() < until:
        check_stalled(server, caller)
    check_children(server)
    assert server.metric("micromegas_server_log_lines_waiting") > 0

    server.read_again()
    wait_until(lambda: server.get("/ready").status_code == 200, "it is ready again")
    assert run(caller, "SELECT 999") is None
    wait_until(lambda: is_logged(server, 999), "the log is complete")
    assert all(is_logged(server, 1000 + number) for number in range(count))
    assert server.metric("micromegas_server_log_lines_dropped_total") == 0

    server.stop_reading()
    run_until_rejected(caller, 5000)
    began = time.monotonic()
    server.terminate()
    server.process.wait(60)
    assert time.monotonic() - began < DRAIN_SECONDS + 5


def test_a_killed_server_has_written_the_audit_line_of_every_call_that_ended(tmp_path):
    with ServerProcess(tmp_path, lake=tmp_path / "lake", keys={}, options=("--no-telemetry",)) as server:
        ended = [set() for _ in range(CALLERS)]
        enough = threading.Event()

        def call(place):
            caller = Caller(server, "any")
            for number in range(MAX_STATEMENTS):
                sql = f"SELECT {place * MAX_STATEMENTS + number}"
                if caller.run(sql).code is not grpc.StatusCode.OK:
                    break  # the server was killed
                ended[place].add(sql)
                if number == MIN_STATEMENTS:
                    enough.set()
            caller.close()

        with ThreadPoolExecutor(CALLERS) as threads:
            running = [threads.submit(call, place) for place in range(CALLERS)]
            assert enough.wait(60)
            os.kill(server.front.pid, signal.SIGKILL)
            for one in running:
                one.result()

        text = server.audit_file.read_text()
        recorded = {json.loads(line).get("sql") for line in text.splitlines(keepends=True) if line.endswith("\n")}
        assert set().union(*ended) - recorded == set()
