"""`micromegas completion`: the script with which bash or zsh completes commands and options."""

import argparse


def add_completion_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("shell", choices=("bash", "zsh"), help="the shell that the script is for")


def run_completion(arguments: argparse.Namespace) -> int:
    """Print the script, made of the commands' own arguments."""
    import shtab

    from micromegas_jupyter.cli.main import build_parser

    print(shtab.complete(build_parser(), shell=arguments.shell))
    return 0
