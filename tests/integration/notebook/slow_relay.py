"""Passes TCP connections on to another port, as slowly as a bad network."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from tests.fakes.raw_server import Listener

_CHUNK_BYTES = 4096


class SlowRelay(Listener):
    """What the other side answers comes through at `bytes_per_second`, what is asked at once.

    Args:
        port: Where connections on loopback are passed on to.
        bytes_per_second: How much of the answers comes through, for each connection.
    """

    def __init__(self, port, *, bytes_per_second):
        super().__init__()
        self._target = port
        self._pause_seconds = _CHUNK_BYTES / bytes_per_second
        self._sockets: list[socket.socket] = []

    @property
    def uri(self):
        return f"grpc://127.0.0.1:{self.port}"

    def __exit__(self, *error):
        super().__exit__(*error)
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def serve(self, near):
        far = socket.create_connection(("127.0.0.1", self._target))
        # A large buffer would take in what the network is too slow for.
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _CHUNK_BYTES)
        self._sockets += [near, far]
        threading.Thread(target=self._pass_on, args=(near, far, 0.0), daemon=True).start()
        self._pass_on(far, near, self._pause_seconds)

    def _pass_on(self, source, target, pause_seconds):
        with suppress(OSError):
            while data := source.recv(_CHUNK_BYTES):
                target.sendall(data)
                if self.stopping.wait(pause_seconds):
                    return
            target.shutdown(socket.SHUT_WR)
