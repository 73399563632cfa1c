"""A listener on loopback that takes connections and never says a word."""

from __future__ import annotations

import socket
from typing import Self


class SilentServer:
    """A context manager; connections stay open until it ends."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._connections: list[socket.socket] = []
        self.port: int = self._socket.getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for one in (self._socket, *self._connections):
            one.close()

    def was_called(self, *, timeout_seconds: float = 30.0) -> bool:
        """Return whether another connection has come; waits for it."""
        self._socket.settimeout(timeout_seconds)
        try:
            self._connections.append(self._socket.accept()[0])
        except TimeoutError:
            return False
        return True
