"""`micromegas process-metrics`: what one program measured."""

import argparse

from micromegas_jupyter.cli.output import add_row_arguments, check_count, contains, print_answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("process_id", metavar="PROCESS", help="the process_id that `micromegas processes` shows")
    parser.add_argument("--target", metavar="TEXT", help="module that contains this, in upper or lower case")
    parser.add_argument("--name", metavar="TEXT", help="metric whose name contains this")
    parser.add_argument(
        "--stats", action="store_true", help="count, min, mean, median, max and sum of each metric, of the same rows"
    )
    parser.add_argument("--limit", type=int, metavar="N", default=1024, help="the first N values, default %(default)s")
    add_row_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the values in the order of their time, or figures of each metric."""
    from micromegas_jupyter.client.parameters import quote_literal

    check_count(arguments.limit, "--limit")
    chosen = (
        f"SELECT * FROM measures WHERE process_id = {quote_literal(arguments.process_id)}"  # noqa: S608 - quoted
        f"{contains('target', arguments.target)}{contains('name', arguments.name)} "
        f"ORDER BY time LIMIT {arguments.limit}"
    )
    if not arguments.stats:
        return print_answer(arguments, chosen)
    figures = (
        "count(value) AS count, min(value) AS min, avg(value) AS mean, median(value) AS median, max(value) AS max, "
        "sum(value) AS sum"
    )
    return print_answer(arguments, f"SELECT name, {figures} FROM ({chosen}) GROUP BY name ORDER BY name")  # noqa: S608 - quoted above
