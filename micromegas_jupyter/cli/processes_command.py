"""`micromegas processes`: which programs sent telemetry of late."""

import argparse

from micromegas_jupyter.cli.output import add_row_arguments, check_count, matches, print_answer
from micromegas_jupyter.config.moments import parse_moment
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import UsageError

_EXE_CHARACTERS = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("--since", default="1h", help="how far back, as 15m, 1h, 7d or RFC 3339; default %(default)s")
    parser.add_argument("--limit", type=int, metavar="N", default=1_000_000, help="at most this many")
    parser.add_argument("--username", metavar="REGEX", help="account that contains this, in upper or lower case")
    parser.add_argument("--exe", metavar="REGEX", help="program that contains this")
    parser.add_argument("--computer", metavar="REGEX", help="machine that contains this")
    add_row_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the programs, the one that started first at the top."""
    check_count(arguments.limit, "--limit")
    now = SYSTEM_CLOCK.now()
    begin = parse_moment(arguments.since, now=now)
    if begin > now:
        raise UsageError("--since is in the future.", remedy="Name a time that is over, or 1h for an hour ago.")
    wanted = matches((name, getattr(arguments, name)) for name in ("username", "exe", "computer"))
    # In a table the end of a long path tells more than its beginning.
    exe = f"right(exe, {_EXE_CHARACTERS}) AS exe" if arguments.format == "table" else "exe"
    sql = (
        f"SELECT process_id, {exe}, start_time, username, computer, distro, cpu_brand FROM processes "  # noqa: S608 - quoted
        f"WHERE {wanted} ORDER BY start_time LIMIT {arguments.limit}"
    )
    return print_answer(arguments, sql, begin, now)
