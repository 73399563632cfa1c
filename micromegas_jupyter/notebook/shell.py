"""IPython's interfaces for the magics: its names with types, where its shell runs, and a magic's options and help."""

from __future__ import annotations

import functools
import re
import shlex
import sys
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import IPython.display
from IPython.core import completer, magic_arguments
from IPython.core import magic as ipython_magic
from IPython.core.error import UsageError as IPythonUsageError

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.formatting import cut, errors_as_lines, printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from IPython.core.interactiveshell import InteractiveShell

_Function = TypeVar("_Function", bound=Callable[..., object])
_Magics = TypeVar("_Magics")
_Value = TypeVar("_Value")
argument = cast("Callable[..., _Decorator]", magic_arguments.argument)
with_arguments = cast("Callable[[], _Decorator]", magic_arguments.magic_arguments)
completion_matcher = cast("Callable[..., _Decorator]", completer.completion_matcher)
needs_local_scope = cast("_Decorator", ipython_magic.needs_local_scope)
no_var_expand = cast("_Decorator", ipython_magic.no_var_expand)
_line_magic = cast("_Decorator", ipython_magic.line_magic)
line_cell_magic = cast("Callable[[str], _Decorator]", ipython_magic.line_cell_magic)
display = cast("Callable[..., None]", IPython.display.display)
clear_output = cast("Callable[..., None]", IPython.display.clear_output)
new_display_handle = cast("Callable[[], Handle]", IPython.display.DisplayHandle)

HELP_OPTION = "--help"
_MAX_MESSAGE_CHARACTERS = 200
_HELP_ALONE = re.compile(r"%(%(?:sql|micromegas_sql)[ \t](?:[^\n]*[ \t])?--help\s*)")


class _Decorator(Protocol):
    def __call__(self, _function: _Function, /) -> _Function: ...


class Handle(Protocol):
    """A display that can be updated."""

    def display(self, shown: Any, *, raw: bool = False) -> None:
        """Show it for the first time."""
        ...

    def update(self, shown: Any, *, raw: bool = False) -> None:
        """Show something else in its place."""
        ...


def has_kernel(shell: InteractiveShell) -> bool:
    """Whether a Jupyter kernel runs the shell, so that displays can be updated and widgets shown."""
    return getattr(shell, "kernel", None) is not None


def is_alone_in_cell(shell: InteractiveShell) -> bool:
    """Whether the running cell is one line, so that all of its output is that line's."""
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return False
    source = kernel.get_parent("shell").get("content", {}).get("code", "")
    lines = (line.strip() for line in source.splitlines())
    return sum(1 for line in lines if line and not line.startswith("#")) == 1


def is_attended(shell: InteractiveShell) -> bool:
    """Whether a person can answer.

    A front end with a person sends `allow_stdin` true with each execute request; nbclient, nbconvert and
    papermill send false (Jupyter messaging protocol, `execute_request`).
    """
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return True
    request = kernel.get_parent("shell")
    return bool(request.get("content", {}).get("allow_stdin", False))


def load_libraries(*names: str) -> None:
    """Import modules on another thread, unless they are loaded; Ctrl-C returns at once and lets the import finish."""
    missing = [name for name in names if name not in sys.modules]
    if missing:
        from micromegas_jupyter.core.system import run_interruptibly

        run_interruptibly(lambda: [import_module(name) for name in missing])


def parse_line(magic: Callable[..., Any], line: str) -> argparse.Namespace:
    """Return the options on a line that holds nothing else."""
    try:
        arguments = shlex.split(line)
    except ValueError:
        raise UsageError("A quotation mark is not closed.", remedy=_usage_remedy(magic)) from None
    return parse_options(magic, arguments)


def parse_options(magic: Callable[..., Any], arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options as the parser of `@with_arguments` reads them."""
    try:
        return _parser(magic).parse_args(list(arguments))
    except IPythonUsageError as error:
        message = cut(printable(str(error)), _MAX_MESSAGE_CHARACTERS)
        nearest = _nearest_option(magic, arguments)
        remedy = _usage_remedy(magic) if nearest is None else f"Did you mean {nearest}?"
        raise UsageError(f"{message[:1].upper()}{message[1:]}.", remedy=remedy) from None


def check_exclusive(arguments: argparse.Namespace, *options: str) -> None:
    """Check that at most one of these options is given."""
    given = [name for name in options if getattr(arguments, name) is not None and getattr(arguments, name) is not False]
    if len(given) > 1:
        one, other = (f"--{name.replace('_', '-')}" for name in given[:2])
        raise UsageError(f"{one} and {other} cannot be combined.", remedy="Leave one of them out.")


def options_with_value(magic: Callable[..., Any]) -> tuple[str, ...]:
    """Return the options of a magic that take a value."""
    return tuple(name for action in _actions(magic) if action.nargs != 0 for name in action.option_strings)


def flags(magic: Callable[..., Any]) -> tuple[str, ...]:
    """Return the options of a magic that take no value."""
    return tuple(name for action in _actions(magic) if action.nargs == 0 for name in action.option_strings)


def option_values(magic: Callable[..., Any], option: str) -> tuple[str, ...]:
    """Return the choices for an option of a magic; none when it takes any value."""
    return tuple(
        str(value) for action in _actions(magic) if option in action.option_strings for value in action.choices or ()
    )


def line_magic(method: Callable[[_Magics, argparse.Namespace], _Value]) -> Callable[[_Magics, str], _Value | None]:
    """Make a line magic of a method that takes the parsed options; stands above its `@argument` decorators.

    `--help` shows what the magic does and its options, and errors are shown as lines.
    """
    magic = no_var_expand(with_arguments()(method))

    @functools.wraps(magic)
    def run(magics: _Magics, line: str) -> _Value | None:
        if HELP_OPTION in line.split():
            print(help_text(magic))  # noqa: T201 - the magic's output
            return None
        with errors_as_lines(traceback="--traceback" in line.split()):
            return magic(magics, parse_line(magic, line))

    return _line_magic(run)


def help_text(magic: Callable[..., Any]) -> str:
    """Return what a magic does and its options."""
    return _parser(magic).format_help().removeprefix("::\n\n").strip()


def help_as_line_magic(lines: list[str]) -> list[str]:
    """Return a cell that only asks for help as a line magic, any other unchanged; for `input_transformers_cleanup`."""
    found = _HELP_ALONE.fullmatch("".join(lines))
    return lines if found is None else [found[1].rstrip() + "\n"]


def _nearest_option(magic: Callable[..., Any], arguments: Sequence[str]) -> str | None:
    """Return the option that a misspelt one was meant to be; None when all are known, or none is near."""
    known = (*options_with_value(magic), *flags(magic))
    for argument in arguments:
        option = argument.partition("=")[0]
        if option.startswith("--") and not any(name.startswith(option) for name in known):
            return next(iter(get_close_matches(option, known, n=1)), None)
    return None


def _parser(magic: Callable[..., Any]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = magic.parser  # type: ignore[attr-defined] # set by @with_arguments
    return parser


def _actions(magic: Callable[..., Any]) -> Sequence[argparse.Action]:
    return _parser(magic)._actions  # noqa: SLF001 - argparse lists its options in no other way


def _usage_remedy(magic: Callable[..., Any]) -> str:
    return f"%{magic.__name__}? lists the options."
