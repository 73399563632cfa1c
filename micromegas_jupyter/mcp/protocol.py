"""MCP as stateless JSON-RPC: revision 2026-07-28, and the three earlier ones, where clients start with `initialize`.

Sessions are not supported. Source: https://modelcontextprotocol.io/specification/2026-07-28 and, for the older
revisions, …/2025-11-25, …/2025-06-18 and …/2025-03-26.
"""

import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeGuard

from micromegas_jupyter.core.text import JsonError, decode_strict_json

MODERN: Final = "2026-07-28"
LEGACY: Final = ("2025-11-25", "2025-06-18", "2025-03-26")
SUPPORTED: Final = (MODERN, *LEGACY)
PREFIX: Final = "io.modelcontextprotocol/"
PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
RESOURCE_NOT_FOUND: Final = -32002  # until 2025-11-25; later revisions use INVALID_PARAMS
URL_ELICITATION_REQUIRED: Final = -32042  # in 2025-11-25
HEADER_MISMATCH: Final = -32020
_UNSUPPORTED_VERSION: Final = -32022
_NAMED: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_CACHEABLE: Final = frozenset(
    {"server/discover", "tools/list", "resources/list", "resources/templates/list", "resources/read"}
)
_CACHE_MILLISECONDS: Final = 300_000
_BASE64: Final = re.compile(r"=\?base64\?(.*)\?=")
_MAX_DEPTH: Final = 24
_MAX_ID_CHARACTERS: Final = 256
_MAX_SHOWN: Final = 64

Message = Mapping[str, Any]
Notify = Callable[[Message], Awaitable[None]]


class ProtocolError(Exception):
    """A message whose response is a JSON-RPC error."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data

    def body(self, identity: str | int | None) -> dict[str, Any]:
        """Return the response."""
        error: dict[str, Any] = {"code": self.code, "message": str(self)}
        if self.data is not None:
            error["data"] = self.data
        return {"jsonrpc": "2.0", "id": identity, "error": error}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A client's request; `client` and `capabilities` are the client's own claims."""

    method: str
    id: str | int
    params: Message
    version: str
    capabilities: Message = field(default_factory=dict)
    client: str = ""

    @property
    def is_modern(self) -> bool:
        """Whether the request is self-contained, without a previous `initialize`."""
        return self.version == MODERN

    @property
    def progress_token(self) -> str | int | None:
        """The token for progress notifications, if the client requests them."""
        token = _object(self.params, "_meta").get("progressToken")
        return token if _is_id(token) else None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A notification that a client is no longer waiting for one of its requests."""

    request_id: str | int


class Handler(Protocol):
    """Handles the requests that are not part of the protocol itself."""

    name: str
    version: str
    instructions: str
    capabilities: Message

    async def handle(self, request: Request, notify: Notify) -> dict[str, Any]:
        """Return the result; raises `ProtocolError`."""


def parse(body: bytes) -> dict[str, Any]:
    """Parse the message in a request body or on a line."""
    try:
        message = decode_strict_json(body.decode("utf-8"), max_depth=_MAX_DEPTH)
    except (UnicodeDecodeError, JsonError):
        raise ProtocolError(PARSE_ERROR, "The body is not valid JSON.") from None
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0" or not isinstance(message.get("method"), str):
        raise ProtocolError(INVALID_REQUEST, "The body is not a single JSON-RPC request or notification.")
    return message


def message_id(message: Message) -> str | int | None:
    """Return the ID of a request, or None for a notification."""
    if "id" not in message:
        return None
    if not _is_id(message["id"]):
        raise ProtocolError(INVALID_REQUEST, "The ID is neither a string nor an integer.")
    found: str | int = message["id"]
    return found


def read(message: Message, headers: Mapping[str, tuple[str, ...]] | None) -> Request | Cancelled | None:
    """Parse a message's request; None for a notification without effect. Over stdio there are no `headers`."""
    identity, method, params = message_id(message), message["method"], message.get("params", {})
    if not isinstance(params, dict):
        raise ProtocolError(INVALID_PARAMS, "params is not an object.")
    stated = None if headers is None else _single(headers, "mcp-protocol-version")
    if identity is None:
        if stated is not None and stated not in SUPPORTED:
            raise _unsupported(stated)
        cancelled = params.get("requestId")
        return Cancelled(cancelled) if method == "notifications/cancelled" and _is_id(cancelled) else None
    meta = _object(params, "_meta")
    if f"{PREFIX}protocolVersion" in meta or stated == MODERN or method == "server/discover":
        version, capabilities = meta.get(f"{PREFIX}protocolVersion"), meta.get(f"{PREFIX}clientCapabilities")
        if not isinstance(version, str) or not isinstance(capabilities, dict):
            names = f"{PREFIX}protocolVersion or {PREFIX}clientCapabilities"
            raise ProtocolError(INVALID_PARAMS, f"params._meta doesn't contain {names}.")
        if headers is not None:
            _check_headers(headers, method, params, version)
        if version != MODERN:
            raise _unsupported(version)
        client = _object(meta, f"{PREFIX}clientInfo")
    else:
        version = _legacy_version(method, params, stated, has_headers=headers is not None)
        capabilities, client = _object(params, "capabilities"), _object(params, "clientInfo")
    return Request(
        method=method,
        id=identity,
        params=params,
        version=version,
        capabilities=capabilities,
        client=str(client.get("name", "")),
    )


def _legacy_version(method: str, params: Message, stated: str | None, *, has_headers: bool) -> str:
    if method == "initialize":
        wanted = params.get("protocolVersion")
        return wanted if wanted in LEGACY else LEGACY[0]
    if stated is None:
        return LEGACY[-1] if has_headers else LEGACY[0]
    if stated not in LEGACY:
        raise _unsupported(stated)
    return stated


async def respond(handler: Handler, request: Request, notify: Notify) -> dict[str, Any]:
    """Return the response to a request."""
    identity = {"name": handler.name, "version": handler.version}
    offered = {"capabilities": handler.capabilities, "instructions": handler.instructions}
    result: dict[str, Any]
    try:
        match request.method:
            case "initialize" if not request.is_modern:
                result = {"protocolVersion": request.version, "serverInfo": identity, **offered}
            case "ping" if not request.is_modern:
                result = {}
            case "server/discover":
                result = {"supportedVersions": list(SUPPORTED), **offered}
            case _:
                result = await handler.handle(request, notify)
    except ProtocolError as error:
        return error.body(request.id)
    if request.is_modern:
        result = {"resultType": "complete", **result}
        result["_meta"] = {**result.get("_meta", {}), f"{PREFIX}serverInfo": identity}
        if request.method in _CACHEABLE and result["resultType"] == "complete":
            result |= {"ttlMs": _CACHE_MILLISECONDS, "cacheScope": "private"}
    return {"jsonrpc": "2.0", "id": request.id, "result": result}


def http_status(body: Message, *, is_modern: bool = True) -> int:
    """Return the HTTP status of a response; before 2026-07-28, a method's errors had status 200."""
    error = body.get("error")
    if error is None or not is_modern or error["code"] == INTERNAL_ERROR:
        return 200
    return 404 if error["code"] == METHOD_NOT_FOUND else 400


def _unsupported(version: str) -> ProtocolError:
    data = {"supported": list(SUPPORTED), "requested": version[:_MAX_SHOWN]}
    return ProtocolError(_UNSUPPORTED_VERSION, "Unsupported protocol version", data)


def _check_headers(headers: Mapping[str, tuple[str, ...]], method: str, params: Message, version: str) -> None:
    """Check that the headers that proxies use for routing match the body."""
    key = _NAMED.get(method)
    expected: dict[str, object] = {"MCP-Protocol-Version": version, "Mcp-Method": method}
    if key is not None and (key in params or "mcp-name" in headers):
        expected["Mcp-Name"] = params.get(key)
    for name, value in expected.items():
        sent = _single(headers, name.lower())
        if value is None or (_decoded(sent) if name == "Mcp-Name" else sent) != value:
            raise ProtocolError(HEADER_MISMATCH, f"The header {name} does not match the body.")


def _decoded(value: str | None) -> str | None:
    found = None if value is None else _BASE64.fullmatch(value)
    if found is None:
        return value
    try:
        data = base64.b64decode(found[1], validate=True)
        return data.decode() if base64.b64encode(data).decode() == found[1] else None
    except (binascii.Error, UnicodeDecodeError):
        return None


def _single(headers: Mapping[str, tuple[str, ...]], name: str) -> str | None:
    values = headers.get(name, ())
    if len(values) > 1:
        raise ProtocolError(HEADER_MISMATCH, f"The header {name} was sent more than once.")
    return values[0].strip() if values else None


def _object(values: Message, name: str) -> Message:
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def _is_id(value: object) -> TypeGuard[str | int]:
    is_short = not isinstance(value, str) or len(value) <= _MAX_ID_CHARACTERS
    return isinstance(value, str | int) and not isinstance(value, bool) and is_short
