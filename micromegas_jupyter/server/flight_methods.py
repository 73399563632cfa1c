"""Flight SQL's methods and actions, and the queries that they run: limits, denials, and rows for the client."""

import asyncio
import enum
import json
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import accumulate
from typing import Any, Final, TypeVar

from micromegas_jupyter.access.user_keys import KEYS_ACTION, UserKeys
from micromegas_jupyter.config.access import READ_SCOPE
from micromegas_jupyter.core.read_only import check_may_change_state
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.core.text import JsonError, decode_strict_json
from micromegas_jupyter.engine.contract import RUNNING_QUERIES
from micromegas_jupyter.engine.partition_calls import may_call_partition_function
from micromegas_jupyter.errors import (
    ConfigurationError,
    DeadlineExceeded,
    MicromegasError,
    PermissionDenied,
    QueryDenied,
    UnsupportedRequest,
    UsageError,
)
from micromegas_jupyter.executors.pool import ClientGone, Pool, RunningStatement, StatementReport
from micromegas_jupyter.executors.protocol import Output, Statement
from micromegas_jupyter.executors.scheduling import CallerKey, Cause
from micromegas_jupyter.flightsql.commands import (
    IssuedQuery,
    MetadataQuery,
    PreparedQuery,
    StatementQuery,
    messages,
    pack_any,
    parse_action_body,
    parse_descriptor,
    parse_ingest_descriptor,
    parse_message,
    parse_plain_body,
    parse_ticket,
    prepared_ticket,
    refuse,
    refuse_transaction,
)
from micromegas_jupyter.flightsql.framing import FlightDataEncoder, ParameterLimits
from micromegas_jupyter.gateway.forwarding import ForwardedStatement, Gateway
from micromegas_jupyter.server.authentication import (
    CallOrigin,
    QueryAudit,
    hash_statement,
    parse_compression,
    parse_statement,
    resolve_attribution,
)
from micromegas_jupyter.server.catalog import ServerFacts, build_metadata, metadata_schema
from micromegas_jupyter.server.cut_off import CUT_OFF_ACTION, CutOffService, DenyList
from micromegas_jupyter.server.flight_service import (
    NOTICE_TRAILER,
    Call,
    ends_task,
    find_origin,
    recorded,
    translate_error,
)
from micromegas_jupyter.server.ingest import TABLES_ACTION, IngestRunner, TableOperations
from micromegas_jupyter.server.monitoring import ServerMetrics, phase
from micromegas_jupyter.server.settings import FlightServerSettings
from micromegas_jupyter.server.tails import TAIL_HEADER, TailRunner
from micromegas_jupyter.server.tickets import PreparedStatements, Tickets, can_travel
from micromegas_jupyter.telemetry.view_definitions import CreateView, DropView, parse_view_statement

_CANCEL_SECONDS: Final = 2.0
QUERIES_ACTION: Final = "MicromegasQueries"
#: The members of `MicromegasQueries` bodies, by operation.
QUERY_OPERATIONS: Final = {
    "list": {"operation"},
    "cancel": {"operation", "query_id"},
    "progress": {"operation", "query_id"},
}
COUNTS_TRAILER: Final = "x-micromegas-counts"
_MAX_EXPLAINED_CHARACTERS: Final = 4096  # clients accept 8 KiB of metadata
_MAX_BODY_BYTES: Final = 1024
_MAX_LISTED: Final = 500  # running queries, longest-running first
_MAX_LISTED_CHARACTERS: Final = 1000
#: Longer statements are searched and larger values are hashed on a separate thread.
_MAX_INLINE_CHARACTERS: Final = 4096
_MAX_INLINE_BYTES: Final = 256 * 1024
_LOG: Final = logging.getLogger("micromegas_jupyter.server")
RELOAD_ACTION: Final = "micromegas.access.reload"
# These actions check the caller themselves.
_ANY_SCOPE: Final = frozenset({"MicromegasWhoAmI", TABLES_ACTION, CUT_OFF_ACTION, RELOAD_ACTION, KEYS_ACTION})
_RELOAD_SECONDS: Final = 30.0
_PARAMETER_LIMITS: Final = ParameterLimits()
_UNKNOWN_SIZE: Final = -1
# Clients accept responses of up to 16 kB.
_MAX_GROUPS_BYTES: Final = 4 * 1024
_MAX_ENDPOINTS: Final = 16
_MAX_OPTIONS: Final = 64
_NOT_READ_HERE: Final = "Nothing reads this flight at this server. If another one does, end its DoGet to cancel it."
_MAX_NAME: Final = 256
_Parsed = TypeVar("_Parsed")
# Option names in Flight SQL and ADBC. Tables don't have a catalog or a schema; times are in UTC.
_OPTIONS: Final = {"catalog": "", "schema": "", "timezone": "UTC"}
_DESCRIPTIONS: Final = {
    "CreatePreparedStatement": "Prepare a statement: ActionCreatePreparedStatementRequest to its Result.",
    "ClosePreparedStatement": "Forget a prepared statement: ActionClosePreparedStatementRequest, no result.",
    "CancelFlightInfo": "Cancel the running query of a flight: CancelFlightInfoRequest to CancelFlightInfoResult.",
    "CancelQuery": "The older form of CancelFlightInfo: ActionCancelQueryRequest to ActionCancelQueryResult.",
    "RenewFlightEndpoint": "Give a ticket a full life again: RenewFlightEndpointRequest to FlightEndpoint.",
    "GetSessionOptions": "List what holds for every call: GetSessionOptionsRequest to GetSessionOptionsResult.",
    "SetSessionOptions": "Nothing can be set: SetSessionOptionsRequest to SetSessionOptionsResult with errors.",
    "CloseSession": "There are no sessions: CloseSessionRequest to CloseSessionResult.",
    "MicromegasWhoAmI": "Describe the caller: no body, one JSON object.",
    QUERIES_ACTION: "List, follow or cancel what runs: one JSON object with the operation, one JSON object.",
    TABLES_ACTION: "List, describe and change tables: one JSON object with the operation, one JSON object.",
    KEYS_ACTION: "Make, list and revoke your own API keys: one JSON object with the operation, one JSON object.",
}
_CUT_OFF_DESCRIPTION: Final = (
    "End a user's access, restore it, or list it: one JSON object with the operation, one JSON object. "
    "For administrators."
)
_RELOAD_DESCRIPTION: Final = "Read the access configuration again: no body, one JSON object. For administrators."


QueryKey = tuple[str, str, bytes]


class CancelStatus(enum.IntEnum):
    """The result of a cancellation, with the numbers from Flight's `CancelStatus` and Flight SQL's `CancelResult`."""

    CANCELLED = 1
    CANCELLING = 2
    NOT_CANCELLABLE = 3


def query_key(caller: CallerKey, name: bytes) -> QueryKey:
    """Return the key of a caller's query, which other callers can't use; `name` is its ticket, or the ticket's ID."""
    return (*caller, name)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunningQuery:
    """A statement while its rows are read, or while it waits for a slot."""

    key: QueryKey = field(repr=False)
    caller: CallerKey
    origin: CallOrigin
    sql: str = field(repr=False)
    statement: RunningStatement
    began_at: datetime

    def describe(self, now: datetime) -> dict[str, object]:
        """Return a description for the statement's caller and for administrators."""
        report, attribution = self.statement.report, self.origin.attribution
        return {
            "query_id": self.origin.query_id,
            "user": attribution.user,
            "email": attribution.email,
            "client_ip": self.origin.client_address,
            "client": self.origin.tags.get("client"),
            "entrypoint": self.origin.tags.get("entrypoint"),
            "began_at": self.began_at,
            "seconds": round((now - self.began_at).total_seconds(), 3),
            "is_running": self.statement.is_running,
            "peak_memory_bytes": max(self.statement.peak_bytes, report.peak_memory_bytes or 0),
            "sql": self.sql[:_MAX_LISTED_CHARACTERS],
            "files": None if report.progress is None else report.progress.files,
            "scanned": None if report.progress is None else report.progress.scanned,
        }


class QueryRunner:
    """Plans and runs queries, and lets callers cancel theirs. Belongs to one event loop."""

    def __init__(  # noqa: PLR0913 - the parts of a server
        self,
        pool: Pool,
        gateway: Gateway | None = None,
        *,
        settings: FlightServerSettings,
        clock: Clock,
        metrics: ServerMetrics,
        deny_list: DenyList | None = None,
        operations: TableOperations | None = None,
    ) -> None:
        self._running: dict[str, RunningQuery] = {}  # by ID
        self._ending: asyncio.Task[None] | None = None
        self._pool = pool
        self._gateway = gateway
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._deny_list = deny_list
        self._operations = operations

    async def plan(
        self, call: Call, sql: str, parameters: tuple[bytes, ...], *, is_estimated: bool = False
    ) -> tuple[bytes, bytes]:
        """Return the IPC schemas of a statement's result and parameters, as its caller would run it."""
        statement, origin, running, audit = await self._prepare(call, sql, parameters)
        statement = replace(statement, is_estimated=is_estimated)
        try:
            await self.check_denials(origin, sql)
            if (changing := await self._find_view_statement(call, statement)) is not None:
                statement = _with_status(statement, changing, "")
            with phase("plan"):
                async with running:
                    return await self._runner(running, sql).plan(statement)
        except BaseException as error:
            # A rejected client never requests the rows, so denials and plans that had to be killed are audited here.
            # Other failures occur again when the rows are requested.
            if isinstance(error, QueryDenied) or (running.report.cause is not None and not ends_task(error)):
                audit.write("error", translate_error(error, call.query_id))
                await audit.deliver()
            raise

    async def run(self, call: Call, sql: str, parameters: tuple[bytes, ...], *, key: QueryKey) -> None:
        """Run a statement and send its rows, cancelable by `key`; always write the audit line."""
        statement, origin, running, audit = await self._prepare(call, sql, parameters)
        output = Output(
            compression=parse_compression(call.headers),
            max_rows=self._settings.max_rows,
            max_bytes=self._settings.max_result_bytes,
        )

        async def write(frame: bytes) -> None:
            await call.write(frame)
            self._metrics.bytes_sent.add(len(frame))

        def count(status: str, error: MicromegasError | None) -> None:
            self._metrics.count_query(running.report, audit.seconds(), status, error)

        async with recorded(audit, call, count):
            await self.check_denials(origin, sql)
            statement = await self._with_messages(call, statement)
            now = self._clock.now()
            query = RunningQuery(
                key=key, caller=call.caller_key, origin=origin, sql=sql, statement=running, began_at=now
            )
            with self.listed(query), ExitStack() as phases:
                phases.enter_context(phase("wait"))

                def begin_run(statement: Statement) -> Statement:
                    phases.close()
                    phases.enter_context(phase("run"))
                    if RUNNING_QUERIES not in sql.lower():
                        return statement
                    return replace(statement, running=tuple(self._describe_visible(call)))

                async with running:
                    runner = self._runner(running, sql)
                    await runner.run(statement, output=output, write=write, on_running=begin_run)
            if (counts := _build_counts(running.report)) is not None:
                call.add_trailer(COUNTS_TRAILER, counts)

    @contextmanager
    def listed(self, query: RunningQuery) -> Iterator[None]:
        """List the query while the body runs."""
        self._running[query.origin.query_id] = query
        try:
            yield
        finally:
            del self._running[query.origin.query_id]

    async def cancel(self, keys: Collection[QueryKey]) -> CancelStatus:
        """Cancel the statements with these keys, and wait a moment until they stop."""
        return await self._end([query for query in self._running.values() if query.key in keys], Cause.CANCELLED)

    async def answer_action(self, call: Call, body: bytes) -> bytes:
        """Handle `MicromegasQueries`: list, follow, or cancel the caller's queries (administrators: all)."""
        request = _parse_request(body)
        if request["operation"] == "list":
            return json.dumps({"queries": self._describe_visible(call)}, default=datetime.isoformat).encode()
        query = self._running.get(request["query_id"])
        wanted = [one for one in self._visible(call) if one is query]
        if request["operation"] == "progress":
            found = next((one.statement.report.progress for one in wanted), None)
            return json.dumps({"progress": None if found is None else found._asdict()}).encode()
        if query is not None and not wanted and call.caller.is_admin:
            check_may_change_state(call, "end the queries of other users")
        for one in wanted:
            one.statement.report.ended_by = resolve_attribution(call.caller, call.headers).user
        status = await self._end(wanted, Cause.CANCELLED)
        if wanted:
            _LOG.info("query cancelled by its id, query_id=%s", request["query_id"])
        return json.dumps({"status": status.name.lower()}).encode()

    def _visible(self, call: Call) -> list[RunningQuery]:
        """Return the running queries that a caller may see and stop; only their own in a read-only call."""
        sees_all = call.caller.is_admin and not call.is_read_only
        return [one for one in self._running.values() if sees_all or one.caller == call.caller_key]

    def _describe_visible(self, call: Call) -> list[dict[str, object]]:
        """Return descriptions of the other running queries that a caller may see, longest-running first."""
        now = self._clock.now()
        others = [one for one in self._visible(call) if one.origin.query_id != call.query_id]
        return [one.describe(now) for one in sorted(others, key=lambda one: one.began_at)[:_MAX_LISTED]]

    def end(self, query_id: str, *, ended_by: str | None = None, cause: Cause = Cause.CUT_OFF) -> bool:
        """Stop a query, by default one by a user who was cut off; return False if no query with this ID is running."""
        query = self._running.get(query_id)
        if query is None:
            return False
        query.statement.report.ended_by = ended_by
        query.statement.end(cause)
        return True

    def apply_denials(self) -> None:
        """Apply new denials to the next query and, shortly afterwards, to running ones."""
        if self._deny_list is not None:
            self._deny_list.invalidate()
            self._ending = asyncio.get_running_loop().create_task(self._end_denied())

    async def _end_denied(self) -> None:
        for query in list(self._running.values()):
            try:
                await self.check_denials(query.origin, query.sql)
            except QueryDenied:
                query.statement.end(Cause.DENIED)

    async def _end(self, queries: Sequence[RunningQuery], cause: Cause) -> CancelStatus:
        statements = [query.statement for query in queries]
        if not statements:
            return CancelStatus.NOT_CANCELLABLE
        for statement in statements:
            statement.end(cause)
        try:
            async with asyncio.timeout(_CANCEL_SECONDS):
                for statement in statements:
                    await statement.has_ended.wait()
        except TimeoutError:
            return CancelStatus.CANCELLING
        return CancelStatus.CANCELLED

    async def tables(self, call: Call) -> list[tuple[str, bytes]]:
        """Return the tables that the caller can see, each with its IPC schema."""
        async with RunningStatement(self._pool, call.source, query_id=call.query_id) as running:
            return await self._runner(running).list_tables(call.caller)

    def _runner(self, running: RunningStatement, sql: str | None = None) -> RunningStatement | ForwardedStatement:
        return running if self._gateway is None else self._gateway.runner(running, sql)

    async def _prepare(
        self, call: Call, sql: str, parameters: tuple[bytes, ...]
    ) -> tuple[Statement, CallOrigin, RunningStatement, QueryAudit]:
        statement = parse_statement(call.headers, sql, call.caller, parameters, is_read_only=call.is_read_only)
        origin = find_origin(call)
        running = RunningStatement(self._pool, call.source, query_id=call.query_id)
        is_large = len(sql) > _MAX_INLINE_CHARACTERS or sum(map(len, parameters)) > _MAX_INLINE_BYTES
        hashes = await asyncio.to_thread(hash_statement, statement) if is_large else None
        audit = QueryAudit(origin, statement, running.report, self._clock, hashes=hashes)
        return statement, origin, running, audit

    async def _with_messages(self, call: Call, statement: Statement) -> Statement:
        """Run an administrator's statement that changes a view or, once it is planned, partitions."""
        view = await self._find_view_statement(call, statement)
        if view is not None and self._operations is not None:
            return _with_status(statement, view, await self._operations.change_view(call, view, self._pool))
        if not call.caller.is_admin or self._operations is None or not may_call_partition_function(statement.sql):
            return statement
        async with RunningStatement(self._pool, call.source, query_id=call.query_id) as planning:
            await self._runner(planning, statement.sql).plan(statement)
        if (change := planning.report.change) is None:
            return statement
        return replace(statement, messages=await self._operations.change_partitions(call, change, self._pool))

    async def _find_view_statement(self, call: Call, statement: Statement) -> CreateView | DropView | None:
        """Return a statement's action on a materialized view, if any; only administrators may change them."""
        if "materialized" not in statement.sql.lower():
            return None
        found = await _parse(parse_view_statement, statement.sql)
        if found is not None and not call.caller.is_admin:
            raise PermissionDenied(
                "Only administrators may create, replace, or drop materialized views.",
                reason="not_administrator",
                remedy="Ask one of the server's administrators.",
            )
        if found is not None:
            check_may_change_state(call, "create, replace, or drop materialized views")
        if found is not None and (self._operations is None or self._gateway is not None):
            raise UnsupportedRequest(
                "Materialized views are supported only on servers with a lake.",
                remedy="If the server uses a separate engine, define them there.",
            )
        return found

    async def check_denials(self, origin: CallOrigin, sql: str) -> None:
        """Raise QueryDenied if an administrator has denied the statement."""
        if self._deny_list is not None:
            await self._deny_list.check(origin, sql)


async def _parse(parse: Callable[[str], _Parsed], sql: str) -> _Parsed:
    """Return the result of parsing a statement; long statements are parsed on a separate thread."""
    return parse(sql) if len(sql) <= _MAX_INLINE_CHARACTERS else await asyncio.to_thread(parse, sql)


def _with_status(statement: Statement, view: CreateView | DropView, status: str) -> Statement:
    """Return a statement whose one row reports the action on a view."""
    values = (one.replace("'", "''") for one in (view.name, status))
    return replace(statement, sql="SELECT '{}' AS view_set_name, '{}' AS status".format(*values))


def _build_counts(report: StatementReport) -> str | None:
    """Return the client's report on the files that its statement has read; None if it read none or rows are hidden."""
    if not report.shows_counts or not report.files_total:
        return None
    tables = [table._asdict() for table in report.explained]
    sizes = accumulate(len(json.dumps(table)) for table in tables)
    counts = {
        "files": report.files_read,
        "total": report.files_total,
        "bytes": report.bytes_scanned,
        "rows": report.rows_scanned,
        "explained": [table for table, size in zip(tables, sizes, strict=True) if size <= _MAX_EXPLAINED_CHARACTERS],
    }
    return json.dumps(counts)


def _parse_request(body: bytes) -> dict[str, Any]:
    """Parse the request: `{"operation": "list"}`, or `cancel` or `progress` with the `query_id`."""
    try:
        found = decode_strict_json(body[: _MAX_BODY_BYTES + 1].decode("utf-8"), max_depth=1)
    except (UnicodeDecodeError, JsonError):
        found = None
    operation = found.get("operation") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(operation, str) or found.keys() != QUERY_OPERATIONS.get(operation):
        raise UsageError(
            f"The body of {QUERIES_ACTION} cannot be used.",
            remedy="Send one JSON object with the operation: list, or cancel or progress with the query_id.",
        )
    return found


class FlightMethods:
    """Handles calls of authenticated callers. Belongs to one event loop; `reload` is None if not applicable."""

    def __init__(  # noqa: PLR0913 - the parts of a server
        self,
        *,
        queries: QueryRunner,
        prepared: PreparedStatements,
        tickets: Tickets,
        tails: TailRunner,
        ingests: IngestRunner,
        operations: TableOperations,
        cut_offs: CutOffService,
        facts: ServerFacts,
        reload: Callable[[], None] | None,
        keys: UserKeys | None,
        record: Callable[..., None],
    ) -> None:
        self._queries = queries
        self._prepared = prepared
        self._tickets = tickets
        self._tails = tails
        self._ingests = ingests
        self._facts = facts
        self._reload = reload
        self._keys = keys
        self._record = record
        self._reload_lock = asyncio.Lock()
        options = {name: messages.SessionOptionValue(string_value=value) for name, value in _OPTIONS.items()}
        held, closed = messages.GetSessionOptionsResult, messages.CloseSessionResult
        self._actions: dict[str, Callable[[Call, bytes], Awaitable[bytes | None]]] = {
            "CreatePreparedStatement": self._create_prepared_statement,
            "ClosePreparedStatement": self._close_prepared_statement,
            "CancelFlightInfo": self._cancel_flight_info,
            "CancelQuery": self._cancel_query,
            "RenewFlightEndpoint": self._renew_flight_endpoint,
            "GetSessionOptions": _answering(messages.GetSessionOptionsRequest, lambda _: held(session_options=options)),
            "SetSessionOptions": _answering(messages.SetSessionOptionsRequest, set_options),
            "CloseSession": _answering(messages.CloseSessionRequest, lambda _: closed(status=closed.CLOSED)),
            QUERIES_ACTION: queries.answer_action,
            "MicromegasWhoAmI": _describe_caller,
            TABLES_ACTION: operations.run,
            CUT_OFF_ACTION: cut_offs.handle,
            RELOAD_ACTION: self._reload_access,
            KEYS_ACTION: self._change_keys,
        }

    def by_name(self) -> dict[str, Callable[[Call], Awaitable[None]]]:
        """Return the supported methods by their names in the Flight service."""
        return {
            "GetFlightInfo": self._get_flight_info,
            "PollFlightInfo": self._poll_flight_info,
            "GetSchema": self._get_schema,
            "DoGet": self._do_get,
            "DoPut": self._do_put,
            "DoAction": self._do_action,
            "ListActions": self._list_actions,
        }

    async def _get_flight_info(self, call: Call) -> None:
        await call.answer((await self._build_flight_info(call)).SerializeToString())

    async def _poll_flight_info(self, call: Call) -> None:
        """Handle `PollFlightInfo`; a query starts when its rows are read, so its result is always available."""
        info = await self._build_flight_info(call)
        await call.answer(messages.PollInfo(info=info, progress=1.0).SerializeToString())

    async def _build_flight_info(self, call: Call, *, is_estimated: bool = False) -> Any:
        call.require_scope(READ_SCOPE)
        descriptor = parse_message(messages.FlightDescriptor, await call.read_only_message())
        command = parse_descriptor(descriptor)
        await call.announce_query_id()
        if isinstance(command, MetadataQuery):
            schema = metadata_schema(command).serialize().to_pybytes()
            endpoint = messages.FlightEndpoint(ticket=messages.Ticket(ticket=descriptor.cmd))
        else:
            sql, parameters = self._find_statement(call, command)
            # The exact schema, because some clients reject rows whose schema differs from the announced one.
            schema, _ = await self._queries.plan(call, sql, parameters, is_estimated=is_estimated)
            if isinstance(command, PreparedQuery) and not can_travel(parameters):
                # The values remain in the store.
                endpoint = messages.FlightEndpoint(ticket=messages.Ticket(ticket=prepared_ticket(command.handle)))
            else:
                endpoint = self._tickets.issue(sql, call.caller_key, parameters)
        return messages.FlightInfo(
            schema=schema,
            flight_descriptor=descriptor,
            endpoint=[endpoint],
            total_records=_UNKNOWN_SIZE,
            total_bytes=_UNKNOWN_SIZE,
            ordered=True,
        )

    async def _get_schema(self, call: Call) -> None:
        info = await self._build_flight_info(call, is_estimated=True)
        await call.answer(messages.SchemaResult(schema=info.schema).SerializeToString())

    async def _do_get(self, call: Call) -> None:
        call.require_scope(READ_SCOPE)
        ticket = parse_message(messages.Ticket, await call.read_only_message()).ticket
        command = parse_ticket(ticket)
        await call.announce_query_id()
        match command:
            case IssuedQuery():
                content = self._tickets.read(command.signed, call.caller_key)
                key = query_key(call.caller_key, content.id)
                await self._run_query(call, content.sql, tuple(content.parameters), key=key)
            case StatementQuery() | PreparedQuery():
                key = query_key(call.caller_key, ticket)
                await self._run_query(call, *self._find_statement(call, command), key=key)
            case _:
                tables = await self._queries.tables(call) if command.name == "CommandGetTables" else []
                batch = build_metadata(command, tables, self._facts)
                encoder = FlightDataEncoder(batch.schema)
                for message in (encoder.encode_schema(), *encoder.encode_batch(batch)):
                    await call.answer(message)

    async def _run_query(self, call: Call, sql: str, parameters: tuple[bytes, ...], *, key: QueryKey) -> None:
        if TAIL_HEADER in call.headers:
            await self._tails.run(call, sql, parameters)
        else:
            await self._queries.run(call, sql, parameters, key=key)

    async def _do_put(self, call: Call) -> None:
        try:
            await self._put(call)
        except (DeadlineExceeded, ClientGone):
            raise
        except Exception:
            # Otherwise, a client that is still sending may report only the end of the call, as Arrow's Go driver does
            # (`EOF`).
            await call.drain()
            raise

    async def _put(self, call: Call) -> None:
        first = await call.read_only_message()
        data = parse_message(messages.FlightData, first)
        ingest = parse_ingest_descriptor(data.flight_descriptor)
        if ingest is not None:
            await self._ingests.run(call, ingest, first)
            return
        call.require_scope(READ_SCOPE)
        command = parse_descriptor(data.flight_descriptor)
        if not isinstance(command, PreparedQuery):
            raise UnsupportedRequest(
                "Data is accepted only as table rows or as prepared statement parameters.",
                remedy="Send it with CommandStatementIngest or CommandPreparedStatementQuery.",
            )
        self._prepared.get(command.handle, call.caller_key)
        # It contains a handle, which may contain previously bound values; if stored, it would grow with each binding.
        data.ClearField("flight_descriptor")
        frames = await call.read_values(data.SerializeToString(), _PARAMETER_LIMITS)
        handle = self._prepared.bind(command.handle, frames, call.caller_key)
        result = messages.DoPutPreparedStatementResult(prepared_statement_handle=handle)
        await call.answer(messages.PutResult(app_metadata=result.SerializeToString()).SerializeToString())

    def _find_statement(self, call: Call, command: StatementQuery | PreparedQuery) -> tuple[str, tuple[bytes, ...]]:
        if isinstance(command, StatementQuery):
            return command.sql, ()
        return self._prepared.get(command.handle, call.caller_key)

    async def _do_action(self, call: Call) -> None:
        action = parse_message(messages.Action, await call.read_only_message())
        handle = self._actions.get(action.type)
        if handle is None:
            raise refuse(action.type, kind="the action")
        if action.type not in _ANY_SCOPE:
            call.require_scope(READ_SCOPE)
        body = await handle(call, action.body)
        if body is not None:
            await call.answer(messages.Result(body=body).SerializeToString())

    async def _list_actions(self, call: Call) -> None:
        await call.read_only_message()
        offered = dict(_DESCRIPTIONS)
        if call.caller.is_admin:
            offered[CUT_OFF_ACTION] = _CUT_OFF_DESCRIPTION
            if self._reload is not None:
                offered[RELOAD_ACTION] = _RELOAD_DESCRIPTION
        for name, description in offered.items():
            await call.answer(messages.ActionType(type=name, description=description).SerializeToString())

    async def _create_prepared_statement(self, call: Call, body: bytes) -> bytes:
        request = parse_action_body(messages.ActionCreatePreparedStatementRequest, body)
        if request.transaction_id:
            raise refuse_transaction()
        await call.announce_query_id()
        schema, parameter_schema = await self._queries.plan(call, request.query, ())
        result = messages.ActionCreatePreparedStatementResult(
            prepared_statement_handle=self._prepared.add(request.query, call.caller_key),
            dataset_schema=schema,
            parameter_schema=parameter_schema,
        )
        return pack_any(result)

    async def _close_prepared_statement(self, call: Call, body: bytes) -> None:
        request = parse_action_body(messages.ActionClosePreparedStatementRequest, body)
        self._prepared.close(request.prepared_statement_handle, call.caller_key)

    async def _cancel_flight_info(self, call: Call, body: bytes) -> bytes:
        request = parse_plain_body(messages.CancelFlightInfoRequest, body)
        status = await self._cancel(call, request.info)
        return bytes(messages.CancelFlightInfoResult(status=status).SerializeToString())

    async def _cancel_query(self, call: Call, body: bytes) -> bytes:
        request = parse_action_body(messages.ActionCancelQueryRequest, body)
        status = await self._cancel(call, parse_message(messages.FlightInfo, request.info))
        return pack_any(messages.ActionCancelQueryResult(result=status))

    async def _cancel(self, call: Call, info: Any) -> int:
        """Cancel the reads from a flight's endpoints; a flight that is not being read cannot be canceled."""
        if not 0 < len(info.endpoint) <= _MAX_ENDPOINTS:
            raise UsageError(
                "The flight doesn't have an endpoint.", remedy="Send the FlightInfo that GetFlightInfo returned."
            )
        keys = {self._find_key(call, endpoint.ticket.ticket) for endpoint in info.endpoint}
        status = await self._queries.cancel(keys)
        if status is CancelStatus.NOT_CANCELLABLE:
            call.add_trailer(NOTICE_TRAILER, _NOT_READ_HERE)
        return status

    def _find_key(self, call: Call, ticket: bytes) -> QueryKey:
        command = parse_ticket(ticket)
        if isinstance(command, IssuedQuery):
            ticket = self._tickets.read(command.signed, call.caller_key, accepts_expired=True).id
        return query_key(call.caller_key, ticket)

    async def _renew_flight_endpoint(self, call: Call, body: bytes) -> bytes:
        endpoint = parse_plain_body(messages.RenewFlightEndpointRequest, body).endpoint
        command = parse_ticket(endpoint.ticket.ticket)
        if isinstance(command, IssuedQuery):
            endpoint = self._tickets.renew(command.signed, call.caller_key)
        # Other kinds of tickets do not expire, so their endpoints stay unchanged.
        return bytes(endpoint.SerializeToString())

    async def _reload_access(self, call: Call, _body: bytes) -> bytes:
        if not call.caller.is_admin:
            raise PermissionDenied("Only administrators may reload the configuration.", reason="not_administrator")
        if self._reload is None:
            raise UnsupportedRequest("This server doesn't have an access configuration to reload.")
        check_may_change_state(call, "reload the access configuration")
        try:
            try:
                async with asyncio.timeout(_RELOAD_SECONDS), self._reload_lock:
                    await asyncio.to_thread(self._reload)
            except TimeoutError:
                raise DeadlineExceeded(
                    "The configuration could not be read in time.", remedy="Try again, and check the server's log."
                ) from None
            except ConfigurationError as error:
                if error.key in error.what:
                    raise
                raise ConfigurationError(f"{error.key}: {error.what}", key=error.key, remedy=error.remedy) from error
        except MicromegasError as error:
            self._record(call.describe(), "reload_failed", code=error.code, caller=call.caller)
            raise
        self._record(call.describe(), "reloaded", caller=call.caller)
        return json.dumps({"reloaded": True}).encode()

    async def _change_keys(self, call: Call, body: bytes) -> bytes:
        if self._keys is None:
            raise UnsupportedRequest("This server doesn't have API keys.")
        request = self._keys.parse(body)
        if request.operation != "list":
            check_may_change_state(call, "make or revoke API keys")
        try:
            async with asyncio.timeout(_RELOAD_SECONDS):
                found = await asyncio.to_thread(self._keys.run, call.caller, request)
        except TimeoutError:
            raise DeadlineExceeded("The API key file could not be used in time.", remedy="Try again.") from None
        if request.operation != "list":
            outcome = "key_created" if request.operation == "create" else "key_revoked"
            name = json.loads(found).get("id", request.id)
            self._record(call.describe(), outcome, caller=call.caller, credential=name)
        return found


def _answering(request_class: Any, answer: Callable[[Any], Any]) -> Callable[[Call, bytes], Awaitable[bytes]]:
    """Return the handler for one of Flight's own actions that depends only on its request."""

    async def handle(_call: Call, body: bytes) -> bytes:
        return bytes(answer(parse_plain_body(request_class, body)).SerializeToString())

    return handle


async def _describe_caller(call: Call, _body: bytes) -> bytes:
    caller = call.caller
    sizes = accumulate(len(json.dumps(name)) for name in caller.groups)
    described: dict[str, Any] = {
        "subject": caller.subject,
        "name": caller.name,
        "email": caller.email,
        "issuer": caller.issuer,
        "auth_type": caller.auth_type.value,
        "is_admin": caller.is_admin,
        "expires_at": caller.expires_at.isoformat() if caller.expires_at is not None else None,
        # As many of the first ones as a client accepts in one response.
        "groups": [name for name, size in zip(caller.groups, sizes, strict=True) if size <= _MAX_GROUPS_BYTES],
        "group_count": len(caller.groups),
        "reads_nothing": caller.table_access is not None and not caller.table_access.filters,
    }
    return json.dumps(described).encode()


def set_options(request: Any) -> Any:
    """Return an error for each option that would change a value; setting the current value is allowed."""
    options = request.session_options
    if len(options) > _MAX_OPTIONS or any(len(name) > _MAX_NAME for name in options):
        raise UsageError(
            "The call sets too many session options.", remedy=f"This server supports only {', '.join(_OPTIONS)}."
        )
    result = messages.SetSessionOptionsResult
    errors: dict[str, Any] = {}
    for name, value in options.items():
        if name not in _OPTIONS:
            errors[name] = result.Error(value=result.INVALID_NAME)
        elif value.WhichOneof("option_value") != "string_value" or value.string_value != _OPTIONS[name]:
            errors[name] = result.Error(value=result.INVALID_VALUE)
    return result(errors=errors)
