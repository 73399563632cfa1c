"""`micromegas query`: run one statement and print its rows."""

import argparse
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from micromegas_jupyter.cli.output import DEFAULT_MAX_COLUMN_WIDTH, FORMATS, disk_errors_reported, print_rows
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Secret
from micromegas_jupyter.errors import UsageError

if TYPE_CHECKING:
    from micromegas_jupyter.client.flight_client import FlightSQLClient

_MAX_STATEMENT_BYTES = 64 * 1024


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
    parser.add_argument("--format", choices=FORMATS, default="table", help="how rows are printed")
    parser.add_argument(
        "--max-colwidth", type=int, default=DEFAULT_MAX_COLUMN_WIDTH, help="cut longer cells of a table; 0 never"
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
        client.on_notice(show_notice)
        with client.open_query(sql, begin, end) as reader, disk_errors_reported(sys.stdout):
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
    return 0


def show_notice(text: str) -> None:
    """Print what the server says about the credential where it does not get among the results."""
    print(f"note: {text}", file=sys.stderr)


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
    from micromegas_jupyter import wiring

    issuer, client_id, oidc = (getattr(arguments, name, None) for name in ("issuer", "client_id", "oidc"))
    secret = Secret(arguments.client_secret) if getattr(arguments, "client_secret", None) else None
    if not (issuer or client_id or secret or oidc):
        return wiring.connect(arguments.uri, profile=arguments.profile)
    options = {
        "MICROMEGAS_OIDC_ISSUER": issuer,
        "MICROMEGAS_OIDC_CLIENT_ID": client_id,
        "MICROMEGAS_ANALYTICS_URI": arguments.uri,
    }
    environ = wiring.without_wrapper()
    settings = wiring.load_client_settings(
        profile=arguments.profile, options={name: value for name, value in options.items() if value}
    )
    if oidc and secret:
        raise UsageError("--oidc signs a person in; a service account needs no --oidc.")
    if oidc:
        from micromegas_jupyter.cli.sign_in_terminal import sign_in

        return wiring.open_client(settings, sign_in(settings, store=False), environ=environ)
    if secret:
        settings = replace(settings, client_secret=secret)
        return wiring.open_client(settings, wiring.service_account_provider(settings), environ=environ)
    return wiring.open_client(settings, wiring.stored_provider(settings, environ), environ=environ)
