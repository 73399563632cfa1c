"""A proxy that carries TLS to other hosts (CONNECT, RFC 9110 section 9.3.6), with a password if a test wants one."""

import base64
import itertools
import socket
import threading
from contextlib import suppress

from tests.fakes.raw_server import Listener

_CHUNK_BYTES = 65536
_WAIT_SECONDS = 60


class ConnectProxy(Listener):
    """Carries what is sent to it to the host that was asked for, or to where it `leads_to`.

    It wants to see `credentials`, `user:password`, and speaks TLS itself, if they are given. `targets` are the hosts
    that were asked for.
    """

    def __init__(self, *, credentials=None, tls=None, leads_to=None):
        super().__init__()
        self._wanted = None if credentials is None else base64.b64encode(credentials.encode()).decode()
        self._tls = tls
        self._leads_to = leads_to
        self.targets = []
        self.address = f"127.0.0.1:{self.port}"

    def serve(self, plain):
        plain.settimeout(_WAIT_SECONDS)
        with suppress(OSError, ValueError), plain:
            connection = plain if self._tls is None else self._tls.wrap_socket(plain, server_side=True)
            with connection, connection.makefile("rb") as lines:
                head = b"".join(itertools.takewhile(bytes.strip, lines)).decode("latin-1")
                _method, target, _ = head.split("\r\n")[0].split(" ")
                if self._wanted is not None and f"Proxy-Authorization: Basic {self._wanted}" not in head:
                    connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                    return
                self.targets.append(target)
                host, _, port = target.rpartition(":")
                with socket.create_connection(self._leads_to or (host, int(port)), _WAIT_SECONDS) as other:
                    connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    back = threading.Thread(target=_carry, args=(other, connection), daemon=True)
                    back.start()
                    _carry(connection, other)
                    back.join(_WAIT_SECONDS)


def _carry(source, sink):
    with suppress(OSError):
        while chunk := source.recv(_CHUNK_BYTES):
            sink.sendall(chunk)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
