"""Flight SQL commands as values: pack messages into `Any`, read tickets, descriptors and action bodies.

Running a command is the server's job, sending one the client's.

Every `parse_` function raises `UsageError` for bytes that are not the message they should be, and
`UnsupportedRequest` for a well-formed request that nobody here answers.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import any_pb2
from google.protobuf.message import DecodeError

from micromegas_jupyter.errors import UnsupportedRequest, UsageError
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.metadata_commands import MetadataCommand, parse_metadata_command
from micromegas_jupyter.flightsql.refusals import refuse_command, refuse_transaction

_TYPE_PREFIX: Final = "arrow.flight.protocol.sql."
# No text in UTF-8 holds the first byte, so SQL is never taken for an issued ticket.
_ISSUED_PREFIX: Final = b"\xffmicromegas-ticket-1:"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementQuery:
    """Run this SQL (`CommandStatementQuery`, or a `TicketStatementQuery` whose handle is the SQL)."""

    sql: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedQuery:
    """Run the prepared statement with this handle, with the parameters bound to it."""

    handle: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedQuery:
    """Run what a ticket stands for that a server of this package has issued; only the server can read `sealed`."""

    sealed: bytes


Command = StatementQuery | PreparedQuery | MetadataCommand
TicketCommand = Command | IssuedQuery


def pack_any(message: Any) -> bytes:
    """Return `message` inside a serialised `google.protobuf.Any`, as Flight SQL sends its messages."""
    envelope = any_pb2.Any()
    envelope.Pack(message)
    return envelope.SerializeToString()


def statement_ticket(sql: str) -> bytes:
    """Return the ticket that runs `sql` with one `DoGet`: `TicketStatementQuery` in `Any`, the SQL as its handle."""
    return pack_any(messages.TicketStatementQuery(statement_handle=sql.encode()))


def prepared_ticket(handle: bytes) -> bytes:
    """Return the ticket that runs a prepared statement."""
    return pack_any(messages.CommandPreparedStatementQuery(prepared_statement_handle=handle))


def issued_ticket(sealed: bytes) -> bytes:
    """Return a ticket of the server's own: `TicketStatementQuery` in `Any`, its handle for the server alone."""
    return pack_any(messages.TicketStatementQuery(statement_handle=_ISSUED_PREFIX + sealed))


def parse_ticket(data: bytes) -> TicketCommand:
    """Read the bytes of a `Ticket`: any command in `Any`, or a bare `TicketStatementQuery`.

    Raises:
        UsageError: Neither of the two.
        UnsupportedRequest: A command that is not read here.
    """
    envelope = _flight_sql_envelope(data)
    if envelope is not None and envelope.TypeName() != messages.TicketStatementQuery.DESCRIPTOR.full_name:
        return _parse_command(envelope)
    ticket = parse_message(messages.TicketStatementQuery, data if envelope is None else envelope.value)
    ticket.DiscardUnknownFields()
    if not ticket.statement_handle or (envelope is None and ticket.ByteSize() != len(data)):
        raise UsageError("The ticket is not a Flight SQL ticket.", remedy="Use a ticket from GetFlightInfo.")
    handle: bytes = ticket.statement_handle
    if handle.startswith(_ISSUED_PREFIX):
        return IssuedQuery(sealed=handle.removeprefix(_ISSUED_PREFIX))
    return StatementQuery(sql=_decode_sql(handle))


def parse_descriptor(descriptor: Any) -> Command:
    """Read a `FlightDescriptor` that carries a command.

    Raises:
        UsageError: The command is not a Flight SQL message.
        UnsupportedRequest: A path, or a command that is not read here.
    """
    if descriptor.type != messages.FlightDescriptor.CMD:
        raise UnsupportedRequest("A flight is described by a Flight SQL command here, not by a path.")
    envelope = _flight_sql_envelope(descriptor.cmd)
    if envelope is None:
        raise UsageError("The descriptor does not hold a Flight SQL command.", remedy="Use a Flight SQL client.")
    return _parse_command(envelope)


def parse_message(message_class: Any, data: bytes) -> Any:
    """Decode `data` as the given message.

    Raises:
        UsageError: The bytes are not such a message.
    """
    try:
        return message_class.FromString(data)
    except DecodeError:
        raise _not_valid(message_class.DESCRIPTOR.name) from None


def parse_action_body(message_class: Any, body: bytes) -> Any:
    """Decode an action's body: the given message in `Any`.

    Raises:
        UsageError: The body is not such a message.
    """
    envelope = _flight_sql_envelope(body)
    if envelope is None or envelope.TypeName() != message_class.DESCRIPTOR.full_name:
        name = message_class.DESCRIPTOR.name
        raise UsageError(f"The action's body is not {name}.", remedy="Use a Flight SQL client.")
    return parse_message(message_class, envelope.value)


def parse_plain_body(message_class: Any, body: bytes) -> Any:
    """Decode the body of one of Flight's own actions: the given message, or that message in `Any`.

    Raises:
        UsageError: The body is not such a message.
    """
    with suppress(DecodeError):
        envelope = any_pb2.Any.FromString(body)
        if envelope.TypeName() == message_class.DESCRIPTOR.full_name:
            body = envelope.value
    return parse_message(message_class, body)


def _flight_sql_envelope(data: bytes) -> any_pb2.Any | None:
    """Return `data` as an `Any` around a Flight SQL message, else None.

    A bare ticket has the same first field as an `Any`, so only the type name tells the two apart.
    """
    try:
        envelope = any_pb2.Any.FromString(data)
    except DecodeError:
        return None
    return envelope if envelope.TypeName().startswith(_TYPE_PREFIX) else None


def _parse_command(envelope: any_pb2.Any) -> Command:
    name = envelope.TypeName().removeprefix(_TYPE_PREFIX)
    match name:
        case "CommandStatementQuery":
            statement = parse_message(messages.CommandStatementQuery, envelope.value)
            if statement.transaction_id:
                raise refuse_transaction()
            return StatementQuery(sql=statement.query)
        case "CommandPreparedStatementQuery":
            command = parse_message(messages.CommandPreparedStatementQuery, envelope.value)
            return PreparedQuery(handle=command.prepared_statement_handle)
        case _:
            return _parse_other_command(name, envelope.value)


def _parse_other_command(name: str, data: bytes) -> MetadataCommand:
    try:
        command = parse_metadata_command(name, data)
    except DecodeError:
        raise _not_valid(name) from None
    if command is None:
        raise refuse_command(name)
    return command


def _decode_sql(handle: bytes) -> str:
    try:
        return handle.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError("The statement is not UTF-8 text.", remedy="Send the SQL as UTF-8.") from None


def _not_valid(name: str) -> UsageError:
    return UsageError(f"The request is not a valid {name}.", remedy="Use a Flight SQL client.")
