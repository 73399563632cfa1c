"""`serve --take-over`: clients of ours do not notice that the server is replaced."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Self

import pytest

import micromegas_jupyter
from micromegas_jupyter.errors import MicromegasError
from tests.integration.executors.server_process import ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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


def test_a_port_that_is_taken_is_refused_without_the_option(folder: Path) -> None:
    with serving(folder, "--port", "0") as (old, ready):
        port = ready["uri"].rpartition(":")[2]
        again = subprocess.run(
            [*_COMMAND, "--lake", str(folder / "lake"), "--port", port],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert again.returncode == 2
        assert "CONF001" in again.stderr
        assert old.poll() is None


def test_prepared_statements_outlive_a_take_over(folder: Path) -> None:
    with serving(folder, "--port", "0") as (old, ready), micromegas_jupyter.connect(ready["uri"]) as client:
        prepared = client.prepare_statement("SELECT 1 AS n")
        port = ready["uri"].rpartition(":")[2]
        with serving(folder, "--port", port, "--take-over"):
            assert old.wait(60) == 0
            rows = list(client.prepared_statement_stream(prepared))
            assert [batch.to_pylist() for batch in rows] == [[{"n": 1}]]
