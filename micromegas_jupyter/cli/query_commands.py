"""`micromegas query`, `processes`, `process-log` and `process-metrics`: run one statement and print its rows."""

import argparse
import base64
import errno
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from micromegas_jupyter.cli.main import show_note
from micromegas_jupyter.core import jsonb
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Secret
from micromegas_jupyter.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from micromegas_jupyter.client.flight_client import FlightSQLClient

_MAX_STATEMENT_BYTES = 64 * 1024
_FORMATS = ("table", "csv", "json")
_DEFAULT_MAX_COLUMN_WIDTH = 50
_MAX_EXE_CHARACTERS = 64
_DEFAULT_ROWS = 1024
_LEVELS = range(1, 7)
_Rows = Iterator[tuple[Any, ...]]
_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def add_query_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("sql", nargs="?", help="the statement")
    parser.add_argument("--file", help="read the statement from a file, - for standard input")
    parser.add_argument("--begin", help="start of the time range: RFC 3339, or 15m, 1h, 7d ago")
    parser.add_argument("--end", help="end of the time range, the same forms; now when only --begin is given")
    parser.add_argument("--all", action="store_true", help="no time range (the default without --begin)")
    add_row_arguments(parser)
    parser.add_argument("--issuer", help="identity provider of a service account")
    parser.add_argument("--client-id", help="client id of a service account")
    parser.add_argument(
        "--client-secret",
        metavar="SECRET",
        help="its secret; MICROMEGAS_OIDC_CLIENT_SECRET is better, a command line can be read by others",
    )
    parser.add_argument("--oidc", action="store_true", help="sign in again for this query, and store nothing")


def add_row_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how rows are printed, and which server is queried."""
    parser.add_argument("--format", choices=_FORMATS, default="table", help="how rows are printed")
    parser.add_argument(
        "--max-colwidth", type=int, default=_DEFAULT_MAX_COLUMN_WIDTH, help="cut longer cells of a table; 0 never"
    )
    parser.add_argument(
        "--jsonb", choices=("json", "bytes"), default="json", help="print binary JSON as JSON, or its bytes in base64"
    )
    parser.add_argument("--profile", help="a profile of config.json")
    parser.add_argument("--uri", help="the server, instead of the configured one")


def run_query(arguments: argparse.Namespace) -> int:
    """Run the statement; rows on standard output."""
    sql = _statement(arguments)
    if arguments.all and (arguments.begin or arguments.end):
        raise UsageError("--all means no time range: leave out --begin and --end.")
    if not (arguments.begin or arguments.end):
        return print_answer(arguments, sql)
    from micromegas_jupyter.config.decoding import parse_range

    return print_answer(arguments, sql, *parse_range(arguments.begin, arguments.end, now=SYSTEM_CLOCK.now()))


def print_answer(
    arguments: argparse.Namespace, sql: str, begin: datetime | None = None, end: datetime | None = None
) -> int:
    """Run a statement, print its rows on standard output, and say on standard error that there are none."""
    if arguments.max_colwidth < 0:
        raise UsageError("--max-colwidth is a width, or 0 to cut nothing.")
    with _open_client(arguments) as client:
        client.on_notice(show_note)
        with client.open_query(sql, begin, end) as reader, disk_errors_reported(sys.stdout):
            count = print_rows(
                reader.schema,
                reader,
                output=sys.stdout,
                output_format=arguments.format,
                max_column_width=arguments.max_colwidth,
                shows_json=arguments.jsonb == "json",
            )
            sys.stdout.flush()
    if count == 0:
        print("no rows", file=sys.stderr)
    return 0


def _statement(arguments: argparse.Namespace) -> str:
    if (arguments.sql is None) == (arguments.file is None):
        raise UsageError("Give either a statement or --file.", remedy='For example: micromegas query "SELECT 1".')
    if arguments.sql is not None:
        return str(arguments.sql)
    try:
        if arguments.file == "-":
            data = sys.stdin.buffer.read(_MAX_STATEMENT_BYTES + 1)
        else:
            with Path(arguments.file).open("rb") as file:
                data = file.read(_MAX_STATEMENT_BYTES + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise UsageError(f"{arguments.file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{arguments.file} is not UTF-8 text.") from None
    if len(data) > _MAX_STATEMENT_BYTES:
        raise UsageError("The statement is larger than 64 kB.")
    return text


def _open_client(arguments: argparse.Namespace) -> "FlightSQLClient":
    """Return the client of the stored sign-in, or of who the options say the caller is."""
    from micromegas_jupyter.wiring import client_side

    issuer, client_id, oidc = (getattr(arguments, name, None) for name in ("issuer", "client_id", "oidc"))
    secret = Secret(arguments.client_secret) if getattr(arguments, "client_secret", None) else None
    if not (issuer or client_id or secret or oidc):
        return client_side.connect(arguments.uri, profile=arguments.profile)
    options = {
        "MICROMEGAS_OIDC_ISSUER": issuer,
        "MICROMEGAS_OIDC_CLIENT_ID": client_id,
        "MICROMEGAS_ANALYTICS_URI": arguments.uri,
    }
    environ = client_side.without_wrapper()
    settings = client_side.load_client_settings(
        profile=arguments.profile, options={name: value for name, value in options.items() if value}
    )
    if oidc and secret:
        raise UsageError("--oidc signs a person in; a service account needs no --oidc.")
    if oidc:
        from micromegas_jupyter.cli.sign_in_commands import sign_in

        return client_side.open_client(settings, sign_in(settings, store=False), environ=environ)
    if secret:
        settings = replace(settings, client_secret=secret)
        return client_side.open_client(settings, client_side.service_account_provider(settings), environ=environ)
    return client_side.open_client(settings, client_side.stored_provider(settings, environ), environ=environ)


def print_rows(  # noqa: PLR0913 - options by keyword
    schema: "pa.Schema",
    batches: Iterable["pa.RecordBatch"],
    *,
    output: TextIO,
    output_format: str,
    max_column_width: int = _DEFAULT_MAX_COLUMN_WIDTH,
    shows_json: bool = True,
) -> int:
    """Write all rows as `table`, `csv` (RFC 4180) or `json` (a list of objects) and return how many there were."""
    rows = _rows(batches, as_text=output_format != "json", shows_json=shows_json)
    if output_format == "csv":
        return _print_csv(schema, rows, output)
    if output_format == "json":
        return _print_json(schema, rows, output)
    return _print_table(schema, rows, output, max_column_width)


def cell_text(value: object) -> str:
    """Return one value of `_rows` as text without line breaks or control characters."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else _ESCAPES.get(c, f"\\x{ord(c):02x}") for c in text)


def _plain_value(value: Any, *, as_text: bool) -> Any:
    """Return a value of an Arrow column as JSON can hold it: times as RFC 3339, bytes as base64."""
    plain: Any
    match value:
        case None | str() | bool() | int():
            plain = value
        case float():  # JSON has no word for some
            plain = value if math.isfinite(value) else _number_text(value) if as_text else None
        case bytes():
            plain = base64.b64encode(value).decode("ascii")
        case datetime() | date() | time():
            plain = value.isoformat()
        case timedelta():
            plain = value.total_seconds()
        case dict():
            plain = {str(key): _plain_value(item, as_text=as_text) for key, item in value.items()}
        case list() | tuple():
            plain = [_plain_value(item, as_text=as_text) for item in value]
        case _:
            plain = str(value)
    return plain


def _number_text(value: float) -> str:
    return "NaN" if math.isnan(value) else str(value)


def _rows(batches: Iterable["pa.RecordBatch"], *, shows_json: bool, as_text: bool = True) -> Iterator[tuple[Any, ...]]:
    """Return the values of each row as JSON holds them; a number that JSON has no word for is a text, else null.

    With `shows_json`, a column whose first values are all binary JSON holds JSON; other bytes in it are base64.
    """
    are_json: dict[int, bool] = {}
    for batch in batches:
        columns = []
        for index, (field, column) in enumerate(zip(batch.schema, batch.columns, strict=True)):
            if shows_json and index not in are_json and column.null_count < len(column):
                are_json[index] = _holds_jsonb(field, column)
            is_json = are_json.get(index, False)
            columns.append((_json_column if is_json else _plain_column)(column, as_text=as_text))
        yield from zip(*columns, strict=True)


def _holds_jsonb(field: "pa.Field", column: "pa.Array") -> bool:
    import pyarrow as pa

    from micromegas_jupyter.client.json_columns import holds_jsonb

    return holds_jsonb(field, pa.chunked_array([column]))


def _json_column(column: "pa.Array", *, as_text: bool) -> list[Any]:
    """Return binary JSON as JSON text or as what `json.dumps` takes, each distinct value made once."""
    known: dict[bytes | None, Any] = {None: None}
    values = column.to_pylist()
    for value in values:
        if value not in known:
            try:
                found = jsonb.decode(value)
                known[value] = jsonb.to_json(found) if as_text else jsonb.to_plain(found)
            except jsonb.MalformedJsonb:
                known[value] = _plain_value(value, as_text=as_text)
    return [known[value] for value in values]


def _plain_column(column: "pa.Array", *, as_text: bool) -> list[Any]:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        # Python's datetime has no nanoseconds: Arrow prints them in full.
        zone = "" if kind.tz is None else "Z"
        texts = column.cast(pa.timestamp("ns")).cast(pa.string()).to_pylist()
        return [None if text is None else text.replace(" ", "T") + zone for text in texts]
    if pa.types.is_duration(kind) and kind.unit == "ns":
        return [None if count is None else count / 1e9 for count in column.cast(pa.int64()).to_pylist()]
    values = column.to_pylist()
    if pa.types.is_map(kind):
        values = [None if item is None else {str(key): held for key, held in item} for item in values]
    return [_plain_value(value, as_text=as_text) for value in values]


def _print_table(schema: "pa.Schema", rows: _Rows, output: TextIO, max_width: int) -> int:
    from tabulate import tabulate  # other commands print no table

    def cut(text: str) -> str:
        return text if max_width == 0 or len(text) <= max_width else text[: max(max_width - 3, 1)] + "..."

    texts = [[cut(cell_text(value)) for value in row] for row in rows]
    numeric = [_is_number(field.type) for field in schema]
    table = tabulate(
        texts,
        headers=[cell_text(name) for name in schema.names],
        tablefmt="simple",
        disable_numparse=True,
        colalign=["right" if is_number else "left" for is_number in numeric] if texts else None,
    )
    output.write(table + "\n")
    return len(texts)


def _is_number(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _print_csv(schema: "pa.Schema", rows: _Rows, output: TextIO) -> int:
    import csv

    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(schema.names)
    count = 0
    for row in rows:
        writer.writerow(
            [json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value for value in row]
        )
        count += 1
    return count


def _print_json(schema: "pa.Schema", rows: _Rows, output: TextIO) -> int:
    names = schema.names
    repeated = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if repeated is not None:
        raise UsageError(
            f"Several columns of the result are called {cell_text(repeated)}, and a JSON object can hold one.",
            remedy="Give each a name of its own with AS, or use --format csv.",
        )
    count = 0
    output.write("[")
    while chunk := list(islice(rows, 1000)):
        for row in chunk:
            output.write(",\n  " if count else "\n  ")
            output.write(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False))
            count += 1
    output.write("\n]\n" if count else "]\n")
    return count


@contextmanager
def disk_errors_reported(output: TextIO) -> Iterator[None]:
    """Say that there is no room left for the output, which is neither the server's fault nor this program's."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise
        # Or Python would try to write the rest when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
        raise UsageError(
            f"The output cannot be written: {error.strerror}.", remedy="Make room there, or write it elsewhere."
        ) from error


def add_processes_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("--since", default="1h", help="how far back, as 15m, 1h, 7d or RFC 3339; default %(default)s")
    parser.add_argument("--limit", type=int, metavar="N", default=1_000_000, help="at most this many")
    parser.add_argument("--username", metavar="REGEX", help="account that matches this, in upper or lower case")
    parser.add_argument("--exe", metavar="REGEX", help="program that matches this")
    parser.add_argument("--computer", metavar="REGEX", help="machine that matches this")
    add_row_arguments(parser)


def run_processes(arguments: argparse.Namespace) -> int:
    """Print the programs, the one that started first at the top."""
    _check_count(arguments.limit, "--limit")
    from micromegas_jupyter.config.decoding import parse_time

    now = SYSTEM_CLOCK.now()
    begin = parse_time(arguments.since, now=now)
    if begin > now:
        raise UsageError("--since is in the future.", remedy="Name a time in the past, such as 1h for an hour ago.")
    condition = _matches((name, getattr(arguments, name)) for name in ("username", "exe", "computer"))
    # In a table the end of a long path tells more than its beginning.
    exe = f"right(exe, {_MAX_EXE_CHARACTERS}) AS exe" if arguments.format == "table" else "exe"
    sql = (
        f"SELECT process_id, {exe}, start_time, username, computer, distro, cpu_brand FROM processes "  # noqa: S608 - quoted
        f"WHERE {condition} ORDER BY start_time LIMIT {arguments.limit}"
    )
    return print_answer(arguments, sql, begin, now)


def add_process_log_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    _add_process_argument(parser)
    parser.add_argument(
        "--first", type=int, metavar="N", help=f"the first N entries; the first {_DEFAULT_ROWS} are the default"
    )
    parser.add_argument("--last", type=int, metavar="N", help="the last N entries; it wins over --first")
    parser.add_argument("--target", metavar="TEXT", help="module or logger that contains this, in upper or lower case")
    parser.add_argument("--msg", metavar="TEXT", help="message that contains this")
    parser.add_argument(
        "--maxlevel",
        type=int,
        metavar="LEVEL",
        default=_LEVELS[-1],
        help="1 fatal, 2 error, 3 warning, 4 info, 5 debug, 6 trace; default %(default)s: all",
    )
    add_row_arguments(parser)


def run_process_log(arguments: argparse.Namespace) -> int:
    """Print the entries in the order of their time."""
    _check_count(arguments.first, "--first")
    _check_count(arguments.last, "--last")
    if arguments.maxlevel not in _LEVELS:
        raise UsageError("--maxlevel is a level from 1 (fatal) to 6 (trace).")
    count = arguments.last or arguments.first or _DEFAULT_ROWS
    order = "DESC" if arguments.last else "ASC"
    chosen = (
        f"SELECT * FROM log_entries WHERE process_id = {_quote(arguments.process_id)} "  # noqa: S608 - quoted
        f"AND level <= {arguments.maxlevel}{_contains('target', arguments.target)}{_contains('msg', arguments.msg)} "
        f"ORDER BY time {order} LIMIT {count}"
    )
    return print_answer(arguments, f"SELECT * FROM ({chosen}) ORDER BY time")  # noqa: S608 - quoted above


def add_process_metrics_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    _add_process_argument(parser)
    parser.add_argument("--target", metavar="TEXT", help="module that contains this, in upper or lower case")
    parser.add_argument("--name", metavar="TEXT", help="metric whose name contains this")
    parser.add_argument(
        "--stats", action="store_true", help="count, min, mean, median, max and sum of each metric, of the same rows"
    )
    parser.add_argument("--limit", type=int, metavar="N", default=1024, help="the first N values, default %(default)s")
    add_row_arguments(parser)


def run_process_metrics(arguments: argparse.Namespace) -> int:
    """Print the values in the order of their time, or statistics of each metric."""
    _check_count(arguments.limit, "--limit")
    chosen = (
        f"SELECT * FROM measures WHERE process_id = {_quote(arguments.process_id)}"  # noqa: S608 - quoted
        f"{_contains('target', arguments.target)}{_contains('name', arguments.name)} "
        f"ORDER BY time LIMIT {arguments.limit}"
    )
    if not arguments.stats:
        return print_answer(arguments, chosen)
    statistics = (
        "count(value) AS count, min(value) AS min, avg(value) AS mean, median(value) AS median, max(value) AS max, "
        "sum(value) AS sum"
    )
    return print_answer(arguments, f"SELECT name, {statistics} FROM ({chosen}) GROUP BY name ORDER BY name")  # noqa: S608 - quoted above


def _add_process_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("process_id", metavar="PROCESS", help="the process_id that `micromegas processes` shows")


def _quote(text: str) -> str:
    from micromegas_jupyter.client.parameters import quote_literal  # with pyarrow

    return quote_literal(text)


def _check_count(value: int | None, option: str) -> None:
    if value is not None and value < 1:
        raise UsageError(f"{option} is a number of rows, 1 or more.")


def _contains(column: str, text: str | None) -> str:
    """Return the condition that a column contains `text`, whatever its case; empty without a text."""
    return "" if text is None else f" AND {column} ILIKE {_quote(f'%{text}%')}"


def _matches(columns: Iterable[tuple[str, str | None]]) -> str:
    """Return the condition that each column matches its regular expression, whatever its case; `true` without any."""
    wanted = [f"regexp_like({column}, {_quote(text)}, 'i')" for column, text in columns if text is not None]
    return " AND ".join(wanted) or "true"
