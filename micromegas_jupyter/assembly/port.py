"""Holds a port for a server: bound, never listened on, so that another server can take it over (SO_REUSEPORT)."""

import socket
import sys
from types import TracebackType
from typing import Self

from micromegas_jupyter.errors import ConfigurationError


def is_port_shareable() -> bool:
    """Whether several processes of this system may serve one port, each its share of the connections."""
    return sys.platform == "linux" and hasattr(socket, "SO_REUSEPORT")


class ReservedPort:
    """A port that only processes of this user may listen on, by saying that they share it; a context manager.

    It is bound alone first, so two servers never share a port without knowing of each other.

    Raises:
        ConfigurationError: The address cannot be used.
    """

    def __init__(self, host: str, port: int) -> None:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self._socket = socket.socket(family, kind, protocol)
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                self._socket.bind(address)
                if hasattr(socket, "SO_REUSEPORT"):
                    self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            except OSError:
                self._socket.close()
                raise
        except OSError:
            shown = f"[{host}]" if ":" in host else host
            raise ConfigurationError(
                f"The server cannot listen on {shown}:{port}: the port is taken, or the address is not this machine's.",
                key="port",
                remedy="Choose another port, or 0 for any free one.",
            ) from None

    @property
    def number(self) -> int:
        """The port."""
        number: int = self._socket.getsockname()[1]
        return number

    def close(self) -> None:
        """Give the port up; safe to call twice."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
