"""Everything on the wire except rows: messages, commands as values, and errors.

Every `parse_` function raises `UsageError` for bytes that are not the expected message.
"""

import re
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeGuard, cast
from urllib.parse import quote

import msgspec

from micromegas_jupyter.core.protocols import WriteMode
from micromegas_jupyter.core.text import JsonError, decode_strict_json
from micromegas_jupyter.errors import (
    ConfigurationError,
    Correction,
    CursorExpired,
    MicromegasError,
    QueryError,
    ResourcesExhausted,
    StatementRefused,
    Unavailable,
    UnsupportedRequest,
    UsageError,
    error_classes,
)

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any as Envelope
    from google.protobuf.descriptor_pool import DescriptorPool

FLIGHT_SERVICE: Final = "arrow.flight.protocol.FlightService"
_PACKAGES: Final = (
    "arrow.flight.protocol",
    "arrow.flight.protocol.sql",
    "grpc.health.v1",
    "google.rpc",
    "micromegas_jupyter",
)


def descriptor_set_bytes() -> bytes:
    """Return the committed descriptor set, as protoc wrote it."""
    return Path(__file__).with_name("proto").joinpath("wire.binpb").read_bytes()


class _Messages:
    """The message classes of Flight, Flight SQL, gRPC health and status, and issued tickets, by name.

    They have their own descriptor pool, because the default pool would reject a second Flight SQL client in the
    process. Protobuf is loaded for the first message; executors and some commands don't need it.
    """

    @cached_property
    def _pool(self) -> "DescriptorPool":
        from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, duration_pb2, timestamp_pb2

        pool = descriptor_pool.DescriptorPool()
        for module in (any_pb2, duration_pb2, timestamp_pb2):
            pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
        for file in descriptor_pb2.FileDescriptorSet.FromString(descriptor_set_bytes()).file:
            pool.AddSerializedFile(file.SerializeToString())
        return pool

    def __getattr__(self, name: str) -> Any:
        from google.protobuf import message_factory

        for package in _PACKAGES:
            with suppress(KeyError):
                descriptor = self._pool.FindMessageTypeByName(f"{package}.{name}")
                found = message_factory.GetMessageClass(descriptor)
                setattr(self, name, found)
                return found
        raise AttributeError(f"there is no message {name!r}")


messages: Final = _Messages()

_MAX_NAME_LENGTH: Final = 80
MAX_PARAMETERS: Final = 256
"""The maximum number of values in one statement, including elements of lists."""
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
    (_IF_MISSING_CREATE, _IF_EXISTS_REPLACE): WriteMode.REPLACE,
}
_TYPE_PREFIX: Final = "arrow.flight.protocol.sql."
# UTF-8 text never contains the first byte, so SQL is never mistaken for an issued ticket.
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
    """Describe the server's tables and features; `name` is the command, such as `CommandGetTables`."""

    name: str
    message: Any

    def optional(self, field: str) -> Any:
        """Return a field's value, or None if it was not sent."""
        return getattr(self.message, field) if self.message.HasField(field) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedQuery:
    """Run the query of a ticket that this package's server issued; only the server can verify `signed`."""

    signed: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestCommand:
    """Store the rows that follow in a table."""

    table: str
    mode: WriteMode


Command = StatementQuery | PreparedQuery | MetadataQuery


def pack_any(message: Any) -> bytes:
    """Return `message` inside a serialized `google.protobuf.Any`, as Flight SQL sends its messages."""
    from google.protobuf.any_pb2 import Any as Envelope

    envelope = Envelope()
    envelope.Pack(message)
    return envelope.SerializeToString()


def statement_ticket(sql: str) -> bytes:
    """Return the ticket that runs `sql` with one `DoGet`: `TicketStatementQuery` in `Any`, the SQL as its handle."""
    return pack_any(messages.TicketStatementQuery(statement_handle=sql.encode()))


def prepared_ticket(handle: bytes) -> bytes:
    """Return the ticket that runs a prepared statement."""
    return pack_any(messages.CommandPreparedStatementQuery(prepared_statement_handle=handle))


def issued_ticket(signed: bytes) -> bytes:
    """Return a server-issued ticket: `TicketStatementQuery` in `Any`, with an opaque handle."""
    return pack_any(messages.TicketStatementQuery(statement_handle=_ISSUED_PREFIX + signed))


def parse_ticket(data: bytes) -> Command | IssuedQuery:
    """Parse the bytes of a `Ticket`: any command in `Any`, or a bare `TicketStatementQuery`."""
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
    """Parse a `FlightDescriptor` that carries a command."""
    if descriptor.type != messages.FlightDescriptor.CMD:
        raise UnsupportedRequest("Describe the flight with a Flight SQL command. Paths aren't supported.")
    envelope = _flight_sql_envelope(descriptor.cmd)
    if envelope is None:
        raise UsageError("The descriptor does not contain a Flight SQL command.", remedy=_USE_A_CLIENT)
    return _parse_command(envelope)


def parse_ingest_descriptor(descriptor: Any) -> IngestCommand | None:
    """Parse a `FlightDescriptor`, which appends if it has no options; None if it carries another command."""
    envelope = _flight_sql_envelope(descriptor.cmd)
    if envelope is None or envelope.TypeName() != messages.CommandStatementIngest.DESCRIPTOR.full_name:
        return None
    command = parse_message(messages.CommandStatementIngest, envelope.value)
    if command.catalog or command.schema:
        raise UnsupportedRequest(
            "All tables are in one unnamed catalog and schema.",
            remedy="Omit the catalog and schema.",
        )
    if command.temporary:
        raise UnsupportedRequest("Temporary tables aren't supported.", remedy="Create a permanent table instead.")
    if command.transaction_id:
        raise UnsupportedRequest(
            "Transactions aren't supported.",
            remedy="Send the rows without a transaction. Each call is stored completely or not at all.",
        )
    if command.options:
        raise UnsupportedRequest("This server doesn't support ingest options.", remedy="Omit the options.")
    options = command.table_definition_options
    mode = _MODES.get((options.if_not_exist or _IF_MISSING_FAIL, options.if_exists or _IF_EXISTS_APPEND))
    if mode is None:
        raise UsageError(
            "With these options, the call fails whether or not the table exists.",
            remedy="Request creating the table, appending to it, both, or creating or replacing it.",
        )
    return IngestCommand(table=command.table, mode=mode)


def parse_message(message_class: Any, data: bytes) -> Any:
    """Decode `data` as the given message."""
    from google.protobuf.message import DecodeError

    try:
        return message_class.FromString(data)
    except DecodeError:
        name = message_class.DESCRIPTOR.name
        raise UsageError(f"The request is not a valid {name}.", remedy=_USE_A_CLIENT) from None


def parse_action_body(message_class: Any, body: bytes) -> Any:
    """Decode an action's body: the given message in `Any`."""
    envelope = _flight_sql_envelope(body)
    if envelope is None or envelope.TypeName() != message_class.DESCRIPTOR.full_name:
        raise UsageError(f"The action's body is not a valid {message_class.DESCRIPTOR.name}.", remedy=_USE_A_CLIENT)
    return parse_message(message_class, envelope.value)


def parse_plain_body(message_class: Any, body: bytes) -> Any:
    """Decode the body of one of Flight's own actions: the given message, or that message in `Any`."""
    envelope = _parse_envelope(body)
    if envelope is not None and envelope.TypeName() == message_class.DESCRIPTOR.full_name:
        body = envelope.value
    return parse_message(message_class, body)


def refuse(name: str, *, kind: str = "") -> UnsupportedRequest:
    """Return the error for an unsupported command, action type, or method path."""
    what = f"{kind} {printable_name(name)}".lstrip()
    return UnsupportedRequest(f"This server does not offer {what}.", remedy=_REMEDIES.get(name.rpartition("/")[2]))


def refuse_transaction() -> UnsupportedRequest:
    """Return the error for a statement in a transaction."""
    return UnsupportedRequest("This server has no transactions.", remedy=_NO_TRANSACTIONS)


def printable_name(name: str) -> str:
    """Return a name from a caller as short, printable ASCII, safe for messages."""
    return "".join(c if " " < c < "\x7f" else "?" for c in name[:_MAX_NAME_LENGTH])


def _parse_envelope(data: bytes) -> "Envelope | None":
    from google.protobuf.any_pb2 import Any as Envelope
    from google.protobuf.message import DecodeError

    try:
        return Envelope.FromString(data)
    except DecodeError:
        return None


def _flight_sql_envelope(data: bytes) -> "Envelope | None":
    """Return `data` as an `Any` around a Flight SQL message, or None; only the type name differs from a bare ticket."""
    envelope = _parse_envelope(data)
    return envelope if envelope is not None and envelope.TypeName().startswith(_TYPE_PREFIX) else None


def _parse_command(envelope: "Envelope") -> Command:
    name = envelope.TypeName().removeprefix(_TYPE_PREFIX)
    if name == "CommandStatementQuery":
        statement = parse_message(messages.CommandStatementQuery, envelope.value)
        if statement.transaction_id:
            raise refuse_transaction()
        return StatementQuery(sql=statement.query)
    if name == "CommandPreparedStatementQuery":
        command = parse_message(messages.CommandPreparedStatementQuery, envelope.value)
        return PreparedQuery(handle=command.prepared_statement_handle)
    if name.startswith("CommandGet") and hasattr(messages, name):
        return MetadataQuery(name=name, message=parse_message(getattr(messages, name), envelope.value))
    if name in _UPDATES:
        raise StatementRefused(
            "This server doesn't accept updates, because its SQL is read-only.",
            remedy="Run a SELECT statement as a query (execute, not executemany or execute_update).",
        )
    raise refuse(name)


ERROR_DETAILS_KEY = "micromegas-error-bin"
"""The trailing metadata key; gRPC carries `-bin` values as bytes."""

ESTIMATE_KEY = b"micromegas.estimate"
"""The key in the schema metadata from `GetSchema`: the statement's estimated reads, as JSON."""

MAX_DETAILS_BYTES = 4096
"""Maximum size of an encoded error. In base64, it leaves 2.7 kB of a client's usual 8 kB for everything else."""

MAX_STATUS_BYTES = 2048
"""Maximum size of a status text on the wire, percent-encoded (gRPC over HTTP/2, `grpc-message`)."""

_MAX_REMEDY_CHARACTERS = 512
_MAX_PARSED_CHARACTERS = 8192
_MAX_POSITION = 2**31 - 1
_MAX_CORRECTION_CHARACTERS = 200
_MAX_RETRY_SECONDS = 24 * 3600.0
_CUT = " …"

# Control characters, direction overrides and similar, surrogates, line and paragraph separators.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_UNENCODED = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")

_QUERY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_STATUS_TAIL = re.compile(
    r"\s?\[(?P<code>[A-Z]{3,8}[0-9]{3})\]"
    r"(?: \(line (?P<line>[0-9]{1,9})(?:, column (?P<column>[0-9]{1,9}))?\))?"
    r"(?: \(query_id=(?P<query_id>[A-Za-z0-9._-]{1,64})\))?"
)


def encode_error(error: MicromegasError) -> bytes:
    """Return `error` as compact JSON of at most `MAX_DETAILS_BYTES`; long messages are truncated."""
    details = _Details(code=error.code, what="", remedy=_cut(error.remedy))
    if is_query_id(error.query_id):
        details.query_id = error.query_id
    if isinstance(error, QueryError):
        places = (at if at is not None and 0 < at <= _MAX_POSITION else None for at in (error.line, error.column))
        details.line, details.column = places
        if error.correction is not None and len(error.correction.text) <= _MAX_CORRECTION_CHARACTERS:
            details.correction = error.correction
    delay = error.retry_after_seconds if isinstance(error, ResourcesExhausted) else None
    if delay is not None and 0 < delay <= _MAX_RETRY_SECONDS:
        details.retry_after_seconds = delay
    if isinstance(error, CursorExpired):
        details.restart_from = error.restart_from
    if isinstance(error, Unavailable):
        details.retryable = error.retryable
    max_cost = MAX_DETAILS_BYTES - len(msgspec.json.encode(details))
    what = printable_text(error.what)
    details.what = _fit(what, max_cost, cost=lambda text: len(msgspec.json.encode(text)) - 2)
    return msgspec.json.encode(details)


def decode_error(data: bytes) -> MicromegasError | None:
    """Return the error from `encode_error`, possibly with unknown names; None for anything else."""
    if len(data) > MAX_DETAILS_BYTES:
        return None
    try:
        found = msgspec.convert(decode_strict_json(data.decode("utf-8"), max_depth=2), _Details)
    except (UnicodeDecodeError, JsonError, msgspec.ValidationError):
        return None
    found.what, found.remedy = printable_text(found.what), _cut(found.remedy)
    return _rebuild(found)


def status_text(error: MicromegasError) -> str:
    """Return `error` for clients that don't read the trailer: message, remedy, code, position, and query ID."""
    tail = f" [{error.code}]"
    if isinstance(error, QueryError) and error.line is not None:
        tail += f" (line {error.line}" + (")" if error.column is None else f", column {error.column})")
    if is_query_id(error.query_id):
        tail += f" (query_id={error.query_id})"
    remedy = _fit(printable_text(error.remedy), MAX_STATUS_BYTES // 2, cost=_wire_cost)
    end = f" {remedy}{tail}" if remedy else tail
    return _fit(printable_text(error.what), MAX_STATUS_BYTES - _wire_cost(end), cost=_wire_cost) + end


def parse_status_text(text: str) -> MicromegasError | None:
    """Return the error from a status text, without anything after its code; None without a known code."""
    tails = [
        found for found in _STATUS_TAIL.finditer(text[:_MAX_PARSED_CHARACTERS]) if found["code"] in error_classes()
    ]
    if not tails:
        return None
    # The last one, because the message may quote SQL that looks like a code.
    found = tails[-1]
    kind = error_classes()[found["code"]]
    what, remedy = printable_text(text[: found.start()]).strip(), ""
    if kind.default_remedy and what.endswith(kind.default_remedy):
        what, remedy = what.removesuffix(kind.default_remedy).strip(), kind.default_remedy
    line, column = (int(found[name]) if found[name] else None for name in ("line", "column"))
    return _rebuild(
        _Details(code=found["code"], what=what, remedy=remedy, query_id=found["query_id"], line=line, column=column)
    )


_Position = Annotated[int, msgspec.Meta(ge=1, le=_MAX_POSITION)]
_Length = Annotated[int, msgspec.Meta(ge=0, le=_MAX_POSITION)]
_Text = Annotated[str, msgspec.Meta(max_length=_MAX_CORRECTION_CHARACTERS)]
_Correction = tuple[_Position, _Position, _Length, _Text]


class _Details(msgspec.Struct, omit_defaults=True):
    """The format of `encode_error`; unknown names are ignored, so that newer servers can add some."""

    code: str
    what: str
    remedy: str
    query_id: Annotated[str, msgspec.Meta(pattern=rf"^{_QUERY_ID.pattern}\Z")] | None = None
    line: _Position | None = None
    column: _Position | None = None
    retry_after_seconds: Annotated[float, msgspec.Meta(gt=0, le=_MAX_RETRY_SECONDS)] | None = None
    correction: _Correction | None = None  # line, column, length, and text
    retryable: bool = True  # for unavailable services
    restart_from: Annotated[datetime, msgspec.Meta(tz=True)] | None = None  # for a follow


def _rebuild(details: _Details) -> MicromegasError | None:
    kind: Any = error_classes().get(details.code)
    if kind is None:
        return None
    facts: dict[str, Any] = {}
    if issubclass(kind, QueryError):
        facts = {"line": details.line, "column": details.column}
    elif issubclass(kind, ConfigurationError):
        facts = {"key": "the server's configuration"}
    error = kind(details.what, remedy=details.remedy, **facts)
    error.query_id = details.query_id
    if isinstance(error, QueryError) and details.correction is not None:
        found = Correction(*details.correction)
        error.correction = found._replace(text=printable_text(found.text))
    if isinstance(error, ResourcesExhausted):
        error.retry_after_seconds = details.retry_after_seconds
    if isinstance(error, CursorExpired):
        error.restart_from = details.restart_from
    if isinstance(error, Unavailable):
        error.retryable = details.retryable
    return cast("MicromegasError", error)


def is_query_id(value: object) -> TypeGuard[str]:
    """Whether a value can be a query's ID: one short ASCII word."""
    return isinstance(value, str) and _QUERY_ID.fullmatch(value) is not None


def _cut(remedy: str) -> str:
    text = printable_text(remedy)
    return text if len(text) <= _MAX_REMEDY_CHARACTERS else text[: _MAX_REMEDY_CHARACTERS - len(_CUT)] + _CUT


def _fit(text: str, max_cost: int, *, cost: Callable[[str], int]) -> str:
    """Return `text`, or its longest prefix that costs at most `max_cost` with the ellipsis."""
    if cost(text) <= max_cost:
        return text
    low, high = 0, min(len(text), max_cost)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(text[:middle] + _CUT) <= max_cost else (low, middle - 1)
    return text[:low] + _CUT


def _wire_cost(text: str) -> int:
    # Printable ASCII except "%" is sent unchanged, every other byte as three (gRPC over HTTP/2, Percent-Encoded).
    return len(quote(text, safe=_UNENCODED))


def printable_text(text: str) -> str:
    """Return `text` without characters that could control a terminal or mislead readers; line feeds stay."""
    if text.isascii() and text.isprintable():
        return text  # the usual case, which must be cheap during a flood
    return "".join("\ufffd" if unicodedata.category(c) in _UNPRINTABLE and c != "\n" else c for c in text)
