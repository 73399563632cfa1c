"""A client for a Flight SQL engine behind this server, with one connection and undecoded result frames.

Everything from the engine may be malformed, so it is bounded and checked. Its tickets and addresses are never exposed.
"""

import asyncio
import base64
import logging
import re
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import grpc
import pyarrow as pa

from micromegas_jupyter.core.read_only import READ_ONLY_HEADER
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import (
    ConfigurationError,
    DeadlineExceeded,
    InvalidStatement,
    MicromegasError,
    QueryError,
    ResourcesExhausted,
    Unavailable,
    UnsupportedStatement,
    UsageError,
)
from micromegas_jupyter.executors.launcher import await_shared
from micromegas_jupyter.flightsql.commands import (
    ERROR_DETAILS_KEY,
    FLIGHT_SERVICE,
    decode_error,
    messages,
    pack_any,
    printable_text,
)
from micromegas_jupyter.flightsql.framing import (
    MAX_MESSAGE_BYTES,
    DecodeLimits,
    HeaderKind,
    StreamDecoder,
    frame_of_header,
    read_frame,
    read_header,
)

_LOG: Final = logging.getLogger("micromegas_jupyter.gateway")
_T = TypeVar("_T")
_EOF: Final[object] = grpc.aio.EOF  # type: ignore[attr-defined]
_MIB: Final = 1024 * 1024
_PREFIX_BYTES: Final = 8  # an encapsulated message's continuation marker and length
_MAX_SCHEMA_BYTES: Final = _MIB
_MAX_ENDPOINTS: Final = 256
_MAX_ROWS_OF_LISTING: Final = 20_000
_MAX_LISTING_BYTES: Final = 64 * _MIB
_CONNECT_MILLISECONDS: Final = 5000
_RECONNECT_MILLISECONDS: Final = 100
_MAX_RECONNECT_MILLISECONDS: Final = 2000
# Servers close connections that send pings more often than once every five minutes.
_KEEPALIVE_MILLISECONDS: Final = 330_000
_KEEPALIVE_ANSWER_MILLISECONDS: Final = 20_000
_SLACK_BYTES: Final = 64 * 1024
_MAX_SHOWN: Final = 500
_MAX_LOGGED: Final = 2000
_PING_SECONDS: Final = 1.5
_HANDSHAKE_SECONDS: Final = 10.0
_LISTING_LIMITS: Final = DecodeLimits(
    max_columns=16, max_batch_rows=_MAX_ROWS_OF_LISTING, max_dictionary_bytes=_MIB, max_schema_bytes=_MAX_SCHEMA_BYTES
)
#: SQL schemas in which known engines find unqualified table names.
_OPEN_SCHEMAS: Final = frozenset({None, "", "public", "default", "main"})
#: Only reading statements are forwarded; another micromegas server also enforces this header.
_READ_ONLY: Final = ((READ_ONLY_HEADER, "true"),)
_NO_ANSWER: Final = "The engine behind this server doesn't respond, or has exited."
_TRY_AGAIN: Final = "Try again in a moment. If this persists, tell the server's administrator."
# Addresses, and paths with at least two parts.
_ADDRESS = re.compile(
    r"\b[A-Za-z][\w+.-]*://\S*|(?<![\w<])/[^\s/,;:'\"()]+/[^\s,;:'\")]*|\b(?:ipv[46]:)?\d+\.\d+\.\d+\.\d+(?::\d+)?"
)
_TAIL = re.compile(r"\s*(?:\bbacktrace:|gRPC client debug context|\[[A-Z]{3,8}\d{3}\]).*", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineAddress:
    """The address of an engine."""

    host: str
    port: int
    is_tls: bool

    @property
    def target(self) -> str:
        """The address in gRPC format."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, *, key: str = "--engine") -> "EngineAddress":
        """Parse `grpc://host:port` or `grpc+tls://host:port`."""
        try:
            found = urlsplit(text)
            host, port = found.hostname, found.port
        except ValueError:
            host = port = None
        if (
            host is None
            or not port
            or found.scheme not in {"grpc", "grpc+tls"}
            or found.path.strip("/")
            or found.query
            or found.fragment
            or found.username is not None
        ):
            raise ConfigurationError(
                "The engine's address is invalid.",
                key=key,
                remedy="Use embedded, grpc://host:port, or grpc+tls://host:port; store a token in a separate file.",
            )
        return cls(host=host, port=port, is_tls=found.scheme == "grpc+tls")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Connection settings for an engine, and limits for its responses.

    With a `user`, the `token` is a password, and the engine returns its own token for it (Handshake). `ca` is PEM.
    """

    address: EngineAddress
    dialect: str
    user: str | None = None
    token: Secret | None = None
    ca: bytes | None = field(default=None, repr=False)
    silence_seconds: float = 600.0  # maximum silence when data is expected
    max_message_bytes: int = MAX_MESSAGE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """A planned statement: the IPC schema of its rows, and the tickets to redeem in order."""

    schema: bytes = field(repr=False)
    tickets: tuple[bytes, ...] = field(repr=False)


class TicketLost(Exception):
    """The engine doesn't recognize a ticket, and hasn't sent any part of the response."""


class Engine:
    """An engine client. Belongs to one event loop, from `open` to `close`.

    Failures raise a `MicromegasError` that is suitable for callers; details for the operator are logged.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self._channel: Any = None  # the type is Any because the library's types don't support calls with bytes
        self._bearer: str | None = None
        self._renewal: asyncio.Task[str] | None = None
        self._lists_tables = True

    async def open(self) -> None:
        """Prepare the connection; the engine doesn't have to be running yet."""
        settings = self.settings
        size = settings.max_message_bytes + _SLACK_BYTES
        options = (
            ("grpc.max_receive_message_length", size),
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.min_reconnect_backoff_ms", _CONNECT_MILLISECONDS),
            ("grpc.initial_reconnect_backoff_ms", _RECONNECT_MILLISECONDS),
            ("grpc.max_reconnect_backoff_ms", _MAX_RECONNECT_MILLISECONDS),
            ("grpc.keepalive_time_ms", _KEEPALIVE_MILLISECONDS),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_ANSWER_MILLISECONDS),
        )
        target, credentials = settings.address.target, self._credentials()
        if credentials is not None:
            self._channel = grpc.aio.secure_channel(target, credentials, options=options)
        else:
            self._channel = grpc.aio.insecure_channel(target, options=options)

    async def close(self) -> None:
        """Close the connection, which cancels all of its calls."""
        if self._channel is not None:
            await self._channel.close()

    async def plan(self, sql: str) -> Flight:
        """Let the engine plan a statement."""
        return await self._find_flight(messages.CommandStatementQuery(query=sql))

    async def read(self, flight: Flight) -> AsyncGenerator[tuple[bytes, int], None]:
        """Yield the frames of a flight, each with its row count, starting with the schema frame.

        Closing the iterator ends the call to the engine. If the engine doesn't recognize a ticket, the first step
        raises `TicketLost`.
        """
        schema = _schema_header(flight.schema)
        if not flight.tickets:
            yield frame_of_header(schema), 0
        is_first = True
        for ticket in flight.tickets:
            has_schema = False
            request = messages.Ticket(ticket=ticket).SerializeToString()
            async with aclosing(self._stream("DoGet", request, is_flight=is_first)) as answer:
                async for message in answer:
                    frame, found, header = _checked(read_frame, message)
                    if found is None:
                        continue
                    if found.kind is HeaderKind.SCHEMA:
                        if has_schema or not _is_same_schema(header, schema):
                            raise _broken("The engine's rows don't match the announced schema.")
                        has_schema = True
                        if is_first:
                            is_first = False
                            yield frame, 0
                        continue
                    if not has_schema:
                        raise _broken("The engine sent rows without a schema.")
                    yield frame, found.row_count if found.kind is HeaderKind.RECORD_BATCH else 0
            if not has_schema:
                raise _broken("The engine's response was empty.")

    async def list_tables(self) -> dict[str, bytes | None]:
        """Return the engine's tables, with their IPC schemas if the engine sends them."""
        if self._lists_tables:
            try:
                return await self._list_with_schemas()
            except UnsupportedStatement:
                self._lists_tables = False
        return await self._list_names()

    async def ping(self) -> None:
        """Return when the engine is ready; raise Unavailable if it doesn't respond or rejects this server."""
        try:
            async with asyncio.timeout(_PING_SECONDS):
                async with aclosing(self._stream("ListActions", b"")) as answer:
                    async for _ in answer:
                        pass
        except UnsupportedStatement:
            pass
        except TimeoutError:
            raise Unavailable(_NO_ANSWER, remedy=_TRY_AGAIN) from None

    async def _list_with_schemas(self) -> dict[str, bytes | None]:
        flight = await self._find_flight(messages.CommandGetTables(include_schema=True))
        found: dict[str, bytes | None] = {}
        for row in await self._read_listing(flight):
            name, schema = row.get("table_name"), row.get("table_schema")
            if isinstance(name, str) and isinstance(schema, bytes) and row.get("db_schema_name") in _OPEN_SCHEMAS:
                found[name] = schema if len(schema) <= _MAX_SCHEMA_BYTES else None
        return found

    async def _list_names(self) -> dict[str, bytes | None]:
        rows = await self._read_listing(await self.plan("SHOW TABLES"))
        names = (
            row.get("tableName", row.get("table_name"))
            for row in rows
            if row.get("database", row.get("table_schema")) in _OPEN_SCHEMAS
        )
        return {name: None for name in names if isinstance(name, str)}

    async def _read_listing(self, flight: Flight) -> list[dict[str, Any]]:
        decoder, size = StreamDecoder(_LISTING_LIMITS), 0
        rows: list[dict[str, Any]] = []
        async with aclosing(self.read(flight)) as frames:
            async for frame, count in frames:
                size += len(frame)
                if size > _MAX_LISTING_BYTES or len(rows) + count > _MAX_ROWS_OF_LISTING:
                    raise _broken("The engine has more tables than this server can list.")
                batch = _checked(decoder.decode, frame)
                rows += batch.to_pylist() if batch is not None else []
        return rows

    async def _find_flight(self, command: Any) -> Flight:
        descriptor = messages.FlightDescriptor(type=messages.FlightDescriptor.CMD, cmd=pack_any(command))
        answer = await self._call("GetFlightInfo", descriptor.SerializeToString())
        try:
            info = messages.FlightInfo.FromString(answer)
        except Exception:  # noqa: BLE001 - protobuf's own class differs between its implementations
            raise _broken("The engine's response is not a FlightInfo message.") from None
        if len(info.endpoint) > _MAX_ENDPOINTS:
            raise _broken(f"The engine's response has more than {_MAX_ENDPOINTS} endpoints.")
        _schema_header(info.schema)
        # Endpoints may list other locations; this server ignores them and reads from the engine so that it can't be
        # redirected.
        return Flight(schema=info.schema, tickets=tuple(one.ticket.ticket for one in info.endpoint))

    async def _call(self, method: str, request: bytes) -> bytes:
        call = self._channel.unary_unary(f"/{FLIGHT_SERVICE}/{method}")
        for is_last in (False, True):
            metadata = await self._metadata()
            try:
                return bytes(await call(request, metadata=metadata, timeout=self.settings.silence_seconds))
            except grpc.aio.AioRpcError as error:
                if is_last or not self._forgets_bearer(error, metadata):
                    raise translate(error) from None
        raise AssertionError

    async def _stream(self, method: str, request: bytes, *, is_flight: bool = False) -> AsyncGenerator[bytes, None]:
        """Yield the messages of a response; closing the iterator early cancels the call."""
        silence = self.settings.silence_seconds
        has_begun = False
        for is_last in (False, True):
            metadata = await self._metadata()
            call = self._channel.unary_stream(f"/{FLIGHT_SERVICE}/{method}")(request, metadata=metadata)
            try:
                while True:
                    async with asyncio.timeout(silence):
                        message = await call.read()
                    if message is _EOF:
                        return
                    has_begun = True
                    yield message
            except TimeoutError:
                raise DeadlineExceeded(
                    f"The engine hasn't sent any data for {silence:g} s.",
                    remedy="Read less data, or contact the server's administrator.",
                    limit="engine",
                ) from None
            except grpc.aio.AioRpcError as error:
                if not is_last and not has_begun and self._forgets_bearer(error, metadata):
                    continue
                if is_flight and not has_begun and error.code() in _TICKET_CODES:
                    raise TicketLost from translate(error)
                raise translate(error) from None
            finally:
                call.cancel()

    # Credentials.

    async def _metadata(self) -> tuple[tuple[str, str], ...]:
        token = self.settings.token
        if token is None:
            return _READ_ONLY
        if self.settings.user is None:
            return (*_READ_ONLY, ("authorization", f"Bearer {token.reveal()}"))
        bearer = self._bearer
        if bearer is None:
            if self._renewal is None or self._renewal.done():
                self._renewal = asyncio.get_running_loop().create_task(self._renew_bearer(self.settings.user, token))
                self._renewal.add_done_callback(lambda task: task.cancelled() or task.exception())
            # All callers share one renewal; separate renewals could occupy all of the loop's threads.
            bearer = await await_shared(self._renewal)
        return (*_READ_ONLY, ("authorization", bearer))

    async def _renew_bearer(self, user: str, password: Secret) -> str:
        bearer = self._bearer = await asyncio.to_thread(self._shake_hands, user, password)
        return bearer

    def _credentials(self) -> grpc.ChannelCredentials | None:
        if not self.settings.address.is_tls:
            return None
        return grpc.ssl_channel_credentials(root_certificates=self.settings.ca)

    def _shake_hands(self, user: str, password: Secret) -> str:
        """Exchange a username and password for the engine's authorization header.

        Blocks, because `grpc.aio` occasionally loses the headers of a response whose status arrives with them.
        """
        basic = base64.b64encode(f"{user}:{password.reveal()}".encode()).decode()
        target, credentials = self.settings.address.target, self._credentials()
        options = (("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0))
        opened: Any = (
            grpc.insecure_channel(target, options)
            if credentials is None
            else grpc.secure_channel(target, credentials, options)
        )
        with opened as channel:
            call = channel.stream_stream(f"/{FLIGHT_SERVICE}/Handshake")(
                iter(()), timeout=_HANDSHAKE_SECONDS, metadata=(("authorization", f"Basic {basic}"),)
            )
            try:
                deque(call, maxlen=0)
            except grpc.RpcError:
                raise translate(call) from None
            answer = [*call.initial_metadata(), *call.trailing_metadata()]
        found = next((str(value) for key, value in answer if key == "authorization"), None)
        if found is None:
            raise _broken("The engine didn't return a token for this server's user.")
        return found

    def _forgets_bearer(self, error: grpc.aio.AioRpcError, metadata: tuple[tuple[str, str], ...]) -> bool:
        """Return whether the engine rejected its token as expired, so that the call must be repeated with a new one."""
        if error.code() is not grpc.StatusCode.UNAUTHENTICATED or self.settings.user is None:
            return False
        if ("authorization", self._bearer) in metadata:  # otherwise another call has already renewed it
            self._bearer = None
        return True


_TICKET_CODES: Final = frozenset(
    {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAVAILABLE}
)
_STATEMENT_CODES: Final = frozenset({
    grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
})  # fmt: skip
#: gRPC's own messages with the codes above, which indicate a broken connection or a different protocol.
_BROKEN_CONNECTION = re.compile(
    r"RST_STREAM|[Ss]tream (?:removed|closed)|[Ss]ocket closed|[Cc]onnection (?:reset|closed)|GOAWAY|http2? ?/?1|"
    r"status: \d{3}|content-type|Failed parsing HTTP/2|h2 protocol error"
)


def translate(error: grpc.aio.AioRpcError) -> MicromegasError:  # noqa: PLR0911 - one line for each kind
    """Return the error to raise to the caller for a failed engine call."""
    code, text = error.code(), error.details() or ""
    trailers: Any = error.trailing_metadata() or ()
    own = next((value for key, value in trailers if key == ERROR_DETAILS_KEY), None)
    found = decode_error(own) if isinstance(own, bytes) else None
    if isinstance(found, QueryError):  # from another micromegas server
        found.query_id = None
        return found
    shown = _cleaned(text)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return ResourcesExhausted(f"The engine has reached a limit: {shown}", limit="engine")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return UnsupportedStatement(f"The engine does not implement this: {shown}")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded("The engine did not respond in time.", limit="engine")
    if code in _STATEMENT_CODES and not _BROKEN_CONNECTION.search(text):
        return InvalidStatement(f"The engine could not run the statement: {shown}")
    _LOG.warning("a call to the engine failed", extra={"status": code.name, "details": text[:_MAX_LOGGED]})
    if code in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}:
        return Unavailable(
            "The engine behind this server rejected the server's credentials.",
            remedy="Tell the server's administrator; your own sign-in is not the cause.",
        )
    return Unavailable(_NO_ANSWER, remedy=_TRY_AGAIN)


def _cleaned(text: str) -> str:
    """Return an engine's error message for callers: short, printable, and without addresses or paths."""
    words = printable_text(" ".join(_ADDRESS.sub("…", _TAIL.sub("", text[: 8 * _MAX_SHOWN])).split()))
    return words if len(words) <= _MAX_SHOWN else f"{words[:_MAX_SHOWN].rstrip()} …"


def _broken(what: str) -> Unavailable:
    _LOG.error("the engine's response cannot be used: %s", what)
    return Unavailable(
        what, remedy="Tell the server's administrator that the engine is broken or is not a Flight SQL server."
    )


def _checked(read: Callable[[bytes], _T], data: bytes) -> _T:
    """Return the result of reading an engine's data; failures are reported as the engine's fault."""
    try:
        return read(data)
    except (UsageError, QueryError):
        raise _broken("The engine sent data that is not valid Arrow.") from None


def _schema_header(schema: bytes) -> bytes:
    """Return the header of an IPC schema, checked without decoding it completely."""
    if not schema:
        raise _broken("The engine didn't return a schema.")
    start = _PREFIX_BYTES if schema[:4] == b"\xff\xff\xff\xff" else _PREFIX_BYTES // 2
    length = int.from_bytes(schema[start - 4 : start], "little")
    header = schema[start : start + length]
    if len(schema) > _MAX_SCHEMA_BYTES or _checked(read_header, header).kind is not HeaderKind.SCHEMA:
        raise _broken("The engine's response doesn't contain a usable schema.")
    return header


def _is_same_schema(one: bytes, other: bytes) -> bool:
    if one.rstrip(b"\0") == other.rstrip(b"\0"):
        return True
    try:
        return bool(_decoded(one).equals(_decoded(other)))
    except (pa.ArrowException, OSError, ValueError):
        return False


def _decoded(header: bytes) -> pa.Schema:
    if len(header) > _MAX_SCHEMA_BYTES:
        raise ValueError("too large")
    padded = header + bytes(-len(header) % 8)
    return pa.ipc.read_schema(pa.py_buffer(b"\xff\xff\xff\xff" + len(padded).to_bytes(4, "little") + padded))
