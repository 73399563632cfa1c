"""`%micromegas_serve`: a server of a folder of Parquet files, for this notebook alone.

It runs in a child process that is told its key's digest through a pipe and ends with the kernel.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from IPython.core.magic import Magics, magics_class

from micromegas_jupyter.core.json import JsonError, decode_strict_json
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.system import SYSTEM_RANDOMNESS, Variables
from micromegas_jupyter.errors import ServerUnavailable, UsageError
from micromegas_jupyter.notebook.formatting import host_text, shown_name
from micromegas_jupyter.notebook.login.connections import NamedConnections, SettingsChoice
from micromegas_jupyter.notebook.shell import (
    argument,
    line_magic,
)

if TYPE_CHECKING:
    import argparse

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.config.client import ClientSettings
    from micromegas_jupyter.notebook.login.session import NotebookSession

_CHILD = "micromegas_jupyter.wiring.local_server"
# Settings of the client half, and what a Hub gives this server alone: a child could hand its token on.
_WITHHELD_VARIABLES = ("MICROMEGAS_", "KERNEL_MICROMEGAS_", "JUPYTERHUB_", "JPY_API_TOKEN")
_KEY_BYTES = 32
_START_SECONDS = 60.0
_STOP_SECONDS = 5.0
_MAX_ANSWER_BYTES = 8 * 1024 * 1024
_NOT_STARTED = "The local server did not start."
_TRY_ELSEWHERE = "Run `micromegas serve` in a terminal to see why."
LOCAL = "local"
"""The name of the connection to the server that the magic starts."""

_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_MAX_SHOWN_TABLES = 20
_MAX_SHOWN_PROBLEMS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a local server said when it was ready.

    Attributes:
        uri: Its address.
        tables: The names of its tables.
        problems: What was left out, a sentence for each.
    """

    uri: str
    tables: tuple[str, ...]
    problems: tuple[str, ...]


class LocalServerProcess:
    """A running local server; whoever makes it stops it, and it ends by itself with this process.

    Args:
        folder: What it serves.
        is_lake: Whether that is a folder that `micromegas serve` wrote, and not one of plain Parquet files.
        memory_mib: Memory for its queries, in MiB.

    Raises:
        UsageError: The folder cannot be served.
        ServerUnavailable: The server did not start in time.
    """

    def __init__(self, folder: Path, *, is_lake: bool = False, memory_mib: int = 1024) -> None:
        from micromegas_jupyter.lake import check_servable  # with pyarrow, which loading the extension leaves out

        check_servable(folder)
        self.key = Secret(SYSTEM_RANDOMNESS.token_urlsafe(_KEY_BYTES))
        order = {
            "folder": str(folder.absolute()),
            "is_lake": is_lake,
            "key_sha256": hashlib.sha256(self.key.reveal().encode()).hexdigest(),
            "memory_mib": memory_mib,
            "parent": os.getpid(),
        }
        others = {name: value for name, value in os.environ.items() if not name.startswith(_WITHHELD_VARIABLES)}
        try:
            # Its own session: an interrupt of the kernel reaches the kernel's whole process group.
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter with fixed options
                [sys.executable, "-P", "-m", _CHILD],
                env=Variables(others),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise ServerUnavailable(f"{_NOT_STARTED[:-1]}: {error.strerror}.", remedy=_TRY_ELSEWHERE) from None
        try:
            self.served = self._order(order)
        except BaseException:
            self.stop()
            raise

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it; killed when it does not go. Calling again does nothing."""
        self._close(self._process.stdin)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # Last: until the process has ended, another thread may be reading from it.
        self._close(self._process.stdout)

    @staticmethod
    def _close(pipe: IO[bytes] | None) -> None:
        if pipe is not None:
            with suppress(BrokenPipeError):  # it ended first
                pipe.close()

    def _order(self, order: dict[str, object]) -> Served:
        from micromegas_jupyter.client.threads import run_interruptibly

        line = run_interruptibly(lambda: self._exchange(json.dumps(order).encode() + b"\n"))
        try:
            answer = decode_strict_json(line.decode())
        except (UnicodeDecodeError, JsonError):
            answer = None
        match answer:
            case {"failure": [str(what), str(remedy)]}:
                raise UsageError(what, remedy=remedy)
            case {"uri": str(uri), "tables": list(tables), "problems": list(problems)}:
                return Served(uri=uri, tables=tuple(map(str, tables)), problems=tuple(map(str, problems)))
            case _:
                raise ServerUnavailable(_NOT_STARTED, remedy=_TRY_ELSEWHERE)

    def _exchange(self, order: bytes) -> bytes:
        """Send the order and return the answer; empty when the process ended, or was killed for taking too long."""
        timer = threading.Timer(_START_SECONDS, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            if self._process.stdin is None or self._process.stdout is None:
                return b""
            self._process.stdin.write(order)
            self._process.stdin.flush()
            return self._process.stdout.readline(_MAX_ANSWER_BYTES)
        except (OSError, ValueError):
            return b""
        finally:
            timer.cancel()


@magics_class
class ServeMagic(Magics):
    """The magic that starts and stops the local server; `close` ends it."""

    def __init__(self, shell: InteractiveShell, session: NotebookSession, named: NamedConnections) -> None:
        super().__init__(shell)
        self._session = session
        self._named = named
        self._server: LocalServerProcess | None = None
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
        started = LocalServerProcess(Path(folder).expanduser(), is_lake=is_lake)
        # Only now: a folder that cannot be served leaves the server that there is.
        self._leave()
        self._server = started
        self._use(started)
        return _lines(folder, started.served)

    def _use(self, started: LocalServerProcess) -> None:
        from micromegas_jupyter.auth import StaticTokenAuthProvider
        from micromegas_jupyter.config.client import ClientSettings

        settings = ClientSettings(uri=started.served.uri)
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


def _lines(folder: str, served: Served) -> list[str]:
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
