"""Flight SQL commands: prepared statements, tables, ingestion, identity, and users' access and keys."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final, TypeVar

import msgspec
import pyarrow as pa
from pyarrow import flight

from micromegas_jupyter.client.query_reader import BatchStream, ScanProgress
from micromegas_jupyter.client.transport import Call, CallRecord, FlightStream, Header, Transport, build_header
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.core.text import decode_strict_json
from micromegas_jupyter.errors import (
    InternalError,
    InvalidStatement,
    MicromegasError,
    QueryError,
    UnsupportedRequest,
    UnsupportedStatement,
    UsageError,
)
from micromegas_jupyter.flightsql.commands import messages, pack_any, parse_action_body, parse_message, printable_text
from micromegas_jupyter.flightsql.parameters import BoundStatement

CONTROL_TIMEOUT_SECONDS: Final = 30.0
"""Timeout of a call that returns no rows."""

FOLLOW_TIMEOUT_SECONDS: Final = 2.0
"""Timeout of a call about a query's progress, which delays a line of output."""

_CLOSE_TIMEOUT_SECONDS: Final = 5.0
_T = TypeVar("_T")
_Answer = TypeVar("_Answer")
_SET_TYPE: Final = "If the type of a value is wrong, set it: -p NAME:TYPE=VALUE."
_WITHOUT_VALUES: Final = "Write the values into the statement, or use a server that prepares statements."


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedStatement:
    """A statement that a server has planned: its SQL, its result's schema, and a column for each placeholder."""

    query: str = field(repr=False)
    dataset_schema: pa.Schema
    parameter_schema: pa.Schema = field(default_factory=lambda: pa.schema([]))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningQuery:
    """A query that is running or (if `is_running` is false) waiting on the server; `seconds` is its age.

    `scanned` (0 to 1) is the scanned share of its `files`. Unknown (None) in the first second, and if rows are hidden
    from the caller.
    """

    query_id: str
    user: str
    email: str
    client_ip: str
    client: str | None
    entrypoint: str | None
    began_at: datetime
    seconds: float
    is_running: bool
    peak_memory_bytes: int
    sql: str
    files: int | None = None
    scanned: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CutOffUser:
    """A user whose access an administrator has cut off, either `until` a given time or until it is restored."""

    issuer: str
    subject: str
    created_at: datetime
    created_by: str
    email: str | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerReport:
    """The number of a user's calls that a server has stopped, and the first of their query IDs."""

    server: str
    ended: int
    query_ids: tuple[str, ...]


class _CutOff(msgspec.Struct, frozen=True):
    servers: tuple[ServerReport, ...] = ()
    removed: bool = False
    cut_off: tuple[CutOffUser, ...] = ()


class _Queries(msgspec.Struct, frozen=True):
    queries: list[RunningQuery]


class _Followed(msgspec.Struct, frozen=True):
    progress: ScanProgress | None


class _Cancelled(msgspec.Struct, frozen=True):
    status: str


QUERIES_ACTION: Final = "MicromegasQueries"
CUT_OFF_ACTION: Final = "MicromegasCutOff"
_MAX_QUERIES_BYTES: Final = 4 * 1024 * 1024


def list_queries(transport: Transport, call: Call) -> list[RunningQuery]:
    """Return the queries on the server that the caller may see."""
    return _act(transport, call, QUERIES_ACTION, {"operation": "list"}, _Queries).queries


def find_progress(transport: Transport, query_id: str, call: Call) -> ScanProgress | None:
    """Return a query's progress, or None if the server doesn't report it."""
    request = {"operation": "progress", "query_id": query_id}
    return _act(transport, call, QUERIES_ACTION, request, _Followed).progress


def cancel_by_id(transport: Transport, query_id: str, call: Call) -> str:
    """Cancel a query on the server; return `cancelled`, `cancelling`, or `not_cancellable`."""
    request = {"operation": "cancel", "query_id": query_id}
    return _act(transport, call, QUERIES_ACTION, request, _Cancelled).status


def change_access(transport: Transport, request: Mapping[str, object], call: Call) -> tuple[ServerReport, ...]:
    """Cut off or restore a user's access on the servers, and return the calls that were terminated."""
    return _act(transport, call, CUT_OFF_ACTION, request, _CutOff).servers


def list_cut_off(transport: Transport, call: Call) -> tuple[CutOffUser, ...]:
    """Return the users whose access was cut off."""
    return _act(transport, call, CUT_OFF_ACTION, {"operation": "list"}, _CutOff).cut_off


def _act(
    transport: Transport, call: Call, action: str, request: Mapping[str, object], answer: type[_Answer]
) -> _Answer:
    try:
        results = transport.do_action(action, msgspec.json.encode(request), call)
    except (UnsupportedStatement, UnsupportedRequest) as error:
        if call.record.error_details is not None:
            raise  # the server explains the error
        raise UnsupportedRequest("The server doesn't offer this.", query_id=error.query_id) from error
    try:
        return msgspec.json.decode(results[0][:_MAX_QUERIES_BYTES], type=answer)
    except (IndexError, msgspec.DecodeError, RecursionError) as error:
        raise InternalError("The server's response cannot be read.") from error


def control_call(call: Call, timeout_seconds: float = CONTROL_TIMEOUT_SECONDS) -> Call:
    """Return a call's next RPC, with its record, a current token, and a short deadline, because it has no rows."""
    return replace(next_rpc(call), timeout_seconds=min(timeout_seconds, call.timeout_seconds or timeout_seconds))


def next_rpc(call: Call) -> Call:
    """Return a call's next RPC, with a current token, because the first RPC's token may have expired."""
    return call if call.credentials is None else replace(call, credential=call.credentials.fetch())


def prepare(transport: Transport, sql: str, call: Call) -> PreparedStatement:
    """Plan a statement on the server and close it."""
    created = _create(transport, sql, call)
    _close(transport, created.prepared_statement_handle, call)
    return PreparedStatement(
        query=sql,
        dataset_schema=_read_description(created.dataset_schema),
        parameter_schema=_read_description(created.parameter_schema),
    )


def _read_description(data: bytes) -> pa.Schema:
    try:
        return _read_schema(data)
    except (pa.ArrowException, OSError) as error:
        raise InternalError("The server's description of the statement cannot be read.") from error


def open_bound(transport: Transport, statement: BoundStatement, call: Call) -> BatchStream:
    """Start a statement with its values; return once the result's schema has arrived."""

    def read(command: bytes, close: Callable[[], None]) -> BatchStream:
        with _unless_unsupported(call):
            info = transport.describe(command, control_call(call))
        return transport.do_get(_only_ticket(info), next_rpc(call), on_close=close)

    return _with_bound(transport, statement, call, read)


def describe(transport: Transport, sql: str, statement: BoundStatement | None, call: Call) -> pa.Schema:
    """Return the schema of a statement's result; its metadata contains the server's scan estimate, if any."""
    if statement is None:
        command = pack_any(messages.CommandStatementQuery(query=sql))
        try:
            return transport.describe(command, control_call(call), as_schema=True).schema
        except UnsupportedRequest:  # from other servers
            return prepare(transport, sql, call).dataset_schema

    def read(command: bytes, close: Callable[[], None]) -> pa.Schema:
        found = transport.describe(command, control_call(call), as_schema=True).schema
        close()
        return found

    return _with_bound(transport, statement, call, read)


def _with_bound(
    transport: Transport,
    statement: BoundStatement,
    call: Call,
    read: Callable[[bytes, Callable[[], None]], _T],
) -> _T:
    """Return the result of `read`, called with a bound statement's command and a function to close it."""
    with original_positions(statement):
        created = _create(transport, statement.sql, call)
        handle = created.prepared_statement_handle
        try:
            row = (
                statement.typed_row(_read_description(created.parameter_schema)) if statement.untyped else statement.row
            )
            handle = _bind(transport, handle, row, call)
            command = pack_any(messages.CommandPreparedStatementQuery(prepared_statement_handle=handle))
            return read(command, partial(_close, transport, handle, call))
        except BaseException as error:
            _close(transport, handle, call)
            if statement.untyped and isinstance(error, InvalidStatement):
                error.remedy = f"{error.remedy} {_SET_TYPE}".lstrip()
            raise


def _create(transport: Transport, sql: str, call: Call) -> Any:
    request = messages.ActionCreatePreparedStatementRequest(query=sql)
    with _unless_unsupported(call):
        results = transport.do_action("CreatePreparedStatement", pack_any(request), control_call(call))
    if not results:
        raise UnsupportedRequest("The server does not prepare statements.", remedy=_WITHOUT_VALUES)
    try:
        return parse_action_body(messages.ActionCreatePreparedStatementResult, results[0])
    except UsageError as error:
        raise InternalError("The server's response is not a prepared statement.") from error


def _bind(transport: Transport, handle: bytes, row: pa.RecordBatch, call: Call) -> bytes:
    """Send the values; return the handle to use from now on (Flight SQL, DoPutPreparedStatementResult)."""
    command = pack_any(messages.CommandPreparedStatementQuery(prepared_statement_handle=handle))
    with _unless_unsupported(call):
        answer = transport.do_put(command, row.schema, [row], control_call(call))
    try:
        renewed = parse_message(messages.DoPutPreparedStatementResult, answer or b"")
    except UsageError as error:
        raise InternalError("The server's response to the statement's values is malformed.") from error
    return bytes(renewed.prepared_statement_handle) or handle


def _only_ticket(info: flight.FlightInfo) -> bytes:
    """Return the ticket from a response with one endpoint."""
    if len(info.endpoints) != 1:
        raise UnsupportedRequest("The server returned several endpoints, which this client does not support.")
    ticket: bytes = info.endpoints[0].ticket.ticket
    return ticket


def _close(transport: Transport, handle: bytes, call: Call) -> None:
    """Close a statement; if this fails, the server closes it later."""
    request = messages.ActionClosePreparedStatementRequest(prepared_statement_handle=handle)
    with suppress(MicromegasError):
        quiet = replace(control_call(call, _CLOSE_TIMEOUT_SECONDS), record=CallRecord())
        transport.do_action("ClosePreparedStatement", pack_any(request), quiet)


@contextmanager
def original_positions(statement: BoundStatement) -> Iterator[None]:
    """Make error positions refer to the original statement instead of the one that was sent."""
    try:
        yield
    except QueryError as error:
        if error.line is not None and error.column is not None:
            error.column = statement.original_column(error.line, error.column)
        if (change := error.correction) is not None:
            error.correction = change._replace(column=statement.original_column(change.line, change.column))
        raise


@contextmanager
def _unless_unsupported(call: Call) -> Iterator[None]:
    """Report that the server lacks prepared statements, unless the server itself blames the statement."""
    try:
        yield
    except (UnsupportedStatement, UnsupportedRequest) as error:
        if isinstance(error, UnsupportedStatement) and call.record.error_details is not None:
            raise
        raise UnsupportedRequest(
            "The server does not support parameters.", remedy=_WITHOUT_VALUES, query_id=error.query_id
        ) from error


def _read_schema(data: bytes) -> pa.Schema:
    return pa.ipc.read_schema(pa.BufferReader(data)) if data else pa.schema([])


_MAX_TABLES: Final = 10_000
_MAX_LIST_BYTES: Final = 64 * 1024 * 1024


def fetch_tables(transport: Transport, call: Call) -> dict[str, pa.Schema]:
    """Return each table's schema by name."""
    command = pack_any(messages.CommandGetTables(include_schema=True))
    try:
        info = transport.describe(command, call)
        stream = transport.do_get(_only_ticket(info), next_rpc(call))
    except UnsupportedStatement as error:
        raise UnsupportedRequest(
            "The server does not list its tables.", remedy="Query information_schema.tables.", query_id=error.query_id
        ) from error
    try:
        return {name: _read_schema(data) for name, data in _rows(stream)}
    except (pa.ArrowException, KeyError, TypeError, OSError) as error:
        stream.cancel()
        raise InternalError("The server's table list cannot be read.") from error


def _rows(stream: FlightStream) -> Iterator[tuple[str, bytes]]:
    tables = size_bytes = 0
    while (batch := stream.read_batch()) is not None:
        tables += batch.num_rows
        size_bytes += batch.nbytes
        if tables > _MAX_TABLES or size_bytes > _MAX_LIST_BYTES:
            stream.cancel()
            raise InternalError("The server's table list is too large.")
        yield from zip(batch.column("table_name").to_pylist(), batch.column("table_schema").to_pylist(), strict=True)


INGEST_ID_HEADER: Final = "x-micromegas-ingest-id"
INGEST_ROWS_HEADER: Final = "x-micromegas-ingest-rows"
_MAX_ID_LENGTH: Final = 128

# Source: FlightSql.proto, CommandStatementIngest.TableDefinitionOptions: for a missing table, and for an existing one.
_MODES: Final = {"append": None, "create": (1, 1), "create_append": (1, 2), "replace": (1, 3)}


def build_ingest_command(table_name: str, mode: str) -> bytes:
    """Return the command that adds rows to a table."""
    if mode not in _MODES:
        raise UsageError(f"mode {mode!r} is not valid.", remedy="Choose append, create, create_append or replace.")
    command: Any = messages.CommandStatementIngest(table=table_name)
    options = _MODES[mode]
    if options is not None:  # without options, every server appends
        command.table_definition_options.if_not_exist, command.table_definition_options.if_exists = options
    return pack_any(command)


def build_ingest_headers(table: pa.Table, ingest_id: str | None) -> tuple[Header, ...]:
    """Return the headers with the number of rows, and the call's ID if it has one."""
    rows = build_header(INGEST_ROWS_HEADER, str(table.num_rows))
    if ingest_id is None:
        return (rows,)
    is_plain = ingest_id.isascii() and ingest_id.isprintable() and " " not in ingest_id
    if not is_plain or not 1 <= len(ingest_id) <= _MAX_ID_LENGTH:
        raise UsageError(
            f"ingest_id is not 1 to {_MAX_ID_LENGTH} printable characters without spaces.",
            remedy="Use str(uuid.uuid4()), for instance.",
        )
    return (rows, build_header(INGEST_ID_HEADER, ingest_id))


def split_table(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """Yield the rows in batches that every server accepts."""
    from micromegas_jupyter.flightsql.framing import DEFAULT_MESSAGE_BYTES, split_batch  # imports numpy

    for batch in table.to_batches():
        yield from split_batch(batch, max_bytes=DEFAULT_MESSAGE_BYTES)


WHO_AM_I_ACTION: Final = "MicromegasWhoAmI"
_MAX_IDENTITY_BYTES: Final = 16 * 1024
_TEXTS: Final = ("subject", "issuer", "auth_type", "name", "email")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerIdentity:
    """The caller's identity according to the server, from `issuer`, by `auth_type`: `oidc`, `api_key`, or `none`.

    `groups` has as many of the `group_count` groups as fit into the response. If `reads_nothing`, no role lets the
    caller read any table.
    """

    subject: str
    issuer: str
    auth_type: str
    is_admin: bool
    name: str | None = None
    email: str | None = None
    expires_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    groups: tuple[str, ...] = ()
    group_count: int = 0
    reads_nothing: bool = False


def parse_server_identity(data: bytes) -> ServerIdentity:
    """Parse the server's response to `MicromegasWhoAmI`."""
    try:
        answer = decode_strict_json(data[: _MAX_IDENTITY_BYTES + 1].decode("utf-8"))
        identity = msgspec.convert(answer, ServerIdentity)
    except (ValueError, msgspec.ValidationError) as error:
        raise InternalError("The server's response about your identity is malformed.") from error
    texts: dict[str, Any] = {name: _line(text) for name in _TEXTS if (text := getattr(identity, name)) is not None}
    count = max(identity.group_count, len(identity.groups))
    return replace(identity, **texts, groups=tuple(map(_line, identity.groups)), group_count=count)


def _line(text: str) -> str:
    return " ".join(printable_text(text).split())  # on one line, regardless of what the server sends


_KEYS_ACTION: Final = "MicromegasKeys"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserApiKey:
    """An API key that a user created; `state` is `valid`, `revoked`, or `expired`, and `key` is only shown once."""

    id: str
    name: str
    state: str
    created_at: datetime
    expires_at: datetime
    key: Secret | None = None


class _Created(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    id: str
    name: str
    state: str
    created_at: datetime
    expires_at: datetime


class _Listed(msgspec.Struct, frozen=True):
    keys: tuple[UserApiKey, ...]


class _Revoked(msgspec.Struct, frozen=True):
    revoked: bool


class AccessMethods(ABC):
    """The client's methods for managing access to the server."""

    @abstractmethod
    def _run(self, work: Callable[[Transport, Call], _T], *, may_repeat: bool = True) -> _T: ...

    def create_api_key(self, name: str = "default", *, days: int = 30) -> UserApiKey:
        """Create an API key for yourself that can only send telemetry; a role must allow it (`keys: self`).

        Args:
            name: A label: letters, digits, dots, and hyphens.
            days: The key's lifetime in days, at most 30.

        Raises:
            PermissionDenied: You may not create keys, or not with this lifetime.
            ResourcesExhausted: You have five valid keys.
            UnsupportedRequest: The server doesn't store keys.
        """
        found = self._act_on_keys({"operation": "create", "name": name, "days": days}, _Created, may_repeat=False)
        return UserApiKey(**{**msgspec.structs.asdict(found), "key": Secret(found.key)})

    def api_keys(self) -> tuple[UserApiKey, ...]:
        """Return the keys that you created for yourself, without the secrets."""
        return self._act_on_keys({"operation": "list"}, _Listed).keys

    def revoke_api_key(self, key_id: str) -> bool:
        """Revoke a key that you created for yourself; False if there is no such key."""
        return self._act_on_keys({"operation": "revoke", "id": key_id}, _Revoked).revoked

    def _act_on_keys(self, request: dict[str, Any], answer: type[_T], *, may_repeat: bool = True) -> _T:
        return self._run(
            lambda transport, call: _act(transport, call, _KEYS_ACTION, request, answer), may_repeat=may_repeat
        )

    def cut_off(
        self, issuer: str, subject: str, *, email: str | None = None, until: datetime | None = None
    ) -> tuple[ServerReport, ...]:
        """Cut off a user's access on all servers that share the deny list file; for administrators.

        From then on, calls by the user, or with API keys that the user owns, are rejected, and open ones are ended.
        The call takes about five seconds, during which the servers report the calls that they have ended.

        Args:
            issuer: The user's issuer as in the server's configuration, or `api_key` for an API key.
            subject: The issuer's identifier for the user (`sub`), or the key's name.
            email: The user's email address, for services that identify users by it.
            until: End of the cut-off (aware); None means until `restore_access`.

        Returns:
            The reports of the servers, with the calls that they have ended.

        Raises:
            PermissionDenied: The caller is not an administrator.
            UsageError: The user is the caller, or `until` is not in the future.
            UnsupportedRequest: The server has no deny list file.
        """
        request = {"operation": "add", "issuer": issuer, "subject": subject, "email": email, "until": until}
        return self._run(lambda transport, call: change_access(transport, request, call), may_repeat=False)

    def restore_access(self, issuer: str, subject: str) -> None:
        """Undo `cut_off`; raises the same errors."""
        request = {"operation": "remove", "issuer": issuer, "subject": subject}
        self._run(lambda transport, call: change_access(transport, request, call), may_repeat=False)

    def cut_off_users(self) -> tuple[CutOffUser, ...]:
        """Return the users whose access was cut off by `cut_off`; for administrators."""
        return self._run(list_cut_off)
