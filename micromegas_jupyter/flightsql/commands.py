"""Flight SQL commands as values: read tickets, descriptors and action bodies, pack messages, refuse the rest.

Every `parse_` function raises `UsageError` for bytes that are not the expected message, and `UnsupportedRequest` or
`StatementRefused` for a well-formed request that this server does not offer.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import any_pb2
from google.protobuf.message import DecodeError

from micromegas_jupyter.core.protocols import WriteMode
from micromegas_jupyter.errors import MicromegasError, StatementRefused, UnsupportedRequest, UsageError
from micromegas_jupyter.flightsql import messages

_MAX_NAME_LENGTH: Final = 80
_USE_A_CLIENT: Final = "Use a Flight SQL client."
_NO_TRANSACTIONS: Final = "Leave transactions out (autocommit); each statement stands alone."
_SQL_INSTEAD: Final = "Send SQL."
_UPDATES: Final = frozenset({"CommandStatementUpdate", "CommandPreparedStatementUpdate"})
_REMEDIES: Final = {
    "CommandStatementSubstraitPlan": _SQL_INSTEAD,
    "CreatePreparedSubstraitPlan": _SQL_INSTEAD,
    "BeginTransaction": _NO_TRANSACTIONS,
    "EndTransaction": _NO_TRANSACTIONS,
    "BeginSavepoint": _NO_TRANSACTIONS,
    "EndSavepoint": _NO_TRANSACTIONS,
    "ListFlights": "List the tables with CommandGetTables.",
    "DoExchange": "Query with GetFlightInfo and DoGet.",
}
_METADATA: Final = frozenset(
    {
        "CommandGetSqlInfo",
        "CommandGetCatalogs",
        "CommandGetDbSchemas",
        "CommandGetTables",
        "CommandGetTableTypes",
        "CommandGetPrimaryKeys",
        "CommandGetExportedKeys",
        "CommandGetImportedKeys",
        "CommandGetCrossReference",
        "CommandGetXdbcTypeInfo",
    }
)
# Source: FlightSql.proto, CommandStatementIngest.TableDefinitionOptions.
_IF_MISSING_CREATE: Final = 1
_IF_MISSING_FAIL: Final = 2
_IF_EXISTS_FAIL: Final = 1
_IF_EXISTS_APPEND: Final = 2
_IF_EXISTS_REPLACE: Final = 3
_MODES: Final = {
    (_IF_MISSING_FAIL, _IF_EXISTS_APPEND): WriteMode.APPEND,
    (_IF_MISSING_CREATE, _IF_EXISTS_FAIL): WriteMode.CREATE,
    (_IF_MISSING_CREATE, _IF_EXISTS_APPEND): WriteMode.CREATE_OR_APPEND,
}
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
class MetadataQuery:
    """Describe what the server holds and knows: tables, keys, types, facts.

    Attributes:
        name: The command, such as `CommandGetTables`.
        message: The command's message.
    """

    name: str
    message: Any

    def optional(self, field: str) -> Any:
        """Return a field's value, None when it was not sent."""
        return getattr(self.message, field) if self.message.HasField(field) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedQuery:
    """Run what a ticket of this package's server stands for; only the server can verify `signed`."""

    signed: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestCommand:
    """Put the rows that follow into a table."""

    table: str
    mode: WriteMode


Command = StatementQuery | PreparedQuery | MetadataQuery


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


def issued_ticket(signed: bytes) -> bytes:
    """Return a ticket of the server's own: `TicketStatementQuery` in `Any`, its handle for the server alone."""
    return pack_any(messages.TicketStatementQuery(statement_handle=_ISSUED_PREFIX + signed))


def parse_ticket(data: bytes) -> Command | IssuedQuery:
    """Read the bytes of a `Ticket`: any command in `Any`, or a bare `TicketStatementQuery`."""
    envelope = _flight_sql_envelope(data)
    if envelope is not None and envelope.TypeName() != messages.TicketStatementQuery.DESCRIPTOR.full_name:
        return _parse_command(envelope)
    ticket = parse_message(messages.TicketStatementQuery, data if envelope is None else envelope.value)
    ticket.DiscardUnknownFields()
    if not ticket.statement_handle or (envelope is None and ticket.ByteSize() != len(data)):
        raise UsageError("The ticket is not a Flight SQL ticket.", remedy="Use a ticket from GetFlightInfo.")
    handle: bytes = ticket.statement_handle
    if handle.startswith(_ISSUED_PREFIX):
        return IssuedQuery(signed=handle.removeprefix(_ISSUED_PREFIX))
    try:
        return StatementQuery(sql=handle.decode("utf-8"))
    except UnicodeDecodeError:
        raise UsageError("The statement is not UTF-8 text.", remedy="Send the SQL as UTF-8.") from None


def parse_descriptor(descriptor: Any) -> Command:
    """Read a `FlightDescriptor` that carries a command."""
    if descriptor.type != messages.FlightDescriptor.CMD:
        raise UnsupportedRequest("Describe a flight by a Flight SQL command; paths are not offered.")
    envelope = _flight_sql_envelope(descriptor.cmd)
    if envelope is None:
        raise UsageError("The descriptor does not hold a Flight SQL command.", remedy=_USE_A_CLIENT)
    return _parse_command(envelope)


def parse_ingest_descriptor(descriptor: Any) -> IngestCommand | None:
    """Read a `FlightDescriptor`; None when it carries another command, or none.

    A command without options appends, as upstream's client means it.
    """
    envelope = _flight_sql_envelope(descriptor.cmd)
    if envelope is None or envelope.TypeName() != messages.CommandStatementIngest.DESCRIPTOR.full_name:
        return None
    command = parse_message(messages.CommandStatementIngest, envelope.value)
    if command.catalog or command.schema:
        raise UnsupportedRequest(
            "Tables are in one catalog and one schema here, both without a name.",
            remedy="Leave catalog and schema out.",
        )
    if command.temporary:
        raise UnsupportedRequest("Temporary tables are not offered.", remedy="Give the table a name and keep it.")
    if command.transaction_id:
        raise UnsupportedRequest(
            "Transactions are not offered.",
            remedy="Send the rows without one: each call is stored whole or not at all.",
        )
    if command.options:
        raise UnsupportedRequest("Ingest has no options of its own here.", remedy="Leave the options out.")
    options = command.table_definition_options
    if options.if_exists == _IF_EXISTS_REPLACE:
        raise UnsupportedRequest(
            "A table is never replaced: what is stored stays.",
            remedy='Append to it (mode "append"), or create a table with another name.',
        )
    mode = _MODES.get((options.if_not_exist or _IF_MISSING_FAIL, options.if_exists or _IF_EXISTS_APPEND))
    if mode is None:
        raise UsageError(
            "With these options the call fails with the table and without it.",
            remedy="Ask to create the table, to append to it, or for both.",
        )
    return IngestCommand(table=command.table, mode=mode)


def parse_message(message_class: Any, data: bytes) -> Any:
    """Decode `data` as the given message."""
    try:
        return message_class.FromString(data)
    except DecodeError:
        name = message_class.DESCRIPTOR.name
        raise UsageError(f"The request is not a valid {name}.", remedy=_USE_A_CLIENT) from None


def parse_action_body(message_class: Any, body: bytes) -> Any:
    """Decode an action's body: the given message in `Any`."""
    envelope = _flight_sql_envelope(body)
    if envelope is None or envelope.TypeName() != message_class.DESCRIPTOR.full_name:
        raise UsageError(f"The action's body is not {message_class.DESCRIPTOR.name}.", remedy=_USE_A_CLIENT)
    return parse_message(message_class, envelope.value)


def parse_plain_body(message_class: Any, body: bytes) -> Any:
    """Decode the body of one of Flight's own actions: the given message, or that message in `Any`."""
    with suppress(DecodeError):
        envelope = any_pb2.Any.FromString(body)
        if envelope.TypeName() == message_class.DESCRIPTOR.full_name:
            body = envelope.value
    return parse_message(message_class, body)


def refuse_action(name: str) -> UnsupportedRequest:
    """Return the error for an action that is not offered, by its type."""
    return _refuse(f"the action {printable_name(name)}", name)


def refuse_method(path: str) -> UnsupportedRequest:
    """Return the error for a method that is not offered, by its path in gRPC."""
    return _refuse(printable_name(path), path.rpartition("/")[2])


def refuse_transaction() -> UnsupportedRequest:
    """Return the error for a statement that would belong to a transaction."""
    return UnsupportedRequest("This server has no transactions.", remedy=_NO_TRANSACTIONS)


def printable_name(name: str) -> str:
    """Return a name that a caller sent as short, printable ASCII, fit for a sentence."""
    return "".join(c if " " < c < "\x7f" else "?" for c in name[:_MAX_NAME_LENGTH])


def _refuse(what: str, name: str) -> UnsupportedRequest:
    return UnsupportedRequest(f"This server does not offer {what}.", remedy=_REMEDIES.get(name))


def _flight_sql_envelope(data: bytes) -> any_pb2.Any | None:
    """Return `data` as an `Any` around a Flight SQL message, else None.

    A bare ticket has the same first field as an `Any`, so only the type name distinguishes them.
    """
    try:
        envelope = any_pb2.Any.FromString(data)
    except DecodeError:
        return None
    return envelope if envelope.TypeName().startswith(_TYPE_PREFIX) else None


def _parse_command(envelope: any_pb2.Any) -> Command:
    name = envelope.TypeName().removeprefix(_TYPE_PREFIX)
    if name == "CommandStatementQuery":
        statement = parse_message(messages.CommandStatementQuery, envelope.value)
        if statement.transaction_id:
            raise refuse_transaction()
        return StatementQuery(sql=statement.query)
    if name == "CommandPreparedStatementQuery":
        command = parse_message(messages.CommandPreparedStatementQuery, envelope.value)
        return PreparedQuery(handle=command.prepared_statement_handle)
    if name in _METADATA:
        return MetadataQuery(name=name, message=parse_message(getattr(messages, name), envelope.value))
    raise _refuse_command(name)


def _refuse_command(name: str) -> MicromegasError:
    if name in _UPDATES:
        return StatementRefused(
            "This server accepts no updates: SQL only reads here.",
            remedy="Run a reading statement as a query (execute, not executemany or execute_update).",
        )
    return _refuse(printable_name(name), name)
