"""The methods and actions of Flight SQL: which call asks for what, and the shape of its answer."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from itertools import accumulate
from typing import Any, Final, Protocol, runtime_checkable

import pyarrow as pa

from micromegas_jupyter.access.audit import AccessAudit, AccessEvent
from micromegas_jupyter.access.call_facts import checking_for
from micromegas_jupyter.access.decision import Claimed
from micromegas_jupyter.config.access import READ_SCOPE
from micromegas_jupyter.core.protocols import AuthContext
from micromegas_jupyter.errors import (
    ConfigurationError,
    DeadlineExceeded,
    MicromegasError,
    PermissionDenied,
    UnsupportedRequest,
    UsageError,
)
from micromegas_jupyter.executors.statements import ClientGone
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import (
    Command,
    IssuedQuery,
    PreparedQuery,
    StatementQuery,
    TablesQuery,
    pack_any,
    parse_action_body,
    parse_descriptor,
    parse_ingest_descriptor,
    parse_message,
    parse_plain_body,
    parse_ticket,
    prepared_ticket,
    refuse_action,
    refuse_transaction,
)
from micromegas_jupyter.flightsql.framing import FlightDataEncoder, ParameterLimits
from micromegas_jupyter.server.calls import Call
from micromegas_jupyter.server.catalog import ServerFacts, build_metadata, metadata_schema
from micromegas_jupyter.server.ingest import IngestRunner
from micromegas_jupyter.server.queries import CancelStatus, QueryRunner, RunningQueries, join_statuses, query_key
from micromegas_jupyter.server.tickets import PreparedStatements, Tickets, pack_frames, unpack_frames, write_endpoint

# A client takes an answer of 16 kB.
_MAX_GROUPS_BYTES: Final = 4 * 1024
_MAX_ENDPOINTS: Final = 16
_MAX_OPTIONS: Final = 64
_MAX_NAME: Final = 256
# Names that clients know from Flight SQL and ADBC. Tables have no catalog and no schema; times are in UTC.
_OPTIONS: Final = {"catalog": "", "schema": "", "timezone": "UTC"}
_DESCRIPTIONS: Final = {
    "CreatePreparedStatement": "Prepare a statement: ActionCreatePreparedStatementRequest to its Result.",
    "ClosePreparedStatement": "Forget a prepared statement: ActionClosePreparedStatementRequest, no result.",
    "CancelFlightInfo": "Cancel the running query of a flight: CancelFlightInfoRequest to CancelFlightInfoResult.",
    "CancelQuery": "The older form of CancelFlightInfo: ActionCancelQueryRequest to ActionCancelQueryResult.",
    "RenewFlightEndpoint": "Give a ticket a full life again: RenewFlightEndpointRequest to FlightEndpoint.",
    "GetSessionOptions": "Tell what holds for every call: GetSessionOptionsRequest to GetSessionOptionsResult.",
    "SetSessionOptions": "Nothing can be set: SetSessionOptionsRequest to SetSessionOptionsResult with errors.",
    "CloseSession": "No session is kept: CloseSessionRequest to CloseSessionResult.",
    "MicromegasWhoAmI": "Tell who the caller is: no body, one JSON object.",
}
_RELOAD_DESCRIPTION: Final = "Read the access configuration again: no body, one JSON object. For administrators."
RELOAD_ACTION: Final = "micromegas.access.reload"
_RELOAD_SECONDS: Final = 30.0
_PARAMETER_LIMITS: Final = ParameterLimits()
_UNKNOWN_SIZE: Final = -1
_Statement = StatementQuery | PreparedQuery


@runtime_checkable
class Reloadable(Protocol):
    """A validator that can read its configuration again."""

    def reload(self) -> None:
        """Read the configuration and use it from now on; safe to call from several threads."""
        ...


class AccessReload:
    """Answers the action. Belongs to one event loop; one reload runs at a time."""

    def __init__(self, validator: object, *, audit: AccessAudit) -> None:
        self._reloadable: Reloadable | None = validator if isinstance(validator, Reloadable) else None
        self._audit = audit
        self._turn = asyncio.Lock()

    def is_offered_to(self, caller: AuthContext) -> bool:
        """Whether the caller may use the action, and there is something to reload."""
        return caller.is_admin and self._reloadable is not None

    async def run(self, call: Call) -> None:
        """Reload, then tell the client."""
        if not call.caller.is_admin:
            raise PermissionDenied("Only administrators may reload the configuration.", reason="not_administrator")
        if self._reloadable is None:
            raise UnsupportedRequest("This server has no access configuration that could be reloaded.")
        try:
            await self._reload(self._reloadable)
        except MicromegasError as error:
            self._record(call, "reload_failed", error.code)
            raise
        self._record(call, "reloaded", None)
        await call.answer(messages.Result(body=json.dumps({"reloaded": True}).encode()).SerializeToString())

    async def _reload(self, reloadable: Reloadable) -> None:
        try:
            async with asyncio.timeout(_RELOAD_SECONDS), self._turn:
                await asyncio.to_thread(reloadable.reload)
        except TimeoutError:
            raise DeadlineExceeded(
                "The configuration could not be read in time.", remedy="Try again, and look at the server's log."
            ) from None
        except ConfigurationError as error:
            if error.key in error.what:
                raise
            raise ConfigurationError(f"{error.key}: {error.what}", key=error.key, remedy=error.remedy) from error

    def _record(self, call: Call, outcome: str, code: str | None) -> None:
        who = Claimed(issuer=call.caller.issuer, subject=call.caller.subject)
        with checking_for(call.describe()):
            self._audit.record(AccessEvent(outcome=outcome, code=code, who=who))


class FlightActions:
    """Answers actions of known callers."""

    def __init__(
        self,
        *,
        queries: QueryRunner,
        prepared: PreparedStatements,
        tickets: Tickets,
        running: RunningQueries,
        access_reload: AccessReload,
    ) -> None:
        self._queries = queries
        self._prepared = prepared
        self._tickets = tickets
        self._running = running
        self._access_reload = access_reload
        self._readers: dict[str, Callable[[Call, bytes], Awaitable[None]]] = {
            "CreatePreparedStatement": self._create_prepared_statement,
            "ClosePreparedStatement": self._close_prepared_statement,
            "CancelFlightInfo": self._cancel_flight_info,
            "CancelQuery": self._cancel_query,
            "RenewFlightEndpoint": self._renew_flight_endpoint,
            "GetSessionOptions": _answering(messages.GetSessionOptionsRequest, get_options),
            "SetSessionOptions": _answering(messages.SetSessionOptionsRequest, set_options),
            "CloseSession": _answering(messages.CloseSessionRequest, close_session),
        }

    async def do_action(self, call: Call) -> None:
        """Answer `DoAction`."""
        action = parse_message(messages.Action, await call.read_only_message())
        if action.type == "MicromegasWhoAmI":
            await _reply(call, _describe_caller(call))
        elif action.type == RELOAD_ACTION:
            await self._access_reload.run(call)
        elif (answer := self._readers.get(action.type)) is not None:
            call.require_scope(READ_SCOPE)
            await answer(call, action.body)
        else:
            raise refuse_action(action.type)

    async def list_actions(self, call: Call) -> None:
        """Answer `ListActions`."""
        await call.read_only_message()
        offered = dict(_DESCRIPTIONS)
        if self._access_reload.is_offered_to(call.caller):
            offered[RELOAD_ACTION] = _RELOAD_DESCRIPTION
        for name, description in offered.items():
            await call.answer(messages.ActionType(type=name, description=description).SerializeToString())

    async def _create_prepared_statement(self, call: Call, body: bytes) -> None:
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
        await _reply(call, pack_any(result))

    async def _close_prepared_statement(self, call: Call, body: bytes) -> None:
        request = parse_action_body(messages.ActionClosePreparedStatementRequest, body)
        self._prepared.close(request.prepared_statement_handle, call.caller_key)

    async def _cancel_flight_info(self, call: Call, body: bytes) -> None:
        request = parse_plain_body(messages.CancelFlightInfoRequest, body)
        status = await self._cancel(call, request.info)
        await _reply(call, messages.CancelFlightInfoResult(status=status).SerializeToString())

    async def _cancel_query(self, call: Call, body: bytes) -> None:
        request = parse_action_body(messages.ActionCancelQueryRequest, body)
        status = await self._cancel(call, parse_message(messages.FlightInfo, request.info))
        await _reply(call, pack_any(messages.ActionCancelQueryResult(result=status)))

    async def _cancel(self, call: Call, info: Any) -> CancelStatus:
        """Cancel what reads the endpoints of a flight; one that nobody reads cannot be cancelled."""
        if not 0 < len(info.endpoint) <= _MAX_ENDPOINTS:
            raise UsageError("The flight has no endpoint.", remedy="Send the FlightInfo that GetFlightInfo gave.")
        keys = {self._find_key(call, endpoint.ticket.ticket) for endpoint in info.endpoint}
        return join_statuses(await asyncio.gather(*map(self._running.cancel, keys)))

    def _find_key(self, call: Call, ticket: bytes) -> bytes:
        command = parse_ticket(ticket)
        if isinstance(command, IssuedQuery):
            ticket = self._tickets.read(command.sealed, call.caller_key, or_expired=True).id
        return query_key(call.caller_key, ticket)

    async def _renew_flight_endpoint(self, call: Call, body: bytes) -> None:
        endpoint = parse_plain_body(messages.RenewFlightEndpointRequest, body).endpoint
        command = parse_ticket(endpoint.ticket.ticket)
        if isinstance(command, IssuedQuery):
            endpoint = write_endpoint(self._tickets.renew(command.sealed, call.caller_key))
        # A ticket of another kind has no end, so its endpoint stays as it is.
        await _reply(call, endpoint.SerializeToString())


def _answering(request_class: Any, answer: Callable[[Any], Any]) -> Callable[[Call, bytes], Awaitable[None]]:
    """Return the reader of one of Flight's own actions that needs nothing but its request."""

    async def read(call: Call, body: bytes) -> None:
        await _reply(call, answer(parse_plain_body(request_class, body)).SerializeToString())

    return read


async def _reply(call: Call, body: bytes) -> None:
    await call.answer(messages.Result(body=body).SerializeToString())


def _describe_caller(call: Call) -> bytes:
    caller = call.caller
    described: dict[str, Any] = {
        "subject": caller.subject,
        "name": caller.name,
        "email": caller.email,
        "issuer": caller.issuer,
        "auth_type": caller.auth_type.value,
        "is_admin": caller.is_admin,
        "expires_at": caller.expires_at.isoformat() if caller.expires_at is not None else None,
        "groups": _first_names(caller.groups),
        "group_count": len(caller.groups),
    }
    return json.dumps(described).encode()


def _first_names(names: Sequence[str]) -> list[str]:
    """Return the first of the names, as many as a client reads in one answer."""
    sizes = accumulate(len(json.dumps(name)) for name in names)
    return [name for name, size in zip(names, sizes, strict=True) if size <= _MAX_GROUPS_BYTES]


def get_options(_request: Any) -> Any:
    """Return the options that hold for every call."""
    values = {name: messages.SessionOptionValue(string_value=value) for name, value in _OPTIONS.items()}
    return messages.GetSessionOptionsResult(session_options=values)


def set_options(request: Any) -> Any:
    """Return an error for each option that would change something; setting what holds anyway is fine."""
    options = request.session_options
    if len(options) > _MAX_OPTIONS or any(len(name) > _MAX_NAME for name in options):
        raise UsageError(
            "The call sets too many session options.", remedy=f"This server knows {', '.join(_OPTIONS)} only."
        )
    errors = {name: _find_error(name, value) for name, value in options.items()}
    return messages.SetSessionOptionsResult(
        errors={name: messages.SetSessionOptionsResult.Error(value=error) for name, error in errors.items() if error}
    )


def close_session(_request: Any) -> Any:
    """Return that the session is closed: there is nothing that could stay."""
    return messages.CloseSessionResult(status=messages.CloseSessionResult.CLOSED)


def _find_error(name: str, value: Any) -> int:
    """Return 0 when the option has the value already."""
    if name not in _OPTIONS:
        return int(messages.SetSessionOptionsResult.INVALID_NAME)
    is_held = value.WhichOneof("option_value") == "string_value" and value.string_value == _OPTIONS[name]
    return 0 if is_held else int(messages.SetSessionOptionsResult.INVALID_VALUE)


class FlightMethods:
    """Answers the calls of known callers.

    Args:
        queries: Plans and runs statements.
        prepared: Keeps prepared statements.
        tickets: Issues tickets and reads them.
        actions: Answers actions.
        ingests: Takes rows.
        facts: What the server tells about itself beyond what always holds.
    """

    def __init__(  # noqa: PLR0913 - the parts of a server
        self,
        *,
        queries: QueryRunner,
        prepared: PreparedStatements,
        tickets: Tickets,
        actions: FlightActions,
        ingests: IngestRunner,
        facts: ServerFacts,
    ) -> None:
        self._queries = queries
        self._prepared = prepared
        self._tickets = tickets
        self._actions = actions
        self._ingests = ingests
        self._facts = facts

    def by_name(self) -> dict[str, Callable[[Call], Awaitable[None]]]:
        """Return the methods that are offered, by their names in the Flight service."""
        return {
            "GetFlightInfo": _reading(self._get_flight_info),
            "PollFlightInfo": _reading(self._poll_flight_info),
            "GetSchema": _reading(self._get_schema),
            "DoGet": _reading(self._do_get),
            "DoPut": _refusing_late(self._do_put),
            "DoAction": self._actions.do_action,
            "ListActions": self._actions.list_actions,
        }

    async def _get_flight_info(self, call: Call) -> None:
        await call.answer((await self._build_flight_info(call)).SerializeToString())

    async def _poll_flight_info(self, call: Call) -> None:
        """Answer `PollFlightInfo`: a query starts when its rows are read, so there is never anything to wait for."""
        info = await self._build_flight_info(call)
        await call.answer(messages.PollInfo(info=info, progress=1.0).SerializeToString())

    async def _build_flight_info(self, call: Call) -> Any:
        descriptor = parse_message(messages.FlightDescriptor, await call.read_only_message())
        command = parse_descriptor(descriptor)
        await call.announce_query_id()
        match command:
            case StatementQuery() | PreparedQuery():
                schema, _ = await self._plan(call, command)
                endpoint = self._build_endpoint(call, command)
            case _:
                schema = _serialized(metadata_schema(command))
                endpoint = messages.FlightEndpoint(ticket=messages.Ticket(ticket=descriptor.cmd))
        return messages.FlightInfo(
            schema=schema,
            flight_descriptor=descriptor,
            endpoint=[endpoint],
            total_records=_UNKNOWN_SIZE,
            total_bytes=_UNKNOWN_SIZE,
            ordered=True,
        )

    async def _get_schema(self, call: Call) -> None:
        command = parse_descriptor(parse_message(messages.FlightDescriptor, await call.read_only_message()))
        await call.announce_query_id()
        schema = await self._find_schema(call, command)
        await call.answer(messages.SchemaResult(schema=schema).SerializeToString())

    async def _do_get(self, call: Call) -> None:
        ticket = parse_message(messages.Ticket, await call.read_only_message()).ticket
        command = parse_ticket(ticket)
        await call.announce_query_id()
        match command:
            case IssuedQuery():
                content = self._tickets.read(command.sealed, call.caller_key)
                await self._run(call, content.id, content.sql, unpack_frames(content.parameters))
            case StatementQuery():
                await self._run(call, ticket, command.sql, ())
            case PreparedQuery():
                statement = self._prepared.get(command.handle, call.caller_key)
                await self._run(call, ticket, statement.sql, statement.parameters)
            case TablesQuery():
                tables = await self._queries.tables(call.caller, call)
                await _send_batch(call, build_metadata(command, tables, self._facts))
            case _:
                await _send_batch(call, build_metadata(command, (), self._facts))

    async def _run(self, call: Call, name: bytes, sql: str, parameters: tuple[bytes, ...]) -> None:
        await self._queries.run(call, sql, parameters, key=query_key(call.caller_key, name))

    async def _do_put(self, call: Call) -> None:
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
                "Data is accepted as the rows of a table or as the parameters of a prepared statement only.",
                remedy="Send it with CommandStatementIngest or CommandPreparedStatementQuery.",
            )
        self._prepared.get(command.handle, call.caller_key)
        # It names a handle, which may hold the values that were bound before: kept, it would grow with each binding.
        data.ClearField("flight_descriptor")
        frames = await call.read_values(data.SerializeToString(), _PARAMETER_LIMITS)
        handle = self._prepared.bind(command.handle, frames, call.caller_key)
        result = messages.DoPutPreparedStatementResult(prepared_statement_handle=handle)
        await call.answer(messages.PutResult(app_metadata=result.SerializeToString()).SerializeToString())

    async def _find_schema(self, call: Call, command: Command) -> bytes:
        """Return the exact schema of a command's rows: some clients refuse rows of another schema than announced."""
        match command:
            case StatementQuery() | PreparedQuery():
                schema, _ = await self._plan(call, command)
                return schema
            case _:
                return _serialized(metadata_schema(command))

    async def _plan(self, call: Call, command: _Statement) -> tuple[bytes, bytes]:
        return await self._queries.plan(call, *self._find_statement(call, command))

    def _find_statement(self, call: Call, command: _Statement) -> tuple[str, tuple[bytes, ...]]:
        if isinstance(command, StatementQuery):
            return command.sql, ()
        statement = self._prepared.get(command.handle, call.caller_key)
        return statement.sql, statement.parameters

    def _build_endpoint(self, call: Call, command: _Statement) -> Any:
        sql, parameters = self._find_statement(call, command)
        packed = pack_frames(parameters)
        if packed is None and isinstance(command, PreparedQuery):
            # The values stay where they are kept.
            return messages.FlightEndpoint(ticket=messages.Ticket(ticket=prepared_ticket(command.handle)))
        return write_endpoint(self._tickets.issue(sql, call.caller_key, packed or b""))


def _reading(method: Callable[[Call], Awaitable[None]]) -> Callable[[Call], Awaitable[None]]:
    """Return the method for callers who may read."""

    async def answer(call: Call) -> None:
        call.require_scope(READ_SCOPE)
        await method(call)

    return answer


def _refusing_late(method: Callable[[Call], Awaitable[None]]) -> Callable[[Call], Awaitable[None]]:
    """Return the method with its errors held back until the client has sent everything, within bounds.

    A client whose call ends while it still sends often sees only that: Arrow's Go driver reports `EOF`.
    """

    async def answer(call: Call) -> None:
        try:
            await method(call)
        except (DeadlineExceeded, ClientGone):
            raise
        except Exception:
            await call.pass_over_the_rest()
            raise

    return answer


def _serialized(schema: pa.Schema) -> bytes:
    data: bytes = schema.serialize().to_pybytes()
    return data


async def _send_batch(call: Call, batch: pa.RecordBatch) -> None:
    encoder = FlightDataEncoder(batch.schema)
    await call.answer(encoder.encode_schema())
    for message in encoder.encode_batch(batch):
        await call.answer(message)
