"""Servers that are killed, stopped or replaced leave no process, no data and no failed call behind."""

import signal
from contextlib import ExitStack

import psutil
import pytest
from grpc import StatusCode

from tests.integration.executors.callers import REPEATING_CLIENT, BackgroundCall, SmallStatements, create_table
from tests.integration.executors.conftest import ATTACKER, KEYS, OPTIONS, OTHERS, UPLOADER
from tests.integration.executors.server_process import ServerProcess, is_running, wait_until
from tests.integration.executors.statements import BUSY, CRASHING

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

# How long a server that was killed may leave processes behind, on a machine that is busy.
GONE_SECONDS = 10.0
# More than wait for statements at any time.
PROCESSES_USED_UP = 8
ENDLESS_ROWS = BUSY["rows for the client"]
LITTLE_MEMORY_MIB = 256


def test_only_the_statement_of_a_killed_executor_fails(server, attacker):
    with BackgroundCall(server, KEYS[ATTACKER], BUSY["series"]) as busy:
        executor = server.busiest_child()
        with SmallStatements(server, [KEYS[name] for name in OTHERS]) as others:
            executor.kill()

            wait_until(lambda: busy.answer is not None, "the statement has ended")
            others.wait_for_all()
    assert not others.failures, others.report
    assert busy.answer.code is StatusCode.RESOURCE_EXHAUSTED
    assert busy.answer.is_from_server
    assert attacker.run("SELECT 1").code is StatusCode.OK


def test_only_running_statements_fail_when_the_zygote_is_killed(server, attacker):
    """Executors end with the process that forked them; what has not begun to run by then waits for new ones."""
    zygote = server.zygote()
    with (
        BackgroundCall(server, KEYS[ATTACKER], ENDLESS_ROWS) as running,
        SmallStatements(server, [KEYS[name] for name in OTHERS]) as others,
    ):
        wait_until(lambda: running.messages > 0, "rows come")

        zygote.kill()

        wait_until(lambda: running.answer is not None, "the statement has ended")
        others.wait_for_all(1)  # the statement that each was running
        failed = others.failures.copy()
        others.forget()
        # New processes are made for new statements.
        answers = [attacker.run(CRASHING["fixed-size list"]) for _ in range(PROCESSES_USED_UP)]
        others.wait_for_all()
    assert running.answer.code is StatusCode.UNAVAILABLE
    assert running.answer.is_from_server
    assert len(failed) <= len(OTHERS), failed
    assert not [failure for failure in failed if failure.startswith(REPEATING_CLIENT)]
    assert {answer.code for answer in answers} == {StatusCode.RESOURCE_EXHAUSTED}
    assert not others.failures, others.report
    assert server.zygote() != zygote


@pytest.fixture
def own_server(tmp_path):
    """A server that a test may kill."""
    spill = tmp_path / "spill"
    spill.mkdir()
    with _serve(tmp_path) as running:
        yield running


def _serve(folder):
    options = [*OPTIONS, "--spill-directory", str(folder / "spill")]
    return ServerProcess(
        folder / "server", lake=folder / "lake", keys=KEYS, options=options, memory_mib=LITTLE_MEMORY_MIB
    )


def _gone(processes):
    return not any(is_running(process) for process in processes)


def test_a_killed_front_leaves_no_process(own_server):
    create_table(own_server, KEYS[UPLOADER])
    statements = [BUSY["series"], BUSY["cross join"], BUSY["levenshtein"], ENDLESS_ROWS]
    with ExitStack() as stack:
        calls = [
            stack.enter_context(BackgroundCall(own_server, KEYS[name], sql))
            for name, sql in zip(OTHERS, statements, strict=False)
        ]
        stopped = own_server.busiest_child()
        stopped.send_signal(signal.SIGSTOP)
        wait_until(lambda: stopped.status() == psutil.STATUS_STOPPED, "it is stopped")

        processes = own_server.kill_front()

        assert len(processes) > len(calls)
        wait_until(lambda: _gone(processes), "all have ended", seconds=GONE_SECONDS)
        wait_until(lambda: all(call.answer is not None for call in calls), "the calls have ended")


def _spilled_files(folder):
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]


def test_what_a_killed_server_spilled_is_removed_at_the_next_start(own_server, tmp_path):
    spill = tmp_path / "spill"
    with BackgroundCall(own_server, KEYS[ATTACKER], BUSY["sort"]) as call:

        def has_spilled():
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
        wait_until(lambda: not folders & set(spill.iterdir()), "they are removed")


# Little to send, and that seldom: a client that falls behind does not get the status before its connection is closed.
LITTLE_TO_SEND = "SELECT value % 2 = 0 AS is_even FROM generate_series(1, 100000000000) WHERE value % 97 = 3"
SHORT_ROWS = "SELECT value % 2 = 0 AS is_even FROM generate_series(1, 1000000)"
CALLS = 6


def test_calls_end_or_are_told_to_come_again_when_the_server_is_stopped(tmp_path):
    options = [*OPTIONS, "--no-http", "--drain-timeout", "2"]
    with (
        ServerProcess(tmp_path / "server", lake=tmp_path / "lake", keys=KEYS, options=options) as server,
        ExitStack() as stack,
    ):
        calls = [
            stack.enter_context(BackgroundCall(server, KEYS[ATTACKER], LITTLE_TO_SEND if number % 2 else SHORT_ROWS))
            for number in range(CALLS)
        ]
        wait_until(lambda: all(call.messages for call in calls), "rows of each call")
        processes = server.processes()

        server.front.send_signal(signal.SIGTERM)

        wait_until(lambda: all(call.answer is not None for call in calls), "each call has ended")
        answers = [call.answer for call in calls]
        assert {answer.code for answer in answers[::2]} <= {StatusCode.OK, StatusCode.UNAVAILABLE}
        assert {answer.code for answer in answers[1::2]} == {StatusCode.UNAVAILABLE}
        assert all(answer.is_from_server for answer in answers)
        wait_until(lambda: _gone(processes), "no process is left")
