"""What `processes`, `process-log` and `process-metrics` share: where to ask, and conditions.

What is asked for is each command's own matter.
"""

import argparse
from collections.abc import Iterable
from datetime import datetime

from micromegas_jupyter.cli.answers import check_row_arguments, print_answer_of
from micromegas_jupyter.errors import UsageError


def contains(column: str, text: str | None) -> str:
    """Return the condition that a column contains `text`, whatever its case; empty without a text."""
    from micromegas_jupyter.client.sql_text import quote_literal

    return "" if text is None else f" AND {column} ILIKE {quote_literal(f'%{text}%')}"


def matches(columns: Iterable[tuple[str, str | None]]) -> str:
    """Return the condition that each column matches its regular expression, whatever its case; `true` without any."""
    from micromegas_jupyter.client.sql_text import quote_literal

    wanted = [f"regexp_like({column}, {quote_literal(text)}, 'i')" for column, text in columns if text is not None]
    return " AND ".join(wanted) or "true"


def check_count(value: int | None, option: str) -> None:
    """Check a number of rows.

    Raises:
        UsageError: It is less than one.
    """
    if value is not None and value < 1:
        raise UsageError(f"{option} is a number of rows, 1 or more.")


def print_answer(
    arguments: argparse.Namespace, sql: str, begin: datetime | None = None, end: datetime | None = None
) -> int:
    """Run a statement, print its rows and return the exit code.

    Raises:
        MicromegasError: It cannot be run.
    """
    from micromegas_jupyter import assembly

    check_row_arguments(arguments)
    options = {"MICROMEGAS_ANALYTICS_URI": arguments.uri} if arguments.uri else {}
    settings = assembly.load_client_settings(profile=arguments.profile, options=options)
    environ = assembly.without_wrapper() if arguments.uri or arguments.profile else None
    provider = assembly.stored_provider(settings, environ)
    with assembly.open_client(settings, provider, environ=environ) as client:
        print_answer_of(client, arguments, sql, begin, end)
    return 0
