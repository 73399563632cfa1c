"""`%micromegas_serve`: a server of a folder of Parquet files, for this notebook alone.

It is `micromegas serve` in a child process that ends with the kernel.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from IPython.core.magic import Magics, magics_class

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.login.connections import NamedConnections, SettingsChoice
from micromegas_jupyter.notebook.shell import (
    argument,
    host_text,
    line_magic,
    shown_name,
)

if TYPE_CHECKING:
    import argparse

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.config.client import ClientSettings
    from micromegas_jupyter.notebook.login.session import NotebookSession
    from micromegas_jupyter.wiring.server_process import ServerProcess

LOCAL = "local"
"""The name of the connection to the server that the magic starts."""

_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_MAX_SHOWN_TABLES = 20
_MAX_SHOWN_PROBLEMS = 10


@magics_class
class ServeMagic(Magics):
    """The magic that starts and stops the local server; `close` ends it."""

    def __init__(self, shell: InteractiveShell, session: NotebookSession, named: NamedConnections) -> None:
        super().__init__(shell)
        self._session = session
        self._named = named
        self._server: ServerProcess | None = None
        self._settings: ClientSettings | None = None
        self._choice_before = session.choice

    @line_magic
    @argument("folder", metavar="FOLDER", nargs="?", help="a folder of Parquet files; without it the current one")
    @argument("--lake", metavar="FOLDER", help="a folder that micromegas serve has written to, not one of files")
    @argument("--stop", action="store_true", help="stop the server; later cells use what they used before")
    @argument("--traceback", action="store_true", help="show the Python traceback of an error")
    def micromegas_serve(self, arguments: argparse.Namespace) -> None:
        """Serve a folder of Parquet files to this notebook alone, until its kernel ends.

        Each file and each sub-folder of files is a table by its name. Later cells ask this server. Running it again
        replaces it.
        """
        if sum((arguments.folder is not None, arguments.lake is not None, arguments.stop)) > 1:
            raise UsageError("FOLDER, --lake and --stop cannot be combined.", remedy="Give one of them.")
        if arguments.stop:
            print(self._stop())  # noqa: T201 - the magic's output
            return
        if self._session.dependencies.is_wrapped():
            raise UsageError(
                "A wrapper module makes the client, so no other server can be used.",
                remedy="Unset MICROMEGAS_PYTHON_MODULE_WRAPPER and restart the kernel.",
            )
        lines = self._serve(arguments.lake or arguments.folder or ".", is_lake=bool(arguments.lake))
        print("\n".join(lines))  # noqa: T201 - the magic's output

    def close(self) -> None:
        """End the server, if there is one."""
        if self._server is not None:
            self._server.stop()
        self._server = None

    def _serve(self, folder: str, *, is_lake: bool) -> list[str]:
        from micromegas_jupyter.wiring.server_process import ServerProcess  # with pyarrow

        started = ServerProcess(Path(folder).expanduser(), is_lake=is_lake)
        # Only now: a folder that cannot be served leaves the server that there is.
        self._leave()
        self._server = started
        self._use(started)
        return _lines(folder, started)

    def _use(self, started: ServerProcess) -> None:
        from micromegas_jupyter.auth.static import StaticTokenAuthProvider
        from micromegas_jupyter.config.client import ClientSettings

        settings = ClientSettings(uri=started.uri)
        choice = SettingsChoice(settings=settings)
        self._session.connections.add_local(settings, StaticTokenAuthProvider(started.key))
        self._named.put(LOCAL, choice, settings)
        self._choice_before, self._session.choice = self._session.choice, choice
        self._settings = settings

    def _stop(self) -> str:
        if self._server is None:
            return "No local server is running."
        self._leave()
        return f"The local server was stopped. Later cells use {host_text(self._session.settings().uri)}."

    def _leave(self) -> None:
        """Go back to what cells used before the server, and end it."""
        if self._settings is not None:
            if self._session.choice.settings == self._settings:
                self._session.choice = self._choice_before
            self._named.forget(LOCAL)
            self._session.connections.remove_local(self._settings)
            self._settings = None
        self.close()


def _lines(folder: str, served: ServerProcess) -> list[str]:
    names = [_as_written(name) for name in served.tables]
    more = len(names) - _MAX_SHOWN_TABLES
    shown = ", ".join(names[:_MAX_SHOWN_TABLES]) + (f" and {more} more" if more > 0 else "")
    count = "1 table" if len(names) == 1 else f"{len(names)} tables"
    lines = [
        f"✓ {count} of {shown_name(folder)}: {shown}",
        f"  Later cells ask it at {host_text(served.uri)} (--connection {LOCAL}). It ends with this kernel.",
    ]
    lines += [f"⚠ {shown_name(problem)}" for problem in served.problems[:_MAX_SHOWN_PROBLEMS]]
    if len(served.problems) > _MAX_SHOWN_PROBLEMS:
        lines.append(f"⚠ {len(served.problems) - _MAX_SHOWN_PROBLEMS} more are left out.")
    return lines


def _as_written(name: str) -> str:
    """Return a table's name as a statement has it: in quotes where SQL would read it in another way."""
    return name if _PLAIN_NAME.fullmatch(name) else shown_name('"' + name.replace('"', '""') + '"')
