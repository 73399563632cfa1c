"""`micromegas login`: sign a person in and keep the sign-in."""

import argparse
import shlex
import sys

from micromegas_jupyter.cli.identity_lines import provider_now, signed_in_line
from micromegas_jupyter.cli.sign_in_terminal import FLOW_CHOICES, FLOW_HELP, sign_in


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("--profile", help="a profile of config.json")
    parser.add_argument("--flow", choices=FLOW_CHOICES, help=FLOW_HELP)
    parser.add_argument("--issuer", help="the identity provider, instead of the configured one")
    parser.add_argument("--client-id", help="the application, instead of the configured one")
    parser.add_argument("--scope", help="what is asked for, instead of what is configured")
    parser.add_argument("--audience", help="whom the token is for, instead of what is configured")


def run(arguments: argparse.Namespace) -> int:
    """Sign in, wait for the person, print who it was as far as the tokens say it."""
    from micromegas_jupyter import wiring

    settings = wiring.load_client_settings(profile=arguments.profile, options=given_settings(arguments))
    provider = sign_in(settings, flow=arguments.flow)
    print(signed_in_line(provider, now=provider_now(provider)))
    given = given_settings(arguments)
    if given:
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in given.items())
        print(f"Other commands use this sign-in where these are set: {variables}", file=sys.stderr)
    return 0


def given_settings(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the variables that the command's options stand in for."""
    options = {
        "MICROMEGAS_OIDC_ISSUER": arguments.issuer,
        "MICROMEGAS_OIDC_CLIENT_ID": arguments.client_id,
        "MICROMEGAS_OIDC_SCOPE": arguments.scope,
        "MICROMEGAS_OIDC_AUDIENCE": arguments.audience,
    }
    return {name: value for name, value in options.items() if value}
