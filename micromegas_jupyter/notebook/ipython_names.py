"""IPython's names that the magics use, with the types that IPython does not state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

import IPython.display
from IPython.core import completer, magic, magic_arguments

_Function = TypeVar("_Function", bound=Callable[..., object])


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
