"""What commands that print the rows of a statement share: their options, and to ask and print.

What is asked for, where, and as whom is each command's own matter.
"""

import argparse
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, TextIO

from micromegas_jupyter.cli.notice import show_notice
from micromegas_jupyter.cli.output import DEFAULT_MAX_COLUMN_WIDTH, FORMATS, print_rows
from micromegas_jupyter.errors import UsageError

if TYPE_CHECKING:
    from micromegas_jupyter.client import FlightSQLClient

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def add_row_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how rows are printed, and where to ask."""
    parser.add_argument("--format", choices=FORMATS, default="table", help="how rows are printed")
    parser.add_argument(
        "--max-colwidth", type=int, default=DEFAULT_MAX_COLUMN_WIDTH, help="cut longer cells of a table; 0 never"
    )
    parser.add_argument("--profile", help="a profile of config.json")
    parser.add_argument("--uri", help="the server, instead of the configured one")


def check_row_arguments(arguments: argparse.Namespace) -> None:
    """Check what the parser cannot.

    Raises:
        UsageError: The width of columns is negative.
    """
    if arguments.max_colwidth < 0:
        raise UsageError("--max-colwidth is a width, or 0 for no cut.")


def print_answer_of(
    client: "FlightSQLClient",
    arguments: argparse.Namespace,
    sql: str,
    begin: datetime | None,
    end: datetime | None,
) -> None:
    """Run a statement and print its rows on standard output, and on standard error that there are none.

    Raises:
        MicromegasError: It cannot be run.
    """
    client.tell_notices(show_notice)
    with client.open_query(sql, begin, end) as reader, _enough_room(sys.stdout):
        count = print_rows(
            reader.schema,
            reader,
            output=sys.stdout,
            output_format=arguments.format,
            max_column_width=arguments.max_colwidth,
        )
        sys.stdout.flush()
    if count == 0:
        print("no rows", file=sys.stderr)


@contextmanager
def _enough_room(output: TextIO) -> Iterator[None]:
    """Say that there is no room left for the output, which is neither the server's fault nor this program's."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        # Or Python would try to write the rest when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
        raise UsageError(
            f"The output cannot be written: {error.strerror}.", remedy="Make room there, or write it elsewhere."
        ) from error
