"""The Flight action `MicromegasTables`: what callers do with tables beside reading and sending rows.

The body is one JSON object that names the `operation`, and so is the answer. Operations run in the ingest process,
those with a condition in one of their own. A table that the caller neither reads nor writes to does not exist for them,
whatever they ask.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Annotated, Any, Final, TypeAlias

import msgspec

from micromegas_jupyter.access.write_rights import (
    MODEL_TABLES,
    check_may_create,
    is_owner,
    may_ingest,
    may_read,
    not_owner,
    reads_all,
)
from micromegas_jupyter.core.json import JsonError, decode_strict_json
from micromegas_jupyter.core.protocols import AuthContext
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.engine.partition_calls import RETIRE, PartitionCall
from micromegas_jupyter.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidStatement,
    MicromegasError,
    PermissionDenied,
    ResourcesExhausted,
    UnsupportedStatement,
    UsageError,
)
from micromegas_jupyter.flightsql.commands import printable_text
from micromegas_jupyter.lake.tables import no_table
from micromegas_jupyter.server.audit import ActionAudit, find_origin, recorded
from micromegas_jupyter.server.flight_service import Call
from micromegas_jupyter.server.ingest import IngestRunner, owner_of
from micromegas_jupyter.server.monitoring import ServerMetrics
from micromegas_jupyter.server.settings import FlightServerSettings
from micromegas_jupyter.telemetry.tables import LOG_ENTRIES, LOG_STATS

TABLES_ACTION: Final = "MicromegasTables"
_MAX_BODY_BYTES: Final = 256 * 1024
_MAX_ANSWER_BYTES: Final = 2 * 1024 * 1024
_MAX_DEPTH: Final = 3
_MAX_SHOWN_CHARACTERS: Final = 200
# What whoever reads a table learns of it; the rest says how many rows there are, which a role may hide.
_SHOWN_TO_READERS: Final = ("name", "columns", "partition_by", "retention_days", "undo_hours")

# What may take much memory has a process for itself.
_SEPARATE: Final = frozenset({"delete", "restore"})

_Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_Schema: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_BODY_BYTES)]


class _Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="operation"):
    """What all requests have in common."""


class _List(_Request, frozen=True, kw_only=True, tag="list"):
    pass


class _Describe(_Request, frozen=True, kw_only=True, tag="describe"):
    table: _Name


class _Create(_Request, frozen=True, kw_only=True, tag="create"):
    """`schema` is an Arrow IPC schema message in base64."""

    table: _Name
    schema: _Schema
    partition_by: Annotated[tuple[_Name, ...], msgspec.Meta(max_length=8)] = ()


class _Owned(_Request, frozen=True, kw_only=True):
    """An operation for the owner of the table."""

    table: _Name


class _Drop(_Owned, frozen=True, kw_only=True, tag="drop"):
    pass


class _Delete(_Owned, frozen=True, kw_only=True, tag="delete"):
    where: Annotated[str, msgspec.Meta(min_length=1, max_length=16 * 1024)]


class _Restore(_Owned, frozen=True, kw_only=True, tag="restore"):
    """`to` is the time, in RFC 3339, whose state comes back; a table that was dropped since comes back, too."""

    to: datetime


class _AddColumn(_Owned, frozen=True, kw_only=True, tag="add_column"):
    """`schema` is an Arrow IPC schema message of one column in base64."""

    schema: _Schema


class _Optimize(_Owned, frozen=True, kw_only=True, tag="optimize"):
    pass


class _History(_Owned, frozen=True, kw_only=True, tag="history"):
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 20


class _SetRetention(_Owned, frozen=True, kw_only=True, tag="set_retention"):
    """`days` is how long rows are kept; None for as long as the server's own setting says."""

    days: Annotated[int, msgspec.Meta(ge=1, le=36_500)] | None


class _SetUndoHours(_Owned, frozen=True, kw_only=True, tag="set_undo_hours"):
    """`hours` is for how long changes can be undone."""

    hours: Annotated[int, msgspec.Meta(ge=1, le=8760)]


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
)


def parse_request(body: bytes) -> _AnyRequest:
    """Read the body of a call."""
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
    """Runs the operations of one server. Belongs to one event loop."""

    def __init__(
        self, ingests: IngestRunner, *, settings: FlightServerSettings, clock: Clock, metrics: ServerMetrics
    ) -> None:
        self._ingests = ingests
        self._metrics = metrics
        self._settings = settings
        self._clock = clock

    async def run(self, call: Call, body: bytes) -> bytes:
        """Do what the body asks for and return the answer; writes the audit line however it ends."""
        audit = ActionAudit(find_origin(call), self._clock, "table")
        async with recorded(audit, call, self._counter(audit)):
            request = parse_request(body)
            found = msgspec.to_builtins(request).items()
            audit.fields |= {name: value for name, value in found if name not in {"schema", "partition_by"}}
            result = await self._in_time(self._run(call, request))
            if "deleted_rows" in result:
                audit.fields["rows"] = result["deleted_rows"]
            answer = json.dumps(result).encode()
            if len(answer) > _MAX_ANSWER_BYTES:
                raise ResourcesExhausted("The answer is larger than 2 MiB.", remedy="Ask for less.")
        return answer

    async def change_partitions(self, call: Call, changing: PartitionCall) -> tuple[tuple[int, str], ...]:
        """Run the partition function that an administrator's statement calls; return its time and message.

        Merging files is an operation on a table like any other. Nothing else is stored for a base table or for a view
        that each query computes, so there is nothing to retire.
        """
        table = changing.view_set
        if table == LOG_STATS.name:
            return self._message(f"{table} is always current: each query computes it from {LOG_ENTRIES.name}.")
        _check_is_merged(changing)
        audit = ActionAudit(find_origin(call), self._clock, "table")
        async with recorded(audit, call, self._counter(audit)):
            audit.fields |= {"operation": "optimize", "table": table}
            result = await self._in_time(self._operate(call, "optimize", {"table": table}))
        return self._message(f"{table}: {result['removed_files']:,} files were replaced by {result['added_files']:,}.")

    def _message(self, text: str) -> tuple[tuple[int, str], ...]:
        return ((int(self._clock.now().timestamp() * 1e6) * 1000, text),)

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
                "The operation took too long; it may still end.", remedy="Look at the table before you repeat it."
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
        owns = _owns(caller, table, created_by=found.pop("owner", None))
        if not owns:
            if not may_read(caller, table):
                raise not_owner(caller, table)
            found = {name: found[name] for name in _SHOWN_TO_READERS if name in found}
        return {**found, "is_owner": owns}

    async def _operate_as_owner(self, call: Call, request: _Owned) -> dict[str, Any]:
        caller, table = call.caller, request.table
        arguments = msgspec.to_builtins(request)
        operation = arguments.pop("operation")
        if not is_owner(caller, table):
            if not (may_ingest(caller, table) or may_read(caller, table)):
                raise no_table(table)
            # The process that knows who created the table compares; nobody has created one under an empty name.
            arguments["required_owner"] = owner_of(caller) if may_ingest(caller, table) else ""
        if isinstance(request, _Restore) and request.to.tzinfo is None:
            raise UsageError("The time to restore to has no offset.", remedy="Write it as 2026-01-31T12:00:00Z.")
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
            raise InternalError("The ingest process answered an operation with something else than its result.")
        return result


def _check_is_merged(changing: PartitionCall) -> None:
    """Check that the call merges the files of a base table."""
    table = changing.view_set
    if table not in MODEL_TABLES:
        raise InvalidStatement(
            f"Nothing is stored for a view set {table[:_MAX_SHOWN_CHARACTERS]!r}.",
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
        owns = _owns(caller, name, created_by=created_by)
        if owns or may_read(caller, name) or may_ingest(caller, name):
            shown.append({"name": name, "is_owner": owns, "may_ingest": may_ingest(caller, name)})
    return shown


def _owns(caller: AuthContext, table: str, *, created_by: str | None) -> bool:
    return is_owner(caller, table) or (created_by == owner_of(caller) and may_ingest(caller, table))
