"""The methods of Flight SQL: which call asks for what, and the shape of its answer.

Who calls is known when a method starts; running queries is `queries`' job, describing the database `catalog`'s.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import pyarrow as pa

from micromegas_jupyter.config.access import READ_SCOPE
from micromegas_jupyter.errors import DeadlineExceeded, UnsupportedRequest
from micromegas_jupyter.executors.pool import ClientGone
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import (
    Command,
    IssuedQuery,
    PreparedQuery,
    StatementQuery,
    parse_descriptor,
    parse_message,
    parse_ticket,
    prepared_ticket,
)
from micromegas_jupyter.flightsql.framing import FlightDataEncoder, ParameterLimits
from micromegas_jupyter.flightsql.ingest_command import parse_ingest_descriptor
from micromegas_jupyter.flightsql.metadata_commands import TablesQuery
from micromegas_jupyter.server.calls import Call
from micromegas_jupyter.server.catalog import ServerFacts, build_metadata, metadata_schema
from micromegas_jupyter.server.flight_actions import FlightActions
from micromegas_jupyter.server.ingest import IngestRunner
from micromegas_jupyter.server.prepared import PreparedStatements, pack_frames, unpack_frames
from micromegas_jupyter.server.queries import QueryRunner
from micromegas_jupyter.server.running_queries import query_key
from micromegas_jupyter.server.tickets import Tickets, write_endpoint

_PARAMETER_LIMITS: Final = ParameterLimits()
_UNKNOWN_SIZE: Final = -1
_Statement = StatementQuery | PreparedQuery


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
