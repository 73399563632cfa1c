"""`micromegas login`: sign in with the person's browser and keep the sign-in."""

import argparse
import sys

from micromegas_jupyter.cli.identity_lines import identity_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("--profile", help="a profile of config.json")


def run(arguments: argparse.Namespace) -> int:
    """Sign in, wait for the person, print who it was."""
    from micromegas_jupyter import assembly

    settings = assembly.load_client_settings(profile=arguments.profile)
    provider = assembly.login(settings, announce=announce)
    print(f"Signed in as {identity_line(provider.identity())}")
    return 0


def announce(url: str) -> None:
    """Tell the person where to sign in, in case no browser appears."""
    print(f"Sign in in your browser; if none opens, open {url}", file=sys.stderr)
