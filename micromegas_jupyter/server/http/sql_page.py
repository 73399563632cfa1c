"""`POST /sql`, which returns a statement's rows as an Arrow IPC stream, built from executors' Flight frames."""

import asyncio
from http import HTTPStatus
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from tornado.iostream import StreamClosedError

from micromegas_jupyter.core.protocols import AuthContext
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.core.text import JsonError, decode_strict_json, parse_range
from micromegas_jupyter.errors import MicromegasError, UsageError
from micromegas_jupyter.executors.pool import ClientGone
from micromegas_jupyter.flightsql.framing import CONTINUATION, END_OF_STREAM, ipc_message
from micromegas_jupyter.mcp.tools import Scalar
from micromegas_jupyter.server.flight_service import QUERY_ID_HEADER
from micromegas_jupyter.server.http.calls import HttpRequest
from micromegas_jupyter.server.http.json_page import JsonPage

PATH: Final = "/sql"
_MAX_DEPTH: Final = 3
_MAX_SECONDS: Final = 86_400
_HELD_BYTES: Final = 8
_REMEDY: Final = (
    "Send a JSON object with sql, and perhaps params, begin, end, limit, preserve_dictionary, timeout_seconds."
)


class SqlRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of a request."""

    sql: Annotated[str, Meta(min_length=1)]
    params: dict[str, Scalar] | list[Scalar] | None = None
    begin: str | None = None
    end: str | None = None
    limit: Annotated[int, Meta(ge=0)] | None = None
    preserve_dictionary: bool = False
    timeout_seconds: Annotated[float, Meta(gt=0, le=_MAX_SECONDS)] | None = None


class SqlPage(JsonPage):
    """Runs a statement like Flight does, with the same headers as Flight calls.

    The last bytes of each message are held until the next one follows, so an aborted stream ends within a message. Some
    Arrow readers ignore a missing last HTTP chunk, but not an incomplete message.
    """

    allowed_headers = "authorization, content-type, x-client-type, x-micromegas-compression, x-micromegas-read-only"
    exposed_headers = f"www-authenticate, {QUERY_ID_HEADER}"

    async def handle(self, body: bytes, caller: AuthContext) -> None:
        """Respond with the rows or an error; an error after the first rows aborts the stream."""
        self._loop = asyncio.get_running_loop()
        self._held = b""
        try:
            headers = {"x-client-type": ("http",), **self.headers}
            read_only = self.is_read_only
            request = HttpRequest(self._site.calls, headers, caller, self.describe, is_read_only=read_only)
            self.set_header(QUERY_ID_HEADER, request.query_id)
            wanted = self._parse(body)
            begin, end = parse_range(wanted.begin, wanted.end, now=SYSTEM_CLOCK.now())
            options = {} if wanted.limit is None else {"limit": str(wanted.limit)}
            if wanted.preserve_dictionary:
                options["preserve_dictionary"] = "true"
            await request.run_query(
                wanted.sql,
                wanted.params,
                write=self._take,
                begin=begin,
                end=end,
                options=options,
                timeout_seconds=wanted.timeout_seconds,
            )
            self._begin()
            self.write(self._held + CONTINUATION + END_OF_STREAM)
            await self.finish()
        except MicromegasError as error:
            if self._has_begun:
                self._abort()
            else:
                self.finish_error(error)
        except asyncio.CancelledError:
            self._abort()

    def _parse(self, body: bytes) -> SqlRequest:
        if self.request.version == "HTTP/1.0":  # a complete response would look like an aborted one
            raise UsageError("Results need HTTP/1.1.", remedy="In nginx, set proxy_http_version 1.1.")
        try:
            return msgspec.convert(decode_strict_json(body.decode(), max_depth=_MAX_DEPTH), SqlRequest)
        except (UnicodeDecodeError, JsonError):
            raise UsageError("The body is not JSON in UTF-8.", remedy=_REMEDY) from None
        except msgspec.ValidationError as error:
            raise UsageError(f"The body is not valid: {error}.", remedy=_REMEDY) from None

    async def _take(self, frame: bytes) -> None:
        """Send a frame; called on the server's loop, and returns once the connection has accepted the frame."""
        start, body = ipc_message(frame)
        sending = asyncio.run_coroutine_threadsafe(self._send(start, body), self._loop)
        try:
            await asyncio.wrap_future(sending)
        except StreamClosedError:
            raise ClientGone from None

    async def _send(self, start: bytes, body: memoryview) -> None:
        if self._stream is None:
            raise StreamClosedError
        start = CONTINUATION + start
        if not self._held:
            self._held = start  # hold the schema, because an error before the first rows can be a normal response
            return
        if not self._has_begun:
            self._begin()
            await self.flush()
        message = memoryview(self._held + start)
        if len(body) >= _HELD_BYTES:
            self._held, body = bytes(body[-_HELD_BYTES:]), body[:-_HELD_BYTES]
        else:
            message = memoryview(self._held + start + bytes(body))
            self._held, message, body = bytes(message[-_HELD_BYTES:]), message[:-_HELD_BYTES], body[:0]
        # A chunk (RFC 9112 section 7.1), written without Tornado's copies.
        self._stream.write(b"%x\r\n" % (len(message) + len(body)))
        self._stream.write(message)
        if body:
            self._stream.write(body)
        # Tornado logs a failure if its future is canceled.
        await asyncio.shield(self._stream.write(b"\r\n"))

    def _begin(self) -> None:
        if self._has_begun:
            return
        self._has_begun = True
        self.set_status(HTTPStatus.OK.value)
        self.set_header("Content-Type", "application/vnd.apache.arrow.stream")
        self.set_header("X-Accel-Buffering", "no")

    def _abort(self) -> None:
        """Close the connection, so that the response is recognizably incomplete."""
        if self._stream is not None:
            self._stream.close()
