"""`%micromegas_connect` and `%micromegas_serve`: which server the cells use, and a server for this notebook alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from IPython.core.magic import Magics, magics_class

from micromegas_jupyter.errors import MicromegasError, UsageError
from micromegas_jupyter.notebook.completion.sql import name_in_sql
from micromegas_jupyter.notebook.login.connections import SettingsChoice
from micromegas_jupyter.notebook.shell import TextTable, argument, host_text, line_magic, printable, shown_name

if TYPE_CHECKING:
    import argparse

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.config.client import ClientSettings
    from micromegas_jupyter.notebook.login.cells import CellConnections
    from micromegas_jupyter.notebook.login.session import NotebookSession
    from micromegas_jupyter.wiring.server_process import ServerProcess

_IN_USE = "●"
_API_KEY = "API key"
LOCAL = "local"
"""The name of the connection to the server that the magic starts."""

_MAX_SHOWN_TABLES = 20
_MAX_SHOWN_PROBLEMS = 10


@magics_class
class ConnectMagic(Magics):
    """The magics that choose and name connections, and that start and stop a local server, which `close` ends."""

    def __init__(self, shell: InteractiveShell, session: NotebookSession, named: CellConnections) -> None:
        super().__init__(shell)
        self._session = session
        self._named = named
        self._server: ServerProcess | None = None
        self._settings: ClientSettings | None = None
        self._choice_before = session.choice

    @line_magic
    @argument("server", metavar="URI", nargs="?", help="grpc+tls://host:port, or the name of a connection")
    @argument(
        "--profile", metavar="NAME", help="a profile of config.json: its server, unless there is a URI, and sign-in"
    )
    @argument("--as", dest="name", metavar="NAME", help="name it for --connection; later cells keep their server")
    def micromegas_connect(self, arguments: argparse.Namespace) -> TextTable | None:
        """Choose the server that later cells use, or name one for %%sql --connection.

        Without arguments it lists the connections that have a name and the one in use. Nothing is sent.
        """
        if arguments.server is None and arguments.profile is None and arguments.name is None:
            return self._list()
        self._check_not_wrapped("chosen")
        choice = self._choice(arguments.server, arguments.profile)
        settings = choice.read(self._session.dependencies)
        self._check_server(settings)
        if arguments.name is None:
            self._session.choice = choice
            message = f"Later cells use {_server_text(settings)}."
        else:
            again = " now" if self._named.put(arguments.name, choice, settings) else ""
            message = f"--connection {arguments.name}{again} means {_server_text(settings)}."
        print(f"{message} {self._credential_text(choice, settings)}")  # noqa: T201 - the magic's output
        return None

    def _check_not_wrapped(self, verb: str) -> None:
        if self._session.dependencies.is_wrapped():
            raise UsageError(
                f"A wrapper module makes the client, so no other server can be {verb}.",
                remedy="Unset MICROMEGAS_PYTHON_MODULE_WRAPPER and restart the kernel.",
            )

    def _choice(self, server: str | None, profile: str | None) -> SettingsChoice:
        if server is None:
            return self._session.choice if profile is None else self._session.choice.with_server(None, profile=profile)
        from micromegas_jupyter.client.transport import parse_address  # with pyarrow

        if "://" in server:
            parse_address(server)
            return self._session.choice.with_server(server, profile=profile)
        if server not in self._named and (":" in server or "." in server):
            parse_address(server)
        if profile is not None:
            raise UsageError("A named connection has its own profile.", remedy="Leave out --profile, or give a URI.")
        return self._named.choice(server)

    def _credential_text(self, choice: SettingsChoice, settings: ClientSettings) -> str:
        """Return what the server gets to authenticate the caller, with a warning when it is not the configured one."""
        if settings in self._session.connections.local:
            return "It accepts calls from this notebook only."
        tokens = self._tokens(settings)
        if tokens is None:
            return "No sign-in is configured; calls have no token."
        server = host_text(settings.uri)
        if choice.uri is None:
            return f"{tokens} go there."
        configured = choice.with_server(None, profile=choice.profile).read(self._session.dependencies)
        elsewhere = host_text(configured.uri)
        if elsewhere == server:
            return f"{tokens} go there."
        return f"⚠ {tokens} go to {server} at your request; the settings send them to {elsewhere}."

    def _check_server(self, settings: ClientSettings) -> None:
        """Check the address, and that no token would be readable on the way to it."""
        from micromegas_jupyter.client.transport import parse_address  # with pyarrow

        address = parse_address(settings.uri)
        if self._tokens(settings) is not None and not address.is_encrypted and not address.is_loopback:
            raise UsageError(
                f"The connection to {address.name} is not encrypted: anybody on the network could read the token.",
                remedy=f"Use grpc+tls://{address.name}.",
            )

    def _tokens(self, settings: ClientSettings) -> str | None:
        """Return what a server gets to authenticate the caller, in the plural; None for nothing."""
        sign_in = self._sign_in(settings)
        return None if sign_in is None else "Calls with the API key" if sign_in == _API_KEY else f"Tokens of {sign_in}"

    def _sign_in(self, settings: ClientSettings) -> str | None:
        """Return whose tokens these settings' calls use; without any network."""
        configured = _configured_sign_in(settings)
        if configured is not None or settings in self._session.connections.local:
            return configured
        try:
            provider = self._session.dependencies.stored_provider(settings)
        except MicromegasError:
            return None
        return getattr(provider, "through", "") or None

    def _list(self) -> TextTable:
        in_use = self._session.settings()
        named = self._named.all()
        rows = [(name, settings) for name, settings in named.items()]
        if in_use not in named.values():
            rows.insert(0, ("", in_use))
        return TextTable(
            head=("", "name", "server", "profile", "sign-in"),
            rows=[
                (
                    _IN_USE if settings == in_use else "",
                    name,
                    host_text(settings.uri),
                    printable(settings.profile or ""),
                    "this notebook only"
                    if settings in self._session.connections.local
                    else self._sign_in(settings) or "none",
                )
                for name, settings in rows
            ],
            note=f"{_IN_USE} in use" if named else "%micromegas_connect URI --as NAME names a connection.",
        )

    @line_magic
    @argument("folder", metavar="FOLDER", nargs="?", help="a folder of Parquet files; without it the current one")
    @argument("--lake", metavar="FOLDER", help="a folder that micromegas serve has written to, not one of files")
    @argument("--stop", action="store_true", help="stop the server; later cells use what they used before")
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
        self._check_not_wrapped("used")
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
        from micromegas_jupyter.auth import StaticTokenAuthProvider
        from micromegas_jupyter.config.client import ClientSettings

        settings = ClientSettings(uri=started.uri)
        choice = SettingsChoice(settings=settings)
        self._session.connections.local[settings] = StaticTokenAuthProvider(started.key)
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
            self._session.connections.local.pop(self._settings, None)
            served = self._settings
            self._session.connections.drop(lambda other: other == served)
            self._settings = None
        self.close()


def _server_text(settings: ClientSettings) -> str:
    profile = "" if settings.profile is None else f" (profile {printable(settings.profile)})"
    return f"{host_text(settings.uri)}{profile}"


def _configured_sign_in(settings: ClientSettings) -> str | None:
    if settings.api_key_file is not None:
        return _API_KEY
    if settings.service_account_file is not None:
        return "the service account"
    if settings.workload is not None:
        return "this workload"
    return None if settings.issuer is None else host_text(settings.issuer)


def _lines(folder: str, served: ServerProcess) -> list[str]:
    names = [shown_name(name_in_sql(name)) for name in served.tables]
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
