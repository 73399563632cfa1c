"""A worker process that serves next to nothing and so starts in a moment: the program of real workers, real sockets.

A client gets one line, this process's id, and may send one: `grow`, `fail`, `leave`,
`cancel` (answered with who else was asked), or `run` or `stuck` with ISSUER, SUBJECT and QUERY_ID. One that leaves
stays while the file `drains` is there.
"""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from micromegas_jupyter.assembly.workers import program, served
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import generate_latest

if TYPE_CHECKING:
    from micromegas_jupyter.assembly.workers.order import WorkerOrder

GROWTH_BYTES = 160 << 20
_LOOK_SECONDS = 0.02
_LONG_SECONDS = 60.0


class LightServer:
    """Answers lines on the shared port, each connection by itself."""

    def __init__(self, order: WorkerOrder, others: served.Others) -> None:
        self._folder = Path(str(order.task["folder"]))
        self._others = others
        self._kept: list[bytes] = []
        self.running: list[dict[str, object]] = []
        self.registry = CollectorRegistry()
        self._told = Counter("light_told", "What it was told.", ("word",), registry=self.registry)
        self._clients = Gauge("light_clients", "Those that are connected.", registry=self.registry)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind(("127.0.0.1", order.port))

    def start(self) -> None:
        self._socket.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def has_turned(self) -> bool:
        return True

    def cancel_query(self, key: bytes) -> int:
        return len(key)

    def running_queries(self) -> tuple[()]:
        return ()

    def stop(self, grace_seconds: float, *, why: str) -> None:
        assert grace_seconds >= 0, why
        while (self._folder / "drains").exists():
            threading.Event().wait(_LOOK_SECONDS)
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rw") as lines:
            lines.write(f"{os.getpid()}\n")
            lines.flush()
            line = lines.readline().split()
            self._told.labels(line[0] if line else "").inc()
            match line:
                case ["grow"]:
                    self._kept.append(b"x" * GROWTH_BYTES)
                case ["run", issuer, subject, query_id]:
                    self.running.append({"caller": (issuer, subject), "user": subject, "query_id": query_id})
                case ["stuck", issuer, subject, query_id]:
                    self._others.retire(0.0, "It was told to be stuck.", last_seconds=0.1)
                    query = {"caller": (issuer, subject), "user": subject, "query_id": query_id}
                    self._others.tell("stuck", why="It was told to be stuck.", queries=[query, *self.running])
                case ["leave"]:
                    self._others.retire(_LONG_SECONDS, "It was told to leave.", last_seconds=_LONG_SECONDS)
                    self._others.tell("stuck", why="It was told to leave.")
                case ["cancel"]:
                    answers = self._others.ask_others("cancel", key="00")
                    lines.write(f"{sorted(answer['pid'] for answer in answers.found)} {answers.is_complete}\n")
                    lines.flush()
                case ["fail"]:
                    os._exit(3)


def build_light(order: WorkerOrder, others: served.Others) -> served.Served:
    """Build it; not before the file `gate` is there, and not at all while the file `dies` is."""
    folder = Path(str(order.task["folder"]))
    pause = threading.Event()
    if (folder / "dies").exists():
        os._exit(7)
    while not (folder / "gate").exists():
        pause.wait(_LOOK_SECONDS)
    restrained: list[tuple[str, str]] = []
    server = LightServer(order, others)
    return served.Served(
        server=server,
        answers={
            "cancel": lambda _question: {"pid": os.getpid()},
            "queries": lambda _question: {"queries": server.running},
            "restrained": lambda _question: {"callers": restrained},
            "metrics": lambda _question: {"pid": os.getpid(), "text": generate_latest(server.registry).decode()},
        },
        restrain=lambda caller, _seconds: restrained.append(caller),
    )


if __name__ == "__main__":
    served.build_served = build_light
    program.main()
