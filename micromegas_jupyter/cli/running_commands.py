"""`micromegas queries` and `micromegas cancel`: what runs on the server, and to end it."""

import argparse
import sys
from dataclasses import asdict
from typing import Final

from micromegas_jupyter.cli.main import add_server_arguments, connect
from micromegas_jupyter.core.text import bytes_text, seconds_text

_MAX_SQL: Final = 60
_NOT_RUNNING: Final = 1


def add_queries_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument(
        "--format", choices=("table", "json"), default="table", help="how the answer is printed; default: %(default)s"
    )
    add_server_arguments(parser)


def run_queries(arguments: argparse.Namespace) -> int:
    """Print what runs, what began first at the top."""
    with connect(arguments) as client:
        queries = client.running_queries()
    if arguments.format == "json":
        import json

        print(json.dumps([asdict(one) for one in queries], default=str, ensure_ascii=False, indent=2))
        return 0
    from tabulate import tabulate

    from micromegas_jupyter.core.text import cell_text

    rows = [
        [
            one.query_id,
            cell_text(one.email if one.email not in {"", "unknown"} else one.user),
            seconds_text(one.seconds) + ("" if one.is_running else ", waits"),
            bytes_text(one.peak_memory_bytes),
            cell_text(" ".join(one.sql.split()))[:_MAX_SQL],
        ]
        for one in queries
    ]
    print(tabulate(rows, headers=["query", "user", "time", "memory", "SQL"], tablefmt="simple", disable_numparse=True))
    if not rows:
        print("no query runs", file=sys.stderr)
    return 0


def add_cancel_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument(
        "query_id", metavar="ID", help="id of the query, as micromegas queries, errors and the audit show it"
    )
    add_server_arguments(parser)


def run_cancel(arguments: argparse.Namespace) -> int:
    """End the query; exit code 1 if there is none."""
    with connect(arguments) as client:
        status = client.cancel_query(arguments.query_id)
    if status == "not_cancellable":
        print("No such query of yours runs at this server.", file=sys.stderr)
        return _NOT_RUNNING
    print("cancelled" if status == "cancelled" else "is being cancelled")
    return 0
