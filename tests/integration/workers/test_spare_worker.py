"""Two queries that do not stop end both workers at once; the one that waits answers meanwhile."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psutil
import pytest

import micromegas_jupyter
from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.engine import sql_hash
from micromegas_jupyter.errors import ResourcesExhausted
from tests.integration.workers.calls import Given
from tests.integration.workers.serving import Serving, cpu_seconds, is_alive, until
from tests.integration.workers.statements import STATEMENTS

if TYPE_CHECKING:
    from pathlib import Path

    from micromegas_jupyter import FlightSQLClient

pytestmark = pytest.mark.integration

MOST_CONNECTIONS = 40
KEYS = {name: f"a-key-for-these-tests-only-of-{name}" for name in ("careless", "other")}


def connected(pid: int) -> list[psutil._common.pconn]:
    return [
        found
        for found in psutil.Process(pid).net_connections("tcp")
        if found.status in {psutil.CONN_LISTEN, psutil.CONN_ESTABLISHED}
    ]


def metrics(server: Serving) -> str:
    return server.page("/metrics", KEYS["other"])


def connect(server: Serving, name: str) -> FlightSQLClient:
    return micromegas_jupyter.connect(server.uri, auth_provider=StaticTokenAuthProvider(KEYS[name]))


def is_answered_by(pid: int, server: Serving) -> bool:
    with connect(server, "other") as client:
        assert client.query_arrow("SELECT 1 AS one")["one"].to_pylist() == [1]
        return len(connected(pid)) > 1


def is_restrained(server: Serving) -> bool:
    with connect(server, "careless") as client:
        try:
            client.query_arrow("SELECT 1 AS one")
        except ResourcesExhausted as error:
            return "did not stop" in error.what
    return False


@pytest.mark.timeout(400)  # three processes that start one after the other, on a machine with much else to do
def test_others_are_answered_while_both_workers_are_replaced_and_their_caller_has_to_wait(tmp_path: Path) -> None:
    environ = {"MICROMEGAS_API_KEYS": json.dumps([{"name": name, "key": key} for name, key in KEYS.items()])}
    options = ("--no-telemetry", "--drain-seconds", "1", "--spare-workers", "1", "--max-stuck-queries", "2")
    with Serving(tmp_path / "lake", *options, environ=environ) as server:
        until(lambda: "\nmicromegas_workers_spare 1.0" in metrics(server), "one waits", seconds=120)
        before = {pid for pid in server.pids() if connected(pid)}
        (waiting,) = server.pids() - before
        assert len(before) == 2
        # The system chooses a worker for each connection.
        bad: list[Given] = []
        reached: set[int] = set()
        idle = {pid: cpu_seconds({pid}) for pid in before}
        while reached != before and len(bad) < MOST_CONNECTIONS:
            bad.append(Given(server.address, STATEMENTS["cross join"], key=KEYS["careless"]))
            until(lambda: sum(len(connected(pid)) - 1 for pid in before) >= len(bad), "it is connected")
            reached = {pid for pid in before if len(connected(pid)) > 1}
        until(lambda: all(cpu_seconds({pid}) - idle[pid] > 0.5 for pid in before), "both are busy")

        for call in bad:
            call.call.cancel()

        until(lambda: not any(is_alive(pid) for pid in before), "both have ended")
        until(lambda: bool(connected(waiting)), "the one that waits answers")
        until(lambda: is_answered_by(waiting, server), "it is reached, also where another answers by now")
        until(lambda: 'micromegas_workers_replaced_total{reason="stuck"} 2.0' in metrics(server), "both are counted")
        until(lambda: is_restrained(server), "their caller has to wait")
        told = [line for line in server.log().splitlines() if "A worker process is replaced." in line]
        assert len(told) == 2
        assert all("user=careless" in line for line in told)
        # Where several connections reached one worker, several queries may not have stopped.
        assert all("query_id=" in line or "candidates=" in line for line in told)
        assert all(f"sql_hash={sql_hash(STATEMENTS['cross join'])}" in line for line in told)
        for call in bad:
            call.close()
