"""Shared by `/mcp` and `/sql`: a JSON body that is read only after its origin and caller have been checked."""

import asyncio
import math
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import ClassVar, Final
from urllib.parse import urlsplit

from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError
from tornado.web import stream_request_body

from micromegas_jupyter.config.access import READ_SCOPE
from micromegas_jupyter.core.protocols import AuthContext
from micromegas_jupyter.core.text import is_loopback
from micromegas_jupyter.errors import (
    InternalError,
    MicromegasError,
    PermissionDenied,
    Rejected,
    ResourcesExhausted,
    Unavailable,
)
from micromegas_jupyter.flightsql.commands import encode_error
from micromegas_jupyter.server.http.calls import HttpCalls
from micromegas_jupyter.server.http.pages import REALM, Connections, Page

#: With fewer scopes, a token may lack the email address and groups that determine its bearer's roles.
SCOPES: Final = ("openid", "profile", "email")
_MAX_BODY_BYTES: Final = 1024 * 1024
_MAX_UNKNOWN_BYTES: Final = 64 * 1024  # for rejected callers; drained so that the callers read the response
_BODY_SECONDS: Final = 30.0
_IDLE_SECONDS: Final = 75.0


@dataclass(kw_only=True)
class Site:
    """The allowed callers of a page, and the server that runs its calls."""

    calls: HttpCalls
    allowed_origins: frozenset[str] = frozenset()
    is_local: bool = True  # only this machine can reach the listener, possibly through a proxy
    public_url: str = ""  # once the server is running, at least its own URL

    def accepts(self, host: str, origins: list[str]) -> bool:
        """Whether a request was sent by an allowed web page or by a client that isn't a web page.

        On a local listener, the host is checked, too: an attacker's name may resolve to this machine (DNS rebinding),
        and then page and request have the same origin.
        """
        if self.is_local:
            name = _hostname(f"//{host}")
            if name is None or not (is_loopback(name) or name == _hostname(self.public_url)):
                return False
        return not origins or (len(origins) == 1 and self.accepts_origin(origins[0]))

    def accepts_origin(self, origin: str) -> bool:
        """Whether pages with this origin may send requests."""
        return origin in self.allowed_origins


def _hostname(url: str) -> str | None:
    with suppress(ValueError):
        return urlsplit(url).hostname
    return None


@stream_request_body
class JsonPage(Page, ABC):
    """Handles one JSON body; the caller is known before the body is read."""

    SUPPORTED_METHODS = ("POST", "OPTIONS")
    #: Headers that pages with allowed origins may send, and read.
    allowed_headers: ClassVar[str]
    exposed_headers: ClassVar[str]

    def initialize(self, connections: Connections, site: Site) -> None:  # type: ignore[override]
        """Set the site."""
        super().initialize(connections)
        self._site = site
        self._caller: AuthContext | None = None
        self._problem: MicromegasError | None = None
        self._is_foreign = False
        self._chunks: list[bytes] = []
        self._received_bytes = 0
        self._task: asyncio.Task[object] | None = None
        self._has_begun = False

    @abstractmethod
    async def handle(self, body: bytes, caller: AuthContext) -> None:
        """Respond; the task is canceled if the client disconnects."""

    def challenge(self) -> str:
        """Return the `WWW-Authenticate` parameters that help a client get a token."""
        return f'scope="{" ".join(SCOPES)}"'

    async def prepare(self) -> None:
        """Check the origin and the caller before reading the body."""
        await super().prepare()
        if self._stream is not None:
            self._connections.receiving.add(self._stream)
        self._is_foreign = not self._site.accepts(self.request.host, self.request.headers.get_list("Origin"))
        if self.request.method == "POST" and not self._is_foreign:
            try:
                self._caller = await self._find_caller()
            except MicromegasError as error:
                self._problem = error
        is_rejected = self._caller is None
        connection = self.request.connection
        if isinstance(connection, HTTP1Connection):
            connection.set_body_timeout(_BODY_SECONDS)
            if not is_rejected and self._stream is not None:
                self._connections.lasting.add(self._stream)
                connection.params.header_timeout = _IDLE_SECONDS
        is_sent_anyway = not self.expect_body(_MAX_UNKNOWN_BYTES if is_rejected else _MAX_BODY_BYTES)
        is_wrong = is_rejected or (self.announced_bytes() or 0) > _MAX_BODY_BYTES
        if self.request.method == "POST" and is_wrong and not is_sent_anyway:
            self._reject()

    async def _find_caller(self) -> AuthContext:
        if self.lacks_certificate:
            raise PermissionDenied("Clients must present a certificate.", reason="certificate_missing")
        caller = await self.authenticate()
        if READ_SCOPE not in caller.scopes:
            error = PermissionDenied("This credential does not have the scope read.", reason="scope_missing")
            self._connections.authenticator.record(
                self.describe(), "forbidden", reason=error.reason, code=error.code, caller=caller
            )
            raise error
        return caller

    def data_received(self, chunk: bytes) -> None:
        """Store or drop part of the body."""
        self._received_bytes += len(chunk)
        if self._caller is not None and self._received_bytes <= _MAX_BODY_BYTES:
            self._chunks.append(chunk)

    def options(self) -> None:
        """Respond to a browser's preflight request (CORS) from an allowed origin."""
        if self._is_foreign or self.request.headers.get("Origin") not in self._site.allowed_origins:
            self.finish_with(HTTPStatus.FORBIDDEN)
            return
        self._add_cors()
        self.set_header("Access-Control-Allow-Methods", "POST")
        self.set_header("Access-Control-Allow-Headers", self.allowed_headers)
        self.set_header("Access-Control-Max-Age", "600")
        self.set_status(HTTPStatus.NO_CONTENT.value)
        self.clear_header("Content-Type")
        self.finish()

    async def post(self) -> None:
        """Respond to the body."""
        if self._finished:
            return
        if self._stream is not None:
            self._connections.receiving.discard(self._stream)
        media_type = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if self._caller is None or self._received_bytes > _MAX_BODY_BYTES:
            self._reject()
        elif media_type != "application/json":  # pages from other origins can send other types without a preflight
            self.finish_with(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        else:
            self._add_cors()
            body, self._chunks = b"".join(self._chunks), []
            self._task = asyncio.current_task()
            with suppress(StreamClosedError):
                await self.handle(body, self._caller)

    def on_connection_close(self) -> None:
        """Stop the work for a disconnected client."""
        super().on_connection_close()
        if self._task is not None:
            self._task.cancel()

    def finish_error(self, error: MicromegasError) -> None:
        """Respond with an error in the format that Flight clients use."""
        self.set_status(error.http_status)
        if isinstance(error, ResourcesExhausted | Unavailable):
            self.set_header("Retry-After", str(math.ceil(getattr(error, "retry_after_seconds", None) or 1)))
        self.set_header("Content-Type", "application/json")
        self.finish(encode_error(error))

    def _add_cors(self) -> None:
        origin = self.request.headers.get("Origin")
        if origin in self._site.allowed_origins:
            self.set_header("Access-Control-Allow-Origin", origin)
            self.set_header("Access-Control-Expose-Headers", self.exposed_headers)
            self.set_header("Vary", "Origin")

    def _reject(self) -> None:
        """Respond with the problem with the origin, the caller, or the body's size."""
        error = self._problem
        if self._is_foreign:
            self.finish_with(HTTPStatus.FORBIDDEN)
            return
        if error is None:
            self.finish_with(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        self._add_cors()
        if isinstance(error, Rejected):
            has_credential = bool(self.request.headers.get_list("Authorization"))
            problem = ', error="invalid_token"' if has_credential else ""
            self.set_header("WWW-Authenticate", f"{REALM}{problem}, {self.challenge()}")
        elif isinstance(error, PermissionDenied):
            self.set_header("WWW-Authenticate", f'{REALM}, error="insufficient_scope", {self.challenge()}')
        self.finish_error(error)

    def write_error(self, status_code: int, **details: object) -> None:
        """Report internal errors as JSON."""
        if status_code < HTTPStatus.INTERNAL_SERVER_ERROR or self._has_begun:
            super().write_error(status_code, **details)
        else:
            self.finish_error(InternalError("The server failed to respond."))
