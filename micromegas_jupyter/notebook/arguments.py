"""Reads a magic's options with its argparse parser, and turns what argparse finds wrong into this package's error."""

from __future__ import annotations

import functools
import re
import shlex
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar

from IPython.core.error import UsageError as IPythonUsageError

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.formatting import cut, printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

HELP_OPTION = "--help"
_MAX_MESSAGE_CHARACTERS = 200
_Magics = TypeVar("_Magics")
_Value = TypeVar("_Value")
_HELP_ALONE = re.compile(r"%(%(?:sql|micromegas_sql)[ \t](?:[^\n]*[ \t])?--help\s*)")


def parse_words(magic: Callable[..., Any], line: str) -> argparse.Namespace:
    """Return the options on a line that holds nothing else."""
    try:
        words = shlex.split(line)
    except ValueError:
        raise UsageError("A quotation mark is not closed.", remedy=_remedy(magic)) from None
    return parse_options(magic, words)


def parse_options(magic: Callable[..., Any], words: Sequence[str]) -> argparse.Namespace:
    """Return the options as the parser of `@with_arguments` reads them."""
    parser: argparse.ArgumentParser = magic.parser  # type: ignore[attr-defined] # set by @with_arguments
    try:
        return parser.parse_args(list(words))
    except IPythonUsageError as error:
        message = cut(printable(str(error)), _MAX_MESSAGE_CHARACTERS)
        nearest = _nearest_option(magic, words)
        remedy = _remedy(magic) if nearest is None else f"Did you mean {nearest}?"
        raise UsageError(f"{message[:1].upper()}{message[1:]}.", remedy=remedy) from None


def check_exclusive(arguments: argparse.Namespace, one: str, other: str) -> None:
    """Check that at most one of two options is given."""
    if getattr(arguments, one) and getattr(arguments, other):
        names = [f"--{name.replace('_', '-')}" for name in (one, other)]
        raise UsageError(f"{names[0]} and {names[1]} do not go together.", remedy="Give one of them.")


def options_with_value(magic: Callable[..., Any]) -> tuple[str, ...]:
    """Return the options of a magic that take the next word."""
    return tuple(name for action in _actions(magic) if action.nargs != 0 for name in action.option_strings)


def flags(magic: Callable[..., Any]) -> tuple[str, ...]:
    """Return the options of a magic that stand alone."""
    return tuple(name for action in _actions(magic) if action.nargs == 0 for name in action.option_strings)


def option_values(magic: Callable[..., Any], option: str) -> tuple[str, ...]:
    """Return the values that an option of a magic lets choose from; none when it takes any."""
    return tuple(
        str(value) for action in _actions(magic) if option in action.option_strings for value in action.choices or ()
    )


def answers_help(magic: Callable[[_Magics, str], _Value]) -> Callable[[_Magics, str], _Value | None]:
    """Let `--help` on a line magic's line show what the magic does and its options; nothing else is done then.

    Stands above the other decorators of the magic.
    """

    @functools.wraps(magic)
    def run(magics: _Magics, line: str) -> _Value | None:
        if HELP_OPTION not in line.split():
            return magic(magics, line)
        print(help_text(magic))  # noqa: T201 - the magic's output
        return None

    return run


def help_text(magic: Callable[..., Any]) -> str:
    """Return what a magic does and its options."""
    parser: argparse.ArgumentParser = magic.parser  # type: ignore[attr-defined] # set by @with_arguments
    return parser.format_help().removeprefix("::\n\n").strip()


def _nearest_option(magic: Callable[..., Any], words: Sequence[str]) -> str | None:
    """Return the option that a misspelt one was meant to be; None when all are known, or none is near."""
    known = (*options_with_value(magic), *flags(magic))
    for word in words:
        option = word.partition("=")[0]
        if option.startswith("--") and not any(name.startswith(option) for name in known):
            return next(iter(get_close_matches(option, known, n=1)), None)
    return None


def _actions(magic: Callable[..., Any]) -> Sequence[argparse.Action]:
    parser: argparse.ArgumentParser = magic.parser  # type: ignore[attr-defined] # set by @with_arguments
    return parser._actions  # noqa: SLF001 - argparse tells its options in no other way


def _remedy(magic: Callable[..., Any]) -> str:
    return f"%{magic.__name__}? lists the options."


def help_as_line_magic(lines: list[str]) -> list[str]:
    """Return a cell that only asks for help as a line magic, any other as it is; for `input_transformers_cleanup`."""
    found = _HELP_ALONE.fullmatch("".join(lines))
    return lines if found is None else [found[1].rstrip() + "\n"]
