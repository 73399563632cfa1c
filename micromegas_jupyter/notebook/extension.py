"""Registers the magics in a shell and takes them away again; what they do is theirs."""

from __future__ import annotations

import atexit
from typing import TYPE_CHECKING

from micromegas_jupyter.notebook.arguments import help_as_line_magic
from micromegas_jupyter.notebook.completion.matcher import SqlCompleter
from micromegas_jupyter.notebook.completion.schema import SchemaCache
from micromegas_jupyter.notebook.login.connection_settings import NamedConnections
from micromegas_jupyter.notebook.login.display import IdentityDisplay
from micromegas_jupyter.notebook.login.session import CellConnections, NotebookSession
from micromegas_jupyter.notebook.magics.connect import ConnectMagic
from micromegas_jupyter.notebook.magics.doctor import DoctorMagic
from micromegas_jupyter.notebook.magics.identity import IdentityMagics
from micromegas_jupyter.notebook.magics.queries import QueryHistory
from micromegas_jupyter.notebook.magics.serve import ServeMagic
from micromegas_jupyter.notebook.magics.sql import SQL_MAGIC_NAME, QueriesMagic, SqlMagic
from micromegas_jupyter.notebook.magics.sql_runner import SqlRunner
from micromegas_jupyter.notebook.magics.tables import TablesMagic

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.core.magic import Magics

    from micromegas_jupyter.notebook.login.dependencies import Parts

_SHORT_NAME = "sql"
_HOLDER = "_micromegas_extension"


class _Extension:
    """What one shell's extension holds: the session, the display, and the magics' instances."""

    def __init__(self, shell: InteractiveShell, parts: Parts) -> None:
        self.session = NotebookSession(parts)
        self.display = IdentityDisplay(shell, self.session)
        named, history = NamedConnections(), QueryHistory()
        connections = CellConnections(shell, self.session, named)
        runner = SqlRunner(shell, self.session, connections, history)
        self.sql = SqlMagic(shell, runner)
        self.schemas = SchemaCache(self.session.connections, clock=parts.clock, may_open=lambda: not parts.is_wrapped())
        tables = TablesMagic(shell, self.session, connections, self.schemas)
        self.completer = SqlCompleter(
            shell,
            connections,
            self.schemas,
            sql_magic=self.sql.micromegas_sql,
            tables_magic=tables.micromegas_tables,
        )
        self.serve = ServeMagic(shell, self.session, named)
        self.magics: tuple[Magics, ...] = (
            self.sql,
            ConnectMagic(shell, self.session, named),
            QueriesMagic(shell, self.session, history, runner),
            IdentityMagics(shell, self.session, self.display),
            DoctorMagic(shell, self.session),
            tables,
            self.serve,
        )

    def close(self) -> None:
        self.completer.leave()
        self.schemas.close()
        self.session.close()
        self.display.close()
        self.serve.close()


def register(shell: InteractiveShell, parts: Parts) -> None:
    """Register the magics; `%%sql` stays with another extension that already has it."""
    unregister(shell)
    extension = _Extension(shell, parts)
    setattr(shell, _HOLDER, extension)
    # A kernel that ends does not unload its extensions.
    atexit.register(extension.close)
    shell.register_magics(*extension.magics)
    extension.completer.join()
    shell.input_transformers_cleanup.append(help_as_line_magic)
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
            if getattr(magic, "__self__", None) in extension.magics:
                del magics[name]
    if help_as_line_magic in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.remove(help_as_line_magic)
    delattr(shell, _HOLDER)
    atexit.unregister(extension.close)
    extension.close()


def _owner(shell: InteractiveShell, kind: str) -> object | None:
    owner: object | None = shell.magics_manager.magics[kind].get(_SHORT_NAME)
    return owner
