"""Where a Flight SQL server is: a URI becomes an address that is safe to connect to, or a refusal."""

import ipaddress
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from micromegas_jupyter.errors import UsageError

_SCHEMES: Final = {
    "grpc": "grpc",
    "grpc+tcp": "grpc",
    "http": "grpc",
    "grpc+tls": "grpc+tls",
    "https": "grpc+tls",
}
_TLS_PORT: Final = 443
_EXAMPLE: Final = "Write it like grpc://localhost:50051 or grpc+tls://lake.example.com:50051."


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAddress:
    """A server's address.

    Attributes:
        location: The URI as the Flight library takes it.
        name: Host and port, for messages.
        is_encrypted: Whether the connection uses TLS.
        is_loopback: Whether the host is this machine.
    """

    location: str
    name: str
    is_encrypted: bool
    is_loopback: bool


def parse_address(uri: str) -> ServerAddress:
    """Read a URI; `http` and `https` mean `grpc` and `grpc+tls`, as upstream has it.

    Without a port, TLS means 443; plain text needs one.
    """
    if not isinstance(uri, str):
        raise UsageError("The server's address is not text.", remedy=_EXAMPLE)
    parts, port = _split(uri)
    scheme = _SCHEMES.get(parts.scheme)
    host = parts.hostname
    if scheme is None or not host or not _is_plain(host):
        raise UsageError("The server's address is not a Flight SQL URI.", remedy=_EXAMPLE)
    if parts.username is not None or parts.password is not None:
        raise UsageError("The server's address holds a user name.", remedy="Leave it out and pass an auth_provider.")
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise UsageError("The server's address holds more than host and port.", remedy=_EXAMPLE)
    is_encrypted = scheme == "grpc+tls"
    if port is None:
        if not is_encrypted:
            raise UsageError(f"The address of {host} names no port.", remedy=_EXAMPLE)
        port = _TLS_PORT
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return ServerAddress(
        location=f"{scheme}://{name}", name=name, is_encrypted=is_encrypted, is_loopback=_is_loopback(host)
    )


def _split(uri: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(uri.strip())
        port = parts.port  # read here because it is checked when it is read
    except ValueError:
        raise UsageError("The server's address is not a Flight SQL URI.", remedy=_EXAMPLE) from None
    return parts, port


def _is_plain(host: str) -> bool:
    return host.isascii() and not any(character in " %\\,;" or not character.isprintable() for character in host)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
