"""Servers that are killed, stopped or replaced leave no process, no data and no failed call behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Self

import psutil
import pytest
from grpc import StatusCode

import micromegas_jupyter
from micromegas_jupyter.errors import MicromegasError
from tests.integration.executors.callers import REPEATING_CLIENT, BackgroundCall, Caller, SmallStatements, create_table
from tests.integration.executors.conftest import ATTACKER, KEYS, OPTIONS, OTHERS, UPLOADER
from tests.integration.executors.server_process import ROOT, ServerProcess, is_running, wait_until
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
LITTLE_MEMORY_MIB = 256


def test_only_the_statement_of_a_killed_executor_fails(server: ServerProcess, attacker: Caller) -> None:
    with BackgroundCall(server, KEYS[ATTACKER], BUSY["series"]) as busy:
        executor = server.busiest_child()
        with SmallStatements(server, [KEYS[name] for name in OTHERS]) as others:
            executor.kill()

            wait_until(lambda: busy.answer is not None, "the statement has ended")
            others.wait_for_all()
    assert not others.failures, others.report
    assert busy.answer is not None
    assert busy.answer.code is StatusCode.RESOURCE_EXHAUSTED
    assert busy.answer.is_from_server
    assert attacker.run("SELECT 1").code is StatusCode.OK


def test_only_running_statements_fail_when_the_zygote_is_killed(server: ServerProcess, attacker: Caller) -> None:
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
    assert running.answer is not None
    assert running.answer.code is StatusCode.UNAVAILABLE
    assert running.answer.is_from_server
    assert len(failed) <= len(OTHERS), failed
    assert not [failure for failure in failed if failure.startswith(REPEATING_CLIENT)]
    assert {answer.code for answer in answers} == {StatusCode.RESOURCE_EXHAUSTED}
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
        stopped = own_server.busiest_child()
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
    with BackgroundCall(own_server, KEYS[ATTACKER], BUSY["sort"]) as call:

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


# Little to send, however many rows.
LITTLE_TO_SEND = "SELECT value % 2 = 0 AS is_even FROM generate_series(1, 100000000000)"
SHORT_ROWS = "SELECT value % 2 = 0 AS is_even FROM generate_series(1, 1000000)"
CALLS = 12


def test_calls_end_or_are_told_to_come_again_when_the_server_is_stopped(tmp_path: Path) -> None:
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
        answers = [call.answer for call in calls if call.answer is not None]
        assert {answer.code for answer in answers[::2]} <= {StatusCode.OK, StatusCode.UNAVAILABLE}
        assert {answer.code for answer in answers[1::2]} == {StatusCode.UNAVAILABLE}
        assert all(answer.is_from_server for answer in answers)
        wait_until(lambda: not any(is_running(process) for process in processes), "no process is left")


CLIENTS = 16
_COMMAND = (sys.executable, "-m", "micromegas_jupyter.cli", "serve", "--disable-auth", "--ready-json", "--no-telemetry")


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str((folder / "run").resolve())}
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(
            [*_COMMAND, "--lake", str(folder / "lake"), *options],
            cwd=ROOT,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


@pytest.fixture
def folder(tmp_path: Path, runtime_folder: Path) -> Path:
    (tmp_path / "run").symlink_to(runtime_folder)
    return tmp_path


class Asking:
    """Clients that ask again and again, each over a connection of its own."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        self.failures: list[MicromegasError] = []
        self.answers: Counter[int] = Counter()

    def _ask(self) -> None:
        with micromegas_jupyter.connect(self._uri) as client:
            while not self._stop.is_set():
                try:
                    table = client.query_arrow("SELECT 6 * 7 AS n")
                    self.answers[table.column(0)[0].as_py()] += 1
                except MicromegasError as error:
                    self.failures.append(error)

    def wait_for(self, more: int) -> None:
        """Wait until so many more answers have come, from all clients together."""
        goal = self.answers.total() + more
        wait_until(lambda: self.answers.total() >= goal or bool(self.failures), f"{more} more answers")

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


def test_no_call_of_our_clients_fails_while_one_server_takes_over_from_another(
    folder: Path, pytestconfig: pytest.Config
) -> None:
    rounds = 5 if pytestconfig.getoption("--long") else 1
    with ExitStack() as servers:
        running, ready = servers.enter_context(serving(folder, "--port", "0"))
        options = ["--port", ready["uri"].rpartition(":")[2], "--http-port", ready["http"].rpartition(":")[2]]
        with Asking(ready["uri"]) as asking:
            asking.wait_for(200)
            for _ in range(rounds):
                later, told = servers.enter_context(serving(folder, *options, "--take-over"))
                assert told == ready
                assert running.wait(60) == 0
                running = later
                asking.wait_for(200)
                assert urllib.request.urlopen(ready["http"] + "/health", timeout=30).status == 200
        assert not asking.failures
    assert set(asking.answers) == {42}


def test_prepared_statements_outlive_a_take_over(folder: Path) -> None:
    with serving(folder, "--port", "0") as (old, ready), micromegas_jupyter.connect(ready["uri"]) as client:
        prepared = client.prepare_statement("SELECT 1 AS n")
        port = ready["uri"].rpartition(":")[2]
        with serving(folder, "--port", port, "--take-over"):
            assert old.wait(60) == 0
            rows = list(client.prepared_statement_stream(prepared))
            assert [batch.to_pylist() for batch in rows] == [[{"n": 1}]]
