"""Reserves a port for a server: bound, never listened on, so that another server can take it over (SO_REUSEPORT)."""

import socket
import sys
from types import TracebackType
from typing import Self

from micromegas_jupyter.errors import ConfigurationError


def is_port_shareable() -> bool:
    """Whether several processes of this system may serve one port, each its share of the connections."""
    return sys.platform == "linux" and hasattr(socket, "SO_REUSEPORT")


def resolve_address(host: str, port: int) -> tuple[socket.AddressFamily, socket.SocketKind, int, tuple[object, ...]]:
    """Return family, kind, protocol and socket address to listen on."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError:
        raise _unusable(host, port) from None
    family, kind, protocol, _, address = found
    return family, kind, protocol, address


class ReservedPort:
    """A port that only processes of this user may listen on, by saying that they share it; a context manager.

    It is bound alone first, so two servers never share a port without knowing of each other. `taken` is the socket of
    another process's reservation, which is continued here.

    Raises:
        ConfigurationError: The address cannot be used.
    """

    def __init__(self, host: str, port: int, *, taken: socket.socket | None = None) -> None:
        if taken is not None:
            self.socket = taken
            return
        try:
            self.socket = _bind(host, port)
        except OSError:
            # Connections that a server left behind occupy the port, but not for one that says so.
            try:
                self.socket = _bind(host, port, reuses_address=True)
            except OSError:
                raise _unusable(host, port) from None

    @property
    def number(self) -> int:
        """The port."""
        number: int = self.socket.getsockname()[1]
        return number

    def close(self) -> None:
        """Release the port; safe to call twice."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _bind(host: str, port: int, *, reuses_address: bool = False) -> socket.socket:
    family, kind, protocol, address = resolve_address(host, port)
    bound = socket.socket(family, kind, protocol)
    try:
        if reuses_address:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        if hasattr(socket, "SO_REUSEPORT"):
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        bound.close()
        raise
    return bound


def _unusable(host: str, port: int) -> ConfigurationError:
    shown = f"[{host}]" if ":" in host else host
    return ConfigurationError(
        f"Cannot bind to {shown}:{port}: the port is taken, or the address is not this machine's.",
        key="port",
        remedy="Choose another port, or 0 for any free one.",
    )
