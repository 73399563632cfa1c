"""HTTP calls, which run on the server's own loop with the same limits, audit, and list as Flight calls."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

import pyarrow as pa

from micromegas_jupyter.access.audit import CallFacts
from micromegas_jupyter.config.access import READ_SCOPE
from micromegas_jupyter.core.protocols import AuthContext, AuthType
from micromegas_jupyter.errors import ServerUnavailable
from micromegas_jupyter.executors.pool import ClientGone
from micromegas_jupyter.executors.scheduling import Cause, request_timeout_error
from micromegas_jupyter.flightsql.framing import (
    DecodeLimits,
    FlightDataEncoder,
    HeaderKind,
    StreamDecoder,
    frame_of_header,
    read_frame,
)
from micromegas_jupyter.flightsql.parameters import Params, bind
from micromegas_jupyter.mcp.tools import MAX_RESULT_BYTES, Fetched, Query
from micromegas_jupyter.server.authentication import Headers, ReceivedHeaders
from micromegas_jupyter.server.flight_methods import QueryRunner, query_key
from micromegas_jupyter.server.flight_service import Call, FlightService

_T = TypeVar("_T")
#: The headers of a request that are used; others cannot change how a statement runs.
_PASSED_HEADERS: Final = ("authorization", "x-user-id", "x-user-email", "x-user-name")
_DECODING: Final = DecodeLimits(
    max_columns=10_000,
    max_fields=20_000,
    max_batch_rows=1_000_000,
    max_dictionary_bytes=8 * MAX_RESULT_BYTES,
    max_view_bytes=8 * MAX_RESULT_BYTES,
)
_MAX_AGENT_CHARACTERS: Final = 64
_PREFIX_BYTES: Final = 8  # of an encapsulated message: a marker and the size of its metadata


class HttpCalls:
    """Runs calls on the server's event loop from a different loop."""

    def __init__(self) -> None:
        self._attached: tuple[asyncio.AbstractEventLoop, QueryRunner, FlightService] | None = None

    def attach(self, queries: QueryRunner, service: FlightService) -> None:
        """Run calls on this event loop from now on."""
        self._attached = asyncio.get_running_loop(), queries, service

    async def run(
        self, work: Callable[[QueryRunner, Call], Awaitable[_T]], build: Callable[[FlightService], Call]
    ) -> _T:
        """Return the result of a call's work, which is stopped if the caller's task is canceled."""
        if self._attached is None:
            raise ServerUnavailable("The server is starting.", remedy="Try again.")
        loop, queries, service = self._attached

        async def serve() -> _T:
            return await service.serve_request(build(service), lambda call: work(queries, call))

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(serve(), loop))

    def end_soon(self, query_id: str, cause: Cause, *, otherwise: Callable[[], object]) -> None:
        """Stop a query; call `otherwise` on this loop if it isn't running."""
        if self._attached is None:
            otherwise()
            return
        loop, queries, _ = self._attached
        here = asyncio.get_running_loop()

        def end() -> None:
            if not queries.end(query_id, cause=cause):
                here.call_soon_threadsafe(otherwise)

        loop.call_soon_threadsafe(end)


class HttpRequest:
    """One request by a known caller, run as a call on the server's loop."""

    def __init__(
        self,
        calls: HttpCalls,
        headers: Headers,
        caller: AuthContext,
        describe: Callable[[], CallFacts],
        *,
        is_read_only: bool,
    ) -> None:
        self._calls = calls
        self._headers = ReceivedHeaders(headers)
        self._caller = caller
        self._describe = describe
        self._is_read_only = is_read_only
        self.query_id = str(uuid.uuid4())

    async def run(
        self,
        work: Callable[[QueryRunner, Call], Awaitable[_T]],
        *,
        write: Callable[[bytes], Awaitable[None]] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> _T:
        """Return the result of a call's work; `options` override headers, and `write` receives the frames."""
        facts, caller = self._describe(), self._caller
        is_known = caller.auth_type is not AuthType.NONE

        def build(service: FlightService) -> Call:
            call = service.build_call(
                _Context(write),
                ReceivedHeaders({**self._headers, **{name: (text,) for name, text in (options or {}).items()}}),
                caller,
                source=(caller.issuer, caller.subject if is_known else facts.client_address or ""),
                query_id=self.query_id,
                is_read_only=self._is_read_only,
                describe=lambda: facts,
            )
            call.require_scope(READ_SCOPE)
            return call

        return await self._calls.run(work, build)

    async def run_query(  # noqa: PLR0913 - what a statement comes with
        self,
        sql: str,
        params: Params,
        *,
        write: Callable[[bytes], Awaitable[None]],
        begin: datetime | None,
        end: datetime | None,
        options: Mapping[str, str],
        timeout_seconds: float | None,
    ) -> None:
        """Run a query; pass its frames to `write`, on the server's loop, until it raises `ClientGone`."""
        bound = await asyncio.to_thread(bind, sql, params) if params else None
        parameters: tuple[bytes, ...] = ()
        if bound is not None:
            encoder = FlightDataEncoder(bound.row.schema)
            sql, parameters = bound.sql, (encoder.encode_schema(), *encoder.encode_batch(bound.row))
        if begin is not None and end is not None:
            options = {**options, "query_range_begin": begin.isoformat(), "query_range_end": end.isoformat()}

        async def run(queries: QueryRunner, call: Call) -> None:
            loop = asyncio.get_running_loop()

            def expire() -> None:
                # A query that is waiting for the denial list is not listed yet.
                if not queries.end(call.query_id, cause=Cause.REQUEST_TIMEOUT):
                    waiting.reschedule(loop.time())

            deadline = None if timeout_seconds is None else loop.call_later(timeout_seconds, expire)
            try:
                async with asyncio.timeout(None) as waiting:
                    await queries.run(call, sql, parameters, key=query_key(call.caller_key, call.query_id.encode()))
            except ClientGone:
                pass
            except TimeoutError:
                raise request_timeout_error() from None
            finally:
                if deadline is not None:
                    deadline.cancel()

        await self.run(run, write=write, options=options)

    def end_soon(self, cause: Cause, *, otherwise: Callable[[], object]) -> None:
        """Stop the query; call `otherwise` if it isn't running."""
        self._calls.end_soon(self.query_id, cause, otherwise=otherwise)


class HttpBackend:
    """Runs the tools of one request by a known caller, read-only."""

    def __init__(
        self, calls: HttpCalls, headers: Headers, caller: AuthContext, describe: Callable[[], CallFacts], agent: str
    ) -> None:
        shown = "".join(character for character in agent if " " <= character <= "~")[:_MAX_AGENT_CHARACTERS]
        passed = {name: headers[name] for name in _PASSED_HEADERS if name in headers}
        passed |= {"x-client-type": ("mcp",), "x-client-agent": (shown or "unknown",)}
        self._request = HttpRequest(calls, passed, caller, describe, is_read_only=True)
        self.is_withdrawn = False

    async def tables(self) -> list[tuple[str, pa.Schema]]:
        """Return the tables that the caller may read."""
        found = await self._request.run(lambda queries, call: queries.tables(call))
        return [(name, _decode_schema(schema)) for name, schema in found]

    async def running(self) -> list[dict[str, Any]]:
        """Return the caller's running queries."""
        found: list[dict[str, Any]] = (await self._act({"operation": "list"}))["queries"]
        return found

    async def cancel(self, query_id: str) -> str:
        """Cancel one of the caller's queries."""
        return str((await self._act({"operation": "cancel", "query_id": query_id}))["status"])

    async def _act(self, body: dict[str, str]) -> dict[str, Any]:
        encoded = json.dumps(body).encode()
        found: dict[str, Any] = json.loads(
            await self._request.run(lambda queries, call: queries.answer_action(call, encoded))
        )
        return found

    async def query(
        self, query: Query, begin: datetime | None, end: datetime | None, on_rows: Callable[[int], None]
    ) -> Fetched:
        """Run a query and return its rows, up to `MAX_RESULT_BYTES` of them."""
        frames = _Frames(on_rows)
        await self._request.run_query(
            query.sql,
            query.params,
            write=frames.take,
            begin=begin,
            end=end,
            options={"limit": str(query.max_rows + 1)},
            timeout_seconds=query.timeout_seconds,
        )
        table = await asyncio.to_thread(frames.read)
        return Fetched(table=table, query_id=self._request.query_id, truncated_by="bytes" if frames.is_cut else None)

    def withdraw(self, task: asyncio.Task[Any]) -> None:
        """Stop the query of an abandoned request, or its task if it isn't running a query."""
        self.is_withdrawn = True
        # Don't do both: a canceled task would not wait for its executor to stop, and the audit would not contain the
        # cause.
        self._request.end_soon(Cause.WITHDRAWN, otherwise=task.cancel)


def _decode_schema(encoded: bytes) -> pa.Schema:
    """Decode an encapsulated IPC message with the same checks as for rows."""
    decoder = StreamDecoder(_DECODING)
    size = int.from_bytes(encoded[4:_PREFIX_BYTES], "little")
    decoder.decode(frame_of_header(encoded[_PREFIX_BYTES : _PREFIX_BYTES + size]))
    return decoder.schema


class _Enough(ClientGone):
    """The client displays no more of the result."""

    cause = Cause.RESULT_CUT


class _Context:
    """The parts of gRPC's context that an HTTP call uses; frames are passed to `write`."""

    def __init__(self, write: Callable[[bytes], Awaitable[None]] | None) -> None:
        self._write = write

    async def write(self, frame: bytes) -> None:
        if self._write is not None:
            await self._write(frame)

    def done(self) -> bool:
        return False

    def trailing_metadata(self) -> tuple[()]:
        return ()

    def set_trailing_metadata(self, _trailers: object) -> None:
        pass


class _Frames:
    """The first frames of a result; executors' frames are checked like uploads."""

    def __init__(self, on_rows: Callable[[int], None]) -> None:
        self._frames: list[bytes] = []
        self._size = 0
        self._on_rows = on_rows
        self.is_cut = False

    async def take(self, frame: bytes) -> None:
        """Add a frame; raise `_Enough` once there are enough."""
        if self._size and self._size + len(frame) > MAX_RESULT_BYTES:
            self.is_cut = True
            raise _Enough
        header = read_frame(frame)[1]
        if header is not None and header.kind is HeaderKind.RECORD_BATCH:
            self._on_rows(header.row_count)
            self._size += len(frame)
        self._frames.append(frame)

    def read(self) -> pa.Table:
        """Return the rows."""
        decoder = StreamDecoder(_DECODING)
        batches = [batch for batch in map(decoder.decode, self._frames) if batch is not None]
        return pa.Table.from_batches(batches, decoder.schema)
