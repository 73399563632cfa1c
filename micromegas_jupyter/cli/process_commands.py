"""`micromegas processes`, `process-log` and `process-metrics`: which programs sent telemetry, and what."""

import argparse
from collections.abc import Iterable

from micromegas_jupyter.cli.query_command import add_row_arguments, print_answer
from micromegas_jupyter.config.decoding import parse_time
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import UsageError

_MAX_EXE_CHARACTERS = 64
_DEFAULT_ROWS = 1024
_LEVELS = range(1, 7)


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
    from micromegas_jupyter.client.parameters import quote_literal  # with pyarrow

    _check_count(arguments.first, "--first")
    _check_count(arguments.last, "--last")
    if arguments.maxlevel not in _LEVELS:
        raise UsageError("--maxlevel is a level from 1 (fatal) to 6 (trace).")
    count = arguments.last or arguments.first or _DEFAULT_ROWS
    order = "DESC" if arguments.last else "ASC"
    chosen = (
        f"SELECT * FROM log_entries WHERE process_id = {quote_literal(arguments.process_id)} "  # noqa: S608 - quoted
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
    from micromegas_jupyter.client.parameters import quote_literal  # with pyarrow

    _check_count(arguments.limit, "--limit")
    chosen = (
        f"SELECT * FROM measures WHERE process_id = {quote_literal(arguments.process_id)}"  # noqa: S608 - quoted
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


def _check_count(value: int | None, option: str) -> None:
    if value is not None and value < 1:
        raise UsageError(f"{option} is a number of rows, 1 or more.")


def _contains(column: str, text: str | None) -> str:
    """Return the condition that a column contains `text`, whatever its case; empty without a text."""
    from micromegas_jupyter.client.parameters import quote_literal  # with pyarrow

    return "" if text is None else f" AND {column} ILIKE {quote_literal(f'%{text}%')}"


def _matches(columns: Iterable[tuple[str, str | None]]) -> str:
    """Return the condition that each column matches its regular expression, whatever its case; `true` without any."""
    from micromegas_jupyter.client.parameters import quote_literal  # with pyarrow

    wanted = [f"regexp_like({column}, {quote_literal(text)}, 'i')" for column, text in columns if text is not None]
    return " AND ".join(wanted) or "true"
