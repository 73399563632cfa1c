"""`micromegas processes`, `process-log`, `process-metrics`, `trace`, `logs`, and `telemetry`."""

import argparse
import importlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.cli.main import add_action, add_server_arguments, connect, print_table, show_note
from micromegas_jupyter.cli.query_commands import (
    RowOptions,
    add_range_arguments,
    add_row_arguments,
    choose_format,
    open_output,
    open_query_client,
    parse_time_range,
    write_answer,
    write_rows,
)
from micromegas_jupyter.core.text import cell_text, has_color, rows_text
from micromegas_jupyter.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from micromegas_jupyter.client.flight_client import FlightSQLClient
    from micromegas_jupyter.telemetry.levels import Level
    from micromegas_jupyter.telemetry.log_lines import LogFilter

_DEFAULT_ROWS: Final = 1024
_EXE_CHARACTERS: Final = 64  # the last ones, as in upstream's command
_TRACE_ROWS: Final = 60
_PLAIN_WIDTH: Final = 120
_TRACE_STYLES: Final = {"title": "\x1b[1m", "header": "\x1b[2m", "error": "\x1b[31m", "critical": "\x1b[33m"}
_LEVEL_STYLES: Final = {1: "\x1b[1;31m", 2: "\x1b[31m", 3: "\x1b[33m", 5: "\x1b[2m", 6: "\x1b[2m"}
_RESET: Final = "\x1b[0m"
_FOLLOWED_FORMATS: Final = (None, "csv", "jsonl")
_POLL_SECONDS: Final = 2.0
_MAX_PATTERN_ROWS: Final = 50


def add_trace_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("trace_id", metavar="ID", help="trace ID (32 hexadecimal digits)")
    add_range_arguments(parser)
    parser.add_argument(
        "--rows",
        type=int,
        metavar="N",
        default=_TRACE_ROWS,
        help="maximum number of spans, or 0 for all; default: %(default)s",
    )
    add_row_arguments(parser)


def run_trace(arguments: argparse.Namespace) -> int:
    """Print the tree, or write all spans as rows with --format or --output."""
    if arguments.rows < 0:
        raise UsageError("--rows must be a number of spans, or 0 for all.")
    begin, end = parse_time_range(arguments)
    importlib.import_module("numpy")  # pyarrow must find it when it is loaded
    with open_query_client(arguments) as client:
        client.on_notice(show_note)
        trace = client.trace(arguments.trace_id, begin, end)
    if arguments.format or arguments.output:
        options = RowOptions(
            file_format=choose_format(arguments.format, arguments.output), max_column_width=arguments.max_colwidth
        )
        with open_output(arguments.output, options) as output:
            write_rows(trace.spans.schema, trace.spans.to_batches(), output, options)
        return 0
    is_colored = has_color(sys.stdout, os.environ)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _PLAIN_WIDTH
    for line, kind in trace.to_lines(width=width, max_rows=arguments.rows or None):
        style = _TRACE_STYLES.get(kind) if is_colored else None
        print(f"{style}{line}{_RESET}" if style else line)
    return 0


def add_processes_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    add_range_arguments(parser, default="1h")
    parser.add_argument(
        "--limit", type=int, metavar="N", default=1_000_000, help="maximum number of programs; default: %(default)s"
    )
    parser.add_argument("--username", metavar="REGEX", help="only matching user names")
    parser.add_argument("--exe", metavar="REGEX", help="only matching executables")
    parser.add_argument("--computer", metavar="REGEX", help="only matching host names")
    add_row_arguments(parser)
    parser.set_defaults(max_colwidth=_EXE_CHARACTERS)


def run_processes(arguments: argparse.Namespace) -> int:
    """Print the programs, most recently started first."""
    _check_count(arguments.limit, "--limit")
    begin, end = parse_time_range(arguments)
    condition = _matches((name, getattr(arguments, name)) for name in ("username", "exe", "computer"))
    width = arguments.max_colwidth
    is_cut = width > 0 and choose_format(arguments.format, arguments.output) == "table"
    exe = f"right(exe, {width}) AS exe" if is_cut else "exe"  # paths differ at their ends
    sql = (
        f"SELECT process_id, {exe}, start_time, username, computer, distro, cpu_brand FROM processes "  # noqa: S608 - quoted
        f"WHERE {condition} ORDER BY start_time LIMIT {arguments.limit}"
    )
    return write_answer(arguments, sql, begin, end)


def add_process_log_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    _add_process_argument(parser)
    parser.add_argument("--first", type=int, metavar="N", help=f"print the first N entries; default: {_DEFAULT_ROWS}")
    parser.add_argument("--last", type=int, metavar="N", help="print the last N entries instead of the first")
    parser.add_argument("--target", metavar="TEXT", help="only modules or loggers that contain this text")
    parser.add_argument("--msg", metavar="TEXT", help="only messages that contain this text")
    parser.add_argument(
        "--maxlevel",
        metavar="LEVEL",
        default="6",
        help=f"maximum level: {_level_names()}; default: %(default)s",
    )
    add_row_arguments(parser)


def run_process_log(arguments: argparse.Namespace) -> int:
    """Print the entries in chronological order."""
    _check_count(arguments.first, "--first")
    _check_count(arguments.last, "--last")
    level = int(_parse_level(arguments.maxlevel, "--maxlevel"))
    count = arguments.last or arguments.first or _DEFAULT_ROWS
    order = "DESC" if arguments.last else "ASC"
    chosen = (
        f"SELECT * FROM log_entries WHERE process_id = {_quote(arguments.process_id)} "  # noqa: S608 - quoted
        f"AND level <= {level}{_contains('target', arguments.target)}{_contains('msg', arguments.msg)} "
        f"ORDER BY time {order} LIMIT {count}"
    )
    sql = f"SELECT * FROM ({chosen}) ORDER BY time"  # noqa: S608 - quoted above
    return write_answer(arguments, sql, *parse_time_range(arguments))


def _level_names() -> str:
    from micromegas_jupyter.telemetry.levels import Level  # imports its package

    return ", ".join(f"{level} {level.name.lower()}" for level in Level)


def _parse_level(text: str, option: str) -> "Level":
    from micromegas_jupyter.telemetry.levels import parse_level

    level = parse_level(text)
    if level is None:
        raise UsageError(
            f"The value of {option} isn't a level.", remedy=f"Use one of these numbers or names: {_level_names()}."
        )
    return level


def add_process_metrics_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    _add_process_argument(parser)
    parser.add_argument("--target", metavar="TEXT", help="only modules that contain this text")
    parser.add_argument("--name", metavar="TEXT", help="only metrics whose name contains this text")
    parser.add_argument(
        "--stats",
        action="store_true",
        help="print statistics for each metric: count, min, mean, median, max, sum",
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", default=_DEFAULT_ROWS, help="maximum number of values; default: %(default)s"
    )
    add_row_arguments(parser)


def run_process_metrics(arguments: argparse.Namespace) -> int:
    """Print the values in chronological order, or statistics for each metric."""
    _check_count(arguments.limit, "--limit")
    chosen = (
        f"SELECT * FROM measures WHERE process_id = {_quote(arguments.process_id)}"  # noqa: S608 - quoted
        f"{_contains('target', arguments.target)}{_contains('name', arguments.name)} "
        f"ORDER BY time LIMIT {arguments.limit}"
    )
    if not arguments.stats:
        return write_answer(arguments, chosen, *parse_time_range(arguments))
    statistics = (
        "count(value) AS count, min(value) AS min, avg(value) AS mean, median(value) AS median, max(value) AS max, "
        "sum(value) AS sum"
    )
    sql = f"SELECT name, {statistics} FROM ({chosen}) GROUP BY name ORDER BY name"  # noqa: S608 - quoted above
    return write_answer(arguments, sql, *parse_time_range(arguments))


def _add_process_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("process_id", metavar="PROCESS", help="process ID from micromegas processes")
    add_range_arguments(parser)


def _quote(text: str) -> str:
    from micromegas_jupyter.flightsql.parameters import quote_literal  # imports pyarrow

    return quote_literal(text)


def _check_count(value: int | None, option: str) -> None:
    if value is not None and value < 1:
        raise UsageError(f"{option} must be a number of rows that is 1 or greater.")


def _contains(column: str, text: str | None) -> str:
    """Return the condition that a column contains `text`, ignoring case; empty if `text` is empty."""
    # Not ILIKE, because it would treat some characters as wildcards.
    return "" if text is None else f" AND strpos(lower({column}), lower({_quote(text)})) > 0"


def _matches(columns: Iterable[tuple[str, str | None]]) -> str:
    """Return the condition that each column matches its regular expression, ignoring case; `true` if there are none."""
    wanted = [f"regexp_like({column}, {_quote(text)}, 'i')" for column, text in columns if text is not None]
    return " AND ".join(wanted) or "true"


def add_logs_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    add_range_arguments(parser, default="15m")
    parser.add_argument("--level", metavar="LEVEL", help=f"minimum severity: {_level_names()}")
    parser.add_argument("--search", metavar="TEXT", help="only messages that contain this text")
    parser.add_argument("--service", metavar="TEXT", help="only programs whose name (exe) contains this text")
    parser.add_argument("--target", metavar="TEXT", help="only modules or loggers that contain this text")
    parser.add_argument("-f", "--follow", action="store_true", help="print new lines as soon as they are stored")
    parser.add_argument("--patterns", action="store_true", help="count similar messages")
    parser.add_argument(
        "--last", type=int, metavar="N", default=_DEFAULT_ROWS, help="print the last N lines; default: %(default)s"
    )
    add_row_arguments(parser)


def run_logs(arguments: argparse.Namespace) -> int:
    """Print log lines, their patterns, or new lines as they arrive."""
    from micromegas_jupyter.telemetry.log_lines import LogFilter

    _check_count(arguments.last, "--last")
    chosen = LogFilter(
        level=None if arguments.level is None else _parse_level(arguments.level, "--level"),
        search=arguments.search,
        service=arguments.service,
        target=arguments.target,
    )
    if arguments.follow:
        if arguments.end or arguments.patterns or arguments.output:
            raise UsageError(
                "--follow doesn't end, so it can't be combined with these options.",
                remedy="Omit --end, --patterns, and --output.",
            )
        if arguments.format not in _FOLLOWED_FORMATS:
            raise UsageError("--follow doesn't support this format.", remedy="Use csv or jsonl, or omit --format.")
        return _follow_logs(arguments, chosen)
    if arguments.patterns:
        if arguments.format or arguments.output:
            raise UsageError("--patterns prints a table.", remedy="Omit --format and --output.")
        return _print_patterns(arguments, chosen)
    return _print_logs(arguments, chosen)


def _print_logs(arguments: argparse.Namespace, chosen: "LogFilter") -> int:
    from micromegas_jupyter.telemetry.log_lines import LINE_COLUMNS

    lines, parameters = chosen.build_sql(*LINE_COLUMNS)
    sql = f"SELECT * FROM ({lines} ORDER BY time DESC LIMIT {arguments.last}) ORDER BY time"  # noqa: S608 - numbers
    time_range = parse_time_range(arguments)
    if arguments.format or arguments.output:
        return write_answer(arguments, sql, *time_range, parameters=parameters)
    with _open_client(arguments) as client, client.open_query(sql, *time_range, parameters) as reader:
        count = sum(map(_print_lines, reader))
    if not count:
        print("no lines", file=sys.stderr)
    elif count == arguments.last:
        show_note(f"these are the last {rows_text(count)}; --last N prints others")
    return 0


def _follow_logs(arguments: argparse.Namespace, chosen: "LogFilter") -> int:
    from micromegas_jupyter.telemetry.log_lines import LINE_COLUMNS

    begin, _ = parse_time_range(arguments)
    sql, parameters = chosen.build_sql(*LINE_COLUMNS)
    with (
        _open_client(arguments) as client,
        client.follow(sql, begin, parameters, poll_seconds=_POLL_SECONDS) as follow,
    ):
        tables = (table.sort_by("time") for table in follow)
        if arguments.format:
            batches = (batch for table in tables for batch in table.to_batches())
            write_rows(follow.schema, batches, sys.stdout, RowOptions(file_format=arguments.format))
            return 0
        for table in tables:
            for batch in table.to_batches():
                _print_lines(batch)
            sys.stdout.flush()
    return 0


def _print_patterns(arguments: argparse.Namespace, chosen: "LogFilter") -> int:
    """Print each pattern's frequency and worst level, most frequent first."""
    from micromegas_jupyter.telemetry.levels import Level
    from micromegas_jupyter.telemetry.log_patterns import LogPattern, LogPatterns

    sql, parameters = chosen.build_sql("level", "msg")
    patterns, worst = LogPatterns(), dict[LogPattern, int]()
    time_range = parse_time_range(arguments)
    with _open_client(arguments) as client, client.open_query(sql, *time_range, parameters) as reader:
        for batch in reader:
            found = patterns.add_all(batch["msg"].fill_null("").to_pylist())
            for pattern, level in zip(found, batch["level"].to_pylist(), strict=True):
                worst[pattern] = min(worst.get(pattern, level), level)
    ranked = sorted(worst, key=lambda pattern: -pattern.count)
    if not ranked:
        print("no lines", file=sys.stderr)
        return 0
    print_table(
        [(f"{one.count:,}", Level(worst[one]).name, one.text) for one in ranked[:_MAX_PATTERN_ROWS]],
        ("count", "level", "pattern"),
    )
    if len(ranked) > _MAX_PATTERN_ROWS:
        rest = sum(one.count for one in ranked[_MAX_PATTERN_ROWS:])
        show_note(f"{len(ranked) - _MAX_PATTERN_ROWS:,} more patterns have {rest:,} lines")
    return 0


def _open_client(arguments: argparse.Namespace) -> "FlightSQLClient":
    importlib.import_module("numpy")  # pyarrow must find it when it is loaded
    client = open_query_client(arguments)
    client.on_notice(show_note)
    return client


def _print_lines(batch: "pa.RecordBatch") -> int:
    """Print a line per row, colored by level, and return the number of lines."""
    is_colored = has_color(sys.stdout, os.environ)
    for line, level in _format_lines(batch):
        style = _LEVEL_STYLES.get(level) if is_colored else None
        print(f"{style}{line}{_RESET}" if style else line)
    return int(batch.num_rows)


def _format_lines(batch: "pa.RecordBatch") -> Iterator[tuple[str, int]]:
    """Yield `2026-01-31T08:00:00.000Z WARNING shop http: the message` and its level for each row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from micromegas_jupyter.telemetry.levels import Level

    names = {int(level): level.name for level in Level}
    times = pc.strftime(batch["time"].cast(pa.timestamp("ms", "UTC"), safe=False), "%Y-%m-%dT%H:%M:%SZ").to_pylist()
    columns = (batch[name].to_pylist() for name in ("level", "exe", "target", "msg"))
    for time, level, *texts in zip(times, *columns, strict=True):
        service, target, message = map(cell_text, texts)
        yield f"{time} {names.get(level, level):<7} {service} {target}: {message}", level


_PLACEHOLDER: Final = "VARIABLES"
# Source: OpenTelemetry's semantic conventions for generative AI.
_PROGRAM: Final = f"""\
import os

os.environ.update({_PLACEHOLDER})

# pip install opentelemetry-sdk opentelemetry-exporter-otlp
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.PROTOCOL.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider(resource=Resource.create({{"service.name": "my-agent"}}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
tracer = provider.get_tracer("my-agent")

# A call of a model, as agents' libraries record it.
with tracer.start_as_current_span("chat my-model", kind=trace.SpanKind.CLIENT) as span:
    span.set_attribute("gen_ai.operation.name", "chat")
    span.set_attribute("gen_ai.provider.name", "my-provider")
    span.set_attribute("gen_ai.request.model", "my-model")
    span.set_attribute("gen_ai.usage.input_tokens", 120)
    span.set_attribute("gen_ai.usage.output_tokens", 45)

provider.shutdown()  # sends what is left
"""


def add_telemetry_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    setup = add_action(
        actions, "setup", "create an API key that can only send telemetry, and print the OTEL_* variables"
    )
    setup.add_argument("--name", default=_host_label(), help="key name; default: the host name")
    setup.add_argument("--days", type=int, metavar="N", default=30, help="key lifetime in days; default: %(default)s")
    setup.add_argument(
        "--format",
        choices=("sh", "powershell", "dotenv", "python"),
        default="powershell" if os.name == "nt" else "sh",
        help="output format: shell commands, a .env file, or a Python program that sends an agent's trace; "
        "default: %(default)s",
    )
    setup.add_argument("--http", metavar="URL", help="HTTP address of the server; default: use gRPC")
    add_server_arguments(setup)
    setup.add_argument(
        "program",
        nargs="*",
        metavar="PROGRAM",
        help="program to run with the variables (after --); the key is revoked when it exits",
    )
    add_server_arguments(add_action(actions, "keys", "list your keys"))
    revoke = add_action(actions, "revoke", "revoke one of your keys")
    revoke.add_argument("id", metavar="ID", help="key ID from micromegas telemetry keys")
    add_server_arguments(revoke)


def _host_label() -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", platform.node())[:64] or "default"


def run_telemetry(arguments: argparse.Namespace) -> int:
    """Run the action, and print the variables or the list to standard output."""
    if arguments.action == "setup":
        return _set_up(arguments)
    with connect(arguments) as client:
        if arguments.action == "keys":
            columns = ("id", "name", "state", "expires_at")
            print_table(([str(getattr(key, name)) for name in columns] for key in client.api_keys()), columns)
        elif not client.revoke_api_key(arguments.id):
            raise UsageError("You don't have a key with this ID.", remedy="`micromegas telemetry keys` lists yours.")
    return 0


def _set_up(arguments: argparse.Namespace) -> int:
    if arguments.days < 1:
        raise UsageError("--days must be a number of days that is 1 or greater.")
    program = arguments.program
    if program and shutil.which(program[0]) is None:
        raise UsageError("The program doesn't exist.", remedy="Specify the program after --, as in: -- python app.py")
    with connect(arguments) as client:
        variables = _exporter_variables(arguments)
        made = client.create_api_key(arguments.name, days=arguments.days)
        assert made.key is not None  # noqa: S101 - it was just made
        variables["OTEL_EXPORTER_OTLP_HEADERS"] = f"authorization=Bearer%20{made.key.reveal()}"
        if program:
            try:
                return subprocess.run(program, env={**os.environ, **variables}, check=False).returncode  # noqa: S603
            finally:
                client.revoke_api_key(made.id)
    print(_format_variables(variables, arguments.format), flush=True)
    show_note(
        f"key {made.id} only sends telemetry, until {made.expires_at:%Y-%m-%d}; to end it: "
        f"micromegas telemetry revoke {made.id}"
    )
    return 0


def _exporter_variables(arguments: argparse.Namespace) -> dict[str, str]:
    """Return an exporter's destination settings, without the credential."""
    from micromegas_jupyter.client.transport import parse_address
    from micromegas_jupyter.wiring.client_side import load_client_settings

    settings = load_client_settings(profile=arguments.profile)
    address = parse_address(arguments.uri or settings.uri)
    endpoint = arguments.http or f"{'https' if address.is_encrypted else 'http'}://{address.name}"
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf" if arguments.http else "grpc",
    }
    if settings.ca_bundle is not None:
        variables["OTEL_EXPORTER_OTLP_CERTIFICATE"] = str(settings.ca_bundle)
    return variables


def _format_variables(variables: Mapping[str, str], file_format: str) -> str:
    match file_format:
        case "sh":
            return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())
        case "powershell":
            return "\n".join(
                "$env:{} = '{}'".format(name, value.replace("'", "''")) for name, value in variables.items()
            )
        case "dotenv":
            return "\n".join(f'{name}="{value}"' for name, value in variables.items())
        case _:
            protocol = "grpc" if variables["OTEL_EXPORTER_OTLP_PROTOCOL"] == "grpc" else "http"
            return _PROGRAM.replace(_PLACEHOLDER, json.dumps(variables, indent=4)).replace(
                "PROTOCOL.trace", f"{protocol}.trace"
            )
