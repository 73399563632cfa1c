"""`micromegas query`, and shared parts of other commands: time range, rows, and the client."""

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from io import TextIOWrapper
from itertools import chain
from pathlib import Path
from threading import Event
from typing import IO, TYPE_CHECKING, Any, Final, Self

from micromegas_jupyter.cli.main import (
    SIGN_IN_VARIABLES,
    add_server_arguments,
    is_disk_full,
    load_pyarrow,
    output_error,
    show_note,
)
from micromegas_jupyter.core.files import file_beside
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Secret, start_thread
from micromegas_jupyter.core.text import bytes_text, printable, rows_text, seconds_text
from micromegas_jupyter.errors import LoginRequired, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from micromegas_jupyter.client.flight_client import FlightSQLClient
    from micromegas_jupyter.client.query_reader import QueryReader
    from micromegas_jupyter.config.client import ClientSettings
    from micromegas_jupyter.core.protocols import AuthProvider

_MAX_STATEMENT_BYTES: Final = 64 * 1024
_ENTRYPOINT: Final = "cli-query"
_UPDATE_SECONDS: Final = 0.25
_TIME_FORMS: Final = "RFC 3339, or 15m, 1h, 7d ago"
_PARAMETER: Final = re.compile(r"(?P<name>[^\W\d]\w*)(?::(?P<type>[a-z]+))?=(?P<value>.*)", re.DOTALL)
FORMATS: Final = ("table", "csv", "json", "jsonl", "markdown", "parquet", "arrow")
_BINARY: Final = frozenset({"parquet", "arrow"})
_ENDINGS: Final = {
    **{f".{name}": name for name in ("csv", "json", "jsonl", "parquet", "arrow")},
    ".md": "markdown", ".ndjson": "jsonl", ".txt": "table",
}  # fmt: skip
DEFAULT_MAX_COLUMN_WIDTH: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOptions:
    """How rows are written; `shows_json` is for binary JSON columns, None means the format's default."""

    file_format: str = "table"
    max_column_width: int = DEFAULT_MAX_COLUMN_WIDTH  # of a table's cells; 0 means unlimited
    shows_json: bool | None = None

    @property
    def is_binary(self) -> bool:
        """Whether the format is binary instead of text."""
        return self.file_format in _BINARY

    @property
    def as_json(self) -> bool:
        """Whether binary JSON is written as JSON."""
        return self.shows_json if self.shows_json is not None else not self.is_binary


def add_query_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("sql", nargs="?", metavar="SQL", help="statement, or - to read it from standard input")
    parser.add_argument("--file", help="file that contains the statement (at most 64 KiB)")
    parser.add_argument(
        "-p", "--param", action="append", default=[], metavar="NAME=VALUE",
        help=f"value for :NAME, repeatable; NAME:TYPE=VALUE sets the type: {', '.join(_PARAMETER_TYPES)}",
    )  # fmt: skip
    add_range_arguments(parser)
    parser.add_argument("--all", action="store_true", help="query without a time range; default without --begin")
    parser.add_argument("--limit", type=int, metavar="N", help="maximum number of rows; default: all")
    parser.add_argument(
        "--explain",
        action="store_true",
        help="show the plan and the data to be read, without running the query",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="show the result's columns and the data to be read, without running the query",
    )
    add_row_arguments(parser)
    parser.add_argument(
        "--issuer", metavar="URL", help="identity provider of a service account; default: the configured one"
    )
    parser.add_argument("--client-id", metavar="ID", help="client ID of a service account; default: the configured one")
    parser.add_argument(
        "--client-secret",
        metavar="SECRET",
        help="client secret of a service account; visible to other users, so prefer MICROMEGAS_OIDC_CLIENT_SECRET",
    )
    parser.add_argument("--scope", help="scopes to request, in quotes; default: the configured ones")
    parser.add_argument("--audience", help="audience to request; default: the configured one")
    parser.add_argument("--resource", help="resource to request (RFC 8707); default: the configured one")
    parser.add_argument("--oidc", action="store_true", help="sign in for this query only, and don't store the tokens")


def add_range_arguments(parser: argparse.ArgumentParser, *, default: str | None = None) -> None:
    """Add the time range options."""
    default_text = "" if default is None else f"; default: {default}"
    parser.add_argument(
        "--begin",
        "--since",
        metavar="TIME",
        default=default,
        help=f"start of the time range: {_TIME_FORMS}{default_text}",
    )
    parser.add_argument(
        "--end",
        metavar="TIME",
        help="end of the time range (requires --begin); default: now",
    )


def parse_time_range(arguments: argparse.Namespace) -> tuple[datetime | None, datetime | None]:
    """Return the time range that the options specify."""
    from micromegas_jupyter.core.text import parse_range

    return parse_range(arguments.begin, arguments.end, now=SYSTEM_CLOCK.now())


def add_row_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for the output format and destination, and for the server."""
    parser.add_argument(
        "--format",
        choices=FORMATS,
        metavar="FORMAT",
        help=f"output format: {', '.join(FORMATS)}; default: by the extension of --output, or table",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write the rows to a file; default: standard output",
    )
    parser.add_argument(
        "--max-colwidth",
        type=int,
        default=DEFAULT_MAX_COLUMN_WIDTH,
        metavar="N",
        help="truncate table cells to N characters, or 0 for no limit; default: %(default)s",
    )
    parser.add_argument(
        "--jsonb",
        choices=("json", "bytes"),
        help="format of binary JSON (JSONB) columns; default: json, or bytes for parquet and arrow",
    )
    parser.add_argument("--no-login", action="store_true", help="exit with code 3 instead of signing in")
    add_server_arguments(parser)


def run_query(arguments: argparse.Namespace) -> int:
    """Run the statement and write its rows."""
    sql = _statement(arguments)
    parameters = _parse_parameters(arguments.param)
    if arguments.limit is not None and arguments.limit < 0:
        raise UsageError("--limit must be a number of rows that is 0 or greater.")
    if arguments.all and (arguments.begin or arguments.end):
        raise UsageError("--all can't be combined with --begin and --end.")
    time_range = parse_time_range(arguments)
    if arguments.explain:
        if arguments.output or arguments.format or arguments.limit is not None:
            raise UsageError("--explain prints the plan.", remedy="Omit --output, --format, and --limit.")
        if arguments.dry_run:
            raise UsageError("--explain and --dry-run cannot be combined.", remedy="Omit one of them.")
        return _explain(arguments, sql, time_range, parameters)
    if arguments.dry_run:
        if arguments.output or arguments.format not in {None, "table", "json"}:
            raise UsageError("--dry-run prints columns, as a table or JSON.", remedy="Omit --output and --format.")
        return _describe(arguments, sql, time_range, parameters)
    return write_answer(arguments, sql, *time_range, parameters=parameters, limit=arguments.limit)


def _explain(
    arguments: argparse.Namespace,
    sql: str,
    time_range: "tuple[datetime | None, datetime | None]",
    parameters: Mapping[str, object] | None,
) -> int:
    """Print a statement's plan and its scan estimate."""
    arguments.statement = sql
    with open_query_client(arguments) as client:
        from micromegas_jupyter.client.explain import EXPLAIN, positions_without_explain, read_plan

        client.on_notice(show_note)
        with (
            positions_without_explain(),
            client.open_query(f"{EXPLAIN}{sql}", *time_range, parameters) as reader,
        ):
            for line in read_plan(reader).split("\n"):
                print(printable(line))  # column names may contain terminal control characters
    return 0


def _describe(
    arguments: argparse.Namespace,
    sql: str,
    time_range: "tuple[datetime | None, datetime | None]",
    parameters: Mapping[str, object] | None,
) -> int:
    """Print a statement's columns, with the scan estimate on standard error, or print everything as JSON."""
    arguments.statement = sql
    with open_query_client(arguments) as client:
        from micromegas_jupyter.client.query_reader import NO_ESTIMATE, parse_estimate

        client.on_notice(show_note)
        schema = client.describe_statement(sql, *time_range, parameters, limit=arguments.limit)
    estimate = parse_estimate(schema)
    columns = [{"column": one.name, "type": str(one.type), "nullable": one.nullable} for one in schema]
    if arguments.format == "json":
        import msgspec

        print(msgspec.json.encode({"columns": columns, "estimate": estimate}).decode())
        return 0
    width = max((len(printable(one.name)) for one in schema), default=0)
    for one in schema:
        print(f"{printable(one.name):<{width}}  {printable(str(one.type))}{'' if one.nullable else ' not null'}")
    print(NO_ESTIMATE if estimate is None else f"It {estimate.text()}.", file=sys.stderr)
    return 0


def write_answer(  # noqa: PLR0913 - as a query takes them
    arguments: argparse.Namespace,
    sql: str,
    begin: datetime | None = None,
    end: datetime | None = None,
    *,
    parameters: Mapping[str, object] | None = None,
    limit: int | None = None,
) -> int:
    """Run a statement and write its rows; progress (on a terminal) and a note about no rows go to standard error."""
    if arguments.max_colwidth < 0:
        raise UsageError("--max-colwidth is a width, or 0 to cut nothing.")
    options = RowOptions(
        file_format=choose_format(arguments.format, arguments.output),
        max_column_width=arguments.max_colwidth,
        shows_json=None if arguments.jsonb is None else arguments.jsonb == "json",
    )
    arguments.statement = sql  # error messages refer to it
    is_shown = arguments.output in {None, "-"} and sys.stdout.isatty()
    with open_query_client(arguments) as client, _Progress(is_quiet_with_rows=is_shown) as progress:
        client.on_notice(show_note)
        more = {} if limit is None else {"limit": limit}
        with (
            client.open_query(sql, begin, end, parameters, **more) as reader,
            open_output(arguments.output, options) as output,
        ):
            count = write_rows(reader.schema, progress.watch(reader, client), output, options)
    if count == 0:
        # Showing the range also reveals an incorrect clock.
        told = "" if begin is None or end is None else f" from {begin:%Y-%m-%dT%H:%M:%SZ} to {end:%Y-%m-%dT%H:%M:%SZ}"
        print(f"no rows{told}", file=sys.stderr)
    return 0


class _Progress:
    """Shows a query's progress on a terminal (rows, bytes, and time) until rows are printed there."""

    def __init__(self, *, is_quiet_with_rows: bool) -> None:
        self._is_quiet_with_rows = is_quiet_with_rows
        self._shown: Any = None
        self._is_over = Event()

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live
            from rich.spinner import Spinner

            self._spinner = Spinner("dots", "running")
            self._shown = Live(self._spinner, console=Console(stderr=True), transient=True, redirect_stdout=False)
            self._shown.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop()

    def watch(self, reader: "QueryReader", client: "FlightSQLClient") -> "Iterator[Any]":
        """Yield the reader's batches."""
        if self._shown is not None:
            start_thread(partial(self._update, reader, client), name="micromegas-progress")
        for batch in reader:
            if self._is_quiet_with_rows:
                self._stop()
            yield batch

    def _update(self, reader: "QueryReader", client: "FlightSQLClient") -> None:
        from micromegas_jupyter.client.query_reader import ScanFollower

        follower = ScanFollower(client.query_progress, SYSTEM_CLOCK)
        while not self._is_over.wait(_UPDATE_SECONDS):
            facts = (
                seconds_text(reader.elapsed_seconds),
                rows_text(reader.rows),
                bytes_text(reader.bytes_received),
                follower.text(reader.query_id),
            )
            self._spinner.update(text=" · ".join(filter(None, facts)))

    def _stop(self) -> None:
        self._is_over.set()
        if self._shown is not None:
            self._shown.stop()
            self._shown = None


def _parse_parameters(texts: Iterable[str]) -> dict[str, object] | None:
    """Return the values of `-p`, or None if there are none."""
    found: dict[str, object] = {}
    for text in texts:
        parts = _PARAMETER.fullmatch(text)
        if parts is None:
            raise UsageError(
                "-p takes NAME=VALUE.", remedy='For example: -p level=3 or -p "since:timestamp=2026-01-31T08:00Z".'
            )
        if parts["name"] in found:
            raise UsageError(f"-p {parts['name']} is given twice.")
        found[parts["name"]] = _parse_value(parts["name"], parts["type"], parts["value"])
    return found or None


def _parse_value(name: str, kind: str | None, text: str) -> object:
    if kind is None:
        from micromegas_jupyter.flightsql.parameters import Untyped  # imports pyarrow

        return Untyped(text, _parse_timestamp)
    read = _PARAMETER_TYPES.get(kind)
    if read is None:
        raise UsageError(f"-p {name} has an unknown type.", remedy=f"Use one of {', '.join(_PARAMETER_TYPES)}.")
    try:
        return read(text)
    except (ValueError, InvalidOperation, KeyError):
        raise UsageError(f"The value of -p {name} is not a valid {kind}.") from None


def _parse_timestamp(text: str) -> datetime:
    from micromegas_jupyter.core.text import parse_time

    return parse_time(text, now=SYSTEM_CLOCK.now())


_PARAMETER_TYPES: Final[dict[str, Callable[[str], object]]] = {
    "text": str,
    "int": int,
    "float": float,
    "decimal": Decimal,
    "bool": {"true": True, "false": False}.__getitem__,
    "timestamp": _parse_timestamp,
    "date": date.fromisoformat,
    "null": {"": None, "null": None}.__getitem__,
}


def _statement(arguments: argparse.Namespace) -> str:
    if (arguments.sql is None) == (arguments.file is None):
        raise UsageError("Specify either a statement or --file.", remedy='For example: micromegas query "SELECT 1".')
    file = "-" if arguments.sql == "-" else arguments.file
    if file is None:
        return str(arguments.sql)
    try:
        if file == "-":
            data = sys.stdin.buffer.read(_MAX_STATEMENT_BYTES + 1)
        else:
            with Path(file).open("rb") as opened:
                data = opened.read(_MAX_STATEMENT_BYTES + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file} is not UTF-8 text.") from None
    if len(data) > _MAX_STATEMENT_BYTES:
        raise UsageError("The statement is larger than 64 kB.")
    return text


def open_query_client(arguments: argparse.Namespace) -> "FlightSQLClient":
    """Return a client with the stored sign-in, or with the credential that the options specify."""
    from micromegas_jupyter.wiring import client_side

    options = {variable: getattr(arguments, name, None) for name, variable in SIGN_IN_VARIABLES.items()}
    given: dict[str, str] = {variable: value for variable, value in options.items() if value}
    secret = Secret(arguments.client_secret) if getattr(arguments, "client_secret", None) else None
    oidc = getattr(arguments, "oidc", False)
    has_options = bool(given or secret or oidc or arguments.uri or arguments.profile)
    if client_side.is_wrapped() and not has_options:
        return client_side.connect()
    environ = client_side.without_wrapper()
    if arguments.uri:
        given["MICROMEGAS_ANALYTICS_URI"] = arguments.uri
    settings = client_side.load_client_settings(profile=arguments.profile, environ=environ, options=given)
    if settings.origin_of("uri") is None:
        show_note(
            f"no server is configured, so this asks {settings.uri}; name another with --uri or MICROMEGAS_ANALYTICS_URI"
        )
    if oidc and secret:
        raise UsageError("--oidc signs in a user; a service account doesn't need it.")
    provider: AuthProvider | None
    if oidc:
        from micromegas_jupyter.cli.sign_in_commands import sign_in

        provider = sign_in(settings, store=False)
    elif secret:
        settings = replace(settings, client_secret=secret)
        provider = client_side.service_account_provider(settings)
    else:
        provider = _stored_or_new_provider(settings, environ, may_sign_in=not arguments.no_login)
    entrypoint = None if environ.get("MICROMEGAS_CLIENT_ENTRYPOINT") else _ENTRYPOINT
    load_pyarrow("compute")  # used to write rows
    return client_side.open_client(settings, provider, environ=environ, entrypoint=entrypoint)


def _stored_or_new_provider(
    settings: "ClientSettings", environ: Mapping[str, str], *, may_sign_in: bool
) -> "AuthProvider | None":
    """Return the configured provider, after signing in a user with a terminal and a browser."""
    from micromegas_jupyter.wiring import client_side

    try:
        return client_side.stored_provider(settings, environ)
    except LoginRequired:
        if not (may_sign_in and sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        from micromegas_jupyter.config.client import Flow
        from micromegas_jupyter.wiring.sign_in import choose_flow

        if choose_flow(settings, environ=environ).flow is not Flow.BROWSER:
            raise
        from micromegas_jupyter.cli.sign_in_commands import sign_in

        print("You are not signed in: opening your browser. --no-login leaves that out.", file=sys.stderr)
        return sign_in(settings, environ=environ)


def choose_format(file_format: str | None, output: str | None) -> str:
    """Return the requested format, or the one that matches the file's extension."""
    if file_format is None and output is not None and output != "-":
        file_format = _ENDINGS.get(Path(output).suffix.lower())
        if file_format is None:
            raise UsageError(
                "The file name doesn't determine the format.",
                remedy=f"Add --format {'|'.join(FORMATS)}, or a known ending.",
            )
    return file_format or "table"


@contextmanager
def open_output(path: str | None, options: RowOptions) -> Iterator[IO[Any]]:
    """Yield the output for rows: standard output, or a file that gets its final name once all rows are written."""
    output: IO[Any]
    if path is None or path == "-":
        if options.is_binary and sys.stdout.isatty():
            raise UsageError(
                f"{options.file_format} is not for a terminal.", remedy="Specify a file with --output, or use a pipe."
            )
        output = sys.stdout.buffer if options.is_binary else sys.stdout
        yield output
        output.flush()
        return
    try:
        with ExitStack() as stack:
            try:
                file = stack.enter_context(file_beside(Path(path)))
            except OSError as error:
                raise UsageError(
                    f"The output file cannot be written: {error.strerror}.",
                    remedy="Check the directory and your permissions.",
                ) from error
            output = file if options.is_binary else TextIOWrapper(file, encoding="utf-8", newline="")
            yield output
            output.flush()
    except OSError as error:
        if is_disk_full(error):
            raise output_error(error) from error
        raise


def write_rows(
    schema: "pa.Schema", batches: Iterable["pa.RecordBatch"], output: IO[Any], options: RowOptions = RowOptions()
) -> int:
    """Write all rows, each batch as it arrives, and return the number of rows; `arrow` in a pipe is an IPC stream.

    Raises:
        UsageError: The format doesn't support such columns.
    """
    if options.is_binary:
        return _write_binary(schema, batches, output, options)
    from micromegas_jupyter.client.row_text import write_text

    return write_text(
        schema,
        batches,
        output,
        file_format=options.file_format,
        max_column_width=options.max_column_width,
        shows_json=options.as_json,
    )


def _write_binary(
    schema: "pa.Schema", batches: Iterable["pa.RecordBatch"], output: IO[bytes], options: RowOptions
) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    batches = iter(batches)
    first = next(batches, None)
    named = _jsonb_columns(schema, first) if options.as_json else []
    if named:
        schema = pa.schema(
            [field.with_type(pa.string()) if index in named else field for index, field in enumerate(schema)]
        )
    make_writer: dict[str, Callable[..., Any]] = {
        "parquet": partial(pq.ParquetWriter, compression="zstd"),
        "arrow": pa.ipc.new_file if _is_file(output) else pa.ipc.new_stream,
    }
    count = 0
    try:
        with make_writer[options.file_format](output, schema) as writer:
            for batch in chain([] if first is None else [first], batches):
                writer.write_batch(_with_json_text(batch, named, schema))
                count += batch.num_rows
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise UsageError(
            f"{options.file_format} cannot hold a column of these.", remedy="Cast it, or choose another format."
        ) from error
    return count


def _is_file(output: IO[bytes]) -> bool:
    try:
        return output is not getattr(sys.stdout, "buffer", None) and output.seekable()
    except ValueError:
        return False


def _jsonb_columns(schema: "pa.Schema", batch: "pa.RecordBatch | None") -> list[int]:
    """Return the binary JSON columns, as determined from the first rows."""
    import pyarrow as pa

    from micromegas_jupyter.core.jsonb import holds_jsonb, is_declared_jsonb

    if batch is None:
        return [index for index, field in enumerate(schema) if is_declared_jsonb(field)]
    columns = zip(schema, batch.columns, strict=True)
    return [index for index, (field, column) in enumerate(columns) if holds_jsonb(field, pa.chunked_array([column]))]


def _with_json_text(batch: "pa.RecordBatch", named: Sequence[int], schema: "pa.Schema") -> "pa.RecordBatch":
    if not named:
        return batch
    import pyarrow as pa

    from micromegas_jupyter.core.jsonb import json_texts

    columns = [
        json_texts(pa.chunked_array([column])).combine_chunks().cast(pa.string()) if index in named else column
        for index, column in enumerate(batch.columns)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def add_mcp_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `micromegas mcp`."""
    add_server_arguments(parser)
    parser.add_argument("--print-config", action="store_true", help="print the configuration for common agents")


def run_mcp(arguments: argparse.Namespace) -> int:
    """Serve the agent that started this program."""
    from micromegas_jupyter.wiring.agents import describe_configurations, serve_agent
    from micromegas_jupyter.wiring.client_side import load_client_settings

    if arguments.print_config:
        named = {"--profile": arguments.profile, "--uri": arguments.uri}
        options = [word for option, value in named.items() if value is not None for word in (option, value)]
        print(describe_configurations(str(Path(sys.argv[0]).absolute()), ["mcp", *options]))
        return 0
    settings = load_client_settings(profile=arguments.profile)
    serve_agent(settings if arguments.uri is None else replace(settings, uri=arguments.uri))
    return 0
