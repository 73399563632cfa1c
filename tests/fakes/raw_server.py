"""A server that writes whatever a test wants to write, byte by byte if need be."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class RawServer:
    """A context manager; `talk` is run with each connection after its request has begun to arrive.

    Attributes:
        stopping: Set when the test is over; a talk that stalls waits for it.
        hung_up: Set when the other side closed a connection on which something was being written.
    """

    def __init__(self, talk: Callable[[socket.socket, RawServer], None]) -> None:
        self._talk = talk
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.stopping = threading.Event()
        self.hung_up = threading.Event()
        self.connection_count = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/document"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stopping.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def trickle(self, connection: socket.socket, data: bytes, *, pause_seconds: float = 0.05) -> None:
        """Write byte by byte, again and again, until the other side hangs up or the test ends."""
        while not self.stopping.is_set():
            for byte in data:
                connection.sendall(bytes([byte]))
                self.stopping.wait(pause_seconds)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connection_count += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.recv(65536)
                self._talk(connection, self)
            except OSError:
                self.hung_up.set()


def hang(_connection: socket.socket, server: RawServer) -> None:
    """Say nothing."""
    server.stopping.wait(60)


def trickle_headers(connection: socket.socket, server: RawServer) -> None:
    """Begin an answer and go on with its headers for ever."""
    connection.sendall(_HEAD)
    server.trickle(connection, b"X-Padding: a\r\n")


def trickle_body(connection: socket.socket, server: RawServer) -> None:
    """Begin a long body and send it byte by byte."""
    connection.sendall(_HEAD + b"Content-Length: 100000\r\n\r\n")
    server.trickle(connection, b" ")
