"""The methods of Flight SQL: which call asks for what, and the shape of its answer.

Who calls is known when a method starts; running queries is `queries`' job, describing the database `catalog`'s.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from itertools import accumulate
from typing import Any, Final

import pyarrow as pa

from micromegas_jupyter.engine import Engine
from micromegas_jupyter.errors import ResourcesExhausted, UnsupportedRequest
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import (
    Command,
    PreparedQuery,
    StatementQuery,
    pack_any,
    parse_action_body,
    parse_descriptor,
    parse_message,
    parse_ticket,
    prepared_ticket,
    statement_ticket,
)
from micromegas_jupyter.flightsql.framing import FlightDataEncoder, ParameterLimits, decode_parameters
from micromegas_jupyter.flightsql.refusals import refuse_action, refuse_transaction
from micromegas_jupyter.server.calls import Call
from micromegas_jupyter.server.catalog import build_metadata, metadata_schema
from micromegas_jupyter.server.prepared import PreparedStatements
from micromegas_jupyter.server.queries import QueryRunner
from micromegas_jupyter.server.reloading import RELOAD_ACTION, AccessReload
from micromegas_jupyter.server.sql_info import ServerFacts
from micromegas_jupyter.settings import READ_SCOPE

_PARAMETER_LIMITS: Final = ParameterLimits()
_UNKNOWN_SIZE: Final = -1
# A client takes an answer of 16 kB.
_MAX_GROUPS_BYTES: Final = 4 * 1024
_ACTIONS: Final = {
    "CreatePreparedStatement": "Prepare a statement: ActionCreatePreparedStatementRequest to its Result.",
    "ClosePreparedStatement": "Forget a prepared statement: ActionClosePreparedStatementRequest, no result.",
    "MicromegasWhoAmI": "Tell who the caller is: no body, one JSON object.",
}
_RELOAD_DESCRIPTION: Final = "Read the access configuration again: no body, one JSON object. For administrators."


class FlightMethods:
    """Answers the calls of known callers.

    Args:
        engine: Knows the tables.
        queries: Plans and runs statements.
        prepared: Keeps prepared statements.
        access_reload: Reloads the access configuration.
        facts: What the server tells about itself beyond what always holds.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        queries: QueryRunner,
        prepared: PreparedStatements,
        access_reload: AccessReload,
        facts: ServerFacts,
    ) -> None:
        self._engine = engine
        self._queries = queries
        self._prepared = prepared
        self._access_reload = access_reload
        self._facts = facts

    def by_name(self) -> dict[str, Callable[[Call], Awaitable[None]]]:
        """Return the methods that are offered, by their names in the Flight service."""
        return {
            "GetFlightInfo": _reading(self._get_flight_info),
            "GetSchema": _reading(self._get_schema),
            "DoGet": _reading(self._do_get),
            "DoPut": _reading(self._do_put),
            "DoAction": self._do_action,
            "ListActions": self._list_actions,
        }

    async def _get_flight_info(self, call: Call) -> None:
        descriptor = parse_message(messages.FlightDescriptor, await call.read_only_message())
        command = parse_descriptor(descriptor)
        await call.announce_query_id()
        schema = await self._find_schema(call, command)
        ticket = messages.Ticket(ticket=_build_ticket(command, descriptor.cmd))
        info = messages.FlightInfo(
            schema=schema.serialize().to_pybytes(),
            flight_descriptor=descriptor,
            endpoint=[messages.FlightEndpoint(ticket=ticket)],
            total_records=_UNKNOWN_SIZE,
            total_bytes=_UNKNOWN_SIZE,
        )
        await call.write(info.SerializeToString())

    async def _get_schema(self, call: Call) -> None:
        command = parse_descriptor(parse_message(messages.FlightDescriptor, await call.read_only_message()))
        await call.announce_query_id()
        schema = await self._find_schema(call, command)
        await call.write(messages.SchemaResult(schema=schema.serialize().to_pybytes()).SerializeToString())

    async def _do_get(self, call: Call) -> None:
        command = parse_ticket(parse_message(messages.Ticket, await call.read_only_message()).ticket)
        await call.announce_query_id()
        match command:
            case StatementQuery():
                await self._queries.run(call, command.sql, None)
            case PreparedQuery():
                statement = self._prepared.get(command.handle, call.caller_key)
                await self._queries.run(call, statement.sql, statement.parameters)
            case _:
                tables = await asyncio.to_thread(self._engine.tables, call.caller)
                await _send_batch(call, build_metadata(command, tables, self._facts))

    async def _do_put(self, call: Call) -> None:
        first = await call.read_only_message()
        command = parse_descriptor(parse_message(messages.FlightData, first).flight_descriptor)
        if not isinstance(command, PreparedQuery):
            raise UnsupportedRequest("Data is accepted only as the parameters of a prepared statement.")
        self._prepared.get(command.handle, call.caller_key)
        frames = await _read_frames(call, first)
        self._prepared.bind(command.handle, decode_parameters(frames, limits=_PARAMETER_LIMITS), call.caller_key)
        result = messages.DoPutPreparedStatementResult(prepared_statement_handle=command.handle)
        await call.write(messages.PutResult(app_metadata=result.SerializeToString()).SerializeToString())

    async def _do_action(self, call: Call) -> None:
        action = parse_message(messages.Action, await call.read_only_message())
        match action.type:
            case "CreatePreparedStatement":
                call.require_scope(READ_SCOPE)
                await self._create_prepared_statement(call, action.body)
            case "ClosePreparedStatement":
                call.require_scope(READ_SCOPE)
                request = parse_action_body(messages.ActionClosePreparedStatementRequest, action.body)
                self._prepared.close(request.prepared_statement_handle, call.caller_key)
            case "MicromegasWhoAmI":
                await call.write(messages.Result(body=_describe_caller(call)).SerializeToString())
            case name if name == RELOAD_ACTION:
                await self._access_reload.run(call)
            case _:
                raise refuse_action(action.type)

    async def _create_prepared_statement(self, call: Call, body: bytes) -> None:
        request = parse_action_body(messages.ActionCreatePreparedStatementRequest, body)
        if request.transaction_id:
            raise refuse_transaction()
        await call.announce_query_id()
        planned = await self._queries.plan(call, request.query, None)
        result = messages.ActionCreatePreparedStatementResult(
            prepared_statement_handle=self._prepared.add(request.query, call.caller_key),
            dataset_schema=planned.schema.serialize().to_pybytes(),
            parameter_schema=planned.parameter_schema.serialize().to_pybytes(),
        )
        await call.write(messages.Result(body=pack_any(result)).SerializeToString())

    async def _list_actions(self, call: Call) -> None:
        await call.read_only_message()
        offered = dict(_ACTIONS)
        if self._access_reload.is_offered_to(call.caller):
            offered[RELOAD_ACTION] = _RELOAD_DESCRIPTION
        for name, description in offered.items():
            await call.write(messages.ActionType(type=name, description=description).SerializeToString())

    async def _find_schema(self, call: Call, command: Command) -> pa.Schema:
        """Return the exact schema of a command's rows: some clients refuse rows of another schema than announced."""
        match command:
            case StatementQuery():
                return (await self._queries.plan(call, command.sql, None)).schema
            case PreparedQuery():
                statement = self._prepared.get(command.handle, call.caller_key)
                return (await self._queries.plan(call, statement.sql, statement.parameters)).schema
            case _:
                return metadata_schema(command)


def _reading(method: Callable[[Call], Awaitable[None]]) -> Callable[[Call], Awaitable[None]]:
    """Return the method for callers who may read."""

    async def answer(call: Call) -> None:
        call.require_scope(READ_SCOPE)
        await method(call)

    return answer


def _build_ticket(command: Command, packed: bytes) -> bytes:
    match command:
        case StatementQuery():
            return statement_ticket(command.sql)
        case PreparedQuery():
            return prepared_ticket(command.handle)
        case _:
            return packed


async def _send_batch(call: Call, batch: pa.RecordBatch) -> None:
    encoder = FlightDataEncoder(batch.schema)
    await call.write(encoder.encode_schema())
    for message in encoder.encode_batch(batch):
        await call.write(message)


async def _read_frames(call: Call, first: bytes) -> list[bytes]:
    """Read the rest of a parameter stream, no further than what would be accepted."""
    frames, size = [first], len(first)
    while (frame := await call.read()) is not None:
        frames.append(frame)
        size += len(frame)
        if size > _PARAMETER_LIMITS.max_bytes or len(frames) > _PARAMETER_LIMITS.max_messages:
            raise ResourcesExhausted("The parameters are larger than this server takes.", remedy="Bind fewer values.")
    return frames


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
