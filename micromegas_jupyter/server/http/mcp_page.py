"""`POST /mcp` for agents (MCP's Streamable HTTP), and its metadata for their sign-in (RFC 9728)."""

import asyncio
import json
import math
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError
from tornado.web import stream_request_body

from micromegas_jupyter.config.access import READ_SCOPE
from micromegas_jupyter.core.protocols import AuthContext
from micromegas_jupyter.core.text import is_loopback, is_loopback_url
from micromegas_jupyter.errors import (
    InternalError,
    MicromegasError,
    PermissionDenied,
    Rejected,
    ResourcesExhausted,
    Unavailable,
)
from micromegas_jupyter.mcp import protocol
from micromegas_jupyter.mcp.protocol import Cancelled, ProtocolError, Request
from micromegas_jupyter.mcp.tools import McpServer
from micromegas_jupyter.server.http.calls import HttpBackend, HttpCalls
from micromegas_jupyter.server.http.pages import REALM, Connections, Page, UpstreamPage

PATH: Final = "/mcp"
METADATA_PATHS: Final = r"/[.]well-known/oauth-protected-resource(?:/mcp)?"
#: With fewer, a token may lack the email address and groups that make its bearer an administrator or give them a role.
SCOPES: Final = ("openid", "profile", "email")
_SESSION: Final = "Mcp-Session-Id"
_MAX_SESSION_CHARACTERS: Final = 64
_MAX_BODY_BYTES: Final = 1024 * 1024
_MAX_UNKNOWN_BYTES: Final = 64 * 1024  # of callers who are rejected; dropped, so that they read the response
_BODY_SECONDS: Final = 30.0
_IDLE_SECONDS: Final = 75.0
_KEEP_ALIVE_SECONDS: Final = 15.0
_WRITE_SECONDS: Final = 60.0
_ALLOWED_HEADERS: Final = "authorization, content-type, mcp-protocol-version, mcp-method, mcp-name, mcp-session-id"

_CallKey = tuple[str, str, str, str | int]


@dataclass(kw_only=True)
class McpSite:
    """What the pages share: where the resource is, who may open it, and the requests that clients can cancel."""

    calls: HttpCalls
    version: str
    issuers: tuple[str, ...] = ()
    allowed_origins: frozenset[str] = frozenset()
    is_local: bool = True  # only this machine reaches the listener, perhaps through a proxy
    public_url: str = ""  # once the server runs, at least its own
    running: dict[_CallKey, tuple[HttpBackend, asyncio.Task[Any]]] = field(default_factory=dict)

    @property
    def resource(self) -> str:
        """The URL that tokens are for (RFC 8707)."""
        return f"{self.public_url}{PATH}"

    @property
    def metadata_url(self) -> str:
        """Where the metadata is: the resource's path follows the well-known one (RFC 9728 section 3.1)."""
        parts = urlsplit(self.resource)
        return f"{parts.scheme}://{parts.netloc}/.well-known/oauth-protected-resource{parts.path}"

    def accepts(self, host: str, origins: list[str]) -> bool:
        """Whether no page sent a request, or an allowed one.

        On a local listener the host counts, too: an attacker's name may resolve to this machine (DNS rebinding), and
        then page and request have the same origin.
        """
        if self.is_local:
            name = _hostname(f"//{host}")
            if name is None or not (is_loopback(name) or name == _hostname(self.public_url)):
                return False
        if not origins or (len(origins) == 1 and origins[0] in self.allowed_origins):
            return True
        return self.is_local and len(origins) == 1 and is_loopback_url(origins[0])


def _hostname(url: str) -> str | None:
    with suppress(ValueError):
        return urlsplit(url).hostname
    return None


class MetadataPage(Page):
    """Tells clients without a token who issues tokens for the resource; for anyone, browsers included."""

    SUPPORTED_METHODS = ("GET", "OPTIONS")

    def initialize(self, connections: Connections, site: McpSite) -> None:  # type: ignore[override]
        """Take the site."""
        super().initialize(connections)
        self._site = site

    def get(self) -> None:
        """Respond with the metadata."""
        self.set_header("Content-Type", "application/json")
        self.set_header("Access-Control-Allow-Origin", "*")
        metadata = {
            "resource": self._site.resource,
            "authorization_servers": list(self._site.issuers),
            "bearer_methods_supported": ["header"],
            "scopes_supported": list(SCOPES),
            "resource_name": "micromegas",
        }
        self.finish(json.dumps(metadata))

    def options(self) -> None:
        """Let pages of all origins read it."""
        self.set_header("Access-Control-Allow-Origin", "*")
        self.set_header("Access-Control-Allow-Methods", "GET")
        self.set_header("Access-Control-Allow-Headers", "mcp-protocol-version")
        self.set_status(HTTPStatus.NO_CONTENT.value)
        self.clear_header("Content-Type")
        self.finish()


class DisabledPage(UpstreamPage):
    """Responds where a server has no endpoint for agents."""

    def write_error(self, status_code: int, **details: object) -> None:
        """Respond with 404."""
        Page.write_error(self, status_code, **details)


@stream_request_body
class McpPage(Page):
    """Handles one message, from a caller who is known before the body is read."""

    SUPPORTED_METHODS = ("POST", "OPTIONS")

    def initialize(self, connections: Connections, site: McpSite) -> None:  # type: ignore[override]
        """Take the site."""
        super().initialize(connections)
        self._site = site
        self._caller: AuthContext | None = None
        self._problem: MicromegasError | None = None
        self._is_foreign = False
        self._chunks: list[bytes] = []
        self._received_bytes = 0
        self._task: asyncio.Task[Any] | None = None
        self._has_begun = False
        self._can_stream = False
        self._lock = asyncio.Lock()

    async def prepare(self) -> None:
        """Check the origin and the caller before the body comes."""
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
        """Take a part of the body, or drop it."""
        self._received_bytes += len(chunk)
        if self._caller is not None and self._received_bytes <= _MAX_BODY_BYTES:
            self._chunks.append(chunk)

    def options(self) -> None:
        """Respond to a browser's preflight request (CORS) of an allowed origin."""
        if self._is_foreign or self.request.headers.get("Origin") not in self._site.allowed_origins:
            self.finish_with(HTTPStatus.FORBIDDEN)
            return
        self._add_cors()
        self.set_header("Access-Control-Allow-Methods", "POST")
        self.set_header("Access-Control-Allow-Headers", _ALLOWED_HEADERS)
        self.set_header("Access-Control-Max-Age", "600")
        self.set_status(HTTPStatus.NO_CONTENT.value)
        self.clear_header("Content-Type")
        self.finish()

    async def post(self) -> None:
        """Respond to the message."""
        if self._finished:
            return
        if self._stream is not None:
            self._connections.receiving.discard(self._stream)
        media_type = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if self._caller is None or self._received_bytes > _MAX_BODY_BYTES:
            self._reject()
        elif media_type != "application/json":  # a page of another origin can send other types without a preflight
            self.finish_with(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        else:
            self._add_cors()
            body, self._chunks = b"".join(self._chunks), []
            self._task = asyncio.current_task()
            with suppress(StreamClosedError):
                await self._handle(body, self._caller)

    def on_connection_close(self) -> None:
        """End the work for a client that left."""
        super().on_connection_close()
        if self._task is not None:
            self._task.cancel()

    async def _handle(self, body: bytes, caller: AuthContext) -> None:
        identity: str | int | None = None
        try:
            message = protocol.parse(body)
            with suppress(ProtocolError):
                identity = protocol.message_id(message)
            request = protocol.read(message, self.headers)
        except ProtocolError as error:
            response = error.body(identity)
            self._send(protocol.http_status(response), response)
            return
        if not isinstance(request, Request):
            if isinstance(request, Cancelled):
                self._cancel(self._call_key(caller, request.request_id))
            self.finish_with(HTTPStatus.ACCEPTED)
            return
        accepted = self.request.headers.get("Accept", "*/*")
        self._can_stream = "text/event-stream" in accepted or "*/*" in accepted
        if "application/json" not in accepted and "*/*" not in accepted:
            self.finish_with(HTTPStatus.NOT_ACCEPTABLE)
            return
        if request.method == "initialize":
            # It tells apart the requests of one user's agents, which count from 0; nothing is stored under it.
            self.set_header(_SESSION, secrets.token_urlsafe(16))
        await self._respond(request, caller)

    async def _respond(self, request: Request, caller: AuthContext) -> None:
        backend = HttpBackend(self._site.calls, self.headers, caller, self.describe, request.client)
        server = McpServer(backend=backend, version=self._site.version)
        key, running = self._call_key(caller, request.id), self._site.running
        if key is not None and self._task is not None and key not in running:
            running[key] = backend, self._task
        pinging = asyncio.create_task(self._keep_alive()) if self._can_stream else None
        try:
            response = await protocol.respond(server, request, self._notify)
        except asyncio.CancelledError:
            self._end_canceled()
            return
        except MicromegasError as error:
            response = ProtocolError(protocol.INTERNAL_ERROR, str(error), {"code": error.code}).body(request.id)
        finally:
            if pinging is not None:
                pinging.cancel()
            if key is not None and running.get(key, (None,))[0] is backend:
                del running[key]
        if backend.is_withdrawn:
            self._end_canceled()
        elif self._has_begun:
            await self._write_event(response)
            self.finish()
        else:
            self._send(protocol.http_status(response, is_modern=request.is_modern), response)

    def _end_canceled(self) -> None:
        """End the response to a request that its client no longer waits for, or whose client left."""
        if self._finished or self._stream is None or self._stream.closed():
            return
        if not self._has_begun:
            self.set_status(HTTPStatus.NO_CONTENT.value)
            self.clear_header("Content-Type")
        self.finish()

    def _call_key(self, caller: AuthContext, identity: str | int) -> _CallKey | None:
        """Return the key of a request that can be canceled: of this user, and of one of the user's agents."""
        session = self.request.headers.get(_SESSION)
        return (caller.issuer, caller.subject, session[:_MAX_SESSION_CHARACTERS], identity) if session else None

    def _cancel(self, key: _CallKey | None) -> None:
        found = None if key is None else self._site.running.get(key)
        if found is not None:
            backend, task = found
            backend.withdraw(task)

    def _send(self, status: int, body: Mapping[str, Any]) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(body, ensure_ascii=False, separators=(",", ":")))

    async def _notify(self, notification: Mapping[str, Any]) -> None:
        if self._can_stream:
            await self._write_event(notification)

    async def _keep_alive(self) -> None:
        """Keep proxies from closing a silent stream."""
        with suppress(StreamClosedError, TimeoutError):
            while True:
                await asyncio.sleep(_KEEP_ALIVE_SECONDS)
                await self._write(b": \n\n")

    async def _write_event(self, message: Mapping[str, Any]) -> None:
        # JSON has no raw line breaks, so no text in it can begin another event.
        await self._write(b"event: message\ndata: " + json.dumps(message, ensure_ascii=False).encode() + b"\n\n")

    async def _write(self, data: bytes) -> None:
        async with self._lock:
            if not self._has_begun:
                self._has_begun = True
                self.set_header("Content-Type", "text/event-stream")
                self.set_header("X-Accel-Buffering", "no")
            self.write(data)
            async with asyncio.timeout(_WRITE_SECONDS):
                await self.flush()

    def _add_cors(self) -> None:
        origin = self.request.headers.get("Origin")
        if origin in self._site.allowed_origins:
            self.set_header("Access-Control-Allow-Origin", origin)
            self.set_header("Access-Control-Expose-Headers", "www-authenticate, mcp-session-id")
            self.set_header("Vary", "Origin")

    def _reject(self) -> None:
        """Respond with what is wrong with the origin, the caller or the body's size."""
        error = self._problem
        if self._is_foreign:
            self.finish_with(HTTPStatus.FORBIDDEN)
            return
        if error is None:
            self.finish_with(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        self._add_cors()
        self.set_status(error.http_status)
        where = f'resource_metadata="{self._site.metadata_url}", scope="{" ".join(SCOPES)}"'
        if isinstance(error, Rejected):
            has_credential = bool(self.request.headers.get_list("Authorization"))
            problem = ', error="invalid_token"' if has_credential else ""
            self.set_header("WWW-Authenticate", f"{REALM}{problem}, {where}")
        elif isinstance(error, PermissionDenied):
            self.set_header("WWW-Authenticate", f'{REALM}, error="insufficient_scope", {where}')
        elif isinstance(error, ResourcesExhausted | Unavailable):
            self.set_header("Retry-After", str(math.ceil(getattr(error, "retry_after_seconds", None) or 1)))
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"code": error.code, "what": error.what, "remedy": error.remedy}))

    def write_error(self, status_code: int, **details: object) -> None:
        """Respond to defects in JSON."""
        if status_code < HTTPStatus.INTERNAL_SERVER_ERROR or self._has_begun:
            super().write_error(status_code, **details)
            return
        error = InternalError("The server failed to respond.")
        self._send(status_code, {"code": error.code, "what": error.what, "remedy": error.remedy})
