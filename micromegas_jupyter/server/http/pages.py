"""Common parts of all pages on the HTTP listener, and OTLP, where every response to an exporter is in OTLP's format.

An exporter is identified before the body is read. Rejected bodies are read and dropped, so that the sender gets the
error.
"""

import logging
import math
import uuid
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from typing import Any, Final

import grpc
from google.protobuf import json_format
from tornado.http1connection import HTTP1Connection
from tornado.iostream import IOStream
from tornado.web import HTTPError, RequestHandler, stream_request_body

from micromegas_jupyter.access.audit import CallFacts
from micromegas_jupyter.core.protocols import AuthContext
from micromegas_jupyter.errors import (
    UPSTREAM_ONLY_PAGE,
    DeadlineExceeded,
    InternalError,
    MicromegasError,
    PermissionDenied,
    Rejected,
    ResourcesExhausted,
    Unavailable,
    UsageError,
)
from micromegas_jupyter.flightsql.commands import messages, status_text
from micromegas_jupyter.otlp.exchange import MAX_WIRE_BYTES, Encoding, ExportRequest, Signal, too_large
from micromegas_jupyter.server.authentication import (
    ActionAudit,
    Authenticator,
    Headers,
    ReceivedHeaders,
    build_origin,
    find_forwarded_address,
    parse_read_only,
)
from micromegas_jupyter.server.exports import FINAL_LIMITS, Admission, ExportRunner
from micromegas_jupyter.server.flight_service import QUERY_ID_HEADER

REALM: Final = 'Bearer realm="micromegas"'
_LOG: Final = logging.getLogger("micromegas_jupyter.server")
#: OTLP's own paths and upstream's.
PATHS: Final = {f"{prefix}/v1/{signal.value}": signal for prefix in ("", "/ingestion/otlp") for signal in Signal}
#: Upstream's ingestion paths other than OTLP.
UPSTREAM_PATHS: Final = (
    r"/ingestion/(?:insert_(?:process|stream|block)|webhook|otlp/v1/metrics/firehose|cloudwatch/v1/logs/firehose)"
)
_MAX_DROPPED_BYTES: Final = 16 * 1024 * 1024
_MAX_UNKNOWN_BYTES: Final = 1024 * 1024  # for rejected callers
_BODY_SECONDS: Final = 30.0
_IDLE_SECONDS: Final = 75.0  # exporters send every few seconds or every minute
_RETRY_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """A listener's connections: `busy` ones have a request in progress, `lasting` ones will send more.

    Busy ones in `receiving` have not sent all of it. Those in `unused` have not sent any request yet.
    """

    authenticator: Authenticator
    needs_certificate: bool  # whether callers need a certificate
    trusted_proxies: frozenset[str]
    busy: set[IOStream]
    receiving: set[IOStream]
    lasting: set[IOStream]
    unused: set[IOStream]


class Page(RequestHandler):
    """Handles one request."""

    def initialize(self, connections: Connections, **_options: object) -> None:
        """Set the options that Tornado passes to each page of a route."""
        self._connections = connections
        stream = getattr(self.request.connection, "stream", None)
        self._stream = stream if isinstance(stream, IOStream) else None

    def set_default_headers(self) -> None:
        """Set the headers of every response."""
        # No version; clients must not cache or sniff the response.
        self.set_header("Server", "micromegas")
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")

    async def prepare(self) -> None:
        """Mark the connection as busy."""
        if self._stream is not None:
            self._connections.busy.add(self._stream)
            self._connections.unused.discard(self._stream)

    def on_finish(self) -> None:
        """Mark the connection as idle."""
        if self._stream is not None:
            self._connections.busy.discard(self._stream)
            self._connections.receiving.discard(self._stream)

    def on_connection_close(self) -> None:
        """Release the resources of a request whose client has disconnected."""
        super().on_connection_close()
        self.on_finish()

    def compute_etag(self) -> None:
        """Don't send an ETag, because responses are never compared."""

    def write_error(self, status_code: int, **_details: object) -> None:
        """Respond with an error's status, without details."""
        if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            self.set_header("Allow", ", ".join(self.SUPPORTED_METHODS))
        self.finish_with(HTTPStatus(status_code))

    def log_exception(self, *error: Any) -> None:
        """Log internal errors, but not client errors."""
        if not isinstance(error[1], HTTPError):
            _LOG.error("a page could not be made", exc_info=error)

    def finish_with(self, status: HTTPStatus, **headers: str) -> None:
        """Respond with a status, its phrase, and these headers; underscores in their names stand for hyphens."""
        self.set_status(status.value)
        for name, value in headers.items():
            self.set_header(name.replace("_", "-"), value)
        self.finish(f"{status.phrase}\n")

    @property
    def lacks_certificate(self) -> bool:
        """Whether the caller was required to present a certificate but didn't."""
        needed = self._connections.needs_certificate
        return needed and self.request.get_ssl_certificate(binary_form=True) is None

    async def authenticate(self) -> AuthContext:
        """Return the caller; raises like the authenticator."""
        return await self._connections.authenticator.authenticate(ReceivedHeaders(self.headers), self.describe)

    def describe(self) -> CallFacts:
        """Return the facts about the request for audit events."""
        return CallFacts(method=f"{self.request.method} {self.request.path}", client_address=self.client_address)

    @cached_property
    def headers(self) -> Headers:
        """The request's headers, in the format of a call's headers."""
        return {name.lower(): tuple(self.request.headers.get_list(name)) for name in self.request.headers}

    @cached_property
    def is_read_only(self) -> bool:
        """Whether the request must not make changes."""
        return parse_read_only(self.headers)

    @cached_property
    def client_address(self) -> str:
        """The client's IP address; a trusted proxy's headers override the connection's."""
        return find_forwarded_address(self.request.remote_ip or "", self.headers, self._connections.trusted_proxies)

    def announced_bytes(self) -> int | None:
        """Return the body's length from the headers, or None."""
        text = self.request.headers.get("Content-Length", "")
        return int(text) if text.isdecimal() and text.isascii() else None

    def expect_body(self, max_bytes: int) -> bool:
        """Allow a body of this size; return whether the client would wait for an error response before sending it."""
        announced = self.announced_bytes() or 0
        if isinstance(self.request.connection, HTTP1Connection):
            self.request.connection.set_max_body_size(max(announced, max_bytes))
        is_awaited = self.request.headers.get("Expect", "").lower() == "100-continue"
        return is_awaited or announced > max_bytes


@stream_request_body
class UpstreamPage(Page):
    """Responds to upstream's ingestion paths that this server doesn't support."""

    async def prepare(self) -> None:
        """Drop the body before responding unless it is large, because a sending client may not read the response."""
        await super().prepare()
        if self._stream is not None:
            self._connections.receiving.add(self._stream)
        if self.expect_body(_MAX_UNKNOWN_BYTES):
            raise HTTPError(HTTPStatus.NOT_FOUND)

    def data_received(self, chunk: bytes) -> None:
        """Drop part of the body."""

    def post(self) -> None:
        """Respond with the supported paths."""
        raise HTTPError(HTTPStatus.NOT_FOUND)

    get = head = post

    def write_error(self, status_code: int, **_details: object) -> None:
        """Respond with 404, after which upstream's library stops sending."""
        is_defect = status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
        self.set_status(status_code if is_defect else HTTPStatus.NOT_FOUND.value)
        self.set_header("Connection", "close")
        self.finish(f"This server takes OTLP only: {', '.join(PATHS)}. {UPSTREAM_ONLY_PAGE}\n")


@stream_request_body
class ExportPage(Page):
    """Receives exports."""

    SUPPORTED_METHODS = ("POST",)

    def initialize(self, connections: Connections, exports: ExportRunner) -> None:  # type: ignore[override]
        """Set the destination of exports."""
        super().initialize(connections)
        self._exports = exports
        self._signal = PATHS[self.request.path]
        self._encoding = Encoding.PROTOBUF
        self._is_compressed = False
        self._caller: AuthContext | None = None
        self._has_known_type = True
        self._admission: Admission | None = None
        self._audit: ActionAudit | None = None
        self._refusal: MicromegasError | None = None
        self._chunks: list[bytes] = []
        self._received_bytes = 0

    async def prepare(self) -> None:
        """Check the caller and the headers before reading the body."""
        await super().prepare()
        if self._stream is not None:
            self._connections.receiving.add(self._stream)
        try:
            await self._check()
        except MicromegasError as error:
            self._refusal = error
        max_bytes = _MAX_UNKNOWN_BYTES if isinstance(self._refusal, Rejected) else MAX_WIRE_BYTES + _MAX_DROPPED_BYTES
        if isinstance(self.request.connection, HTTP1Connection):
            self.request.connection.set_body_timeout(_BODY_SECONDS)
        if self.expect_body(max_bytes) and self._refusal is not None:
            await self._fail(self._refusal)

    def data_received(self, chunk: bytes) -> None:
        """Store or drop a part of the body."""
        self._received_bytes += len(chunk)
        if self._refusal is None and self._admission is not None:
            try:
                self._check_access()
                if self._received_bytes > MAX_WIRE_BYTES:
                    raise too_large(MAX_WIRE_BYTES)
                if self.announced_bytes() is None:
                    self._admission.extend(len(chunk))
            except MicromegasError as error:
                self._refusal, self._chunks = error, []
                return
            self._chunks.append(chunk)

    async def post(self) -> None:
        """Store the export."""
        if self._stream is not None:
            self._connections.receiving.discard(self._stream)
        admission, self._admission = self._admission, None
        if self._refusal is not None or admission is None:
            if admission is not None:
                admission.close()
            await self._fail(self._refusal or InternalError("The server failed to respond."))
            return
        body, self._chunks = b"".join(self._chunks), []
        request = ExportRequest(
            signal=self._signal,
            body=body,
            encoding=self._encoding,
            is_compressed=self._is_compressed,
            is_trusted=self._caller is not None and self._caller.is_admin,
        )
        try:
            self._check_access()
            report = await self._exports.store(request, admission)
            if self._audit is not None:
                self._audit.fields |= {"rows": report.stored, "refused": report.refused}
            await self._record("ok")
        except MicromegasError as error:
            admission.close()
            await self._fail(error)
            return
        except Exception:  # noqa: BLE001 - the exporter needs an answer in its form
            _LOG.exception("an export failed unexpectedly")
            await self._fail(InternalError("The server failed to respond."))
            return
        self.set_header("Content-Type", self._encoding.value)
        self.finish(report.answer)

    def on_finish(self) -> None:
        """Write the audit line for a disconnected client, and release the export's slot."""
        super().on_finish()
        self._write_audit("incomplete")
        if self._admission is not None:
            self._admission.close()

    def _write_audit(self, status: str, error: MicromegasError | None = None) -> ActionAudit | None:
        """Write the audit line if it hasn't been written yet, and return the audit in that case."""
        audit, self._audit = self._audit, None
        if audit is not None:
            audit.fields["received_bytes"] = self._received_bytes
            audit.write(status, error)
        return audit

    async def _record(self, status: str, error: MicromegasError | None = None) -> None:
        """Write the audit line and wait until the response may be sent."""
        if (audit := self._write_audit(status, error)) is not None:
            await audit.deliver()

    async def _fail(self, error: MicromegasError) -> None:
        with suppress(Unavailable):  # the response is already an error
            await self._record("error", error)
        self._answer_error(error)

    def write_error(self, status_code: int, **details: object) -> None:
        """Report internal errors in OTLP's format."""
        if status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
            super().write_error(status_code, **details)
        else:
            self._answer_error(InternalError("The server failed to respond."))

    async def _check(self) -> None:
        """Check everything that is known before the body arrives."""
        media_type = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        is_known = media_type in set(Encoding)
        if is_known:
            self._encoding = Encoding(media_type)
        if self.lacks_certificate:
            raise PermissionDenied("Exporters must present a certificate.", reason="certificate_missing")
        caller = await self.authenticate()
        try:
            self._exports.check_right(self, caller, self._signal)
            query_id = str(uuid.uuid4())
            self.set_header(QUERY_ID_HEADER, query_id)
            # Fails for a request on behalf of another user.
            origin = build_origin(query_id, self.client_address, caller, self.headers)
            self._audit = self._exports.open_audit(origin, self._signal)
        except PermissionDenied as error:
            self._connections.authenticator.record(
                self.describe(), "forbidden", reason=error.reason, code=error.code, caller=caller
            )
            raise
        self._caller = caller
        if self._stream is not None and isinstance(self.request.connection, HTTP1Connection):
            # An authorized exporter's connection stays open for its next export.
            self._connections.lasting.add(self._stream)
            self.request.connection.params.header_timeout = _IDLE_SECONDS
        if not is_known:
            self._has_known_type = False
            raise UsageError("The body doesn't have an OTLP content type.", remedy=f"Send {' or '.join(Encoding)}.")
        compression = self.request.headers.get("Content-Encoding", "identity").strip().lower()
        if compression not in {"", "identity", "gzip"}:
            self._has_known_type = False
            raise UsageError("The body's compression is not supported.", remedy="Use gzip or no compression.")
        self._is_compressed = compression == "gzip"
        size = self.announced_bytes()
        if size is not None and size > MAX_WIRE_BYTES:
            raise too_large(MAX_WIRE_BYTES)
        self._admission = self._exports.admit((caller.issuer, caller.subject), size or 0)

    def _check_access(self) -> None:
        """Reject an export whose sender has lost access since it began."""
        if self._caller is not None:
            self._connections.authenticator.check_again(self._caller, self.headers, self.describe)

    def _answer_error(self, error: MicromegasError) -> None:
        """Respond with a `google.rpc.Status`, as OTLP requires for HTTP."""
        self._write_audit("error", error)
        self._exports.count_refusal(self._signal, error, size=self._received_bytes)
        self.set_status(_http_status(error) if self._has_known_type else HTTPStatus.UNSUPPORTED_MEDIA_TYPE.value)
        if (seconds := _retry_after(error)) is not None:
            self.set_header("Retry-After", str(math.ceil(seconds)))
        if isinstance(error, Rejected):
            has_credential = bool(self.request.headers.get_list("Authorization"))
            self.set_header("WWW-Authenticate", f'{REALM}, error="invalid_token"' if has_credential else REALM)
        status: Any = messages.Status(code=grpc.StatusCode[error.grpc_code].value[0], message=status_text(error))
        encoding = self._encoding if self._has_known_type else Encoding.PROTOBUF
        self.set_header("Content-Type", encoding.value)
        if encoding is Encoding.JSON:
            self.finish(json_format.MessageToJson(status, indent=None))
        else:
            self.finish(status.SerializeToString())


def _http_status(error: MicromegasError) -> int:
    """Return the status; OTLP exporters retry after 429, 502, 503, and 504."""
    if isinstance(error, ResourcesExhausted) and error.limit in FINAL_LIMITS:
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE.value
    if isinstance(error, DeadlineExceeded):
        return HTTPStatus.SERVICE_UNAVAILABLE.value
    return error.http_status


def _retry_after(error: MicromegasError) -> float | None:
    if isinstance(error, ResourcesExhausted):
        return None if error.limit in FINAL_LIMITS else error.retry_after_seconds or _RETRY_SECONDS
    return _RETRY_SECONDS if isinstance(error, Unavailable | DeadlineExceeded) else None
