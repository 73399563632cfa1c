"""The options of `micromegas serve` that set the server's limits; each stands for a variable.

Limits that few people need have a variable only.
"""

import argparse
from collections.abc import Mapping
from typing import Final

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.settings.server_limits import (
    COUNTED_LIMITS,
    SPILL_DIRECTORY_VARIABLE,
    ServerLimits,
    parse_server_limits,
)

_SPILL_DIRECTORY = "spill_directory"


#: Options of versions before, with what to do instead.
REMOVED_OPTIONS: Final = {
    "--workers": "Each statement runs in a process of its own; --max-queries says how many run at once.",
    "--spare-workers": "Idle executors are kept ready by themselves.",
    "--max-heavy-queries": "Long queries take turns by themselves.",
    "--max-stuck-queries": "Set MICROMEGAS_SERVER_MAX_ENDED_PER_CALLER.",
    "--queue-seconds": "Use --queue-timeout.",
    "--silent-client-seconds": "Use --read-timeout.",
    "--stalled-client-seconds": "Use --write-timeout.",
    "--query-timeout-seconds": "Use --query-timeout.",
    **{
        "--" + limit.name.replace("_", "-"): f"Set {limit.variable}."
        for limit in COUNTED_LIMITS
        if limit.option_name is None
    },
}


def add_limit_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an option for each limit that has one, and refuse those of versions before."""
    group = parser.add_argument_group("limits")
    for limit in COUNTED_LIMITS:
        if limit.option_name is not None:
            told = f"{limit.meaning}; {limit.least} to {limit.most}, default {limit.default} ({limit.variable})"
            group.add_argument(_option(limit.option_name), dest=limit.name, metavar="N", help=told)
    group.add_argument(
        _option(_SPILL_DIRECTORY),
        metavar="DIR",
        help="existing folder for what does not fit into memory, default the system's for temporary files "
        f"({SPILL_DIRECTORY_VARIABLE})",
    )
    for option, remedy in REMOVED_OPTIONS.items():
        parser.add_argument(option, nargs="?", action=_Removed, help=argparse.SUPPRESS, metavar=remedy)


class _Removed(argparse.Action):
    """An option that is gone; its `metavar` says what replaced it."""

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        _namespace: argparse.Namespace,
        _values: object,
        option_string: str | None = None,
    ) -> None:
        raise UsageError(f"{option_string} is no longer an option.", remedy=str(self.metavar))


def limit_environment(
    arguments: argparse.Namespace, environ: Mapping[str, str]
) -> tuple[Mapping[str, str], ServerLimits]:
    """Return the variables, with those that the options stand for, and the limits that they set.

    Raises:
        ConfigurationError: A limit is malformed; the error names the option, or the variable that was set.
    """
    options = {limit.name: limit.option_name for limit in COUNTED_LIMITS if limit.option_name is not None}
    options[_SPILL_DIRECTORY] = _SPILL_DIRECTORY
    variables = {limit.name: limit.variable for limit in COUNTED_LIMITS} | {_SPILL_DIRECTORY: SPILL_DIRECTORY_VARIABLE}
    given = {name: text for name in options if (text := getattr(arguments, name)) is not None}
    merged = {**environ, **{variables[name]: text for name, text in given.items()}}
    return merged, parse_server_limits(merged, names={variables[name]: _option(options[name]) for name in given})


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
