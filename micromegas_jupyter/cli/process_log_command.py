"""`micromegas process-log`: what one program logged."""

import argparse

from micromegas_jupyter.cli.output import add_row_arguments, check_count, contains, print_answer
from micromegas_jupyter.errors import UsageError

_DEFAULT_ROWS = 1024
_LEVELS = range(1, 7)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("process_id", metavar="PROCESS", help="the process_id that `micromegas processes` shows")
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


def run(arguments: argparse.Namespace) -> int:
    """Print the entries in the order of their time."""
    from micromegas_jupyter.client.parameters import quote_literal

    check_count(arguments.first, "--first")
    check_count(arguments.last, "--last")
    if arguments.maxlevel not in _LEVELS:
        raise UsageError("--maxlevel is a level from 1 (fatal) to 6 (trace).")
    count = arguments.last or arguments.first or _DEFAULT_ROWS
    order = "DESC" if arguments.last else "ASC"
    chosen = (
        f"SELECT * FROM log_entries WHERE process_id = {quote_literal(arguments.process_id)} "  # noqa: S608 - quoted
        f"AND level <= {arguments.maxlevel}{contains('target', arguments.target)}{contains('msg', arguments.msg)} "
        f"ORDER BY time {order} LIMIT {count}"
    )
    return print_answer(arguments, f"SELECT * FROM ({chosen}) ORDER BY time")  # noqa: S608 - quoted above
