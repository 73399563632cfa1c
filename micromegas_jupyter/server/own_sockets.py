"""The gRPC server's own sockets, which gRPC does not give out, so that it can stop without cancelling calls.

gRPC's own shutdown answers calls that have just come in with CANCELLED, which clients take for a decision of their
own. Closing the listeners first, and the connections last, leaves them with UNAVAILABLE.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def stop_listening(port: int) -> None:
    """Have this process take no more connections on a port; those that there are stay."""
    with _own_sockets(port, is_listening=True) as found:
        for one in found:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def close_connections(port: int) -> None:
    """Close all connections that were made to a port of this process."""
    with _own_sockets(port, is_listening=False) as found:
        for one in found:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextmanager
def _own_sockets(port: int, *, is_listening: bool) -> Iterator[list[socket.socket]]:
    """Yield duplicates of this process's TCP sockets that are bound to a port; closed afterwards."""
    found: list[socket.socket] = []
    try:
        for name in os.listdir("/dev/fd") if os.path.isdir("/dev/fd") else ():  # noqa: PTH112, PTH208 - names only
            one = _duplicate(int(name))
            if one is not None and _is_ours(one, port, is_listening=is_listening):
                found.append(one)
            elif one is not None:
                one.close()
        yield found
    finally:
        for one in found:
            one.close()


def _duplicate(descriptor: int) -> socket.socket | None:
    """Return a socket of its own for a descriptor; None when it is none."""
    try:
        copy = os.dup(descriptor)
    except OSError:
        return None  # closed meanwhile
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return None


def _is_ours(one: socket.socket, port: int, *, is_listening: bool) -> bool:
    if one.family not in {socket.AF_INET, socket.AF_INET6} or one.type != socket.SOCK_STREAM:
        return False
    with suppress(OSError):
        listens = bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        return one.getsockname()[1] == port and listens == is_listening
    return False
