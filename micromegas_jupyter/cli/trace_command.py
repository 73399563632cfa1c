"""`micromegas trace`: the spans of one trace as a tree with bars, or as rows."""

import argparse
import importlib
import os
import shutil
import sys
from typing import Final

from micromegas_jupyter.cli.main import show_note
from micromegas_jupyter.cli.query_commands import (
    RowOptions,
    add_range_arguments,
    add_row_arguments,
    choose_format,
    open_output,
    open_query_client,
    parse_time_range,
    write_rows,
)
from micromegas_jupyter.core.text import has_color
from micromegas_jupyter.errors import UsageError

_DEFAULT_ROWS: Final = 60
_PLAIN_WIDTH: Final = 120
_STYLES: Final = {"title": "\x1b[1m", "header": "\x1b[2m", "error": "\x1b[31m", "critical": "\x1b[33m"}
_RESET: Final = "\x1b[0m"


def add_trace_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("trace_id", metavar="ID", help="ID of the trace: 32 hexadecimal digits")
    add_range_arguments(parser)
    parser.add_argument(
        "--rows",
        type=int,
        metavar="N",
        default=_DEFAULT_ROWS,
        help="show the N most telling spans: critical path, errors, longest self times; 0 for all; "
        "default: %(default)s",
    )
    add_row_arguments(parser)


def run_trace(arguments: argparse.Namespace) -> int:
    """Print the tree, or write all spans as rows with --format or --output."""
    if arguments.rows < 0:
        raise UsageError("--rows is a number of spans, or 0 for all.")
    begin, end = parse_time_range(arguments)
    importlib.import_module("numpy")  # which pyarrow has to find when it is loaded
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
        style = _STYLES.get(kind) if is_colored else None
        print(f"{style}{line}{_RESET}" if style else line)
    return 0
