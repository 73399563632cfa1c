"""The actions of the Flight service: what `DoAction` offers, and the list of it.

Queries and their rows are `flight_methods`' job.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from itertools import accumulate
from typing import Any, Final

from micromegas_jupyter.config.access import READ_SCOPE
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import (
    IssuedQuery,
    pack_any,
    parse_action_body,
    parse_message,
    parse_plain_body,
    parse_ticket,
)
from micromegas_jupyter.flightsql.refusals import refuse_action, refuse_transaction
from micromegas_jupyter.server.calls import Call
from micromegas_jupyter.server.prepared import PreparedStatements
from micromegas_jupyter.server.queries import QueryRunner
from micromegas_jupyter.server.reloading import RELOAD_ACTION, AccessReload
from micromegas_jupyter.server.running_queries import CancelStatus, RunningQueries, join_statuses, query_key
from micromegas_jupyter.server.tickets import Tickets, write_endpoint

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
        "reads_nothing": caller.table_access is not None and not caller.table_access.filters,
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
