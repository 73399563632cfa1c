"""Callers' changes to tables: sending rows (`DoPut` of `CommandStatementIngest`), and creating and changing tables.

Rows are stored once all have arrived. The body of the action `MicromegasTables` is one JSON object with the
`operation`; the response is one JSON object, too. Operations run in the ingest process, those with a condition in a
separate one. A table that the caller can neither read nor write does not exist for them.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import Callable, Coroutine
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, Final, Literal, TypeAlias

import grpc
import msgspec

from micromegas_jupyter.access.write_rights import (
    MODEL_TABLES,
    check_may_create,
    check_may_ingest,
    is_owner,
    may_create,
    may_ingest,
    may_read,
    not_owner,
    owner_of,
    owns,
    reads_all,
)
from micromegas_jupyter.core.protocols import AuthContext, WriteMode, WriteRequest
from micromegas_jupyter.core.read_only import check_may_change_state
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.core.text import JsonError, decode_strict_json
from micromegas_jupyter.engine.partition_calls import RETIRE, PartitionCall
from micromegas_jupyter.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidStatement,
    MicromegasError,
    PermissionDenied,
    QueryCancelled,
    ResourcesExhausted,
    ServerUnavailable,
    UnsupportedRequest,
    UnsupportedStatement,
    UsageError,
)
from micromegas_jupyter.executors.ingest import IngestCall, IngestProcess, check_view, refresh_view
from micromegas_jupyter.executors.pool import Pool, RunningStatement
from micromegas_jupyter.executors.protocol import Upload
from micromegas_jupyter.executors.scheduling import CallerKey, RunningLimit
from micromegas_jupyter.flightsql.commands import IngestCommand, messages, printable_text
from micromegas_jupyter.lake.tables import no_table
from micromegas_jupyter.server.authentication import ActionAudit, Headers, single_value
from micromegas_jupyter.server.flight_service import Call, find_origin, recorded
from micromegas_jupyter.server.monitoring import ServerMetrics
from micromegas_jupyter.server.settings import FlightServerSettings
from micromegas_jupyter.telemetry.tables import VIEW_SOURCES
from micromegas_jupyter.telemetry.view_definitions import CreateView, DropView

INGEST_ID_HEADER: Final = "x-micromegas-ingest-id"
INGEST_ROWS_HEADER: Final = "x-micromegas-ingest-rows"
_INGEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_ROWS: Final = re.compile(r"[0-9]{1,18}")
_CANCELLATION_SECONDS: Final = 5.0
_MAX_SEPARATE: Final = 2
_MAX_TABLE_CHARACTERS: Final = 256
TABLES_ACTION: Final = "MicromegasTables"
_MAX_BODY_BYTES: Final = 256 * 1024
_MAX_ANSWER_BYTES: Final = 2 * 1024 * 1024
_MAX_DEPTH: Final = 3
_MAX_REBUILDS: Final = 3
_MAX_SHOWN_CHARACTERS: Final = 200
# The facts that all readers of a table may see; the others reveal its row count, which includes rows that a role may
# hide.
_SHOWN_TO_READERS: Final = ("name", "columns", "partition_by", "retention_days", "undo_hours", "time_travel")

# Operations that may need a lot of memory run in their own process.
_SEPARATE: Final = frozenset({"delete", "restore"})


def parse_ingest_headers(headers: Headers) -> tuple[str | None, int | None]:
    """Return an ingest's ID and its announced number of rows; None for missing headers."""
    ingest_id = single_value(headers, INGEST_ID_HEADER)
    if ingest_id is not None and _INGEST_ID.fullmatch(ingest_id) is None:
        raise UsageError(
            f"The header {INGEST_ID_HEADER} must be 1 to 128 printable characters.", remedy="Send a UUID, for instance."
        )
    rows = single_value(headers, INGEST_ROWS_HEADER)
    if rows is not None and _ROWS.fullmatch(rows) is None:
        raise UsageError(f"The header {INGEST_ROWS_HEADER} is not a whole number.", remedy="Send decimal digits.")
    return ingest_id, None if rows is None else int(rows)


def build_write_id(caller: CallerKey, table: str, ingest_id: str) -> str:
    """Return the ID of a caller's write to a table, in hexadecimal digits that don't reveal its parts."""
    parts = (text.encode() for text in (*caller, table, ingest_id))
    return sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).hexdigest()


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
    """Runs a server's uploads; without a process, the server is read-only. Belongs to one event loop."""

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
        # Each has its own process, which may use as much memory as all uploads combined.
        self._separate_limit = RunningLimit(
            max_running=_MAX_SEPARATE, max_per_caller=1, queue_timeout_seconds=self._settings.admission_wait_seconds
        )
        metrics.ingests_running.set_function(lambda: self._limit.running_count)

    async def run(self, call: Call, command: IngestCommand, first: bytes) -> None:
        """Store the rows of one call and respond with their count; always write the audit line."""
        check_may_change_state(call, "send rows")
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
                        "Storing the rows took too long, so it is unknown whether they were stored.",
                        remedy="Send them again with the same ingest id: "
                        "rows that are already stored are not stored twice.",
                    ) from None
                raise DeadlineExceeded(
                    "The rows took too long to arrive.", remedy="Send them in several calls.", limit="silent_client"
                ) from None
        result = messages.DoPutUpdateResult(record_count=stored)
        await call.answer(messages.PutResult(app_metadata=result.SerializeToString()).SerializeToString())

    def open_call(self, call: Call, *, is_separate: bool = False) -> IngestCall:
        """Return a call to the ingest process, which waits for a slot shared by all writers.

        With `is_separate`, it has its own process, for operations that may crash it, such as SQL conditions.
        """
        if self._process is None:
            raise UnsupportedRequest("This server is read-only.", remedy="Connect to a server with a lake.")
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
                    f"Nothing arrived for {settings.idle_seconds:g} seconds; no rows were stored.",
                    remedy="Send the rows without pausing.",
                    limit="silent_client",
                ) from None


async def _check_client_is_there(call: Call) -> None:
    """Check that the client is still connected, because a killed client looks like one that has sent everything.

    Sending fails once the connection or the call is closed, and gRPC is then about to cancel this task.
    """
    with contextlib.suppress(grpc.aio.BaseError):
        await call.announce_query_id()
        if not call.context.done():
            return
    await asyncio.sleep(_CANCELLATION_SECONDS)
    raise QueryCancelled("The client disconnected, so none of its rows were stored.")


_Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_Schema: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_BODY_BYTES)]


class _Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="operation"):
    """Common members of all requests."""


class _List(_Request, frozen=True, kw_only=True, tag="list"):
    pass


class _Describe(_Request, frozen=True, kw_only=True, tag="describe"):
    table: _Name


class _Create(_Request, frozen=True, kw_only=True, tag="create"):
    """`schema` is a base64-encoded Arrow IPC schema message."""

    table: _Name
    schema: _Schema
    partition_by: Annotated[tuple[_Name, ...], msgspec.Meta(max_length=8)] = ()


class _Owned(_Request, frozen=True, kw_only=True):
    """An operation that only the table's owner may run."""

    table: _Name


class _Drop(_Owned, frozen=True, kw_only=True, tag="drop"):
    pass


class _Delete(_Owned, frozen=True, kw_only=True, tag="delete"):
    where: Annotated[str, msgspec.Meta(min_length=1, max_length=16 * 1024)]


class _Restore(_Owned, frozen=True, kw_only=True, tag="restore"):
    """`to` is the time (RFC 3339) or version to restore; a table that has been dropped since then is restored, too.

    With `dry_run`, nothing changes.
    """

    to: datetime | Annotated[int, msgspec.Meta(ge=0)]
    dry_run: bool = False


class _AddColumn(_Owned, frozen=True, kw_only=True, tag="add_column"):
    """`schema` is a base64-encoded Arrow IPC schema message with one column."""

    schema: _Schema


class _Optimize(_Owned, frozen=True, kw_only=True, tag="optimize"):
    pass


class _History(_Owned, frozen=True, kw_only=True, tag="history"):
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 20


class _SetRetention(_Owned, frozen=True, kw_only=True, tag="set_retention"):
    """`days` is how long rows are kept; None restores the server's setting."""

    days: Annotated[int, msgspec.Meta(ge=1, le=36_500)] | None


class _SetUndoHours(_Owned, frozen=True, kw_only=True, tag="set_undo_hours"):
    """`hours` is the number of hours during which changes can be undone."""

    hours: Annotated[int, msgspec.Meta(ge=1, le=8760)]


class _SetTimeTravel(_Owned, frozen=True, kw_only=True, tag="set_time_travel"):
    """`to` specifies who may read earlier versions: the table's owners, or all readers of the table."""

    to: Literal["owners", "readers"]


_AnyRequest: TypeAlias = (
    _List
    | _Describe
    | _Create
    | _Drop
    | _Delete
    | _Restore
    | _AddColumn
    | _Optimize
    | _History
    | _SetRetention
    | _SetUndoHours
    | _SetTimeTravel
)


#: Operations without changes.
_READS: Final = (_List, _Describe, _History)


def parse_request(body: bytes) -> _AnyRequest:
    """Parse the body of a call."""
    if len(body) > _MAX_BODY_BYTES:
        raise ResourcesExhausted(f"The body of {TABLES_ACTION} is larger than 256 KiB.", remedy="Send a smaller one.")
    try:
        decoded = decode_strict_json(body.decode("utf-8"), max_depth=_MAX_DEPTH)
        request: _AnyRequest = msgspec.convert(decoded, _AnyRequest)
    except (UnicodeDecodeError, JsonError, msgspec.ValidationError) as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise UsageError(
            f"The body of {TABLES_ACTION} cannot be used: {printable_text(reason)[:_MAX_SHOWN_CHARACTERS]}.",
            remedy="Send one JSON object with the operation and its members; docs/flight-sql.md lists them.",
        ) from None
    return request


class TableOperations:
    """Runs a server's operations. Belongs to one event loop."""

    def __init__(
        self, ingests: IngestRunner, *, settings: FlightServerSettings, clock: Clock, metrics: ServerMetrics
    ) -> None:
        self._ingests = ingests
        self._metrics = metrics
        self._settings = settings
        self._clock = clock

    async def run(self, call: Call, body: bytes) -> bytes:
        """Run the requested operation and return the response; always write the audit line."""
        audit = ActionAudit(find_origin(call), self._clock, "table")
        async with recorded(audit, call, self._counter(audit)):
            request = parse_request(body)
            if not isinstance(request, _READS) and not (isinstance(request, _Restore) and request.dry_run):
                check_may_change_state(call, "change tables")
            found = msgspec.to_builtins(request).items()
            audit.fields |= {name: value for name, value in found if name not in {"schema", "partition_by"}}
            result = await self._in_time(self._run(call, request))
            if "deleted_rows" in result:
                audit.fields["rows"] = result["deleted_rows"]
            answer = json.dumps(result).encode()
            if len(answer) > _MAX_ANSWER_BYTES:
                raise ResourcesExhausted("The response is larger than 2 MiB.", remedy="Ask for less.")
        return answer

    async def change_partitions(self, call: Call, changing: PartitionCall, pool: Pool) -> tuple[tuple[int, str], ...]:
        """Run the partition function in an administrator's statement; return its time and message.

        For a materialized view, rebuilds its rows in the time range. For other tables, merges files like any other
        operation: they are the only copy of their rows, so they can't be retired. Views without materialization store
        no rows.
        """
        check_may_change_state(call, "change partitions")
        table = changing.view_set
        if table in VIEW_SOURCES:
            message = f"{table} is always current: each query computes it from {VIEW_SOURCES[table]}."
            return ((int(self._clock.now().timestamp() * 1e6) * 1000, message),)
        if table not in MODEL_TABLES:
            await pool.listing.refresh()
        if any(one.name == table and one.materialized is not None for one in pool.listing.tables):
            await self._rebuild(call, changing, pool)
            message = f"{table}: the rows from {changing.begin.isoformat()} to {changing.end.isoformat()} were rebuilt."
            return ((int(self._clock.now().timestamp() * 1e6) * 1000, message),)
        _check_is_merged(changing)
        audit = ActionAudit(find_origin(call), self._clock, "table")
        async with recorded(audit, call, self._counter(audit)):
            audit.fields |= {"operation": "optimize", "table": table}
            result = await self._in_time(self._operate(call, "optimize", {"table": table}))
        message = f"{table}: {result['removed_files']:,} files were replaced by {result['added_files']:,}."
        return ((int(self._clock.now().timestamp() * 1e6) * 1000, message),)

    async def _rebuild(self, call: Call, changing: PartitionCall, pool: Pool) -> None:
        """Recompute the rows of a materialized view in a time range from its source."""
        audit = ActionAudit(find_origin(call), self._clock, "table")
        async with recorded(audit, call, self._counter(audit)):
            audit.fields |= {"operation": "rebuild_view", "table": changing.view_set}
            for _ in range(_MAX_REBUILDS):
                times = changing.begin, changing.end
                if (await self._in_time(refresh_view(pool, changing.view_set, times, niceness=0)))["is_stored"]:
                    return
            raise ServerUnavailable("The view is constantly being refreshed by other calls.", remedy="Try again.")

    async def change_view(self, call: Call, found: CreateView | DropView, pool: Pool) -> str:
        """Create, replace, or drop a materialized view for an administrator; return a summary."""
        operation = "create_view" if isinstance(found, CreateView) else "drop_view"
        audit = ActionAudit(find_origin(call), self._clock, "table")
        async with recorded(audit, call, self._counter(audit)):
            audit.fields |= {"operation": operation, "table": found.name[:_MAX_TABLE_CHARACTERS]}
            arguments: dict[str, object] = {"table": found.name}
            if isinstance(found, CreateView):
                audit.fields["digest"] = found.definition.digest
                async with RunningStatement(pool, call.source, query_id=call.query_id) as planning:
                    await planning.refresh_tables()
                    await planning.begin()
                    arguments |= await planning.call(check_view, pool.options.engine, found.definition)
                arguments |= {"view": found.definition, "replaces": found.replaces, "owner": owner_of(call.caller)}
                arguments["updated_by"] = find_origin(call).attribution.user
            result = await self._in_time(self._operate(call, operation, arguments))
            if result["status"] == "not_found" and isinstance(found, DropView) and not found.if_exists:
                raise UsageError(f"No materialized view is named {found.name[:_MAX_SHOWN_CHARACTERS]}.")
        return str(result["status"])

    def _counter(self, audit: ActionAudit) -> Callable[[str, MicromegasError | None], None]:
        def count(outcome: str, _error: MicromegasError | None) -> None:
            self._metrics.count_table_operation(str(audit.fields.get("operation", "")), outcome)

        return count

    async def _in_time(self, work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._settings.ingest.max_seconds):
                return await work
        except TimeoutError:
            raise DeadlineExceeded(
                "The operation took too long, but it may still succeed.",
                remedy="Check the table before you repeat the operation.",
            ) from None

    async def _run(self, call: Call, request: _AnyRequest) -> dict[str, Any]:
        caller = call.caller
        match request:
            case _List():
                return {"tables": _visible_tables(caller, await self._operate(call, "list", {}))}
            case _Describe(table=table):
                return await self._describe(call, table)
            case _Create(table=table, schema=schema, partition_by=partition_by):
                check_may_create(caller, table)
                most = None if caller.is_admin else self._settings.ingest.max_tables_per_caller
                arguments = {"table": table, "schema": schema, "partition_by": partition_by}
                return await self._operate(
                    call, "create", {**arguments, "owner": owner_of(caller), "most_tables": most}
                )
            case _:
                return await self._operate_as_owner(call, request)

    async def _describe(self, call: Call, table: str) -> dict[str, Any]:
        caller = call.caller
        if not (may_read(caller, table) or may_ingest(caller, table)):
            raise no_table(table)
        found = await self._operate(call, "describe", {"table": table})
        is_own = owns(caller, table, created_by=found.pop("owner", None))
        if not is_own:
            if not may_read(caller, table):
                raise not_owner(caller, table)
            found = {name: found[name] for name in _SHOWN_TO_READERS if name in found}
        return {**found, "is_owner": is_own}

    async def _operate_as_owner(self, call: Call, request: _Owned) -> dict[str, Any]:
        caller, table = call.caller, request.table
        arguments = msgspec.to_builtins(request)
        operation = arguments.pop("operation")
        if not is_owner(caller, table):
            if not (may_ingest(caller, table) or may_read(caller, table)):
                raise no_table(table)
            # The ingest process compares it with the table's creator; a creator's name is never empty.
            arguments["required_owner"] = owner_of(caller) if may_ingest(caller, table) else ""
        if isinstance(request, _Restore) and isinstance(request.to, datetime) and request.to.tzinfo is None:
            raise UsageError(
                "The time to restore to doesn't have a UTC offset.", remedy="Use the format 2026-01-31T12:00:00Z."
            )
        if isinstance(request, _Delete):
            arguments["hides_values"] = not reads_all(caller, table)
        try:
            return await self._operate(call, operation, arguments)
        except PermissionDenied:
            raise not_owner(caller, table) from None

    async def _operate(self, call: Call, operation: str, arguments: dict[str, object]) -> dict[str, Any]:
        async with self._ingests.open_call(call, is_separate=operation in _SEPARATE) as running:
            result = await running.operate(operation, arguments)
        if not isinstance(result, dict):
            raise InternalError("The ingest process returned an unexpected response.")
        return result


def _check_is_merged(changing: PartitionCall) -> None:
    """Check that the call merges the files of a base table."""
    table = changing.view_set
    if table not in MODEL_TABLES:
        raise InvalidStatement(
            f"No rows are stored for the view set {table[:_MAX_SHOWN_CHARACTERS]!r}.",
            remedy=f"Use one of {', '.join(sorted(MODEL_TABLES))}.",
        )
    if changing.function == RETIRE:
        raise UnsupportedStatement(
            f"{RETIRE} cannot be used on {table}: it is a base table, so retiring its partitions would delete the only "
            "copy of its rows.",
            remedy=f"To delete rows, run `micromegas tables delete {table} --where CONDITION`; insert_time is when a "
            "row was stored.",
        )


def _visible_tables(caller: AuthContext, listed: dict[str, Any]) -> list[dict[str, object]]:
    owners: dict[str, str | None] = {**dict.fromkeys(MODEL_TABLES), **listed["owners"]}
    shown = []
    for name, created_by in sorted(owners.items()):
        is_own = owns(caller, name, created_by=created_by)
        if is_own or may_read(caller, name) or may_ingest(caller, name):
            shown.append({"name": name, "is_owner": is_own, "may_ingest": may_ingest(caller, name)})
    return shown
