"""What becomes of other calls when a worker has to be ended, or the whole server stops."""

from __future__ import annotations

import signal
from collections import Counter
from typing import TYPE_CHECKING

import grpc
import psutil
import pytest

from tests.integration.workers.calls import ENDLESS_ROWS, SHORT_ROWS, Given
from tests.integration.workers.serving import Serving, cpu_seconds, is_alive, until
from tests.integration.workers.statements import STATEMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

BOMB = "SELECT array_repeat(1, CAST(value * 1000000 AS INT)) AS big FROM (VALUES (2000)) AS bomb(value)"
OTHERS = 8
STREAMS = 50


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("workers")
    with Serving(
        folder / "lake", "--disable-auth", "--no-telemetry", "--drain-seconds", "1", "--max-heavy-queries", "60"
    ) as running:
        yield running


@pytest.fixture
def others(server: Serving) -> Iterator[list[Given]]:
    """Calls that go on beside what a test does, each on a connection of its own."""
    until(lambda: server.ready_workers() == 2, "both workers answer")
    calls = [Given(server.address, ENDLESS_ROWS) for _ in range(OTHERS)]
    try:
        for call in calls:
            assert call.begun.wait(60)
        yield calls
    finally:
        for call in calls:
            call.close()


def clients(pids: set[int]) -> Counter[int]:
    """Return how many clients each worker talks to."""
    return Counter(
        pid
        for pid in pids
        for found in psutil.Process(pid).net_connections("tcp")
        if found.status == psutil.CONN_ESTABLISHED
    )


def hold_only_one_worker_ended(server: Serving, before: Counter[int], workers: set[int], others: list[Given]) -> None:
    """Check that one worker is gone, with its calls told to come again, and that the others' go on."""
    until(lambda: sum(not is_alive(pid) for pid in workers) == 1, "a worker has ended")
    ended = next(pid for pid in workers if not is_alive(pid))
    until(lambda: sum(call.ended.is_set() for call in others) == before[ended], "its calls have ended")
    lost = [call for call in others if call.ended.is_set()]
    kept = [call for call in others if not call.ended.is_set()]
    assert [call.code for call in lost if not call.is_retryable] == []
    seen = {id(call): call.messages for call in kept}
    until(lambda: all(call.messages > seen[id(call)] + 5 for call in kept), "the calls on the other worker go on")
    until(lambda: server.ready_workers() == 2, "both workers answer")


def test_a_worker_that_has_to_be_ended_takes_only_its_own_calls_along(server: Serving, others: list[Given]) -> None:
    workers = server.pids()
    before = clients(workers)
    bad = Given(server.address, STATEMENTS["cross join"])
    started = cpu_seconds(workers)
    until(lambda: cpu_seconds(workers) - started > 1.0, "the statement is being worked on")

    bad.call.cancel()

    hold_only_one_worker_ended(server, before, workers, others)
    assert "A query that was cancelled does not stop." in server.log()
    bad.close()


def test_a_huge_value_ends_one_worker_only(server: Serving, others: list[Given]) -> None:
    workers = server.pids()
    before = clients(workers)

    bomb = Given(server.address, BOMB)

    assert bomb.ended.wait(60)
    assert bomb.code is grpc.StatusCode.UNAVAILABLE
    hold_only_one_worker_ended(server, before, workers, others)
    bomb.close()


def test_calls_end_or_are_told_to_come_again_when_the_server_is_stopped(tmp_path: Path) -> None:
    server = Serving(
        tmp_path / "lake",
        "--disable-auth",
        "--no-telemetry",
        "--no-http",
        "--drain-seconds",
        "2",
        "--max-heavy-queries",
        "60",
    )
    statements = [ENDLESS_ROWS if index % 2 else SHORT_ROWS for index in range(STREAMS)]
    calls = [Given(server.address, sql) for sql in statements]
    try:
        for call in calls:
            assert call.begun.wait(60)

        server.process.send_signal(signal.SIGTERM)

        for call in calls:
            assert call.ended.wait(60)
        ends = Counter(call.code for call in calls)
        assert set(ends) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
        assert ends[grpc.StatusCode.UNAVAILABLE] >= STREAMS // 2
        assert [call.code for call in calls if call.code is not grpc.StatusCode.OK and not call.has_hint] == []
        assert all(call.is_retryable for call in calls if call.code is not grpc.StatusCode.OK)
        assert server.process.wait(60) == 0
    finally:
        for call in calls:
            call.close()
        server.process.kill()
        server.process.communicate()
