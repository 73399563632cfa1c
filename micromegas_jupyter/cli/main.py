"""The command's entry point: parses the arguments, runs one command, and returns an exit code.

Errors about arguments never repeat the input, which may be a credential typed by mistake.
"""

import argparse
import errno
import gc
import io
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from micromegas_jupyter import __version__
from micromegas_jupyter.core.text import has_color, statement_excerpt
from micromegas_jupyter.errors import ConfigurationError, InternalError, MicromegasError, QueryError, UsageError, extra

if TYPE_CHECKING:
    from micromegas_jupyter.client.flight_client import FlightSQLClient

INTERRUPTED_EXIT_CODE = 130
_GARBAGE_THRESHOLD = 100_000  # objects created by imports are not garbage, and collecting takes time

#: By name, the module with `add_NAME_arguments` and `run_NAME`, and the `--help` text.
_COMMANDS = {
    "login": ("sign_in_commands", "sign in with your organization's identity provider"),
    "logout": ("sign_in_commands", "sign out: revoke and remove the stored sign-in"),
    "whoami": ("sign_in_commands", "show who is signed in, and who the server says you are"),
    "doctor": ("sign_in_commands", "diagnose sign-in problems"),
    "completion": ("main", "print a completion script for a shell"),
    "explain": ("sign_in_commands", "explain an error code"),
    "query": ("query_commands", "run one SQL statement and print its rows"),
    "mcp": ("query_commands", "let an agent on this machine use your sign-in (MCP)"),
    "queries": ("admin_commands", "list running queries on the server"),
    "cancel": ("admin_commands", "cancel a query on the server"),
    "processes": ("telemetry_commands", "list the programs that recently sent telemetry"),
    "process-log": ("telemetry_commands", "print the log of a program"),
    "process-metrics": ("telemetry_commands", "print the metrics of a program"),
    "trace": ("telemetry_commands", "show the spans of a trace as a tree"),
    "logs": ("telemetry_commands", "print log lines, and follow new ones"),
    "telemetry": ("telemetry_commands", "set up your programs to send telemetry"),
    "tables": ("table_commands", "list, describe, change, and drop tables"),
    "keys": ("access_commands", "create, list, and revoke the API keys in a key file"),
    "serve": ("serve_command", "run a Flight SQL server for a lake"),
    "lake": ("lake_commands", "show the state of a lake"),
    "access": ("access_commands", "explain why a server accepts or rejects a token"),
    "admin": ("admin_commands", "show who read a table, and cut off users"),
    "demo": ("demo_command", "run a complete system on this machine"),
}

#: The extras to install besides the client, by command.
_EXTRAS = {"demo": ("server", "demo"), "lake": ("server",), "serve": ("server",)}

#: Options that specify where and how a user signs in, and the variables that they override.
SIGN_IN_VARIABLES = {
    "issuer": "MICROMEGAS_OIDC_ISSUER",
    "client_id": "MICROMEGAS_OIDC_CLIENT_ID",
    "scope": "MICROMEGAS_OIDC_SCOPE",
    "audience": "MICROMEGAS_OIDC_AUDIENCE",
    "resource": "MICROMEGAS_OIDC_RESOURCE",
}
_LASTING = {"serve", "demo"}
_PRINTS_ROWS = {
    "query",
    "processes",
    "process-log",
    "process-metrics",
    "trace",
    "logs",
}  # values must be written exactly, without escapes
# argparse messages that don't repeat the input.
_SAFE_REPORT = re.compile(
    r"(the following arguments are required: |one of the arguments ).*|"
    r"argument [^:]+: (expected [\w ]+|not allowed with argument \S+|is empty; give a value, or leave it out)"
)
_ABOUT_ONE = re.compile(r"(argument [^:]+): .*?(\(choose from [^()]*\))?", re.DOTALL)
_UNKNOWN_OPTION = re.compile(r"(?<= )--[a-z]+(?:-[a-z]+){0,4}(?![^= ])")
_EPILOG = """\
micromegas COMMAND --help describes a command. Exit codes: 0 success, 1 query
failed or permission denied, 2 invalid usage or setting, 3 sign-in required,
4 service unavailable, 130 interrupted.
"""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the `micromegas` command and exit with its exit code."""
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in _LASTING:
        sys.exit(run(words))
    gc.set_threshold(_GARBAGE_THRESHOLD)
    exit_code = run(words)
    gc.freeze()  # also skips the final garbage collection
    sys.exit(exit_code)


def serve_main() -> NoReturn:
    """Run `flight-sql-srv`: the same as `micromegas serve`."""
    sys.exit(run(["serve", *sys.argv[1:]], program="flight-sql-srv"))


def logout_main() -> NoReturn:
    """Run `micromegas_logout`: the same as `micromegas logout`, but without options it logs out all profiles."""
    sys.exit(run(["logout", *(sys.argv[1:] or ["--all"])], program="micromegas_logout"))


def run(argv: Sequence[str], *, program: str = "micromegas") -> int:
    """Run one command and return its exit code."""
    # The other commands' arguments are not needed, and importing their modules takes time.
    named = next((word for word in argv if not word.startswith("-")), None)
    arguments = argparse.Namespace()
    try:
        try:
            build_parser(program, only=named or "").parse_args(argv, arguments)
            return _run_command(arguments)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # otherwise Python flushes on exit, when errors can only be printed
    except MicromegasError as error:
        return report(error, sql=getattr(arguments, "statement", None))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE
    except BrokenPipeError:
        # The reader of the output, such as `head`, has closed it.
        _drop_output()
        return 0
    except OSError as error:
        _drop_output()
        return report(output_error(error))


def _drop_output() -> None:
    """Discard buffered output, which Python would otherwise write when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def is_disk_full(error: Exception) -> bool:
    """Whether the error is a full disk, which is neither the server's nor this program's fault."""
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def output_error(error: OSError) -> UsageError:
    """Return the error for output that cannot be written."""
    return UsageError(
        f"The output cannot be written: {error.strerror}.", remedy="Free up space there, or write the output elsewhere."
    )


def _run_command(arguments: argparse.Namespace) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and (arguments.command not in _PRINTS_ROWS or stream is sys.stderr):
            stream.reconfigure(errors="backslashreplace")  # a message is never lost because of an unencodable character
    if arguments.command != "serve":  # the command's own options configure its log
        log_to_terminal(logging.WARNING, FactsFormatter())
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_note
            return int(_command_function("run_{}", arguments.command)(arguments))
    except (MicromegasError, BrokenPipeError):
        raise
    except ModuleNotFoundError:
        with extra(*_EXTRAS.get(arguments.command, ())):
            raise
    except UnicodeEncodeError as error:
        return report(
            UsageError(
                f"The result contains a character that the output's encoding, {error.encoding}, cannot represent.",
                remedy="Set PYTHONIOENCODING=utf-8.",
            )
        )
    except Exception as error:
        if is_disk_full(error):
            raise
        # Top level: a bug becomes a short message, and its details go to the log.
        logging.getLogger(__name__).debug("Unexpected failure.", exc_info=error)
        return report(InternalError(f"An unexpected failure ({type(error).__name__}) stopped the command."))


def show_note(message: Warning | str, *_where: object, **_more: object) -> None:
    """Print a warning, or the server's notice about the credential, to standard error."""
    print(f"note: {message}", file=sys.stderr)


_OPTIONAL = ("numpy", "pandas")


def load_pyarrow(*modules: str) -> None:
    """Load pyarrow and some of its modules without NumPy and pandas, which would take most of the time.

    NumPy and pandas are used if already loaded. Source: Arrow's documentation, "Python Installation": both are
    optional.
    """
    if sys.modules.keys().isdisjoint({*_OPTIONAL, "pyarrow"}):
        sys.modules.update(dict.fromkeys(_OPTIONAL))  # type: ignore[arg-type] # None, as `import` documents it
        try:
            for module in ("lib", *modules):
                import_module(f"pyarrow.{module}")
            if modules:
                import_module("pyarrow").array([])  # creating the first array tries to import pandas
        finally:
            for name in _OPTIONAL:
                del sys.modules[name]


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def print_table(rows: Iterable[Iterable[object]], headers: Sequence[str] = ()) -> None:
    """Print rows as a text table, with control characters escaped."""
    from tabulate import tabulate

    from micromegas_jupyter.core.text import cell_text

    texts = [[cell_text(cell) for cell in row] for row in rows]
    print(tabulate(texts, headers=headers, tablefmt="simple" if headers else "plain", disable_numparse=True))


@contextmanager
def connect(arguments: argparse.Namespace) -> "Iterator[FlightSQLClient]":
    """Yield a client for the server in the arguments; notes go to standard error."""
    load_pyarrow()
    from micromegas_jupyter.wiring import client_side

    with client_side.connect(arguments.uri, profile=arguments.profile) as client:
        client.on_notice(show_note)
        yield client


@contextmanager
def options_named(options: Mapping[str, str]) -> Iterator[None]:
    """Replace variables with the corresponding options in configuration errors."""
    try:
        yield
    except ConfigurationError as error:
        for variable, option in options.items():
            error.key, error.what, error.remedy = (
                text.replace(variable, option) for text in (error.key, error.what, error.remedy)
            )
        raise


def report(error: MicromegasError, *, sql: str | None = None) -> int:
    """Print an error with its position in `sql`, and return its exit code."""
    parts = [str(error), *([f"query {error.query_id}"] if error.query_id else []), error.code]
    parts += [f"more: micromegas explain {error.code}"] if isinstance(error, QueryError) else []
    from micromegas_jupyter.core.error_page import where_to_read  # importing it takes too long for --help

    lines = ["✗ " + " · ".join(parts) + where_to_read(error.code), *statement_excerpt(error, sql)]
    red, plain = ("\x1b[31m", "\x1b[0m") if has_color(sys.stderr, os.environ) else ("", "")
    print(f"{red}{lines[0]}{plain}", *lines[1:], sep="\n", file=sys.stderr)
    return error.exit_code


def build_parser(program: str = "micromegas", *, only: str | None = None) -> argparse.ArgumentParser:
    """Return the parser for the whole command, with arguments for the `only` command that is needed."""
    parser = CommandParser(prog=program, description="Sign in once, query your telemetry.", epilog=_EPILOG)
    _add_version(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, summary) in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if only in {None, name}:
            _add_version(command)
            _command_function("add_{}_arguments", name)(command)
    return parser


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--version", action="version", version=f"micromegas_jupyter {__version__}", help="show the version and exit"
    )


def add_profile_argument(parser: "argparse.ArgumentParser | argparse._MutuallyExclusiveGroup") -> None:
    """Add `--profile`."""
    parser.add_argument(
        "--profile", metavar="NAME", help="profile of config.json; default: MICROMEGAS_PROFILE, then default_profile"
    )


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--profile` and `--uri`, which select the server."""
    add_profile_argument(parser)
    parser.add_argument(
        "--uri",
        help="address of the server, grpc+tls://HOST:PORT or grpc://HOST:PORT; default: MICROMEGAS_ANALYTICS_URI, then "
        "the profile's",
    )


def add_action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, summary: str
) -> argparse.ArgumentParser:
    """Add one of a command's actions."""
    return actions.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")


def add_completion_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `micromegas completion`."""
    parser.add_argument("shell", choices=("bash", "zsh"), help="the shell")


def run_completion(arguments: argparse.Namespace) -> int:
    """Print the script that lets a shell complete commands and options."""
    import shtab

    print(shtab.complete(build_parser(), shell=arguments.shell))
    return 0


def _command_function(pattern: str, command: str) -> Any:
    module = import_module(f"micromegas_jupyter.cli.{_COMMANDS[command][0]}")
    return getattr(module, pattern.format(command.replace("-", "_")))


class _HelpFormatter(argparse.HelpFormatter):
    """Formats options and commands as Python 3.13 does, in all versions: `-p, --param NAME=VALUE`."""

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        for command in self._iter_indented_subactions(action):
            length = len(self._format_action_invocation(command)) + self._current_indent
            self._action_max_length = max(self._action_max_length, length)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        names = ", ".join(action.option_strings)
        return f"{names} {self._format_args(action, self._get_default_metavar_for_optional(action))}"


class CommandParser(argparse.ArgumentParser):
    """Reports invalid arguments in one line without repeating their values, which may be credentials."""

    rare_help: Mapping[argparse.Action, str | None] = MappingProxyType({})  # shown only by `--help-all`

    def __init__(self, **options: Any) -> None:
        super().__init__(add_help=False, formatter_class=_HelpFormatter, **options)
        self.add_argument("-h", "--help", action="help", help="show this help and exit")

    def parse_known_args(  # type: ignore[override] # the overloads of the library say the same
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse the arguments, and reject unrecognized ones here, so that the error shows this command's usage."""
        words = list(sys.argv[1:] if args is None else args)
        if "--help-all" in words:
            for action, text in self.rare_help.items():
                action.help = text
        found, left_over = super().parse_known_args(words, namespace)
        if left_over:
            self.error(f"unrecognized arguments: {' '.join(left_over)}")
        # `--access-config "$FILE"` with an empty FILE: no option is silently ignored.
        for action in self._actions:
            value = getattr(found, action.dest, None)
            if action.option_strings and (value == "" or (isinstance(value, list) and "" in value)):
                self.error(f"argument {'/'.join(action.option_strings)}: is empty; give a value, or leave it out")
        return found, left_over

    def error(self, message: str) -> NoReturn:
        """Print the problem in one line, and exit with code 2."""
        self.exit(UsageError.exit_code, f"✗ {describe_problem(message)} · {self.prog} --help\n")


def describe_problem(message: str) -> str:
    """Return argparse's message without any input except an option's name."""
    if _SAFE_REPORT.fullmatch(message):
        return message
    if about_one := _ABOUT_ONE.fullmatch(message):
        problem = f"not one of its choices {about_one[2]}" if about_one[2] else "its value cannot be used"
        return f"{about_one[1]}: {problem}"
    unknown = _UNKNOWN_OPTION.search(message)
    return "unknown argument; put a statement in quotes" if unknown is None else f"unknown option {unknown[0]}"


_STANDARD_FIELDS = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_MAX_FACT_CHARACTERS = 256


class FactsFormatter(logging.Formatter):
    """Appends a record's extra fields as `name=value`; external text cannot be mistaken for a separate line."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line."""
        facts = [f" {name}={_fact(value)}" for name, value in record.__dict__.items() if name not in _STANDARD_FIELDS]
        lines = super().format(record).split("\n")
        # Errors contain parts of statements. Further lines are indented, and terminal control characters are escaped.
        return "\n    ".join(line if line.isprintable() else _escaped(line) for line in lines) + "".join(facts)


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _fact(value: object) -> str:
    text = str(value)[:_MAX_FACT_CHARACTERS]
    return text if text and text.isprintable() and " " not in text else ascii(text)


def log_to_terminal(level: int, formatter: logging.Formatter) -> logging.Handler:
    """Write records of `level` or higher to standard error from now on."""
    handler = logging.StreamHandler()
    handler.setLevel(level)
    handler.setFormatter(formatter)
    logging.getLogger().addHandler(handler)
    return handler
