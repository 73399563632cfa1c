"""Reads a magic's options with its argparse parser, and turns what argparse finds wrong into this package's error."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError as IPythonUsageError

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.words import cut, printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

_MAX_MESSAGE_CHARACTERS = 200


def parse_words(magic: Callable[..., Any], line: str) -> argparse.Namespace:
    """Return the options on a line that holds nothing else.

    Raises:
        UsageError: They cannot be understood.
    """
    try:
        words = shlex.split(line)
    except ValueError:
        raise UsageError("A quotation mark is not closed.", remedy=_remedy(magic)) from None
    return parse_options(magic, words)


def parse_options(magic: Callable[..., Any], words: Sequence[str]) -> argparse.Namespace:
    """Return the options as the parser of `@with_arguments` reads them.

    Raises:
        UsageError: They cannot be understood.
    """
    parser: argparse.ArgumentParser = magic.parser  # type: ignore[attr-defined] # set by @with_arguments
    try:
        return parser.parse_args(list(words))
    except IPythonUsageError as error:
        message = cut(printable(str(error)), _MAX_MESSAGE_CHARACTERS)
        raise UsageError(f"{message[:1].upper()}{message[1:]}.", remedy=_remedy(magic)) from None


def _remedy(magic: Callable[..., Any]) -> str:
    return f"%{magic.__name__}? lists the options."
