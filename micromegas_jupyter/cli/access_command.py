"""`micromegas access explain`: says step by step why a server with this environment accepts or refuses a token."""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.core.system import SYSTEM_CLOCK, process_variables
from micromegas_jupyter.errors import Rejected, Unavailable, UsageError

if TYPE_CHECKING:
    from micromegas_jupyter.access.validator import Decision

_MAX_INPUT_BYTES: Final = 64 * 1024
_MARKS: Final = {True: "✓", False: "✗", None: "·"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    explain = actions.add_parser(
        "explain",
        help="why a token is accepted or refused",
        description="Say step by step why a server with this environment accepts or refuses a token. The token itself "
        "is not printed.",
    )
    explain.add_argument(
        "file", nargs="?", default="-", metavar="FILE", help="file that holds the token; - or nothing: standard input"
    )
    explain.add_argument("--json", action="store_true", help="print one JSON object")
    explain.add_argument("--access-config", metavar="PATH", help="configuration file (MICROMEGAS_ACCESS_CONFIG)")
    explain.add_argument("--api-key-file", metavar="PATH", help="file of API keys (MICROMEGAS_API_KEY_FILE)")


def run(arguments: argparse.Namespace) -> int:
    """Explain one token; the exit code is that of the outcome: 0 accepted, 3 refused, 4 not decided."""
    token = _read_token(arguments.file)
    from micromegas_jupyter.access import validator_from_environment
    from micromegas_jupyter.access.explain import describe_outcome, explain_decision
    from micromegas_jupyter.access.validator import Accepted, Undecided, decide_safely

    validator = validator_from_environment(access_environment(arguments))
    try:
        decision = decide_safely(validator, token)
        steps = explain_decision(token, decision, settings=validator.settings, now=SYSTEM_CLOCK.now())
    finally:
        validator.close()
    outcome = describe_outcome(decision)
    if arguments.json:
        listed = [{"passed": step.is_passed, "step": step.title, "found": step.found} for step in steps]
        print(json.dumps({"outcome": outcome, "steps": listed, **_facts(decision)}))
    else:
        for step in steps:
            print(f"{_MARKS[step.is_passed]} {step.title:<10} {step.found}")
        print(f"{'✓' if isinstance(decision, Accepted) else '✗'} {outcome}")
    if isinstance(decision, Accepted):
        return 0
    return Unavailable.exit_code if isinstance(decision, Undecided) else Rejected.exit_code


def access_environment(arguments: argparse.Namespace) -> Mapping[str, str]:
    """Return the variables, with those that `--access-config` and `--api-key-file` stand for."""
    chosen = {"MICROMEGAS_ACCESS_CONFIG": arguments.access_config, "MICROMEGAS_API_KEY_FILE": arguments.api_key_file}
    return process_variables({**os.environ, **{name: value for name, value in chosen.items() if value is not None}})


def _facts(decision: "Decision") -> dict[str, object]:
    context = getattr(decision, "context", None)
    if context is None:
        return {"accepted": False, "reason": decision.reason}
    return {
        "accepted": True,
        "reason": None,
        "issuer": context.issuer,
        "subject": context.subject,
        "is_admin": context.is_admin,
        "groups": list(context.groups),
        "roles": list(context.roles),
        "scopes": sorted(context.scopes),
    }


def _read_token(name: str) -> str:
    """Return the token in a file or on standard input, without white space and without `Bearer`."""
    content = _read_input(name)
    if len(content) > _MAX_INPUT_BYTES:
        raise UsageError("The input is far larger than a token.", remedy="Give the token and nothing else.")
    try:
        text = content.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise UsageError("The input is not text.", remedy="Give the token and nothing else.") from None
    token = text.removeprefix("Bearer ").strip()
    if not token:
        raise UsageError("The input is empty.", remedy="Give the token and nothing else.")
    return token


def _read_input(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read(_MAX_INPUT_BYTES + 1)
    try:
        with open(name, "rb") as file:  # noqa: PTH123 - as named, `~` and all
            return file.read(_MAX_INPUT_BYTES + 1)
    except (OSError, ValueError) as error:
        # The name is not repeated: somebody may have given a token.
        why = "There is no such file." if isinstance(error, FileNotFoundError) else "The file cannot be read."
        raise UsageError(
            why,
            remedy="Name a file that holds the token alone, or pipe it in; never write it on the command line.",
        ) from error
