"""An argument parser whose errors repeat nothing that was typed: a credential may stand there by mistake."""

import argparse
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NoReturn

from micromegas_jupyter.errors import UsageError

# What argparse says of arguments in its own words, with names that the program gave them.
_ABOUT_ONE = re.compile(r"argument (?P<name>[^:]+): (?P<problem>.*)", re.DOTALL)
_KNOWN_PROBLEM = re.compile(
    r"expected (one|at least one|at most one|[0-9]+) arguments?|not allowed with argument [^ ]+"
)
_CHOICES = re.compile(r"\(choose from [^()]*\)\Z")
#: The metavar of options whose value may begin with a dash, as generated secrets do.
SECRET_METAVAR = "SECRET"  # noqa: S105 - a name


class DiscreetParser(argparse.ArgumentParser):
    """Says which argument is wrong and what it may be, with the usage of the command that it belongs to.

    Parsers of subcommands are of the same class.

    Attributes:
        removed_options: Options of earlier versions, with what to do instead.
    """

    removed_options: Mapping[str, str] = MappingProxyType({})
    _rare: Collection[str] = ()

    def add_help_all(self, rare: Collection[str]) -> None:
        """Add `--help-all`; `--help` and usage leave out the options of these names from now on."""
        self._rare = rare
        self.add_argument("--help-all", action=_HelpAll, nargs=0, dest=argparse.SUPPRESS, help="show all options")

    def format_help(self) -> str:
        """Return the help without the rare options."""
        return self._without_rare(super().format_help)

    def format_usage(self) -> str:
        """Return the usage without the rare options."""
        return self._without_rare(super().format_usage)

    def _without_rare(self, format_text: Any) -> str:
        hidden = [(action, action.help) for action in self._actions if action.dest in self._rare]
        for action, _ in hidden:
            action.help = argparse.SUPPRESS
        try:
            return str(format_text())
        finally:
            for action, text in hidden:
                action.help = text

    def parse_known_args(  # type: ignore[override] # the overloads of the library say the same
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse, and refuse what is left over here, where the usage is that of the command."""
        words = list(sys.argv[1:] if args is None else args)
        for word in words:
            name = word.partition("=")[0]
            if name in self.removed_options:
                raise UsageError(f"{name} is no longer an option.", remedy=self.removed_options[name])
        found, left_over = super().parse_known_args(self._with_secrets_joined(words), namespace)
        if left_over:
            self.error("unrecognized arguments")
        self._refuse_empty_options(found)
        return found, left_over

    def _refuse_empty_options(self, found: argparse.Namespace) -> None:
        # `--access-config "$FILE"` without FILE: what was asked for must not be left out without a word.
        for action in self._actions:
            value = getattr(found, action.dest, None)
            if action.option_strings and (value == "" or (isinstance(value, list) and "" in value)):
                super().error(f"argument {'/'.join(action.option_strings)}: is empty; give a value, or leave it out")

    def _with_secrets_joined(self, words: Sequence[str]) -> list[str]:
        # argparse takes a word that begins with a dash for an option, unless it is joined to its own.
        secrets = {
            name for action in self._actions if action.metavar == SECRET_METAVAR for name in action.option_strings
        }
        joined: list[str] = []
        rest = iter(words)
        for word in rest:
            value = next(rest, None) if word in secrets else None
            joined.append(word if value is None else f"{word}={value}")
        return joined

    def error(self, message: str) -> NoReturn:
        """Print usage and what is wrong, and leave with exit code 2."""
        super().error(describe_problem(message))


class _HelpAll(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_arguments: object) -> NoReturn:
        if isinstance(parser, DiscreetParser):
            parser._rare = ()  # noqa: SLF001 - its own class
        parser.print_help()
        parser.exit()


def describe_problem(message: str) -> str:
    """Return argparse's sentence without anything that was typed."""
    if message.startswith(("the following arguments are required: ", "one of the arguments ")):
        return message
    about_one = _ABOUT_ONE.fullmatch(message)
    if about_one is None:
        return "unknown argument"
    problem = about_one["problem"]
    choices = _CHOICES.search(problem)
    if choices is not None:
        problem = f"not one of its choices {choices[0]}"
    elif not _KNOWN_PROBLEM.fullmatch(problem):
        problem = "its value cannot be used"
    return f"argument {about_one['name']}: {problem}"
