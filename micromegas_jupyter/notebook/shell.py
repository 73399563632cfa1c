"""What the magics use of IPython: its names with the types that it does not state, and where its shell runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import IPython.display
from IPython.core import completer, magic, magic_arguments

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_Function = TypeVar("_Function", bound=Callable[..., object])
argument = cast("Callable[..., _Decorator]", magic_arguments.argument)
with_arguments = cast("Callable[[], _Decorator]", magic_arguments.magic_arguments)
completion_matcher = cast("Callable[..., _Decorator]", completer.completion_matcher)
needs_local_scope = cast("_Decorator", magic.needs_local_scope)
no_var_expand = cast("_Decorator", magic.no_var_expand)
line_magic = cast("_Decorator", magic.line_magic)
line_cell_magic = cast("Callable[[str], _Decorator]", magic.line_cell_magic)
display = cast("Callable[..., None]", IPython.display.display)
clear_output = cast("Callable[..., None]", IPython.display.clear_output)
new_display_handle = cast("Callable[[], Handle]", IPython.display.DisplayHandle)


class _Decorator(Protocol):
    def __call__(self, _function: _Function, /) -> _Function: ...


class Handle(Protocol):
    """A display that can be rewritten."""

    def display(self, shown: Any, *, raw: bool = False) -> None:
        """Show it for the first time."""
        ...

    def update(self, shown: Any, *, raw: bool = False) -> None:
        """Show something else in its place."""
        ...


def has_kernel(shell: InteractiveShell) -> bool:
    """Whether a Jupyter kernel runs the shell, so that displays can be rewritten and widgets shown."""
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
    """Import modules that are not there yet on another thread; Ctrl-C leaves at once and lets it come to its end."""
    missing = [name for name in names if name not in sys.modules]
    if missing:
        from micromegas_jupyter.core.threads import run_interruptibly

        run_interruptibly(lambda: [import_module(name) for name in missing])
