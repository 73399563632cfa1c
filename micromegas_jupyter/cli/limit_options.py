"""The options of `micromegas serve` that set the server's limits; each stands for a variable."""

import argparse
from collections.abc import Mapping

from micromegas_jupyter.settings.server_limits import (
    COUNTED_LIMITS,
    SPILL_DIRECTORY_VARIABLE,
    ServerLimits,
    parse_server_limits,
)

_SPILL_DIRECTORY = "spill_directory"


def add_limit_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one option for each limit."""
    group = parser.add_argument_group("limits")
    for limit in COUNTED_LIMITS:
        told = f"{limit.meaning}; {limit.least} to {limit.most}, default {limit.default} ({limit.variable})"
        group.add_argument(_option(limit.name), metavar="N", help=told)
    group.add_argument(
        _option(_SPILL_DIRECTORY),
        metavar="DIR",
        help="existing folder for what does not fit into memory, default the system's for temporary files "
        f"({SPILL_DIRECTORY_VARIABLE})",
    )


def limit_environment(
    arguments: argparse.Namespace, environ: Mapping[str, str]
) -> tuple[Mapping[str, str], ServerLimits]:
    """Return the variables, with those that the options stand for, and the limits that they set.

    Raises:
        ConfigurationError: A limit is malformed; the error names the option, or the variable that was set.
    """
    variables = {limit.name: limit.variable for limit in COUNTED_LIMITS} | {_SPILL_DIRECTORY: SPILL_DIRECTORY_VARIABLE}
    given = {name: getattr(arguments, name) for name in variables if getattr(arguments, name) is not None}
    merged = {**environ, **{variables[name]: text for name, text in given.items()}}
    return merged, parse_server_limits(merged, names={variables[name]: _option(name) for name in given})


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
