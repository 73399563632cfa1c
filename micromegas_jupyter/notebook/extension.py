"""Registers the magics in a shell and takes them away again; what they do is theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from micromegas_jupyter.notebook.identity_display import IdentityDisplay
from micromegas_jupyter.notebook.identity_magics import IdentityMagics
from micromegas_jupyter.notebook.session import NotebookSession
from micromegas_jupyter.notebook.sql_magic import SQL_MAGIC_NAME, SqlMagic

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.notebook.parts import Parts

_SHORT_NAME = "sql"
_HOLDER = "_micromegas_extension"


class _Extension:
    """What one shell's extension holds: the session, the display, and the magics' instances."""

    def __init__(self, shell: InteractiveShell, parts: Parts) -> None:
        self.session = NotebookSession(parts)
        self.display = IdentityDisplay(shell, self.session)
        self.sql = SqlMagic(shell, self.session)
        self.identity = IdentityMagics(shell, self.session, self.display)

    def close(self) -> None:
        self.session.close()
        self.display.close()


def register(shell: InteractiveShell, parts: Parts) -> None:
    """Register the magics; `%%sql` stays with another extension that already has it.

    Args:
        shell: Where.
        parts: What the magics work with.
    """
    unregister(shell)
    extension = _Extension(shell, parts)
    setattr(shell, _HOLDER, extension)
    shell.register_magics(extension.sql, extension.identity)
    if _owner(shell, "cell") is None and _owner(shell, "line") is None:
        shell.magics_manager.register_function(extension.sql.micromegas_sql, "line_cell", _SHORT_NAME)
    else:
        print(f"%%sql belongs to another extension; use %%{SQL_MAGIC_NAME} for this one.")  # noqa: T201 - to the person


def unregister(shell: InteractiveShell) -> None:
    """Take away the magics that `register` gave, and close what they hold; does nothing when there are none."""
    extension = getattr(shell, _HOLDER, None)
    if not isinstance(extension, _Extension):
        return
    for magics in shell.magics_manager.magics.values():
        for name, magic in list(magics.items()):
            if getattr(magic, "__self__", None) in (extension.sql, extension.identity):
                del magics[name]
    delattr(shell, _HOLDER)
    extension.close()


def _owner(shell: InteractiveShell, kind: str) -> object | None:
    owner: object | None = shell.magics_manager.magics[kind].get(_SHORT_NAME)
    return owner
