"""`micromegas logout`: end the profile's sign-ins for every notebook and terminal of this person."""

import argparse

_HUB_LINE = (
    "Programs of this server are signed in through JupyterHub by themselves; that ends where you log out of the Hub."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("--profile", help="a profile of config.json")
    parser.add_argument(
        "--end-session",
        action="store_true",
        help="also end your session at the identity provider: opens its page in your browser",
    )


def run(arguments: argparse.Namespace) -> int:
    """Remove what is stored, have it revoked, and say what was done; also when nobody was signed in."""
    from micromegas_jupyter import wiring

    settings = wiring.load_client_settings(profile=arguments.profile)
    print(wiring.logout(settings, end_session=arguments.end_session))
    if wiring.uses_hub(settings):
        print(_HUB_LINE)
    return 0
