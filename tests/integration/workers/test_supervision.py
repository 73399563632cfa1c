"""Workers that end, in whatever way, are replaced; without their supervisor they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import micromegas_jupyter
from tests.integration.workers.serving import Serving, is_alive, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

KEY = "a-key-for-these-tests-only"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("workers")
    with Serving(folder / "lake", "--disable-auth", "--no-telemetry", "--drain-seconds", "1") as running:
        yield running


def answers(uri: str) -> bool:
    with micromegas_jupyter.connect(uri) as client:
        return client.query_arrow("SELECT 1 AS one")["one"].to_pylist() == [1]


def test_both_workers_answer_on_the_one_port(server: Serving) -> None:
    assert len(server.pids()) == 2

    for _ in range(8):
        assert answers(server.uri)

    def both_are_told() -> bool:
        text = server.page("/metrics")
        return 'worker="1"' in text and 'worker="2"' in text

    until(both_are_told, "both workers tell what they count")
    text = server.page("/metrics")
    assert text.count("# TYPE micromegas_server_calls_total counter") <= 1
    assert server.ready_workers() == 2
    assert server.page("/health") == "OK\n"


def test_a_killed_worker_is_replaced(server: Serving) -> None:
    before = server.pids()
    killed = min(before)

    os.kill(killed, signal.SIGKILL)

    until(lambda: not is_alive(killed) and len(server.pids()) == 2, "two workers again")
    until(lambda: server.ready_workers() == 2, "both answer")
    assert len(server.pids() & before) == 1
    assert answers(server.uri)
    assert 'micromegas_workers_replaced_total{reason="ended"} 1.0' in server.page("/metrics")
    assert "A worker process ended and is replaced." in server.log()
    assert "end=SIGKILL" in server.log()


def test_a_second_server_does_not_take_half_of_the_connections(server: Serving, tmp_path: Path) -> None:
    port = server.uri.rpartition(":")[2]

    second = subprocess.run(
        [sys.executable, "-m", "micromegas_jupyter.cli", "serve", "--port", port, "--disable-auth",
         "--lake", str(tmp_path / "lake")],
        capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip

    assert second.returncode == 2
    assert "the port is taken" in second.stderr


def test_workers_end_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    server = Serving(tmp_path / "lake", "--disable-auth", "--no-telemetry", "--workers", "1", "--no-http")
    workers = server.pids()

    server.process.kill()
    server.process.communicate()

    assert len(workers) == 1
    until(lambda: not any(is_alive(pid) for pid in workers), "no worker is left")


def test_a_hang_up_reaches_every_worker(tmp_path: Path) -> None:
    environ = {"MICROMEGAS_API_KEYS": json.dumps([{"name": "first", "key": KEY}])}
    with Serving(tmp_path / "lake", "--no-telemetry", environ=environ) as server:
        server.process.send_signal(signal.SIGHUP)

        def reloads() -> list[str]:
            text = server.page("/metrics", KEY)
            return [line for line in text.splitlines() if line.startswith("micromegas_access_reloads_total{")]

        def is_done() -> bool:
            found = [line for line in reloads() if 'outcome="in_force"' in line and line.endswith(" 1.0")]
            return len({line for line in found if 'worker="' in line}) == 3

        until(is_done, "supervisor and both workers have reloaded")
