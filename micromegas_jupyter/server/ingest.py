"""Rows that callers send (`DoPut` of `CommandStatementIngest`): who may, how much, and stored once all have arrived."""

import asyncio
import contextlib
import re
from hashlib import sha256
from typing import Final

import grpc

from micromegas_jupyter.access.write_rights import check_may_ingest, is_owner, may_create, may_read
from micromegas_jupyter.core.protocols import AuthContext, WriteMode, WriteRequest
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import (
    DeadlineExceeded,
    MicromegasError,
    QueryCancelled,
    ResourcesExhausted,
    UnsupportedRequest,
    UsageError,
)
from micromegas_jupyter.executors.ingest import IngestCall, IngestProcess
from micromegas_jupyter.executors.protocol import Upload
from micromegas_jupyter.executors.scheduling import CallerKey, RunningLimit
from micromegas_jupyter.flightsql.commands import IngestCommand, messages
from micromegas_jupyter.server.audit import ActionAudit, find_origin, recorded
from micromegas_jupyter.server.authentication import Headers, single_value
from micromegas_jupyter.server.flight_service import Call
from micromegas_jupyter.server.monitoring import ServerMetrics
from micromegas_jupyter.server.settings import FlightServerSettings
from micromegas_jupyter.server.tickets import join_parts

INGEST_ID_HEADER: Final = "x-micromegas-ingest-id"
INGEST_ROWS_HEADER: Final = "x-micromegas-ingest-rows"
_INGEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_ROWS: Final = re.compile(r"[0-9]{1,18}")
_CANCELLATION_SECONDS: Final = 5.0
_MAX_SEPARATE: Final = 2
_MAX_TABLE_CHARACTERS: Final = 256


def parse_ingest_headers(headers: Headers) -> tuple[str | None, int | None]:
    """Return an ingest's own name and how many rows will arrive; None for what its headers do not say."""
    ingest_id = single_value(headers, INGEST_ID_HEADER)
    if ingest_id is not None and _INGEST_ID.fullmatch(ingest_id) is None:
        raise UsageError(
            f"The header {INGEST_ID_HEADER} is not 1 to 128 printable characters.", remedy="Send a UUID, for instance."
        )
    rows = single_value(headers, INGEST_ROWS_HEADER)
    if rows is not None and _ROWS.fullmatch(rows) is None:
        raise UsageError(f"The header {INGEST_ROWS_HEADER} is not a whole number.", remedy="Send decimal digits.")
    return ingest_id, None if rows is None else int(rows)


def build_write_id(caller: CallerKey, table: str, ingest_id: str) -> str:
    """Return the name of a caller's write in a table: hexadecimal digits that reveal nothing of the parts."""
    parts = (text.encode() for text in (*caller, table, ingest_id))
    return sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).hexdigest()


def owner_of(caller: AuthContext) -> str:
    """Return how tables name who created them: hexadecimal digits that reveal nothing of issuer and subject."""
    return sha256(join_parts(caller.issuer.encode(), caller.subject.encode())).hexdigest()


def build_request(
    table: str, mode: WriteMode, caller: AuthContext, *, write_id: str | None, max_tables: int
) -> WriteRequest:
    """Return the storage's request for a caller who may send rows."""
    is_new = mode is WriteMode.CREATE_OR_APPEND
    return WriteRequest(
        table=table,
        mode=WriteMode.APPEND if is_new and not may_create(caller, table) else mode,
        write_id=write_id,
        is_trusted=caller.is_admin,
        may_read=may_read(caller, table),
        maker=owner_of(caller),
        most_tables=None if caller.is_admin else max_tables,
        is_owner=is_owner(caller, table),
    )


class IngestRunner:
    """Runs the uploads of one server, which only reads without a process. Belongs to one event loop."""

    def __init__(
        self,
        process: IngestProcess | None,
        *,
        settings: FlightServerSettings,
        clock: Clock,
        metrics: ServerMetrics,
    ) -> None:
        self._process = process
        self._settings = settings.ingest
        self._clock = clock
        self._metrics = metrics
        self._limit = RunningLimit(
            max_running=self._settings.max_concurrent,
            max_per_caller=self._settings.max_per_caller,
            queue_timeout_seconds=self._settings.admission_wait_seconds,
        )
        # Each has a process of its own, which may take as much memory as that of all uploads.
        self._separate_limit = RunningLimit(
            max_running=_MAX_SEPARATE, max_per_caller=1, queue_timeout_seconds=self._settings.admission_wait_seconds
        )
        metrics.ingests_running.set_function(lambda: self._limit.running_count)

    async def run(self, call: Call, command: IngestCommand, first: bytes) -> None:
        """Store the rows of one call and answer with their count; writes the audit line however it ends."""
        check_may_ingest(call.caller, command.table, command.mode)
        shown = {"table": command.table[:_MAX_TABLE_CHARACTERS], "mode": command.mode.value}
        audit = ActionAudit(find_origin(call), self._clock, "ingest", **shown, rows=0, received_bytes=0)
        settings, stored, is_committing = self._settings, 0, False

        def count(outcome: str, _error: MicromegasError | None) -> None:
            size = audit.fields["received_bytes"] if outcome == "ok" else 0
            self._metrics.count_ingest(outcome, rows=stored, size=size)

        async with recorded(audit, call, count):
            ingest_id, row_count = parse_ingest_headers(call.headers)
            write_id = None if ingest_id is None else build_write_id(call.caller_key, command.table, ingest_id)
            if write_id is not None:
                audit.fields["write_id"] = write_id
            request = build_request(
                command.table, command.mode, call.caller, write_id=write_id, max_tables=settings.max_tables_per_caller
            )
            try:
                async with asyncio.timeout(settings.max_seconds), self.open_call(call) as running:
                    await running.begin_upload(Upload(request=request, limits=settings, row_count=row_count))
                    await self._receive(call, first, running, audit)
                    await _check_client_is_there(call)
                    is_committing = True
                    stored = await running.commit_upload()
            except TimeoutError:
                if is_committing:
                    raise DeadlineExceeded(
                        "It took too long to store the rows, and whether they are stored is not known.",
                        remedy="Send them again under the same ingest id: what is stored already is not stored twice.",
                    ) from None
                raise DeadlineExceeded(
                    "The rows took too long to arrive.", remedy="Send them in several calls.", limit="silent_client"
                ) from None
        result = messages.DoPutUpdateResult(record_count=stored)
        await call.answer(messages.PutResult(app_metadata=result.SerializeToString()).SerializeToString())

    def open_call(self, call: Call, *, is_separate: bool = False) -> IngestCall:
        """Return a call of the ingest process, which waits for one of the places of all that write.

        What may end its process, as a condition in SQL does, `is_separate`: it has another one.
        """
        if self._process is None:
            raise UnsupportedRequest("This server only reads.", remedy="Ask a server that keeps a lake.")
        slots = self._separate_limit if is_separate else self._limit
        return IngestCall(self._process, call.source, slots=slots, is_alone=is_separate)

    async def _receive(self, call: Call, first: bytes, running: IngestCall, audit: ActionAudit) -> None:
        settings = self._settings
        frame: bytes | None = first
        while frame is not None:
            audit.fields["received_bytes"] += len(frame)
            if audit.fields["received_bytes"] > settings.max_bytes:
                raise ResourcesExhausted(
                    f"More than {settings.max_bytes:,} bytes were sent.",
                    remedy="Send them in several calls.",
                    limit="ingest",
                )
            audit.fields["rows"] = await running.send_rows(frame)
            try:
                async with asyncio.timeout(settings.idle_seconds):
                    frame = await call.read()
            except TimeoutError:
                raise DeadlineExceeded(
                    f"Nothing arrived for {settings.idle_seconds:g} seconds; no row is stored.",
                    remedy="Send the rows without a pause.",
                    limit="silent_client",
                ) from None


async def _check_client_is_there(call: Call) -> None:
    """Check that the client has not left: to the server, a killed client looks like one that has sent everything.

    Sending fails as soon as the connection or the call is gone, and gRPC is then about to cancel this task.
    """
    with contextlib.suppress(grpc.aio.BaseError):
        await call.announce_query_id()
        if not call.context.done():
            return
    await asyncio.sleep(_CANCELLATION_SECONDS)
    raise QueryCancelled("The client left before it learned that its rows are stored, so they are not.")
