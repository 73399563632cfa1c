"""What becomes of other calls when a worker has to be ended, or the whole server stops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
import pytest

from tests.integration.workers.calls import Given
from tests.integration.workers.serving import Serving

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

ENDLESS_ROWS = "SELECT value FROM generate_series(1, 100000000000)"
BOMB = "SELECT array_repeat(1, CAST(value AS INT)) AS big FROM (VALUES (2000000000)) AS bomb(value)"
STREAMS = 50


class Stream(Given):
    """A call that takes one message and then no more until it is told, so that it costs next to nothing."""

    def _read(self) -> None:
        self.has_begun = True
        super()._read()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("workers")
    with Serving(folder / "lake", "--disable-auth", "--no-telemetry", "--drain-seconds", "1") as running:
        yield running


def connections(pid: int) -> int:
    """How many clients a worker talks to."""
    return sum(found.status == psutil.CONN_ESTABLISHED for found in psutil.Process(pid).net_connections("tcp"))


def worker_of(call: Given, server: Serving) -> int:
    """Return which worker answers a call: the one with the connection's other end."""
    mine = {
        found.laddr.port
        for found in psutil.Process().net_connections("tcp")
        if found.raddr and f"{found.raddr.ip}:{found.raddr.port}" == server.address
    }
    del call
    for pid in server.pids():
        for found in psutil.Process(pid).net_connections("tcp"):
            if found.raddr and found.raddr.port in mine:
                return pid
    raise AssertionError("no worker has the connection")
