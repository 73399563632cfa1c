"""`micromegas logout`: end the stored sign-in for every notebook and terminal of this person."""

import argparse
import os


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("--profile", help="a profile of config.json")


def run(arguments: argparse.Namespace) -> int:
    """Revoke what can be revoked and remove the stored sign-in."""
    from micromegas_jupyter import assembly
    from micromegas_jupyter.auth import OidcAuthProvider

    settings = assembly.load_client_settings(profile=arguments.profile)
    path = assembly.token_file(settings)
    if not os.path.lexists(path):
        print("Nobody was signed in.")
        return 0
    print(OidcAuthProvider.from_file(path, client_secret=settings.client_secret).logout())
    return 0
