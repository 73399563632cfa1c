"""The command's entry: reads the arguments, runs one command, turns its end into an exit code.

Results go to standard output, all else to standard error. Exit codes: 0 done, 1 query failed, 2 usage,
3 login needed, 4 unavailable; 130 when interrupted.
"""

import argparse
import io
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from micromegas_jupyter import __version__
from micromegas_jupyter.cli.parser import DiscreetParser
from micromegas_jupyter.cli.server_log import log_to_terminal
from micromegas_jupyter.errors import InternalError, MicromegasError, UsageError

INTERRUPTED_EXIT_CODE = 130

#: By name, the module that holds `add_NAME_arguments` and `run_NAME`, and what `--help` says.
_COMMANDS = {
    "login": ("sign_in_commands", "sign in with your organization's identity provider"),
    "logout": ("sign_in_commands", "sign out: revoke and remove the stored sign-in"),
    "whoami": ("sign_in_commands", "show who you are here, and to the server"),
    "doctor": ("sign_in_commands", "find out what is wrong with the sign-in here, and what to do"),
    "query": ("query_command", "run one SQL statement and print its rows"),
    "processes": ("process_commands", "list the programs that recently sent telemetry"),
    "process-log": ("process_commands", "print what one program logged"),
    "process-metrics": ("process_commands", "print what one program measured"),
    "keys": ("access_commands", "make, list and revoke the API keys in a key file"),
    "serve": ("serve_command", "run a Flight SQL server over a folder of telemetry"),
    "access": ("access_commands", "explain why a server with this environment accepts or refuses a token"),
    "demo": ("demo_command", "run a whole system on this machine: provider, server, telemetry, notebook"),
}

_PRINTS_ROWS = {"query", "processes", "process-log", "process-metrics"}  # which hold what they are to the last letter


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the `micromegas` command and leave with its exit code."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def serve_main() -> NoReturn:
    """Run `flight-sql-srv`: the same as `micromegas serve`."""
    sys.exit(run(["serve", *sys.argv[1:]], program="flight-sql-srv"))


def logout_main() -> NoReturn:
    """Run `micromegas_logout`: the same as `micromegas logout`."""
    sys.exit(run(["logout", *sys.argv[1:]], program="micromegas_logout"))


def run(argv: Sequence[str], *, program: str = "micromegas") -> int:
    """Run one command and return its exit code."""
    # The other commands' arguments are not needed, and their modules would cost time.
    named = next((word for word in argv if not word.startswith("-")), None)
    try:
        arguments = build_parser(program, only=named if named in _COMMANDS else None).parse_args(argv)
        return _run_command(arguments)
    except MicromegasError as error:
        return report(error)


def _run_command(arguments: argparse.Namespace) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and (arguments.command not in _PRINTS_ROWS or stream is sys.stderr):
            stream.reconfigure(errors="backslashreplace")  # a sentence is never lost for one of its characters
    if arguments.command != "serve":  # which logs as its own options say
        log_to_terminal(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return int(_command_function("run_{}", arguments.command)(arguments))
    except MicromegasError:
        raise
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE
    except BrokenPipeError:
        # The reader of our output left, as `head` does: nobody is there to be told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UnicodeEncodeError as error:
        return report(
            UsageError(
                f"The result has a character that the output's encoding, {error.encoding}, cannot represent.",
                remedy="Set PYTHONIOENCODING=utf-8.",
            )
        )
    except Exception as error:
        # The edge: a defect becomes a sentence, its details go to the log.
        logging.getLogger(__name__).debug("Unexpected failure.", exc_info=error)
        return report(InternalError(f"An unexpected failure ({type(error).__name__}) stopped the command."))


def _show_warning(message: Warning | str, *_where: object, **_more: object) -> None:
    print(f"note: {message}", file=sys.stderr)


def report(error: MicromegasError) -> int:
    """Print an error as its lines and return its exit code."""
    parts = [str(error), *([f"query {error.query_id}"] if error.query_id else []), error.code]
    print("✗ " + " · ".join(parts), file=sys.stderr)
    return error.exit_code


def build_parser(program: str = "micromegas", *, only: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the whole command.

    Args:
        program: What the command is called.
        only: The one command whose own arguments are needed; all of them when None.
    """
    parser = DiscreetParser(prog=program, description="Sign in once, query your telemetry.")
    parser.add_argument("--version", action="version", version=f"micromegas_jupyter {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, summary) in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if only in {None, name}:
            _command_function("add_{}_arguments", name)(command)
    return parser


def _command_function(pattern: str, command: str) -> Any:
    module = import_module(f"micromegas_jupyter.cli.{_COMMANDS[command][0]}")
    return getattr(module, pattern.format(command.replace("-", "_")))
