"""Flight SQL commands as values: read tickets, descriptors and action bodies, pack messages, refuse the rest.

Every `parse_` function raises `UsageError` for bytes that are not the expected message, and `UnsupportedRequest` or
`StatementRefused` for a well-formed request that this server does not offer.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import any_pb2
from google.protobuf.message import DecodeError

from micromegas_jupyter.core.protocols import WriteMode
from micromegas_jupyter.errors import MicromegasError, StatementRefused, UnsupportedRequest, UsageError
from micromegas_jupyter.flightsql import messages

_MAX_NAME_LENGTH: Final = 80
_ONLY_READS: Final = "This server takes no updates: SQL only reads here."
_READ_INSTEAD: Final = "Run a reading statement as a query (execute, not executemany or execute_update)."
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


def refuse_command(name: str) -> MicromegasError:
    """Return the error for a command, by the name of its message."""
    if name in _UPDATES:
        return StatementRefused(_ONLY_READS, remedy=_READ_INSTEAD)
    return UnsupportedRequest(f"This server does not offer {printable_name(name)}.", remedy=_REMEDIES.get(name))


def refuse_action(name: str) -> UnsupportedRequest:
    """Return the error for an action, by its type."""
    what = f"This server does not offer the action {printable_name(name)}."
    return UnsupportedRequest(what, remedy=_REMEDIES.get(name))


def refuse_method(path: str) -> UnsupportedRequest:
    """Return the error for a method, by its path in gRPC."""
    remedy = _REMEDIES.get(path.rpartition("/")[2])
    return UnsupportedRequest(f"This server does not offer {printable_name(path)}.", remedy=remedy)


def printable_name(name: str) -> str:
    """Return a name that a caller sent so that it can stand in a sentence: short, printable ASCII."""
    return "".join(c if " " < c < "\x7f" else "?" for c in name[:_MAX_NAME_LENGTH])


def refuse_transaction() -> UnsupportedRequest:
    """Return the error for a statement that would belong to a transaction."""
    return UnsupportedRequest("This server has no transactions.", remedy=_NO_TRANSACTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlInfoQuery:
    """Describe the server; `info_ids` empty asks for everything."""

    info_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogsQuery:
    """List the catalogs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DbSchemasQuery:
    """List the schemas; `catalog` is exact, the pattern knows `%` and `_`, None means any."""

    catalog: str | None
    schema_pattern: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TablesQuery:
    """List the tables; names are patterns with `%` and `_`, `table_types` empty means any."""

    catalog: str | None
    schema_pattern: str | None
    table_pattern: str | None
    table_types: tuple[str, ...]
    include_schema: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TableTypesQuery:
    """List the kinds of table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrimaryKeysQuery:
    """List the columns of a table's primary key."""

    table: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignKeysQuery:
    """List foreign keys: those that a table has, those that refer to it, or those between two tables.

    All three are answered by the same columns; a side that is not asked about is None.
    """

    primary_table: str | None
    foreign_table: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeInfoQuery:
    """Describe the types of columns; `data_type` is a number of `XdbcDataType`, None means all."""

    data_type: int | None


MetadataCommand = (
    SqlInfoQuery
    | CatalogsQuery
    | DbSchemasQuery
    | TablesQuery
    | TableTypesQuery
    | PrimaryKeysQuery
    | ForeignKeysQuery
    | TypeInfoQuery
)


def parse_metadata_command(name: str, data: bytes) -> MetadataCommand | None:
    """Read the message with this name; None when it is no such command.

    Raises:
        google.protobuf.message.DecodeError: The bytes are not that message.
    """
    found = _READERS.get(name)
    if found is None:
        return None
    message_class, read = found
    return read(message_class.FromString(data))


def _read_db_schemas(command: Any) -> DbSchemasQuery:
    return DbSchemasQuery(
        catalog=_optional(command, "catalog"), schema_pattern=_optional(command, "db_schema_filter_pattern")
    )


def _read_tables(command: Any) -> TablesQuery:
    return TablesQuery(
        catalog=_optional(command, "catalog"),
        schema_pattern=_optional(command, "db_schema_filter_pattern"),
        table_pattern=_optional(command, "table_name_filter_pattern"),
        table_types=tuple(command.table_types),
        include_schema=command.include_schema,
    )


def _read_type_info(command: Any) -> TypeInfoQuery:
    return TypeInfoQuery(data_type=command.data_type if command.HasField("data_type") else None)


def _optional(message: Any, field: str) -> str | None:
    if not message.HasField(field):
        return None
    value: str = getattr(message, field)
    return value


_READERS: Final[dict[str, tuple[Any, Callable[[Any], MetadataCommand]]]] = {
    "CommandGetSqlInfo": (messages.CommandGetSqlInfo, lambda command: SqlInfoQuery(info_ids=tuple(command.info))),
    "CommandGetCatalogs": (messages.CommandGetCatalogs, lambda _: CatalogsQuery()),
    "CommandGetDbSchemas": (messages.CommandGetDbSchemas, _read_db_schemas),
    "CommandGetTables": (messages.CommandGetTables, _read_tables),
    "CommandGetTableTypes": (messages.CommandGetTableTypes, lambda _: TableTypesQuery()),
    "CommandGetPrimaryKeys": (messages.CommandGetPrimaryKeys, lambda command: PrimaryKeysQuery(table=command.table)),
    "CommandGetExportedKeys": (
        messages.CommandGetExportedKeys,
        lambda command: ForeignKeysQuery(primary_table=command.table, foreign_table=None),
    ),
    "CommandGetImportedKeys": (
        messages.CommandGetImportedKeys,
        lambda command: ForeignKeysQuery(primary_table=None, foreign_table=command.table),
    ),
    "CommandGetCrossReference": (
        messages.CommandGetCrossReference,
        lambda command: ForeignKeysQuery(primary_table=command.pk_table, foreign_table=command.fk_table),
    ),
    "CommandGetXdbcTypeInfo": (messages.CommandGetXdbcTypeInfo, _read_type_info),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestCommand:
    """Put the rows that follow into a table."""

    table: str
    mode: WriteMode


def parse_ingest_descriptor(descriptor: Any) -> IngestCommand | None:
    """Read a `FlightDescriptor`; None when it carries another command, or none.

    A command without options appends, as upstream's client means it.

    Raises:
        UsageError: The command is not a valid message, or its options contradict each other.
        UnsupportedRequest: It asks for something that is not offered.
    """
    try:
        envelope = any_pb2.Any.FromString(descriptor.cmd)
        if envelope.TypeName() != messages.CommandStatementIngest.DESCRIPTOR.full_name:
            return None
    except DecodeError:
        return None
    try:
        command = messages.CommandStatementIngest.FromString(envelope.value)
    except DecodeError:
        raise UsageError(
            "The request is not a valid CommandStatementIngest.", remedy="Use a Flight SQL client."
        ) from None
    _refuse_what_is_not_offered(command)
    return IngestCommand(table=command.table, mode=_read_mode(command.table_definition_options))


def _refuse_what_is_not_offered(command: Any) -> None:
    if command.catalog or command.schema:
        raise UnsupportedRequest(
            "Tables lie in one catalog and one schema here, both without a name.",
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
        raise UnsupportedRequest("Ingest takes no options of its own here.", remedy="Leave the options out.")


def _read_mode(options: Any) -> WriteMode:
    if options.if_exists == _IF_EXISTS_REPLACE:
        raise UnsupportedRequest(
            "A table is never replaced: what is stored stays.",
            remedy='Append to it (mode "append"), or create a table with another name.',
        )
    choice = (options.if_not_exist or _IF_MISSING_FAIL, options.if_exists or _IF_EXISTS_APPEND)
    mode = _MODES.get(choice)
    if mode is None:
        raise UsageError(
            "The options let the call succeed neither with the table nor without it.",
            remedy="Ask to create the table, to append to it, or for both.",
        )
    return mode


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
