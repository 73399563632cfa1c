"""`FlightSQLClient`: the interface for notebooks, programs, and the command line."""

import importlib
import os
import re
import sys
import threading
import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, Self, TypeVar

import pyarrow as pa

from micromegas_jupyter.client.commands import (
    CONTROL_TIMEOUT_SECONDS,
    FOLLOW_TIMEOUT_SECONDS,
    WHO_AM_I_ACTION,
    AccessMethods,
    PreparedStatement,
    RunningQuery,
    ServerIdentity,
    build_ingest_command,
    build_ingest_headers,
    cancel_by_id,
    describe,
    fetch_tables,
    find_progress,
    list_queries,
    open_bound,
    parse_server_identity,
    prepare,
    split_table,
)
from micromegas_jupyter.client.dbapi import ConnectionMethods
from micromegas_jupyter.client.json_columns import check_dtype_backend, shows_json, to_frame
from micromegas_jupyter.client.query_reader import BatchStream, QueryReader, ScanProgress, is_read
from micromegas_jupyter.client.tables import (
    TABLES_ACTION,
    Answer,
    TableMethods,
    TableOperation,
    build_body,
    parse_answer,
)
from micromegas_jupyter.client.transport import (
    Attempts,
    Call,
    Credential,
    CredentialSource,
    Header,
    Transport,
    Uses,
    build_header,
    build_option_headers,
    build_tag_headers,
    parse_address,
    parse_static_headers,
    translate_failure,
)
from micromegas_jupyter.config.client import WRAPPER_VARIABLE
from micromegas_jupyter.core.protocols import AuthProvider
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock, hide_texts, run_interruptibly
from micromegas_jupyter.core.text import TimeArgument, format_time, format_time_range
from micromegas_jupyter.errors import (
    ConfigurationError,
    InternalError,
    InvalidStatement,
    MicromegasError,
    UnsupportedRequest,
    UnsupportedStatement,
    UsageError,
)
from micromegas_jupyter.flightsql.commands import messages, parse_message, statement_ticket
from micromegas_jupyter.flightsql.parameters import Params, bind, quote_literal

if TYPE_CHECKING:
    import pandas as pd

    from micromegas_jupyter.client.follow import Follow
    from micromegas_jupyter.client.traces import Trace


_MAX_TIMEOUT_SECONDS: Final = 30 * 24 * 3600


def check_timeout(timeout_seconds: float | None) -> float | None:
    """Return the timeout after checking that it is a number between 0 and 30 days, or None."""
    if timeout_seconds is None:
        return None
    if isinstance(timeout_seconds, bool) or not isinstance(timeout_seconds, (int, float)):
        raise UsageError("timeout_seconds is not a number.")
    if not 0 < timeout_seconds <= _MAX_TIMEOUT_SECONDS:
        raise UsageError("timeout_seconds must be between 0 and 30 days.", remedy="Leave it out for no limit.")
    return float(timeout_seconds)


class QueryMethods(ABC):
    """The methods of every client that can start a statement."""

    @abstractmethod
    def open_query(
        self, sql: str, begin: TimeArgument = None, end: TimeArgument = None, params: Params = None
    ) -> QueryReader:
        """Start a statement and return a reader of its batches."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def query(  # noqa: PLR0913 - upstream's arguments, then keywords
        self,
        sql: str,
        begin: TimeArgument = None,
        end: TimeArgument = None,
        params: Params = None,
        *,
        dtype_backend: str | None = None,
        jsonb: str = "json",
    ) -> "pd.DataFrame":
        """Run a statement and return its rows as a DataFrame.

        Args:
            sql: The statement; `:name`, `$name`, `?`, or `$1` is a placeholder for a value in `params`.
            begin: Start of the time range (aware `datetime`, `pandas.Timestamp`, or RFC 3339 text).
            end: End of the time range; now if only `begin` is given.
            params: Values, which never become part of the SQL: a mapping for `:name` or `$name`, a list or tuple for
                `?` in order, or for `$1`, `$2`, ….
            dtype_backend: `"pyarrow"` for columns of `pandas.ArrowDtype`, which keep Arrow's values; without it,
                columns have NumPy types.
            jsonb: `"json"` for columns of binary JSON (JSONB), such as `properties`, as JSON text; `"bytes"` for the
                bytes that the server sent.

        Raises:
            MicromegasError: The class identifies the error; see `errors`.
        """
        check_dtype_backend(dtype_backend)
        shows_json(jsonb)
        with self.open_query(sql, begin, end, params) as reader:
            table = reader.read_all()
        return to_frame(table, dtype_backend=dtype_backend, jsonb=jsonb)

    def query_arrow(
        self,
        sql: str,
        begin: TimeArgument = None,
        end: TimeArgument = None,
        params: Params = None,
        *,
        jsonb: str = "bytes",
    ) -> pa.Table:
        """Run a statement and return its rows as an Arrow table; arguments and errors as for `query`.

        Binary JSON is unchanged, so that the rows can be forwarded, unless `jsonb` is `"json"`.
        """
        as_json = shows_json(jsonb)
        with self.open_query(sql, begin, end, params) as reader:
            table = reader.read_all()
        if not as_json:
            return table
        from micromegas_jupyter.core.jsonb import with_json  # few results have such columns

        return with_json(table)

    def query_stream(
        self, sql: str, begin: TimeArgument = None, end: TimeArgument = None, params: Params = None
    ) -> Iterator[pa.RecordBatch]:
        """Run a statement and yield its batches; the statement is sent when the first batch is requested."""
        with self.open_query(sql, begin, end, params) as reader:
            yield from reader


class TelemetryQueries(QueryMethods):
    """Ready-made queries, most of them from upstream; they raise the same errors as `query`."""

    def trace(self, trace_id: str, begin: TimeArgument = None, end: TimeArgument = None) -> "Trace":
        """Return the spans of a trace with their tree, self times, and critical path.

        Args:
            trace_id: 32 hexadecimal digits, optionally with dashes or `0x`.
            begin: Start of the time range, as for `query`; if omitted, the whole table is searched.
            end: End of the time range.

        Raises:
            UsageError: The ID is malformed, or the trace has no spans that you can read.
        """
        from micromegas_jupyter.client.traces import fetch_trace

        return fetch_trace(trace_id, lambda sql, params=None: self.query_arrow(sql, begin, end, params))

    def find_process(self, process_id: str) -> "pd.DataFrame":
        """Return the row of a process, or an empty DataFrame."""
        return self.query(f"SELECT * FROM processes WHERE process_id = {quote_literal(process_id)}")  # noqa: S608 - quoted

    def query_streams(
        self,
        begin: TimeArgument,
        end: TimeArgument,
        limit: int,
        process_id: str | None = None,
        tag_filter: str | None = None,
    ) -> "pd.DataFrame":
        """Return up to `limit` streams, optionally filtered by process or by tag (`log`, `metrics`, `trace`)."""
        conditions = []
        if process_id is not None:
            conditions.append(f"process_id = {quote_literal(process_id)}")
        if tag_filter is not None:
            conditions.append(f"array_position(tags, {quote_literal(tag_filter)}) IS NOT NULL")
        where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
        return self.query(f"SELECT * FROM streams {where}LIMIT {_count(limit)}", begin, end)  # noqa: S608 - quoted

    def query_blocks(self, begin: TimeArgument, end: TimeArgument, limit: int, stream_id: str) -> "pd.DataFrame":
        """Return up to `limit` blocks of a stream."""
        where = f"stream_id = {quote_literal(stream_id)}"
        return self.query(f"SELECT * FROM blocks WHERE {where} LIMIT {_count(limit)}", begin, end)  # noqa: S608 - quoted

    def query_spans(self, begin: TimeArgument, end: TimeArgument, limit: int, stream_id: str) -> "pd.DataFrame":
        """Return up to `limit` spans of a stream's thread."""
        view = f"view_instance('thread_spans', {quote_literal(stream_id)})"
        return self.query(f"SELECT * FROM {view} LIMIT {_count(limit)}", begin, end)  # noqa: S608 - quoted

    def retire_partitions(self, view_set_name: str, view_instance_id: str, begin: datetime, end: datetime) -> None:
        """Remove partitions of a view and print the server's messages as they arrive; for administrators.

        Our server raises `UnsupportedStatement` for its tables, because their partitions are the only copy of the
        rows.
        """
        texts = (view_set_name, view_instance_id, format_time(begin), format_time(end))
        self._print_messages(f"retire_partitions({', '.join(map(quote_literal, texts))})")

    def materialize_partitions(
        self, view_set_name: str, begin: datetime, end: datetime, partition_delta_seconds: int
    ) -> None:
        """Create partitions of a view and print the server's messages as they arrive; for administrators."""
        texts = ", ".join(map(quote_literal, (view_set_name, format_time(begin), format_time(end))))
        self._print_messages(f"materialize_partitions({texts}, {_count(partition_delta_seconds)})")

    def regenerate_partitions(
        self, view_set_name: str, begin: datetime, end: datetime, partition_delta_seconds: int
    ) -> None:
        """Rebuild partitions of a view and print the server's messages as they arrive; for administrators."""
        texts = ", ".join(map(quote_literal, (view_set_name, format_time(begin), format_time(end))))
        self._print_messages(f"regenerate_partitions({texts}, {_count(partition_delta_seconds)})")

    def _print_messages(self, source: str) -> None:
        for batch in self.query_stream(f"SELECT time, msg FROM {source}"):  # noqa: S608 - quoted
            for row in batch.to_pylist():
                sys.stdout.write(f"{row['time']} {row['msg']}\n")


def _count(number: int) -> int:
    if type(number) is not int or number < 0:
        raise UsageError("A count must be an integer that is 0 or greater.")
    return number


_INGEST_TIMEOUT_SECONDS: Final = 600.0

T = TypeVar("T")

StaticHeaders = Mapping[str | bytes, str | bytes] | Iterable[tuple[str | bytes, str | bytes]]


class FlightSQLClient(TelemetryQueries, TableMethods, AccessMethods, ConnectionMethods):
    """A client for a single Flight SQL server that supports and extends upstream's methods and arguments.

    The client connects on the first call. It can be used from several threads, and as a context manager. It is also a
    PEP 249 (DB-API) connection for pandas, Polars, JupySQL, and marimo; pandas and Polars read Arrow data from it if
    the extra `dbapi` is installed.

    Args:
        uri: `grpc://host:port` or `grpc+tls://host:port`; `http` and `https` mean the same.
        headers: Deprecated: static headers of every call, for example an API key.
        preserve_dictionary: Keep dictionary-encoded columns unchanged.
        auth_provider: Provides the bearer token of each call: any object with `get_token() -> str`. If it has a method
            `invalidate(token)`, a rejected token is renewed once and the call repeated, unless the call writes or rows
            have already arrived.
        client_entrypoint: How this program was started, for the server's audit log.
        timeout_seconds: The timeout of each call; without it, queries have no timeout.
        ca_bundle: A PEM file of CAs to trust instead of certifi's, for servers with private certificates.
        extra_ca_bundle: A PEM file of additional CAs to trust.
        client_certificate_file: A PEM file with the client certificate, for servers that require one.
        client_key_file: A PEM file with the certificate's key.
        read_only: Whether the server rejects this client's calls that would change something (`ReadOnlyCall`).
        allow_plaintext: Whether credentials may go over `grpc://` to another machine.
        environ: Replaces the process environment.
        clock: The source of the current time.

    Raises:
        UsageError: An argument is invalid, or a credential would be sent in plain text.
    """

    def __new__(cls, *_arguments: object, **_options: object) -> Self:
        """Return an instance of a subclass that pandas and Polars recognize, if `adbc_driver_manager` is installed."""
        return super().__new__(_arrow_class() if cls is FlightSQLClient else cls)  # type: ignore[return-value]

    def __init__(  # noqa: PLR0913 - upstream's five, then keywords
        self,
        uri: str,
        headers: StaticHeaders | None = None,
        preserve_dictionary: bool = False,  # noqa: FBT001, FBT002 - upstream's signature
        auth_provider: AuthProvider | None = None,
        client_entrypoint: str | None = None,
        *,
        timeout_seconds: float | None = None,
        ca_bundle: str | Path | None = None,
        extra_ca_bundle: str | Path | None = None,
        client_certificate_file: str | Path | None = None,
        client_key_file: str | Path | None = None,
        read_only: bool = False,
        allow_plaintext: bool = False,
        environ: Mapping[str, str] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        headers = None if headers is None else hide_texts(headers)  # keeps them out of verbose tracebacks
        if headers is not None and auth_provider is not None:
            raise UsageError("headers and auth_provider cannot be combined.", remedy="Pass only auth_provider.")
        if headers is not None:
            warnings.warn(
                "headers is deprecated: it cannot renew a token. Use auth_provider, for an API key "
                "micromegas_jupyter.auth.StaticTokenAuthProvider.",
                DeprecationWarning,
                stacklevel=2,
            )
        self._address = parse_address(uri)
        self._credentials = CredentialSource(auth_provider, parse_static_headers(headers or ()))
        if not allow_plaintext:
            self._credentials.check_plaintext(self._address)
        self._tag_headers = build_tag_headers(os.environ if environ is None else environ, entrypoint=client_entrypoint)
        if read_only:
            from micromegas_jupyter.core.read_only import READ_ONLY_HEADER  # few clients need it

            self._tag_headers += (build_header(READ_ONLY_HEADER, "true"),)
        self._preserve_dictionary = bool(preserve_dictionary)
        self._timeout_seconds = check_timeout(timeout_seconds)
        self._clock = clock
        self._transport = Transport(
            self._address,
            ca_bundle=ca_bundle,
            extra_ca_bundle=extra_ca_bundle,
            certificate_file=client_certificate_file,
            key_file=client_key_file,
        )
        self._readers: weakref.WeakSet[QueryReader] = weakref.WeakSet()
        self._closed = threading.Event()

    def __repr__(self) -> str:
        return f"<micromegas_jupyter.FlightSQLClient at {id(self):#x}>"

    def open_query(  # noqa: PLR0913 - the arguments of `query`, then keywords
        self,
        sql: str,
        begin: TimeArgument = None,
        end: TimeArgument = None,
        params: Params = None,
        *,
        limit: int | None = None,
        timeout_seconds: float | None = None,
    ) -> QueryReader:
        """Start a statement and return a reader of its batches, to be used as a context manager.

        The arguments are those of `query`; `limit` is for rows, and `timeout_seconds` overrides the client's timeout.
        """
        begin_text, end_text = format_time_range(begin, end, now=self._clock.now())
        options = build_option_headers(
            begin=begin_text, end=end_text, limit=limit, preserve_dictionary=self._preserve_dictionary
        )
        return self._open(sql, params, options, timeout_seconds)

    def follow(  # noqa: PLR0913 - the arguments of `query`, then keywords
        self,
        sql: str,
        begin: TimeArgument = None,
        params: Params = None,
        *,
        cursor: str | None = None,
        poll_seconds: float = 10.0,
        max_reconnects: int = 10,
    ) -> "Follow":
        """Follow a table's new rows; return an iterator of Arrow tables, with each row in exactly one of them.

        Args:
            sql: `SELECT … FROM` one table, optionally with `WHERE`; it cannot sort, join, aggregate, or limit.
            begin: Return also the rows that were committed after this time; by default only new rows.
            params: Values, as for `query`.
            cursor: Continue an earlier follow from its `cursor`, instead of `begin`.
            poll_seconds: How long `read` waits for rows by default.
            max_reconnects: How many consecutive failed reads are retried.

        Raises:
            CursorExpired: The server no longer has the rows added since the cursor or `begin`.
            UnsupportedStatement: The statement cannot be followed.
        """
        from micromegas_jupyter.client.follow import Follow  # few programs follow a table

        if cursor is not None and begin is not None:
            raise UsageError(
                "begin and cursor cannot be combined.", remedy="The cursor already specifies where to begin."
            )
        options = build_option_headers(preserve_dictionary=self._preserve_dictionary)
        return Follow(
            lambda headers, seconds: self._open(sql, params, (*options, *headers), seconds),
            start=cursor or format_time(begin, name="begin") or "now",
            cursor=cursor,
            poll_seconds=poll_seconds,
            max_reconnects=max_reconnects,
        )

    def _open(
        self, sql: str, params: Params, options: tuple[Header, ...], timeout_seconds: float | None
    ) -> QueryReader:
        sql = _check_statement(sql)
        transport, bound = self._transport, None if params is None else bind(sql, params)

        def open_stream(call: Call) -> BatchStream:
            if bound is None:
                return transport.do_get(statement_ticket(sql), call)
            return open_bound(transport, bound, call)

        attempts = self._attempts(
            self._timeout_seconds if timeout_seconds is None else timeout_seconds, may_repeat=is_read(sql)
        )
        build_call = partial(self._build_call, attempts, headers=(*self._tag_headers, *options))
        transport.uses.begin()  # also while fetching a token, and between the calls of a bound statement
        try:
            reader = QueryReader(attempts, build_call, open_stream, clock=self._clock)
        finally:
            transport.uses.finish()
        self._readers.add(reader)
        return reader

    def describe_statement(
        self,
        sql: str,
        begin: TimeArgument = None,
        end: TimeArgument = None,
        params: Params = None,
        *,
        limit: int | None = None,
    ) -> pa.Schema:
        """Return the schema of a statement's result without running it.

        The arguments are those of `open_query`. With `parse_estimate`, the metadata yields the scan estimate, if the
        server provides one.
        """
        sql = _check_statement(sql)
        begin_text, end_text = format_time_range(begin, end, now=self._clock.now())
        options = build_option_headers(
            begin=begin_text, end=end_text, limit=limit, preserve_dictionary=self._preserve_dictionary
        )
        bound = None if params is None else bind(sql, params)
        return self._run(lambda transport, call: describe(transport, sql, bound, call), headers=options)

    def prepare_statement(self, sql: str) -> PreparedStatement:
        """Request a statement's schemas from the server without running it."""
        sql = _check_statement(sql)
        return self._run(lambda transport, call: prepare(transport, sql, call))

    def prepared_statement_stream(self, statement: PreparedStatement) -> Iterator[pa.RecordBatch]:
        """Run a statement that `prepare_statement` returned and yield its batches."""
        return self.query_stream(statement.query)

    def list_tables(self, *, timeout_seconds: float | None = None) -> dict[str, pa.Schema]:
        """Return the schema of each table that is visible to the caller, by table name.

        If the server has descriptions, the metadata of a field or schema contains them under
        `ARROW:FLIGHT:SQL:REMARKS`.
        """
        return self._run(fetch_tables, timeout_seconds=timeout_seconds)

    def whoami(self) -> ServerIdentity:
        """Return the caller's identity according to the server; raises `UnsupportedRequest` if it isn't reported."""
        try:
            results = self._run(lambda transport, call: transport.do_action(WHO_AM_I_ACTION, b"", call))
        except (InvalidStatement, UnsupportedStatement, UnsupportedRequest, UsageError) as error:
            if self._closed.is_set():
                raise
            raise UnsupportedRequest("The server can't identify you.", remedy="Queries still work.") from error
        if len(results) != 1:
            raise InternalError("The server's response about your identity is malformed.")
        return parse_server_identity(results[0])

    def running_queries(self) -> list[RunningQuery]:
        """Return the caller's queries that are running or waiting on the server, or for administrators, all of them.

        Raises:
            UnsupportedRequest: The server does not list queries.
        """
        return self._run(list_queries)

    def query_progress(self, query_id: str) -> ScanProgress | None:
        """Return the progress of the caller's query, or for administrators, any query.

        Returns None in the query's first second, if it doesn't run or scans no files, and if rows are hidden from the
        caller.

        Raises:
            UnsupportedRequest: The server does not list queries.
        """
        return self._run(
            lambda transport, call: find_progress(transport, query_id, call),
            timeout_seconds=FOLLOW_TIMEOUT_SECONDS,
            may_repeat=False,
        )

    def cancel_query(self, query_id: str) -> str:
        """Cancel the caller's query on the server by its ID, or for administrators, any query.

        Returns:
            `cancelled`; `cancelling` if it has not stopped within two seconds; `not_cancellable` if no such query is
                running on this server.
        """
        wanted = _check_statement(query_id)
        return self._run(lambda transport, call: cancel_by_id(transport, wanted, call), may_repeat=False)

    def bulk_ingest(
        self,
        table_name: str,
        table: pa.Table,
        *,
        mode: str = "append",
        ingest_id: str | None = None,
        times: Literal["exact", "truncate"] = "exact",
    ) -> Any:
        """Add rows to one of the server's tables, for callers who may write to it.

        Args:
            table_name: The table's name.
            table: The rows.
            mode: `append` to an existing table, `create` a new one, `create_append`, or `replace` all rows and columns
                of a table that you own, which is created if it does not exist.
            ingest_id: Identifies this call, so that it can be repeated if its outcome is unknown: this project's
                server stores the rows of an ID only once.
            times: `truncate` truncates times to microseconds, which tables store; otherwise finer times are rejected.

        Returns:
            A message with `record_count`, or None if the server does not return it.

        Raises:
            MicromegasError: The server did not accept the rows. No row is stored, unless the connection broke.
        """
        if not isinstance(table, pa.Table):
            raise UsageError(f"bulk_ingest takes a pyarrow.Table, not {type(table).__name__}.")
        if times not in {"exact", "truncate"}:
            raise UsageError('times is "exact" or "truncate".')
        if times == "truncate":
            table = _with_microseconds(table)
        command = build_ingest_command(_check_statement(table_name), mode)
        answer = self._run(
            lambda transport, call: transport.do_put(command, table.schema, split_table(table), call),
            headers=build_ingest_headers(table, ingest_id),
            timeout_seconds=self._timeout_seconds or _INGEST_TIMEOUT_SECONDS,
            may_repeat=False,
        )
        try:
            return None if answer is None else parse_message(messages.DoPutUpdateResult, answer)
        except UsageError as error:
            raise InternalError("The server's response to the rows is malformed.") from error

    def _run_on_tables(self, operation: TableOperation, answer: type[Answer]) -> Answer:
        body = build_body(operation)
        try:
            results = self._run(
                lambda transport, call: transport.do_action(TABLES_ACTION, body, call),
                timeout_seconds=self._timeout_seconds or (_INGEST_TIMEOUT_SECONDS if operation.is_slow else None),
                may_repeat=operation.is_read,
            )
        except (UnsupportedStatement, UnsupportedRequest) as error:
            raise UnsupportedRequest(
                "The server doesn't support table changes.",
                remedy="Connect to a server with a lake.",
                query_id=error.query_id,
            ) from error
        return parse_answer(results, answer)

    def on_notice(self, callback: Callable[[str], None]) -> None:
        """Call `callback`, on any thread, with each new notice about the credential, instead of issuing a warning."""
        self._transport.recorder.on_notice = callback

    def close(self, *, keeps_readers: bool = False) -> None:
        """Stop running queries and close the connection; later calls raise `UsageError`.

        With `keeps_readers`, queries that are running continue, and the connection closes after the last of them.
        """
        self._closed.set()
        if not keeps_readers:
            for reader in list(self._readers):
                reader.close()
        self._transport.uses.close()

    @property
    def is_in_use(self) -> bool:
        """Whether a call or a query is running."""
        return self._transport.uses.is_used

    def _run(
        self,
        work: Callable[[Transport, Call], T],
        *,
        headers: tuple[Header, ...] = (),
        timeout_seconds: float | None = None,
        may_repeat: bool = True,
    ) -> T:
        """Make a call with a deadline, on a separate thread so that Ctrl-C works. Writes are not repeated."""
        timeout_seconds = timeout_seconds or self._timeout_seconds or CONTROL_TIMEOUT_SECONDS
        attempts = self._attempts(timeout_seconds, may_repeat=may_repeat, stopped=self._closed)
        credential = attempts.credentials.fetch()
        while True:
            call = self._build_call(attempts, credential, headers=(*self._tag_headers, *headers))
            try:
                return run_interruptibly(partial(work, self._transport, call))
            except MicromegasError as error:
                renewed = attempts.next_credential(error, credential, call.record)
                if renewed is None:
                    raise
                credential = renewed

    def _attempts(
        self, timeout_seconds: float | None, *, may_repeat: bool, stopped: threading.Event | None = None
    ) -> Attempts:
        if self._closed.is_set():
            raise UsageError("The client is closed.", remedy="Create a new one.")
        return Attempts(
            self._credentials,
            clock=self._clock,
            may_repeat=may_repeat,
            timeout_seconds=check_timeout(timeout_seconds),
            server=self._transport,
            stopped=stopped,
        )

    def _build_call(self, attempts: Attempts, credential: Credential, *, headers: tuple[Header, ...]) -> Call:
        return Call(
            server=self._address.name,
            is_encrypted=self._address.is_encrypted,
            has_certificate=self._transport.has_certificate,
            credential=credential,
            credentials=attempts.credentials,
            headers=headers,
            timeout_seconds=attempts.remaining_seconds(),
            started_at=self._clock.now(),
        )


@cache
def _arrow_class() -> type[FlightSQLClient]:
    if find_spec("adbc_driver_manager") is None:
        return FlightSQLClient
    from micromegas_jupyter.client.workarounds.connection_types import ArrowConnection

    namespace = {"__module__": ArrowConnection.__module__, "__doc__": FlightSQLClient.__doc__}
    return type(FlightSQLClient.__name__, (ArrowConnection, FlightSQLClient), namespace)


def _check_statement(text: object) -> str:
    if not isinstance(text, str) or not text.strip():
        raise UsageError("The statement is empty.", remedy='Pass SQL text, for example "SELECT 1".')
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError("The statement contains a lone surrogate.", remedy="Use text that UTF-8 can encode.") from None
    return text


DEPRECATION_NOTICE: Final = (
    f"{WRAPPER_VARIABLE} is deprecated: the wrapper's client is used and all other settings are ignored. Move what it "
    "sets to config.json or variables, then unset it; see the guide's page on migration."
)

_MODULE_NAME: Final = re.compile(r"(?=.{1,200}\Z)[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


def wrapped_client(environ: Mapping[str, str] | None = None) -> "FlightSQLClient | WrappedClient | None":
    """Return the client of the configured wrapper module, with a `FutureWarning`, or None without a wrapper."""
    name = (os.environ if environ is None else environ).get(WRAPPER_VARIABLE)
    if not name:
        return None
    if not _MODULE_NAME.fullmatch(name):
        raise _unusable(f"{WRAPPER_VARIABLE} is not the name of a module.")
    try:
        module = importlib.import_module(name)
    except Exception as error:
        raise _unusable(f"The wrapper module {name} cannot be imported ({type(error).__name__}).") from error
    connect = getattr(module, "connect", None)
    if not callable(connect):
        raise _unusable("The wrapper module doesn't have a connect() function.")
    try:
        made = connect()
    except Exception as error:
        raise _unusable(f"The wrapper module's connect() failed ({type(error).__name__}).") from error
    if not callable(getattr(made, "query_stream", None)) and not callable(getattr(made, "query", None)):
        raise _unusable(
            "The wrapper module's connect() returned an object that isn't a client: it has no query() method."
        )
    warnings.warn(DEPRECATION_NOTICE, FutureWarning, stacklevel=3)
    return made if isinstance(made, FlightSQLClient) else WrappedClient(made)


class WrappedClient(QueryMethods):
    """Runs statements through another client; other attributes are delegated to that client."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._readers: weakref.WeakSet[QueryReader] = weakref.WeakSet()
        self._uses = Uses(self._close_inner)

    def open_query(  # noqa: PLR0913 - the arguments of `FlightSQLClient.open_query`
        self,
        sql: str,
        begin: TimeArgument = None,
        end: TimeArgument = None,
        params: Params = None,
        *,
        limit: int | None = None,
        timeout_seconds: float | None = None,
    ) -> QueryReader:
        """Start a statement and return a reader of its batches; `limit` is applied on the client."""
        if params:
            raise UsageError(
                "The wrapper's client does not support parameters.",
                remedy="Write the values into the statement, or unset MICROMEGAS_PYTHON_MODULE_WRAPPER.",
            )
        if self._uses.is_closed:
            raise UsageError("The client is closed.", remedy="Create a new one.")
        check_timeout(timeout_seconds)
        begin_text, end_text = format_time_range(begin, end, now=SYSTEM_CLOCK.now())

        def open_stream(call: Call) -> "_ForeignStream":
            self._uses.begin()
            try:
                batches = _batches(self._inner, sql, begin_text, end_text, limit=limit)
                return _ForeignStream(batches, call, self._uses)
            finally:
                self._uses.finish()

        def build_call(credential: Credential) -> Call:
            return Call(server="the wrapper's server", credential=credential, started_at=SYSTEM_CLOCK.now())

        attempts = Attempts(CredentialSource(None), clock=SYSTEM_CLOCK, may_repeat=False)
        reader = QueryReader(attempts, build_call, open_stream, clock=SYSTEM_CLOCK)
        self._readers.add(reader)
        return reader

    def on_notice(self, callback: Callable[[str], None]) -> None:
        """Do nothing: the wrapped client doesn't have notices."""

    def close(self, *, keeps_readers: bool = False) -> None:
        """Close the wrapped client, if it can be closed; with `keeps_readers`, once no query is running."""
        if not keeps_readers:
            for reader in list(self._readers):
                reader.close()
        self._uses.close()

    @property
    def is_in_use(self) -> bool:
        """Whether a query is running."""
        return self._uses.is_used

    def _close_inner(self) -> None:
        close = getattr(self._inner, "close", None)
        if callable(close):
            close()

    def __getattr__(self, name: str) -> Any:
        if name in _UNSUPPORTED:
            return partial(_reject_call, name)
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._inner, name)


# What the wrapped client doesn't support, and the alternative.
_UNSUPPORTED: Final = {
    "whoami": ("ask who you are", "Queries still work."),
    "list_tables": ("list tables", "Query information_schema.tables instead."),
    "running_queries": ("list what runs on the server", None),
    "cancel_query": ("cancel a query by its id", None),
    "query_progress": ("follow a query", None),
    "cut_off": ("end a user's access", None),
    "restore_access": ("restore a user's access", None),
    "cut_off_users": ("list users who are cut off", None),
}


def _reject_call(name: str, *_arguments: object, **_options: object) -> NoReturn:
    what, remedy = _UNSUPPORTED[name]
    raise UnsupportedRequest(f"The wrapper's client cannot {what}.", remedy=remedy)


class _ForeignStream:
    """The batches of the wrapped client's response; the first is fetched immediately to get the schema."""

    def __init__(self, batches: Iterator[pa.RecordBatch], call: Call, uses: Uses) -> None:
        self._batches = batches
        self._call = call
        self._is_cancelled = False
        self._waiting = self._next()
        self.close = uses.share(self)

    @property
    def schema(self) -> pa.Schema:
        """The first batch's schema; without a batch there are no columns."""
        return pa.schema([]) if self._waiting is None else self._waiting.schema

    def read_batch(self) -> pa.RecordBatch | None:
        """Return the next batch, or None at the end or after `cancel`."""
        batch, self._waiting = self._waiting, None
        if batch is None and not self._is_cancelled:
            batch = self._next()
        return batch

    def cancel(self) -> None:
        """Stop requesting batches."""
        self._is_cancelled = True

    def _next(self) -> pa.RecordBatch | None:
        try:
            return next(self._batches, None)
        except (pa.ArrowException, MicromegasError) as error:
            raise translate_failure(error, self._call) from error
        except Exception as error:
            # Another library's exception may contain anything.
            raise InternalError(
                f"The wrapper's client failed ({type(error).__name__}).", remedy="Ask the wrapper's maintainer."
            ) from error


def _batches(
    inner: Any, sql: str, begin: str | None, end: str | None, *, limit: int | None
) -> Iterator[pa.RecordBatch]:
    if callable(getattr(inner, "query_stream", None)):
        batches = inner.query_stream(sql, begin, end)
    else:
        batches = pa.Table.from_pandas(inner.query(sql, begin, end), preserve_index=False).to_batches()
    rows_left = sys.maxsize if limit is None else limit
    for batch in batches:
        yield batch.slice(0, rows_left)
        rows_left -= min(batch.num_rows, rows_left)
        if not rows_left:
            return


def _unusable(what: str) -> ConfigurationError:
    return ConfigurationError(
        what, key=WRAPPER_VARIABLE, remedy=f"Correct {WRAPPER_VARIABLE}, or unset it to use the other settings."
    )


def _with_microseconds(table: pa.Table) -> pa.Table:
    """Return rows with nanosecond columns truncated to microseconds, toward the past."""
    import pyarrow.compute as pc  # a client that only reads starts faster without it

    for index, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns":
            kind = pa.timestamp("us", field.type.tz)
            floored = pc.floor_temporal(table.column(index).cast(pa.timestamp("ns")), unit="microsecond")
            table = table.set_column(index, field.with_type(kind), floored.cast(pa.timestamp("us")).cast(kind))
    return table
