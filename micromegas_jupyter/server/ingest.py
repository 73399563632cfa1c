"""Rows that callers send (`DoPut` of `CommandStatementIngest`): who may, how much, and stored when all have come.

What the messages hold is read by an executor (`executors.uploads`); this process passes them on.
"""

import asyncio
import contextlib
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import grpc

from micromegas_jupyter.config.access import INGEST_SCOPE, READ_SCOPE
from micromegas_jupyter.core.protocols import AuthContext, AuthType, WriteRequest
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import (
    DeadlineExceeded,
    PermissionDenied,
    QueryCancelled,
    ResourcesExhausted,
    UnsupportedRequest,
    UsageError,
)
from micromegas_jupyter.executors.pool import ClientGone, Pool, RunningStatement, RunningUpload
from micromegas_jupyter.executors.protocol import Upload
from micromegas_jupyter.executors.scheduling import CallerKey, RunningLimit
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.ingest_command import IngestCommand
from micromegas_jupyter.server.attribution import resolve_attribution
from micromegas_jupyter.server.audit import IngestAudit
from micromegas_jupyter.server.calls import Call
from micromegas_jupyter.server.flight_settings import IngestSettings
from micromegas_jupyter.server.headers import Headers, find_client_address
from micromegas_jupyter.server.metrics import ServerMetrics
from micromegas_jupyter.server.statuses import ends_task, translate_error
from micromegas_jupyter.server.tickets import join_parts

INGEST_ID_HEADER: Final = "x-micromegas-ingest-id"
INGEST_ROWS_HEADER: Final = "x-micromegas-ingest-rows"
_INGEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_ROWS: Final = re.compile(r"[0-9]{1,18}")
_CANCELLATION_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestHeaders:
    """What an ingest's headers say: its own name, and how many rows will come; None for what they do not say."""

    ingest_id: str | None = None
    row_count: int | None = None


def parse_ingest_headers(headers: Headers) -> IngestHeaders:
    """Read the headers of an ingest."""
    ingest_id = _only(headers, INGEST_ID_HEADER)
    if ingest_id is not None and _INGEST_ID.fullmatch(ingest_id) is None:
        raise UsageError(
            f"The header {INGEST_ID_HEADER} is not 1 to 128 printable characters.", remedy="Send a UUID, for instance."
        )
    rows = _only(headers, INGEST_ROWS_HEADER)
    if rows is not None and _ROWS.fullmatch(rows) is None:
        raise UsageError(f"The header {INGEST_ROWS_HEADER} is not a whole number.", remedy="Send decimal digits.")
    return IngestHeaders(ingest_id=ingest_id, row_count=None if rows is None else int(rows))


def build_write_id(caller: CallerKey, table: str, ingest_id: str) -> str:
    """Return what names a caller's write in a table: hexadecimal digits that tell nothing of the parts."""
    parts = b"".join(
        len(part).to_bytes(4, "big") + part for part in (text.encode() for text in (*caller, table, ingest_id))
    )
    return sha256(parts).hexdigest()


def check_may_ingest(caller: AuthContext) -> None:
    """Check that the caller may send rows: an administrator, or an API key that is for it."""
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
    """Return what is asked of the storage for a caller who may send rows."""
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
    """Runs the uploads of one server. Belongs to one event loop."""

    def __init__(
        self,
        pool: Pool,
        *,
        settings: IngestSettings,
        trusted_proxies: frozenset[str],
        clock: Clock,
        metrics: ServerMetrics,
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._trusted_proxies = trusted_proxies
        self._clock = clock
        self._metrics = metrics
        self._places = RunningLimit(
            max_running=settings.max_concurrent,
            max_per_caller=settings.max_per_caller,
            queue_timeout_seconds=settings.admission_wait_seconds,
        )

    async def run(self, call: Call, command: IngestCommand, first: bytes) -> None:
        """Take the rows of one call and answer how many were stored; writes the audit line however it ends."""
        check_may_ingest(call.caller)
        audit = IngestAudit(
            call=call,
            command=command,
            client_address=find_client_address(call.context.peer(), call.headers, self._trusted_proxies),
            attribution=resolve_attribution(call.caller, call.headers),
            clock=self._clock,
        )
        try:
            async with asyncio.timeout(self._settings.max_seconds):
                stored = await self._store(call, command, first, audit)
        except BaseException as raised:
            if ends_task(raised) or isinstance(raised, ClientGone) or call.context.done():
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
        await call.answer(messages.PutResult(app_metadata=result.SerializeToString()).SerializeToString())

    async def _store(self, call: Call, command: IngestCommand, first: bytes, audit: IngestAudit) -> int:
        if self._pool.options.lake is None:
            raise UnsupportedRequest("This server only reads.", remedy="Send the rows to a server that keeps a lake.")
        asked = parse_ingest_headers(call.headers)
        if asked.ingest_id is not None:
            audit.write_id = build_write_id(call.caller_key, command.table, asked.ingest_id)
        settings = self._settings
        upload = Upload(
            request=build_request(
                command, call.caller, write_id=audit.write_id, most_tables=settings.max_tables_per_caller
            ),
            decoding=settings.decode_limits(),
            row_count=asked.row_count,
            max_rows=settings.max_rows,
            max_bytes=settings.max_bytes,
            max_row_bytes=settings.max_row_bytes,
        )
        async with RunningStatement(self._pool, call.source, query_id=call.query_id, slots=self._places) as running:
            receiving = RunningUpload(running)
            await receiving.begin(upload)
            await self._receive(call, first, receiving, audit)
            await _check_presence(call)
            return await receiving.commit()

    async def _receive(self, call: Call, first: bytes, receiving: RunningUpload, audit: IngestAudit) -> None:
        frame: bytes | None = first
        while frame is not None:
            audit.received_bytes += len(frame)
            if audit.received_bytes > self._settings.max_bytes:
                raise ResourcesExhausted(
                    f"More than {self._settings.max_bytes:,} bytes were sent.",
                    remedy="Send them in several calls.",
                    limit="ingest",
                )
            await receiving.send(frame)
            audit.rows = receiving.rows
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


def _only(headers: Headers, name: str) -> str | None:
    values = headers.get(name, ())
    if len(values) > 1:
        raise UsageError(f"The header {name} is there more than once.", remedy="Send it once.")
    return values[0] if values else None


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
