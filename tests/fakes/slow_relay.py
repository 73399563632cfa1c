"""Passes TCP connections on to another port, as slowly as a bad network."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self

_CHUNK_BYTES = 4096


class SlowRelay:
    """A context manager; what the other side answers comes through at `bytes_per_second`, what is asked at once.

    Args:
        port: Where connections on loopback are passed on to.
        bytes_per_second: How much of the answers comes through, for each connection.
    """

    def __init__(self, port: int, *, bytes_per_second: int) -> None:
        self._target = port
        self._pause_seconds = _CHUNK_BYTES / bytes_per_second
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stopping = threading.Event()
        self._sockets: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]

    @property
    def uri(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopping.set()
        for one in (self._listener, *self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                # A large buffer would take in what the network is too slow for.
                far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _CHUNK_BYTES)
                self._sockets += [near, far]
                threading.Thread(target=self._pass_on, args=(near, far, 0.0), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(far, near, self._pause_seconds), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, pause_seconds: float) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK_BYTES):
                target.sendall(data)
                if self._stopping.wait(pause_seconds):
                    return
            target.shutdown(socket.SHUT_WR)
