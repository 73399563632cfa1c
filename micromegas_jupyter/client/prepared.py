"""Prepared statements on the wire: create, bind, run, close.

Source: Flight SQL, "Commands": `CreatePreparedStatement` → `DoPut CommandPreparedStatementQuery` → `GetFlightInfo` →
`DoGet` → `ClosePreparedStatement`. Which values are bound is `parameters`' job.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pyarrow as pa
from pyarrow import flight

from micromegas_jupyter.client.call_record import CallRecord
from micromegas_jupyter.client.calls import Call
from micromegas_jupyter.client.parameters import BoundStatement
from micromegas_jupyter.client.pump import BatchStream
from micromegas_jupyter.client.transport import FlightStream, Transport
from micromegas_jupyter.errors import (
    InternalError,
    MicromegasError,
    QueryError,
    UnsupportedRequest,
    UnsupportedStatement,
    UsageError,
)
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import pack_any, parse_action_body, parse_message

CONTROL_TIMEOUT_SECONDS: Final = 30.0
"""How long a call may last that moves no rows."""

_CLOSE_TIMEOUT_SECONDS: Final = 5.0
_WITHOUT_VALUES: Final = "Write the values into the statement, or use a server that prepares statements."


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedStatement:
    """A statement that a server has understood.

    Attributes:
        query: The SQL.
        dataset_schema: The schema of its result.
        parameter_schema: A column for each placeholder; empty when the server does not tell.
    """

    query: str = field(repr=False)
    dataset_schema: pa.Schema
    parameter_schema: pa.Schema = field(default_factory=lambda: pa.schema([]))


def control_call(call: Call, timeout_seconds: float = CONTROL_TIMEOUT_SECONDS) -> Call:
    """Return a call with the same record that moves no rows and therefore ends soon."""
    return replace(call, timeout_seconds=min(timeout_seconds, call.timeout_seconds or timeout_seconds))


def prepare(transport: Transport, sql: str, call: Call) -> PreparedStatement:
    """Let the server plan a statement, and forget it again.

    Raises:
        MicromegasError: The call failed.
        UnsupportedRequest: The server prepares no statements.
    """
    created = _create(transport, sql, call)
    _close(transport, created.prepared_statement_handle, call)
    try:
        return PreparedStatement(
            query=sql,
            dataset_schema=_read_schema(created.dataset_schema),
            parameter_schema=_read_schema(created.parameter_schema),
        )
    except (pa.ArrowException, OSError) as error:
        raise InternalError("The server described the statement in a way that cannot be read.") from error


def open_bound(transport: Transport, statement: BoundStatement, call: Call) -> BatchStream:
    """Start a statement with its values; returns when the schema of the result is here.

    Raises:
        MicromegasError: The call failed.
        UnsupportedRequest: The server does not take values apart from the statement.
    """
    with places_as_given(statement):
        handle = _create(transport, statement.sql, call).prepared_statement_handle
        try:
            handle = _bind(transport, handle, statement.row, call)
            command = pack_any(messages.CommandPreparedStatementQuery(prepared_statement_handle=handle))
            with _unless_unsupported(call):
                info = transport.get_flight_info(command, control_call(call))
            stream = transport.do_get(only_ticket(info), call)
        except BaseException:
            _close(transport, handle, call)
            raise
    return _PreparedStream(stream, transport=transport, handle=handle, call=call)


class _PreparedStream:
    """The result of a prepared statement, which is closed on the server with it."""

    def __init__(self, stream: FlightStream, *, transport: Transport, handle: bytes, call: Call) -> None:
        self._stream = stream
        self._transport = transport
        self._handle = handle
        self._call = call

    @property
    def schema(self) -> pa.Schema:
        return self._stream.schema

    def read_batch(self) -> pa.RecordBatch | None:
        return self._stream.read_batch()

    def cancel(self) -> None:
        self._stream.cancel()

    def close(self) -> None:
        _close(self._transport, self._handle, self._call)


def _create(transport: Transport, sql: str, call: Call) -> Any:
    request = messages.ActionCreatePreparedStatementRequest(query=sql)
    with _unless_unsupported(call):
        results = transport.do_action("CreatePreparedStatement", pack_any(request), control_call(call))
    if not results:
        raise UnsupportedRequest("The server prepares no statements.", remedy=_WITHOUT_VALUES)
    try:
        return parse_action_body(messages.ActionCreatePreparedStatementResult, results[0])
    except UsageError as error:
        raise InternalError("The server's answer is not a prepared statement.") from error


def _bind(transport: Transport, handle: bytes, row: pa.RecordBatch, call: Call) -> bytes:
    """Send the values; returns the handle that holds from now on (Flight SQL, DoPutPreparedStatementResult)."""
    command = pack_any(messages.CommandPreparedStatementQuery(prepared_statement_handle=handle))
    with _unless_unsupported(call):
        answer = transport.do_put(command, row.schema, [row], control_call(call))
    try:
        renewed = parse_message(messages.DoPutPreparedStatementResult, answer or b"")
    except UsageError as error:
        raise InternalError("The server's answer to the statement's values cannot be read.") from error
    return bytes(renewed.prepared_statement_handle) or handle


def only_ticket(info: flight.FlightInfo) -> bytes:
    """Return the ticket of an answer that comes in one part.

    Raises:
        UnsupportedRequest: It comes in several.
    """
    if len(info.endpoints) != 1:
        raise UnsupportedRequest("The server answers in several parts, which this client does not join.")
    ticket: bytes = info.endpoints[0].ticket.ticket
    return ticket


def _close(transport: Transport, handle: bytes, call: Call) -> None:
    """Let the server forget a statement; it does so by itself when it cannot be told."""
    request = messages.ActionClosePreparedStatementRequest(prepared_statement_handle=handle)
    quiet = replace(control_call(call, _CLOSE_TIMEOUT_SECONDS), record=CallRecord())
    with suppress(MicromegasError):
        transport.do_action("ClosePreparedStatement", pack_any(request), quiet)


@contextmanager
def places_as_given(statement: BoundStatement) -> Iterator[None]:
    """Let an error point into the statement that was given, not into the one that was sent."""
    try:
        yield
    except QueryError as error:
        if error.line is not None and error.column is not None:
            error.column = statement.given_column(error.line, error.column)
        raise


@contextmanager
def _unless_unsupported(call: Call) -> Iterator[None]:
    """Say that the server lacks prepared statements, unless it says itself that the statement is at fault."""
    try:
        yield
    except (UnsupportedStatement, UnsupportedRequest) as error:
        if isinstance(error, UnsupportedStatement) and call.record.error_details is not None:
            raise
        raise UnsupportedRequest(
            "The server does not take values apart from the statement.", remedy=_WITHOUT_VALUES, query_id=error.query_id
        ) from error


def _read_schema(data: bytes) -> pa.Schema:
    if not data:
        return pa.schema([])
    with pa.ipc.open_stream(data) as reader:
        return reader.schema
