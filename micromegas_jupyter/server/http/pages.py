"""What all pages of the HTTP listener have in common: headers, errors, who calls."""

import logging
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from typing import Any, Final

from tornado.iostream import IOStream
from tornado.web import HTTPError, RequestHandler

from micromegas_jupyter.access.audit import CallFacts
from micromegas_jupyter.core.protocols import AuthContext
from micromegas_jupyter.server.authentication import Authenticator, Headers, ReceivedHeaders, find_forwarded_address

REALM: Final = 'Bearer realm="micromegas"'
_LOG: Final = logging.getLogger("micromegas_jupyter.server")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """Whom a listener serves: `busy` connections have a request that is being answered, `lasting` ones send more.

    Of the busy ones, those in `receiving` have not sent all of it.
    """

    authenticator: Authenticator
    needs_certificate: bool  # of those who call
    trusted_proxies: frozenset[str]
    busy: set[IOStream]
    receiving: set[IOStream]
    lasting: set[IOStream]


class Page(RequestHandler):
    """Answers one request."""

    def initialize(self, connections: Connections, **_options: object) -> None:
        """Take what Tornado hands to each page of a route."""
        self._connections = connections
        stream = getattr(self.request.connection, "stream", None)
        self._stream = stream if isinstance(stream, IOStream) else None

    def set_default_headers(self) -> None:
        """Set the headers of every answer."""
        # No version, and nobody is to store or interpret the answer.
        self.set_header("Server", "micromegas")
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")

    async def prepare(self) -> None:
        """Note that the connection is busy."""
        if self._stream is not None:
            self._connections.busy.add(self._stream)

    def on_finish(self) -> None:
        """Note that it no longer is."""
        if self._stream is not None:
            self._connections.busy.discard(self._stream)
            self._connections.receiving.discard(self._stream)

    def on_connection_close(self) -> None:
        """Release what belongs to a request whose client has left."""
        super().on_connection_close()
        self.on_finish()

    def compute_etag(self) -> None:
        """Send none: no answer is worth comparing with an earlier one."""

    def write_error(self, status_code: int, **_details: object) -> None:
        """Answer with the status of an error, and nothing about it."""
        if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            self.set_header("Allow", ", ".join(self.SUPPORTED_METHODS))
        self.finish_with(HTTPStatus(status_code))

    def log_exception(self, *error: Any) -> None:
        """Log defects, but not the mistakes of clients."""
        if not isinstance(error[1], HTTPError):
            _LOG.error("a page could not be made", exc_info=error)

    def finish_with(self, status: HTTPStatus, **headers: str) -> None:
        """Answer with a status, its phrase and these headers, whose names have underscores for hyphens."""
        self.set_status(status.value)
        for name, value in headers.items():
            self.set_header(name.replace("_", "-"), value)
        self.finish(f"{status.phrase}\n")

    @property
    def lacks_certificate(self) -> bool:
        """Whether the caller should have shown a certificate and has not."""
        needed = self._connections.needs_certificate
        return needed and self.request.get_ssl_certificate(binary_form=True) is None

    async def authenticate(self) -> AuthContext:
        """Return the caller; raises as the authenticator does."""
        return await self._connections.authenticator.authenticate(ReceivedHeaders(self.headers), self.describe)

    def describe(self) -> CallFacts:
        """Return the request's facts for audit events."""
        return CallFacts(method=f"{self.request.method} {self.request.path}", client_address=self.client_address)

    @cached_property
    def headers(self) -> Headers:
        """The request's headers, as those of calls."""
        return {name.lower(): tuple(self.request.headers.get_list(name)) for name in self.request.headers}

    @cached_property
    def client_address(self) -> str:
        """The client's IP address, behind a trusted proxy as that says."""
        return find_forwarded_address(self.request.remote_ip or "", self.headers, self._connections.trusted_proxies)
