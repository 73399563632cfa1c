"""Listeners on loopback: one that hangs up, and one that writes whatever a test wants, byte by byte if need be."""

import socket
import threading
from contextlib import suppress

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Listener:
    """A context manager that gives each connection to `port` of loopback a thread, which runs `serve`."""

    def __init__(self, port=0):
        self._listener = socket.create_server(("127.0.0.1", port), backlog=256)
        self.port = self._listener.getsockname()[1]
        self.stopping = threading.Event()
        self.connection_count = 0

    def __enter__(self):
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error):
        self.stopping.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(60)

    def serve(self, connection):
        connection.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connection_count += 1
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()


class RawServer(Listener):
    """Runs `talk` with each connection after its request has begun to arrive."""

    def __init__(self, talk):
        super().__init__()
        self._talk = talk
        self.hung_up = threading.Event()
        self.url = f"http://127.0.0.1:{self.port}/document"

    def trickle(self, connection, data, *, pause_seconds=0.05):
        while not self.stopping.is_set():
            for byte in data:
                connection.sendall(bytes([byte]))
                self.stopping.wait(pause_seconds)

    def serve(self, connection):
        with connection:
            try:
                connection.recv(65536)
                self._talk(connection, self)
            except OSError:
                self.hung_up.set()


def hang(_connection, server):
    server.stopping.wait(60)


def trickle_headers(connection, server):
    connection.sendall(_HEAD)
    server.trickle(connection, b"X-Padding: a\r\n")


def trickle_body(connection, server):
    connection.sendall(_HEAD + b"Content-Length: 100000\r\n\r\n")
    server.trickle(connection, b" ")


class SilentServer(Listener):
    """Connections stay open until it ends."""

    def __init__(self):
        super().__init__()
        self._calls = threading.Semaphore(0)

    def serve(self, connection):
        with connection:
            self._calls.release()
            self.stopping.wait(60)

    def was_called(self, *, timeout_seconds=30.0):
        return self._calls.acquire(timeout=timeout_seconds)
