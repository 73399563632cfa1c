"""A listener that hangs up on everybody and counts them."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self


class CountingListener:
    """A context manager; every connection to `port` of loopback is closed at once and counted."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port), backlog=256)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self.connection_count = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(60)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connection_count += 1
                connection.close()
