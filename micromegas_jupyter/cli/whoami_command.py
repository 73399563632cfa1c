"""`micromegas whoami`: who is signed in here, and whom the server takes them for."""

import argparse
import sys

from micromegas_jupyter.cli.identity_lines import identity_line, server_line
from micromegas_jupyter.errors import UnsupportedRequest
from micromegas_jupyter.seams import SYSTEM_CLOCK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("--profile", help="a profile of config.json")


def run(arguments: argparse.Namespace) -> int:
    """Print the local identity, then the server's answer."""
    from micromegas_jupyter import assembly
    from micromegas_jupyter.auth import OidcAuthProvider

    settings = assembly.load_client_settings(profile=arguments.profile)
    provider = assembly.stored_provider(settings)
    if isinstance(provider, OidcAuthProvider):
        provider.get_token()
        print(identity_line(provider.identity()))
    with assembly.open_client(settings, provider) as client:
        started = SYSTEM_CLOCK.monotonic()
        try:
            identity = client.whoami()
        except UnsupportedRequest:
            print(f"server {settings.uri} answers, but cannot say who you are", file=sys.stderr)
            return 0
        print(server_line(settings.uri, identity, (SYSTEM_CLOCK.monotonic() - started) * 1000))
    return 0
