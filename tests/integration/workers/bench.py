"""A supervisor over light workers (`tests.fakes.light_worker`), under a clock that the test moves."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from micromegas_jupyter.assembly.workers.limits import MemoryLimits
from micromegas_jupyter.assembly.workers.order import WorkerOrder
from micromegas_jupyter.assembly.workers.port import ReservedPort
from micromegas_jupyter.assembly.workers.supervisor import Supervisor

from micromegas_jupyter.seams import SYSTEM_CLOCK
from tests.fakes.clock import FakeClock
from tests.integration.workers.serving import until

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[3]
MIB = 1 << 20
# Much more than a light worker has, less than one that has grown.
WATCHED_BYTES = 120 * MIB
STEP_SECONDS = 1.0
LOOK_SECONDS = 0.3


class Connection:
    """A connection to one of the workers."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._lines = self._socket.makefile()
        self.pid = int(self._lines.readline())

    def tell(self, line: str) -> None:
        self._socket.sendall(f"{line}\n".encode())

    def hear(self) -> str:
        return self._lines.readline().strip()

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class Bench:
    """A supervisor over light workers, under a clock that the test moves."""

    def __init__(self, folder: Path, *, workers: int, keeps_spare: bool = False, max_stuck: int = 0) -> None:
        self.folder = folder
        self.clock = FakeClock(SYSTEM_CLOCK.now())
        self.port = ReservedPort("127.0.0.1", 0)
        order = WorkerOrder(
            kind="light",
            task={"folder": str(folder)},
            port=self.port.number,
            number=0,
            pool_bytes=64 * MIB,
            hard_bytes=4096 * MIB,
        )
        limits = MemoryLimits(pool=order.pool_bytes, hard=order.hard_bytes, watched=WATCHED_BYTES)
        self.supervisor = Supervisor(
            order,
            workers=workers,
            limits=limits,
            keeps_spare=keeps_spare,
            max_stuck=max_stuck,
            program="tests.fakes.light_worker",
            clock=self.clock,
        )

    def connect(self) -> Connection:
        """Connect to whichever worker the system chooses."""
        return Connection(self.port.number)

    def tell(self, line: str) -> int:
        """Tell whichever worker the system chooses something, and wait until it has done it; return its process id."""
        with self.connect() as connection:
            connection.tell(line)
            connection.hear()  # nothing, when it closes the connection
            return connection.pid

    def answering_pid(self) -> int:
        with self.connect() as connection:
            return connection.pid

    def pids(self) -> set[int]:
        return set(self.supervisor.pids().values())

    def advance_until(self, holds: Callable[[], bool], what: str) -> None:
        """Let time pass in steps that the watch takes one by one, until something holds."""
        pause = threading.Event()

        def has_come() -> bool:
            if holds():
                return True
            self.clock.advance(STEP_SECONDS)
            pause.wait(LOOK_SECONDS)
            return False

        until(has_come, what)

    def stop(self) -> None:
        self.supervisor.stop(0.0)
        self.port.close()
