"""Rows that callers send (`DoPut` of `CommandStatementIngest`): who may, how much, and stored when all have come.

What the messages hold is `ingest_stream`'s business, where the rows lie that of the storage.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from typing import Final, TypeVar

import grpc

from micromegas_jupyter.contracts import AuthContext, AuthType, TableSink, WriteRequest
from micromegas_jupyter.errors import (
    DeadlineExceeded,
    PermissionDenied,
    QueryCancelled,
    ResourcesExhausted,
    UnsupportedRequest,
)
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.ingest_command import IngestCommand
from micromegas_jupyter.seams import Clock
from micromegas_jupyter.server.admission import CallerKey
from micromegas_jupyter.server.attribution import resolve_attribution
from micromegas_jupyter.server.calls import Call
from micromegas_jupyter.server.headers import find_client_address
from micromegas_jupyter.server.ingest_audit import IngestAudit
from micromegas_jupyter.server.ingest_settings import IngestSettings
from micromegas_jupyter.server.ingest_stream import IngestStream, build_write_id, parse_ingest_headers
from micromegas_jupyter.server.metrics import ServerMetrics
from micromegas_jupyter.server.seals import join_parts
from micromegas_jupyter.server.statuses import ends_task, translate_error
from micromegas_jupyter.settings import INGEST_SCOPE, READ_SCOPE

_THREADS: Final = 4
_CANCELLATION_SECONDS: Final = 5.0

_T = TypeVar("_T")


def check_may_ingest(caller: AuthContext) -> None:
    """Check that the caller may send rows: an administrator, or an API key that is for it.

    Raises:
        PermissionDenied: They may not.
    """
    is_key_for_it = caller.auth_type is AuthType.API_KEY and INGEST_SCOPE in caller.scopes
    if not (caller.is_admin or is_key_for_it):
        raise PermissionDenied(
            "Rows are taken from administrators, and with API keys that are for it.",
            reason="ingest_not_allowed",
            remedy=f"Ask the server's administrator for an API key with the scope {INGEST_SCOPE}.",
        )


def build_request(
    command: IngestCommand, caller: AuthContext, *, write_id: str | None, most_tables: int
) -> WriteRequest:
    """Return what is asked of the storage for a caller who may send rows.

    Args:
        command: What they ask for.
        caller: Who they are.
        write_id: Names the write, when they gave it a name.
        most_tables: How many tables a caller may make who is not an administrator.
    """
    access = caller.table_access
    return WriteRequest(
        table=command.table,
        mode=command.mode,
        write_id=write_id,
        is_trusted=caller.is_admin,
        may_read=READ_SCOPE in caller.scopes and (access is None or access.may_read(command.table)),
        maker=sha256(join_parts(caller.issuer.encode(), caller.subject.encode())).hexdigest(),
        most_tables=None if caller.is_admin else most_tables,
    )


class IngestRunner:
    """Runs the ingests of one server. Belongs to one event loop.

    Args:
        sink: Where rows go; None where this server only reads.
        settings: The limits.
        trusted_proxies: Peer addresses whose forwarding headers name the real client.
        clock: Measures how long an ingest takes.
        metrics: Counts calls and rows.
    """

    def __init__(
        self,
        sink: TableSink | None,
        *,
        settings: IngestSettings,
        trusted_proxies: frozenset[str],
        clock: Clock,
        metrics: ServerMetrics,
    ) -> None:
        self._metrics = metrics
        self._sink = sink
        self._settings = settings
        self._trusted_proxies = trusted_proxies
        self._clock = clock
        self._slots = _Slots(settings)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="ingest")

    async def run(self, call: Call, command: IngestCommand, first: bytes) -> None:
        """Take the rows of one call and answer how many were stored; writes the audit line however it ends.

        Raises:
            PermissionDenied: The caller may not send rows.
            UsageError: The rows, or what the headers say of them, cannot be used.
            UnsupportedRequest: This server only reads.
            ResourcesExhausted: Over a limit, or there is no room.
            DeadlineExceeded: Nothing came for too long.
            Unavailable: The storage cannot be used now.
        """
        check_may_ingest(call.caller)
        audit = IngestAudit(
            call=call,
            command=command,
            client_address=find_client_address(call.context.peer(), call.headers, self._trusted_proxies),
            attribution=resolve_attribution(call.caller, call.headers),
            clock=self._clock,
        )
        try:
            async with self._slots.slot(call.caller_key), asyncio.timeout(self._settings.max_seconds):
                stored = await self._store(call, command, first, audit)
        except BaseException as raised:
            if ends_task(raised) or call.context.done():
                audit.write("incomplete")
                self._metrics.count_ingest("incomplete", rows=0, size=0)
                raise
            error = _too_slow() if isinstance(raised, TimeoutError) else raised
            translated = translate_error(error, call.query_id)
            audit.write("error", translated)
            self._metrics.count_ingest("error", rows=0, size=0)
            raise translated from raised
        audit.write("ok")
        self._metrics.count_ingest("ok", rows=stored, size=audit.received_bytes)
        result = messages.DoPutUpdateResult(record_count=stored)
        await call.write(messages.PutResult(app_metadata=result.SerializeToString()).SerializeToString())

    def close(self) -> None:
        """Give up the threads; what runs on them ends first."""
        self._threads.shutdown(wait=False)

    async def _store(self, call: Call, command: IngestCommand, first: bytes, audit: IngestAudit) -> int:
        if self._sink is None:
            raise UnsupportedRequest("This server only reads.", remedy="Send the rows to a server that keeps a lake.")
        asked = parse_ingest_headers(call.headers)
        if asked.ingest_id is not None:
            audit.write_id = build_write_id(call.caller_key, command.table, asked.ingest_id)
        request = build_request(
            command, call.caller, write_id=audit.write_id, most_tables=self._settings.max_tables_per_caller
        )
        stream = IngestStream(self._sink, request, settings=self._settings, row_count=asked.row_count)
        try:
            await self._receive(call, first, stream, audit)
            await _check_presence(call)
            return await self._in_thread(stream.commit)
        finally:
            await self._in_thread(stream.abandon)

    async def _receive(self, call: Call, first: bytes, stream: IngestStream, audit: IngestAudit) -> None:
        frame: bytes | None = first
        while frame is not None:
            audit.received_bytes += len(frame)
            if audit.received_bytes > self._settings.max_bytes:
                raise ResourcesExhausted(
                    f"More than {self._settings.max_bytes:,} bytes were sent.",
                    remedy="Send them in several calls.",
                    limit="ingest",
                )
            await self._in_thread(partial(stream.take, frame))
            audit.rows = stream.rows
            frame = await self._next(call)

    async def _next(self, call: Call) -> bytes | None:
        try:
            async with asyncio.timeout(self._settings.idle_seconds):
                return await call.read()
        except TimeoutError:
            raise DeadlineExceeded(
                f"Nothing came for {self._settings.idle_seconds:g} seconds; no row is stored.",
                remedy="Send the rows without a pause.",
                limit="silent_client",
            ) from None

    async def _in_thread(self, function: Callable[[], _T]) -> _T:
        """Return what `function` returns; it has ended when this ends, even when the call is cancelled."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, function)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                with contextlib.suppress(asyncio.CancelledError):  # asked again to end, which it will
                    await asyncio.wait({future})
            raise


def _too_slow() -> DeadlineExceeded:
    return DeadlineExceeded(
        "The rows took too long to come.", remedy="Send them in several calls.", limit="silent_client"
    )


async def _check_presence(call: Call) -> None:
    """Check that the client is there: to the server, one that was killed looks like one that has sent everything.

    Sending fails as soon as the connection or the call is gone, and gRPC is then about to cancel this task.
    """
    with contextlib.suppress(grpc.aio.BaseError):
        await call.announce_query_id()
        if not call.context.done():
            return
    await asyncio.sleep(_CANCELLATION_SECONDS)
    raise QueryCancelled("The client left before it was told that its rows are stored, so they are not.")


class _Slots:
    """How many calls store rows at once, in all and of one caller; the rest wait a bounded time."""

    def __init__(self, settings: IngestSettings) -> None:
        self._settings = settings
        self._running: Counter[CallerKey] = Counter()
        self._changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def slot(self, caller: CallerKey) -> AsyncIterator[None]:
        """Hold a slot.

        Raises:
            ResourcesExhausted: None came free in time.
        """
        try:
            async with asyncio.timeout(self._settings.admission_wait_seconds), self._changed:
                await self._changed.wait_for(lambda: self._is_free(caller))
                self._running[caller] += 1
        except TimeoutError:
            raise ResourcesExhausted(
                "As many calls send rows as may at once, for you or in all.",
                remedy="Wait for some to end.",
                limit="ingest",
            ) from None
        try:
            yield
        finally:
            self._running[caller] -= 1
            if not self._running[caller]:
                del self._running[caller]
            async with self._changed:
                self._changed.notify_all()

    def _is_free(self, caller: CallerKey) -> bool:
        is_room = self._running.total() < self._settings.max_concurrent
        return is_room and self._running[caller] < self._settings.max_per_caller
