"""`micromegas query`: run one statement and print its rows."""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from micromegas_jupyter.cli.discreet_parser import DiscreetParser
from micromegas_jupyter.cli.output import add_row_arguments, check_row_arguments, print_answer_of
from micromegas_jupyter.cli.sign_in_terminal import sign_in
from micromegas_jupyter.config.moments import parse_range
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import UsageError

if TYPE_CHECKING:
    from micromegas_jupyter.config.client import ClientSettings
    from micromegas_jupyter.core.protocols import AuthProvider

_MAX_STATEMENT_BYTES = 64 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
        help="its secret; MICROMEGAS_OIDC_CLIENT_SECRET is better, a command line can be read by others",
    )
    if isinstance(parser, DiscreetParser):
        parser.free_text_options = frozenset({"--client-secret"})
    parser.add_argument("--oidc", action="store_true", help="sign in afresh, store nothing")


def run(arguments: argparse.Namespace) -> int:
    """Run the statement; rows on standard output."""
    from micromegas_jupyter import wiring

    sql = _statement(arguments)
    if arguments.all and (arguments.begin or arguments.end):
        raise UsageError("--all means no time range: leave out --begin and --end.")
    begin, end = parse_range(arguments.begin, arguments.end, now=SYSTEM_CLOCK.now())
    check_row_arguments(arguments)
    settings = _settings(arguments)
    environ = wiring.without_wrapper() if _says_where(arguments) else None
    provider = _provider(arguments, settings, environ)
    with wiring.open_client(settings, provider, environ=environ) as client:
        print_answer_of(client, arguments, sql, begin, end)
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


def _settings(arguments: argparse.Namespace) -> "ClientSettings":
    from micromegas_jupyter import wiring

    given = {
        name: value
        for name, value in (
            ("MICROMEGAS_OIDC_ISSUER", arguments.issuer),
            ("MICROMEGAS_OIDC_CLIENT_ID", arguments.client_id),
            ("MICROMEGAS_ANALYTICS_URI", arguments.uri),
        )
        if value
    }
    settings = wiring.load_client_settings(profile=arguments.profile, options=given)
    if arguments.client_secret:
        settings = replace(settings, client_secret=Secret(arguments.client_secret))
    return settings


def _says_where(arguments: argparse.Namespace) -> bool:
    """Whether an option says what to connect to or as whom, so that no wrapper module is asked."""
    named = (arguments.uri, arguments.profile, arguments.issuer, arguments.client_id, arguments.client_secret)
    return bool(arguments.oidc or any(named))


def _provider(
    arguments: argparse.Namespace, settings: "ClientSettings", environ: Mapping[str, str] | None
) -> "AuthProvider | None":
    from micromegas_jupyter import wiring

    if arguments.oidc:
        if arguments.client_secret:
            raise UsageError("--oidc signs a person in; a service account needs no --oidc.")
        return sign_in(settings, store=False)
    if arguments.client_secret:
        return wiring.service_account_provider(settings)
    return wiring.stored_provider(settings, environ)
