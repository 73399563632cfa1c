"""An argument parser whose errors repeat nothing that was typed: a credential may stand there by mistake."""

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

# What argparse says of arguments in its own words, with names that the program gave them.
_ABOUT_ONE = re.compile(r"argument (?P<name>[^:]+): (?P<problem>.*)", re.DOTALL)
_HARMLESS = re.compile(r"expected (one|at least one|at most one|[0-9]+) arguments?|not allowed with argument [^ ]+")
_CHOICES = re.compile(r"\(choose from [^()]*\)\Z")


class DiscreetParser(argparse.ArgumentParser):
    """Says which argument is wrong and what it may be, with the usage of the command that it belongs to.

    Parsers of subcommands are of the same class.

    Attributes:
        free_text_options: Options whose value may begin with a dash, as drawn secrets do.
    """

    free_text_options: frozenset[str] = frozenset()

    def parse_known_args(  # type: ignore[override] # the overloads of the library say the same
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse, and refuse what is left over here, where the usage is that of the command."""
        found, left_over = super().parse_known_args(self._with_free_texts_joined(args), namespace)
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

    def _with_free_texts_joined(self, args: Sequence[str] | None) -> list[str]:
        # argparse takes a word that begins with a dash for an option, unless it is joined to its own.
        joined: list[str] = []
        words = iter(sys.argv[1:] if args is None else args)
        for word in words:
            value = next(words, None) if word in self.free_text_options else None
            joined.append(word if value is None else f"{word}={value}")
        return joined

    def error(self, message: str) -> NoReturn:
        """Print usage and what is wrong, and leave with exit code 2."""
        super().error(describe_problem(message))


def describe_problem(message: str) -> str:
    """Return argparse's sentence without anything that was typed."""
    if message.startswith(("the following arguments are required: ", "one of the arguments ")):
        return message
    about_one = _ABOUT_ONE.fullmatch(message)
    if about_one is None:
        return "an argument that is not known"
    problem = about_one["problem"]
    choices = _CHOICES.search(problem)
    if choices is not None:
        problem = f"not one of its choices {choices[0]}"
    elif not _HARMLESS.fullmatch(problem):
        problem = "its value cannot be used"
    return f"argument {about_one['name']}: {problem}"
