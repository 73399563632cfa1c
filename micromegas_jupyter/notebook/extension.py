"""Registers the magics in a shell and removes them again."""

import atexit
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from micromegas_jupyter.notebook.completion import SchemaCache, SqlCompleter
from micromegas_jupyter.notebook.login.connections import NotebookServices
from micromegas_jupyter.notebook.login.session import CellConnections, NotebookSession
from micromegas_jupyter.notebook.magics.connect import ServerMagics
from micromegas_jupyter.notebook.magics.identity import IdentityMagics
from micromegas_jupyter.notebook.magics.sql import SQL_MAGIC_NAME, SqlMagic
from micromegas_jupyter.notebook.magics.telemetry import TelemetryMagics
from micromegas_jupyter.notebook.panel import SidePanel
from micromegas_jupyter.notebook.shell import Bundle, has_kernel, help_as_line_magic, is_attended

_SHORT_NAME = "sql"
_ATTRIBUTE = "_micromegas_extension"
# Return values of `client.trace` and the magics, shown as a widget, or as HTML if the extension isn't loaded.
_SHOWN = (("micromegas_jupyter.client.traces", "Trace"), ("micromegas_jupyter.client.flames", "Flame"))


class _Extension:
    """The objects of one shell."""

    def __init__(self, shell: InteractiveShell, dependencies: NotebookServices) -> None:
        self.session = NotebookSession(dependencies)
        connections = CellConnections(shell, self.session)
        self.schemas = SchemaCache(self.session.connections, dependencies)
        self.sql = SqlMagic(shell, self.session, connections)
        servers = ServerMagics(shell, self.session, connections, self.schemas)
        identity = IdentityMagics(shell, self.session)
        connections.notice = lambda: identity.display.notice()  # noqa: PLW0108 - not before it is needed
        telemetry = TelemetryMagics(shell, self.session, connections)
        self.magics = (self.sql, identity, servers, telemetry)
        sql, tables = self.sql.micromegas_sql, servers.micromegas_tables
        self.completer = SqlCompleter(shell, connections, self.schemas, sql, tables)
        panel = SidePanel(shell, self.session, connections, self.schemas, self.sql)
        self._closing = (
            telemetry.close,
            panel.close,
            self.completer.close,
            self.session.close,
            identity.close,
            servers.close,
        )

    def close(self) -> None:
        for close in self._closing:
            close()


def load_ipython_extension(ip: InteractiveShell) -> None:
    """Register the magics; IPython calls this for `%load_ext micromegas_jupyter`."""
    register(ip, NotebookServices())
    if has_kernel(ip) and is_attended(ip):
        getattr(ip, _ATTRIBUTE).completer.fetch_early()


def register(shell: InteractiveShell, dependencies: NotebookServices) -> None:
    """Register the magics; if another extension provides `%%sql`, it keeps that name."""
    unregister(shell)
    extension = _Extension(shell, dependencies)
    setattr(shell, _ATTRIBUTE, extension)
    # Kernels exit without unloading extensions.
    atexit.register(extension.close)
    shell.input_transformers_cleanup.append(help_as_line_magic)
    shell.register_magics(*extension.magics)
    for module, name in _SHOWN:
        shell.display_formatter.mimebundle_formatter.for_type_by_name(module, name, _show_trace)  # type: ignore[union-attr]
    if any(_SHORT_NAME in shell.magics_manager.magics[kind] for kind in ("cell", "line")):
        print(f"Another extension provides %%sql; use %%{SQL_MAGIC_NAME} for this one.")  # noqa: T201 - for the user
    else:
        shell.magics_manager.register_function(extension.sql.micromegas_sql, "line_cell", _SHORT_NAME)


def _show_trace(shown: Any, **_options: object) -> Bundle:
    from micromegas_jupyter.notebook.trace_view import show_trace

    return show_trace(shown)


def unregister(shell: InteractiveShell) -> None:
    """Remove the magics that `register` added and close their resources; do nothing if they aren't registered."""
    extension = getattr(shell, _ATTRIBUTE, None)
    if not isinstance(extension, _Extension):
        return
    for magics in shell.magics_manager.magics.values():
        for name, magic in list(magics.items()):
            if getattr(magic, "__self__", None) in extension.magics:
                del magics[name]
    for magics in extension.magics:
        shell.configurables.remove(magics)  # type: ignore[arg-type] # IPython declares shells only
    shell.input_transformers_cleanup.remove(help_as_line_magic)
    for module, name in _SHOWN:
        shell.display_formatter.mimebundle_formatter.pop(f"{module}.{name}", None)  # type: ignore[union-attr]
    delattr(shell, _ATTRIBUTE)
    atexit.unregister(extension.close)
    extension.close()


unload_ipython_extension = unregister
