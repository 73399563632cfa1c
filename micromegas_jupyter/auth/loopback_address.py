"""The loopback redirect address: which one is asked for and where its listener binds.

Listening there is `loopback_receiver`'s job.
"""

from dataclasses import dataclass
from urllib.parse import urlsplit

from micromegas_jupyter.core.urls import LOOPBACK_HOSTS
from micromegas_jupyter.errors import UsageError

DEFAULT_PATH = "/callback"
DONE_PATH = "/done"
START_PREFIX = "/start/"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopbackAddress:
    """Where the browser comes back to.

    Attributes:
        host: As the provider knows it: `127.0.0.1`, `::1` or `localhost`.
        port: A fixed port; 0 for any free one.
        path: The callback's path.
    """

    host: str = "127.0.0.1"
    port: int = 0
    path: str = DEFAULT_PATH

    @property
    def bind_host(self) -> str:
        """The address to listen on; a name is never looked up for that (RFC 8252 section 8.3)."""
        return "127.0.0.1" if self.host == "localhost" else self.host

    def authority(self, port: int) -> str:
        """Return host and port as they stand in a URL and in the Host header."""
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"


def parse_loopback_address(redirect_uri: str | None) -> LoopbackAddress:
    """Read a redirect URI; None means any free port on 127.0.0.1.

    Source: RFC 8252 sections 7.3 and 8.3.

    Raises:
        UsageError: It is not http on loopback, or has a query, a fragment, a user or a path of the listener's own.
    """
    if redirect_uri is None:
        return LoopbackAddress()
    try:
        parts = urlsplit(redirect_uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or host not in LOOPBACK_HOSTS or parts.scheme != "http":
        raise UsageError("The redirect URI is not http on 127.0.0.1, ::1 or localhost.")
    if parts.query or parts.fragment or "@" in parts.netloc or not redirect_uri.isascii():
        raise UsageError("The redirect URI has a query, a fragment or a user.")
    path = parts.path or "/"
    if path == DONE_PATH or path.startswith(START_PREFIX):
        raise UsageError(f"The redirect URI's path cannot be {DONE_PATH} or begin with {START_PREFIX}.")
    return LoopbackAddress(host=host, port=port or 0, path=path)
