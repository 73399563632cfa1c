"""While one server after another takes a port over, no read of ours fails."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.assembly.take_over import is_take_over_supported
from micromegas_jupyter.client import FlightSQLClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not is_take_over_supported(), reason="sockets are handed over on Linux"),
]

ROOT = Path(__file__).parents[3]
TAKE_OVERS = 2
NEW_CALLS = 64

READS: dict[str, Callable[[FlightSQLClient], bool]] = {
    "small": lambda client: client.query_arrow("SELECT value FROM generate_series(1, 1000)").num_rows == 1000,
    "large": lambda client: client.query_arrow("SELECT value FROM generate_series(1, 1000000)").num_rows == 1000000,
    "stream": lambda client: sum(1 for _ in client.query_stream("SELECT value FROM generate_series(1, 300000)")) > 1,
    "values": lambda client: client.query("SELECT :n AS n", params={"n": 7}).n.tolist() == [7],
    "new connection": lambda client: client.query("SELECT 1 AS n").n.tolist() == [1],
    "prepared": lambda client: client.prepare_statement("SELECT 1 AS n").dataset_schema.names == ["n"],
    "tables": lambda client: client.list_tables() == {},
    "identity": lambda client: client.whoami().is_admin,
}


class Servers:
    """The servers that serve a port one after another."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._process, self.port = self._start(0)

    def take_over(self) -> int:
        """Start the next one; return how the one before ended."""
        before = self._process
        self._process, _port = self._start(self.port)
        return before.wait(60)

    def _start(self, port: int) -> tuple[subprocess.Popen[str], int]:
        command = [sys.executable, str(Path(__file__).with_name("serving_child.py")), str(port)]
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._stack.enter_context(process)
        self._stack.callback(process.kill)
        assert process.stdout is not None
        return process, int(process.stdout.readline())


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with ExitStack() as stack:
        yield Servers(stack)


def test_no_read_fails_while_servers_take_a_port_over(servers: Servers) -> None:
    uri = f"grpc://127.0.0.1:{servers.port}"
    made: Counter[str] = Counter()
    wrong: list[str] = []
    changed = threading.Condition()
    stop = threading.Event()

    def read_on(kind: str) -> None:
        client = FlightSQLClient(uri)
        while not stop.is_set():
            if kind == "new connection":
                client.close()
                client = FlightSQLClient(uri)
            try:
                outcome = "" if READS[kind](client) else "wrong rows"
            except Exception as error:  # noqa: BLE001 - whatever it is, the call has failed
                outcome = repr(error)
            with changed:
                made[kind] += 1
                wrong.extend([f"{kind}: {outcome}"] if outcome else [])
                changed.notify_all()
        client.close()

    def await_calls() -> None:
        """Wait until so many more calls have been made, and some of each kind."""
        with changed:
            goal = made.total() + NEW_CALLS
            before = Counter(made)
            assert changed.wait_for(
                lambda: made.total() >= goal and all(made[kind] > before[kind] for kind in READS), timeout=120
            )

    threads = [threading.Thread(target=read_on, args=(kind,)) for kind in (*READS, *READS)]
    try:
        for thread in threads:
            thread.start()
        await_calls()
        for _ in range(TAKE_OVERS):
            assert servers.take_over() == 0
            await_calls()
    finally:
        stop.set()
        for thread in threads:
            thread.join(120)

    assert wrong == []
