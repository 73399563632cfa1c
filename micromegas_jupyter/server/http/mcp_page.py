"""`POST /mcp` for agents (MCP's Streamable HTTP), and its metadata for their sign-in (RFC 9728)."""

import asyncio
import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from tornado.iostream import StreamClosedError

from micromegas_jupyter.core.protocols import AuthContext
from micromegas_jupyter.core.text import is_loopback_url
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.mcp import protocol
from micromegas_jupyter.mcp.protocol import Cancelled, ProtocolError, Request
from micromegas_jupyter.mcp.tools import McpServer
from micromegas_jupyter.server.http.calls import HttpBackend
from micromegas_jupyter.server.http.json_page import SCOPES, JsonPage, Site
from micromegas_jupyter.server.http.pages import Connections, Page, UpstreamPage

PATH: Final = "/mcp"
METADATA_PATHS: Final = r"/[.]well-known/oauth-protected-resource(?:/mcp)?"
_SESSION: Final = "Mcp-Session-Id"
_MAX_SESSION_CHARACTERS: Final = 64
_KEEP_ALIVE_SECONDS: Final = 15.0
_WRITE_SECONDS: Final = 60.0

_CallKey = tuple[str, str, str, str | int]


@dataclass(kw_only=True)
class McpSite(Site):
    """Shared by the pages: the resource's URL, and the requests that clients can cancel."""

    version: str
    issuers: tuple[str, ...] = ()
    running: dict[_CallKey, tuple[HttpBackend, asyncio.Task[object]]] = field(default_factory=dict)

    @property
    def resource(self) -> str:
        """The audience of tokens (RFC 8707)."""
        return f"{self.public_url}{PATH}"

    @property
    def metadata_url(self) -> str:
        """The metadata's URL; the resource's path follows the well-known path (RFC 9728 section 3.1)."""
        parts = urlsplit(self.resource)
        return f"{parts.scheme}://{parts.netloc}/.well-known/oauth-protected-resource{parts.path}"

    def accepts_origin(self, origin: str) -> bool:
        """Whether pages with this origin may send requests; a local listener also allows this machine's origins."""
        return super().accepts_origin(origin) or (self.is_local and is_loopback_url(origin))


class MetadataPage(Page):
    """Reports who issues tokens for the resource; public, including for browsers."""

    SUPPORTED_METHODS = ("GET", "OPTIONS")

    def initialize(self, connections: Connections, site: McpSite) -> None:  # type: ignore[override]
        """Set the site."""
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
        """Let pages with any origin read the metadata."""
        self.set_header("Access-Control-Allow-Origin", "*")
        self.set_header("Access-Control-Allow-Methods", "GET")
        self.set_header("Access-Control-Allow-Headers", "mcp-protocol-version")
        self.set_status(HTTPStatus.NO_CONTENT.value)
        self.clear_header("Content-Type")
        self.finish()


class DisabledPage(UpstreamPage):
    """Responds on servers without `/mcp` or `/sql`."""

    def write_error(self, status_code: int, **details: object) -> None:
        """Respond with 404."""
        Page.write_error(self, status_code, **details)


class McpPage(JsonPage):
    """Handles one message."""

    allowed_headers = "authorization, content-type, mcp-protocol-version, mcp-method, mcp-name, mcp-session-id"
    exposed_headers = "www-authenticate, mcp-session-id"
    _site: McpSite

    def initialize(self, connections: Connections, site: McpSite) -> None:  # type: ignore[override]
        """Set the site."""
        super().initialize(connections, site)
        self._can_stream = False
        self._lock = asyncio.Lock()

    def challenge(self) -> str:
        """Also refer to the metadata."""
        return f'resource_metadata="{self._site.metadata_url}", {super().challenge()}'

    async def handle(self, body: bytes, caller: AuthContext) -> None:
        """Respond to the message."""
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
            # It distinguishes the requests of a user's agents, because all of their IDs start at 0; the server doesn't
            # store anything for it.
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
        """Stop responding to a request that was canceled or whose client disconnected."""
        if self._finished or self._stream is None or self._stream.closed():
            return
        if not self._has_begun:
            self.set_status(HTTPStatus.NO_CONTENT.value)
            self.clear_header("Content-Type")
        self.finish()

    def _call_key(self, caller: AuthContext, identity: str | int) -> _CallKey | None:
        """Return the key of a cancelable request from one of this user's agents."""
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
        """Prevent proxies from closing a silent stream."""
        with suppress(StreamClosedError, TimeoutError):
            while True:
                await asyncio.sleep(_KEEP_ALIVE_SECONDS)
                await self._write(b": \n\n")

    async def _write_event(self, message: Mapping[str, Any]) -> None:
        # JSON doesn't contain raw line breaks, so its strings can't start a new event.
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
