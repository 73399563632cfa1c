"""Two queries that do not stop end both workers at once; the one that waits answers meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
import pytest

import micromegas_jupyter
from tests.integration.workers.calls import Given
from tests.integration.workers.serving import Serving, cpu_seconds, is_alive, until
from tests.integration.workers.statements import STATEMENTS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

MOST_CONNECTIONS = 40


def connected(pid: int) -> list[psutil._common.pconn]:
    return [
        found
        for found in psutil.Process(pid).net_connections("tcp")
        if found.status in {psutil.CONN_LISTEN, psutil.CONN_ESTABLISHED}
    ]


def test_a_query_is_answered_while_both_workers_are_replaced(tmp_path: Path) -> None:
    with Serving(
        tmp_path / "lake", "--disable-auth", "--no-telemetry", "--drain-seconds", "1", "--spare-workers", "1"
    ) as server:
        until(lambda: "\nmicromegas_workers_spare 1.0" in server.page("/metrics"), "one waits", seconds=120)
        before = {pid for pid in server.pids() if connected(pid)}
        (waiting,) = server.pids() - before
        assert len(before) == 2
        # The system chooses a worker for each connection.
        bad: list[Given] = []
        reached: set[int] = set()
        idle = {pid: cpu_seconds({pid}) for pid in before}
        while reached != before and len(bad) < MOST_CONNECTIONS:
            bad.append(Given(server.address, STATEMENTS["cross join"]))
            until(lambda: sum(len(connected(pid)) - 1 for pid in before) >= len(bad), "it is connected")
            reached = {pid for pid in before if len(connected(pid)) > 1}
        until(lambda: all(cpu_seconds({pid}) - idle[pid] > 0.5 for pid in before), "both are busy")

        for call in bad:
            call.call.cancel()

        until(lambda: not any(is_alive(pid) for pid in before), "both have ended")
        with micromegas_jupyter.connect(server.uri) as client:
            assert client.query_arrow("SELECT 1 AS one")["one"].to_pylist() == [1]
            assert len(connected(waiting)) > 1
        assert 'micromegas_workers_replaced_total{reason="stuck"} 2.0' in server.page("/metrics")
        for call in bad:
            call.close()
