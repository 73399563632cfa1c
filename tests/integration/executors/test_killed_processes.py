"""The server's processes killed with SIGKILL: what runs in them fails, nothing else; a killed front leaves nothing."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import psutil
import pytest
from grpc import StatusCode

from tests.integration.executors.callers import BackgroundCall, Caller, SmallStatements, create_table
from tests.integration.executors.conftest import ATTACKER, KEYS, OPTIONS, OTHERS, UPLOADER
from tests.integration.executors.server_process import ServerProcess, is_running, wait_until
from tests.integration.executors.statements import BUSY, CRASHING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

# How long a server that was killed may leave processes behind.
GONE_SECONDS = 2.0
# More than wait for statements at any time.
PROCESSES_USED_UP = 8
ENDLESS_ROWS = BUSY["rows for the client"]
# It spills and spills, and comes to no end.
SPILLING = "SELECT value * 7919 % 100003 AS n FROM generate_series(1, 100000000000) ORDER BY n"
LITTLE_MEMORY_MIB = 256


def busy_executor(server: ServerProcess) -> psutil.Process:
    """Return the process in which a statement runs that uses a processor."""
    found = server.busiest()
    assert found != server.front
    return found


@pytest.fixture
def busy(server: ServerProcess) -> Iterator[BackgroundCall]:
    with BackgroundCall(server, KEYS[ATTACKER], BUSY["series"]) as call:
        yield call


def test_only_the_statement_of_a_killed_executor_fails(
    server: ServerProcess, others: SmallStatements, attacker: Caller, busy: BackgroundCall
) -> None:
    busy_executor(server).kill()

    wait_until(lambda: busy.answer is not None, "the statement has ended")
    others.wait_for_all()
    assert not others.failures, others.report
    assert busy.answer is not None
    assert busy.answer.code is not StatusCode.OK
    assert busy.answer.is_from_server, busy.answer
    assert attacker.run("SELECT 1").code is StatusCode.OK


def test_no_statement_fails_when_the_zygote_is_killed(
    server: ServerProcess, others: SmallStatements, attacker: Caller
) -> None:
    zygote = server.zygote()
    with BackgroundCall(server, KEYS[ATTACKER], ENDLESS_ROWS) as running:
        wait_until(lambda: running.messages > 0, "rows come")

        zygote.kill()

        wait_until(lambda: not is_running(zygote), "it has ended")
        seen = running.messages
        wait_until(lambda: running.messages > seen + 5 or running.answer is not None, "more rows come")
        assert running.answer is None
    # New processes are made for new statements.
    for _ in range(PROCESSES_USED_UP):
        assert attacker.run(CRASHING["fixed-size list"]).code is StatusCode.RESOURCE_EXHAUSTED
    others.wait_for_all()
    assert not others.failures, others.report
    assert server.zygote() != zygote


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that a test may kill."""
    spill = tmp_path / "spill"
    spill.mkdir()
    with _serve(tmp_path) as running:
        yield running


def _serve(folder: Path) -> ServerProcess:
    options = [*OPTIONS, "--spill-directory", str(folder / "spill")]
    return ServerProcess(
        folder / "server", lake=folder / "lake", keys=KEYS, options=options, memory_mib=LITTLE_MEMORY_MIB
    )


def _gone(processes: list[psutil.Process]) -> bool:
    return not any(is_running(process) for process in processes)


def test_a_killed_front_leaves_no_process(own_server: ServerProcess) -> None:
    create_table(own_server, KEYS[UPLOADER])
    statements = [BUSY["series"], BUSY["cross join"], BUSY["levenshtein"], ENDLESS_ROWS]
    calls = [BackgroundCall(own_server, KEYS[name], sql) for name, sql in zip(OTHERS, statements, strict=False)]
    try:
        stopped = busy_executor(own_server)
        stopped.send_signal(signal.SIGSTOP)
        wait_until(lambda: stopped.status() == psutil.STATUS_STOPPED, "it is stopped")

        processes = own_server.kill_front()

        assert len(processes) > len(calls)
        wait_until(lambda: _gone(processes), "all have ended", seconds=GONE_SECONDS)
        for call in calls:
            wait_until(lambda call=call: call.answer is not None, "the call has ended")
    finally:
        for call in calls:
            call.close()


def _spilled_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]


def test_what_a_killed_server_spilled_is_removed_at_the_next_start(own_server: ServerProcess, tmp_path: Path) -> None:
    spill = tmp_path / "spill"
    with BackgroundCall(own_server, KEYS[ATTACKER], SPILLING) as call:

        def has_spilled() -> bool:
            assert call.answer is None, call.answer
            try:
                return bool(_spilled_files(spill))
            except FileNotFoundError:  # it may be done with one
                return False

        wait_until(has_spilled, "it has spilled")
        processes = own_server.kill_front()
        wait_until(lambda: _gone(processes), "all have ended")
    assert _spilled_files(spill)
    folders = set(spill.iterdir())

    with _serve(tmp_path):
        wait_until(lambda: not folders & set(spill.iterdir()), "they are removed", seconds=10)
