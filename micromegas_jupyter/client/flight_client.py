"""`FlightSQLClient`: what a notebook, a program or the command line calls.

It checks arguments and puts the parts of this room together; each part does one thing.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

import pyarrow as pa

from micromegas_jupyter.client import prepared
from micromegas_jupyter.client.address import parse_address
from micromegas_jupyter.client.attribution import find_attribution
from micromegas_jupyter.client.binding import Params, bind
from micromegas_jupyter.client.calls import Call
from micromegas_jupyter.client.client_certificate import read_client_certificate
from micromegas_jupyter.client.connection import Connection, check_timeout
from micromegas_jupyter.client.credentials import CredentialSource, check_plaintext, check_provider
from micromegas_jupyter.client.headers import (
    CallTags,
    Header,
    NotebookPlace,
    QueryOptions,
    build_query_headers,
    build_tag_headers,
    parse_static_headers,
)
from micromegas_jupyter.client.ingest import build_ingest_command, build_ingest_headers, split_table
from micromegas_jupyter.client.prepared import CONTROL_TIMEOUT_SECONDS, PreparedStatement
from micromegas_jupyter.client.pump import BatchStream
from micromegas_jupyter.client.query_methods import QueryMethods
from micromegas_jupyter.client.query_reader import QueryReader
from micromegas_jupyter.client.retry import is_read
from micromegas_jupyter.client.server_identity import WHO_AM_I_ACTION, ServerIdentity, parse_server_identity
from micromegas_jupyter.client.table_list import fetch_tables
from micromegas_jupyter.client.telemetry_queries import TelemetryQueries
from micromegas_jupyter.client.times import TimeArgument, format_time_range
from micromegas_jupyter.client.transport import Transport
from micromegas_jupyter.contracts import AuthProvider
from micromegas_jupyter.errors import (
    InternalError,
    InvalidStatement,
    UnsupportedRequest,
    UnsupportedStatement,
    UsageError,
)
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import parse_message, statement_ticket
from micromegas_jupyter.seams import SYSTEM_CLOCK, Clock

_INGEST_TIMEOUT_SECONDS: Final = 600.0

StaticHeaders = Mapping[str | bytes, str | bytes] | Iterable[tuple[str | bytes, str | bytes]]


class FlightSQLClient(QueryMethods, TelemetryQueries):
    """A client of one Flight SQL server, with upstream's methods and arguments and more.

    Nothing is sent before the first call. May be used from several threads, and as a context manager.

    Args:
        uri: `grpc://host:port` or `grpc+tls://host:port`; `http` and `https` mean the same two.
        headers: Deprecated: static headers of every call, for example an API key.
        preserve_dictionary: Keep dictionary-encoded columns as they are.
        auth_provider: Gives the bearer token of each call: any object with `get_token() -> str`. With a method
            `invalidate(token)` a refused token is renewed once and the call repeated, unless it writes or rows have
            come already.
        client_entrypoint: How this program was started, for the server's audit.
        timeout_seconds: How long each call may last; without it, queries last as long as they take.
        ca_bundle: A PEM file of authorities in place of certifi's, for servers with private certificates.
        extra_ca_bundle: A PEM file of authorities to trust besides those.
        client_certificate_file: A PEM file of the certificate that is shown to a server which asks for one, over TLS.
        client_key_file: A PEM file of its key.
        allow_plaintext: Whether credentials may go over `grpc://` to another machine.
        environ: Stands in for the process environment.
        clock: Dates and measures calls.

    Raises:
        UsageError: An argument cannot be used, or a credential would be readable on the way.
    """

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
        allow_plaintext: bool = False,
        environ: Mapping[str, str] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if headers is not None and auth_provider is not None:
            raise UsageError("Both headers and auth_provider are given.", remedy="Give auth_provider alone.")
        if headers is not None:
            warnings.warn(
                "headers is deprecated: it cannot renew a token. Use auth_provider, for an API key "
                "micromegas_jupyter.auth.StaticTokenAuthProvider.",
                DeprecationWarning,
                stacklevel=2,
            )
        address = parse_address(uri)
        credentials = CredentialSource(check_provider(auth_provider), parse_static_headers(headers or ()))
        check_plaintext(address, credentials, allow_plaintext=allow_plaintext)
        attribution = find_attribution(os.environ if environ is None else environ, entrypoint=client_entrypoint)
        self._tags = CallTags(attribution=attribution)
        self._preserve_dictionary = bool(preserve_dictionary)
        self._timeout_seconds = check_timeout(timeout_seconds)
        self._clock = clock
        self._connection = Connection(
            Transport(
                address,
                ca_bundle=ca_bundle,
                extra_ca_bundle=extra_ca_bundle,
                certificate=read_client_certificate(client_certificate_file, client_key_file),
            ),
            address=address,
            credentials=credentials,
            clock=clock,
        )

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

        Args:
            sql: The statement.
            begin: As for `query`.
            end: As for `query`.
            params: As for `query`.
            limit: At most this many rows, on top of the statement's own LIMIT.
            timeout_seconds: How long the query may last, in place of the client's own limit.

        Raises:
            MicromegasError: The query could not be started.
        """
        sql = _check_statement(sql)
        begin_text, end_text = format_time_range(begin, end, now=self._clock.now())
        options = QueryOptions(
            begin=begin_text, end=end_text, limit=limit, preserve_dictionary=self._preserve_dictionary
        )
        transport = self._connection.transport
        bound = bind(sql, params)

        def open_stream(call: Call) -> BatchStream:
            if bound is None:
                return transport.do_get(statement_ticket(sql), call)
            return prepared.open_bound(transport, bound, call)

        return self._connection.open_reader(
            open_stream,
            headers=build_query_headers(options, self._tags),
            timeout_seconds=self._timeout_seconds if timeout_seconds is None else timeout_seconds,
            may_repeat=is_read(sql),
        )

    def prepare_statement(self, sql: str) -> PreparedStatement:
        """Ask the server for a statement's schemas without running it.

        Raises:
            MicromegasError: The server does not understand the statement, or cannot be asked.
        """
        sql = _check_statement(sql)
        transport = self._connection.transport
        return self._connection.run(
            lambda call: prepared.prepare(transport, sql, call),
            headers=self._tag_headers(),
            timeout_seconds=self._timeout_seconds or CONTROL_TIMEOUT_SECONDS,
        )

    def prepared_statement_stream(self, statement: PreparedStatement) -> Iterator[pa.RecordBatch]:
        """Run a statement that `prepare_statement` returned and yield its batches."""
        return self.query_stream(statement.query)

    def list_tables(self, *, timeout_seconds: float | None = None) -> dict[str, pa.Schema]:
        """Ask the server for the tables that it shows this caller: the schema of each, by its name.

        A field's metadata holds its remarks under `ARROW:FLIGHT:SQL:REMARKS`, where the server has any; so does the
        schema's for the table.

        Args:
            timeout_seconds: How long the answer may take, in place of the client's own limit.

        Raises:
            MicromegasError: The server does not say, or cannot be asked.
        """
        transport = self._connection.transport
        return self._connection.run(
            lambda call: fetch_tables(transport, call),
            headers=self._tag_headers(),
            timeout_seconds=timeout_seconds or self._timeout_seconds or CONTROL_TIMEOUT_SECONDS,
        )

    def whoami(self) -> ServerIdentity:
        """Ask the server whom it takes the caller for.

        Raises:
            UnsupportedRequest: The server does not say.
            MicromegasError: The call failed.
        """
        transport = self._connection.transport

        def ask(call: Call) -> list[bytes]:
            try:
                return transport.do_action(WHO_AM_I_ACTION, b"", call)
            except (InvalidStatement, UnsupportedStatement, UnsupportedRequest, UsageError) as error:
                raise UnsupportedRequest(
                    "The server cannot say who you are.", remedy="It works for queries all the same."
                ) from error

        results = self._connection.run(
            ask, headers=self._tag_headers(), timeout_seconds=self._timeout_seconds or CONTROL_TIMEOUT_SECONDS
        )
        if len(results) != 1:
            raise InternalError("The server's answer to who you are cannot be read.")
        return parse_server_identity(results[0])

    def bulk_ingest(
        self, table_name: str, table: pa.Table, *, mode: str = "append", ingest_id: str | None = None
    ) -> Any:
        """Add a table's rows to one of the server's tables; for administrators, and API keys that are for it.

        Args:
            table_name: The table.
            table: The rows.
            mode: `append` to a table that is there, `create` one that is not, or `create_append`.
            ingest_id: Names this call, so that it can be made again when its end is not known: this project's server
                stores the rows of one id once.

        Returns:
            A message with `record_count`, or None when the server does not say.

        Raises:
            UsageError: `table` is not an Arrow table, there is no such mode, or the id cannot be sent.
            MicromegasError: The server did not take the rows; none is stored, unless the connection broke.
        """
        if not isinstance(table, pa.Table):
            raise UsageError(f"bulk_ingest takes a pyarrow.Table, not {type(table).__name__}.")
        command = build_ingest_command(_check_statement(table_name), mode)
        headers = (*self._tag_headers(), *build_ingest_headers(table, ingest_id))
        transport = self._connection.transport
        answer = self._connection.run(
            lambda call: transport.do_put(command, table.schema, split_table(table), call),
            headers=headers,
            timeout_seconds=self._timeout_seconds or _INGEST_TIMEOUT_SECONDS,
            may_repeat=False,
        )
        return None if answer is None else _parse_update(answer)

    def tell_notices(self, tell: Callable[[str], None]) -> None:
        """Have `tell` called with each notice of the server about the credential, in place of a warning in the log.

        Args:
            tell: Given a short printable text, once for each; called on any thread.
        """
        self._connection.transport.tell_notices(tell)

    def set_notebook_place(self, notebook: str | None, cell: str | None = None) -> None:
        """Say which notebook and cell make the calls from now on, for the server's audit."""
        self._tags = CallTags(attribution=self._tags.attribution, place=NotebookPlace(notebook=notebook, cell=cell))

    def close(self) -> None:
        """Stop running queries and give up the connection; every later call raises `UsageError`."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _tag_headers(self) -> tuple[Header, ...]:
        return build_tag_headers(self._tags)


def _check_statement(text: object) -> str:
    if not isinstance(text, str) or not text.strip():
        raise UsageError("The statement is empty.", remedy='Give SQL text, for example "SELECT 1".')
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError("The statement holds half a character.", remedy="Give text that UTF-8 can hold.") from None
    return text


def _parse_update(answer: bytes) -> Any:
    try:
        return parse_message(messages.DoPutUpdateResult, answer)
    except UsageError as error:
        raise InternalError("The server's answer to the rows cannot be read.") from error
