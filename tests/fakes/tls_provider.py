"""One JSON document over TLS, under a certificate of an authority made for this test."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Self

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from tests.fakes.certificates import Authority
from tests.fakes.loopback_http import LoopbackServer, Reply, Seen

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

OTHER_HOST = "127.1"


class TlsProvider:
    """A context manager that serves `{"tls": true}` at `url`; `ca_file` is whom to trust.

    `host` is this machine; `OTHER_HOST` is a way to write it that the package takes for another machine.
    """

    def __init__(self, folder: Path, *, host: str = "127.0.0.1") -> None:
        context, self.ca_file = server_context(folder, host=host)
        self._server = LoopbackServer(self)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://{host}:{self._server.server_address[1]}/document"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.stop()

    def now(self) -> datetime:
        return SYSTEM_CLOCK.now()

    def handle(self, _seen: Seen) -> Reply:
        return Reply(body={"tls": True})


def server_context(folder: Path, *, host: str) -> tuple[ssl.SSLContext, Path]:
    """Return how a server of this name uses its certificate, and the file of the authority that vouches for it."""
    authority = Authority(folder, f"authority of {host}")
    pair = authority.issue("server", host=host)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate_file, pair.key_file)
    return context, authority.ca_file
