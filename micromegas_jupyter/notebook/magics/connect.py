"""`%micromegas_connect`, `_tables`, and `_serve`: connections for cells, their tables, and a local server."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from IPython.core.magic import Magics, magics_class

from micromegas_jupyter.config.client import ClientSettings, parse_result_rows
from micromegas_jupyter.core.system import process_variables
from micromegas_jupyter.core.text import printable
from micromegas_jupyter.errors import MicromegasError, UsageError, extra
from micromegas_jupyter.notebook.completion import fetch_schema, name_in_sql
from micromegas_jupyter.notebook.login.connections import SettingsChoice
from micromegas_jupyter.notebook.shell import (
    TextTable,
    argument,
    check_exclusive,
    host_text,
    line_magic,
    shown_name,
)

if TYPE_CHECKING:
    import argparse

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.notebook.completion import SchemaCache
    from micromegas_jupyter.notebook.login.session import CellConnections, NotebookSession
    from micromegas_jupyter.notebook.query_result import QueryResult
    from micromegas_jupyter.wiring.server_process import ServerProcess

_IN_USE = "●"
_API_KEY = "API key"
LOCAL = "local"
"""The name of the connection to the server that the magic starts."""

_MAX_SHOWN_TABLES = 20
_MAX_SHOWN_PROBLEMS = 10


@magics_class
class ServerMagics(Magics):
    """The magics that choose and name connections, list tables, and start a local server, which `close` stops."""

    def __init__(
        self, shell: InteractiveShell, session: NotebookSession, named: CellConnections, schemas: SchemaCache
    ) -> None:
        super().__init__(shell)
        self._shell = shell
        self._session = session
        self._named = named
        self._schemas = schemas
        self._server: ServerProcess | None = None
        self._choice_before = session.choice

    @line_magic
    @argument("server", metavar="URI", nargs="?", help="grpc+tls://HOST:PORT, or the name of a connection")
    @argument(
        "--profile",
        metavar="NAME",
        help="profile of config.json that provides the sign-in and, without URI, the server",
    )
    @argument(
        "--as",
        dest="name",
        metavar="NAME",
        help="only assign a name to the connection (letters, digits, _, and -)",
    )
    def micromegas_connect(self, arguments: argparse.Namespace) -> TextTable | None:
        """Choose the server that later cells use, or name one for %%sql --connection.

        Without arguments it lists the connections that have a name and the one in use. Nothing is sent.
        """
        if arguments.server is None and arguments.profile is None and arguments.name is None:
            return self._list()
        self._check_not_wrapped("chosen")
        from micromegas_jupyter.client.transport import parse_address  # imports pyarrow

        choice = self._choice(arguments.server, arguments.profile)
        settings = choice.read(self._session.dependencies)
        address = parse_address(settings.uri)
        if self._sign_in(settings) is not None and not address.is_encrypted and not address.is_loopback:
            raise UsageError(
                f"The connection to {address.name} is not encrypted: others on the network could read the token.",
                remedy=f"Use grpc+tls://{address.name}.",
            )
        if arguments.name is None:
            self._session.choice = choice
            message = f"Later cells use {_server_text(settings)}."
        else:
            self._named.put(arguments.name, choice, settings)
            message = f"--connection {arguments.name} means {_server_text(settings)}."
        print(f"{message} {self._credential_text(choice, settings)}")  # noqa: T201 - the magic's output
        return None

    def _check_not_wrapped(self, verb: str) -> None:
        if self._session.dependencies.is_wrapped():
            raise UsageError(
                f"A wrapper module creates the client, so no other server can be {verb}.",
                remedy="Unset MICROMEGAS_PYTHON_MODULE_WRAPPER and restart the kernel.",
            )

    def _choice(self, server: str | None, profile: str | None) -> SettingsChoice:
        if server is None:
            return self._session.choice if profile is None else SettingsChoice(profile=profile)
        if "{" in server:  # a variable was substituted
            remedy = "Assign it to a variable, and pass the variable: {name}."
            raise UsageError("Expressions in braces are not evaluated.", remedy=remedy)
        if ":" in server or "." in server:  # names never contain these characters
            from micromegas_jupyter.client.transport import parse_address  # imports pyarrow

            parse_address(server)
            # A profile replaces all previous choices.
            choice = self._session.choice if profile is None else SettingsChoice(profile=profile)
            return replace(choice, uri=server, settings=None)
        if profile is not None:
            raise UsageError(
                "A named connection already has a profile.", remedy="Leave out --profile, or specify a URI."
            )
        return self._named.choice(server)

    def _credential_text(self, choice: SettingsChoice, settings: ClientSettings) -> str:
        """Return how the server authenticates the caller, with a warning if this differs from the configuration."""
        if settings in self._session.connections.local:
            return "It accepts calls from this notebook only."
        sign_in = self._sign_in(settings)
        if sign_in is None:
            return "No sign-in is configured; calls have no token."
        tokens = "Calls with the API key" if sign_in == _API_KEY else f"Tokens of {sign_in}"
        configured = choice if choice.uri is None else replace(choice, uri=None, settings=None)
        server, elsewhere = (host_text(each.uri) for each in (settings, configured.read(self._session.dependencies)))
        if elsewhere == server:
            return f"{tokens} go there."
        return f"⚠ {tokens} go to {server} at your request; the settings send them to {elsewhere}."

    def _sign_in(self, settings: ClientSettings) -> str | None:
        """Return the token provider for calls with these settings, or None, without network I/O."""
        if settings.api_key_file is not None:
            return _API_KEY
        if settings.service_account_file is not None:
            return "the service account"
        if settings.workload is not None:
            return "this workload"
        if settings.issuer is not None:
            return host_text(settings.issuer)
        if settings not in self._session.connections.local:
            with suppress(MicromegasError):
                return getattr(self._session.dependencies.stored_provider(settings), "through", "") or None
        return None

    def _list(self) -> TextTable:
        in_use, local = self._session.settings(), self._session.connections.local
        named = self._named.all()
        rows = [] if in_use in named.values() else [("", in_use)]
        return TextTable(
            head=("", "name", "server", "profile", "sign-in"),
            rows=[
                (
                    _IN_USE if settings == in_use else "",
                    name,
                    host_text(settings.uri),
                    printable(settings.profile or ""),
                    "this notebook only" if settings in local else self._sign_in(settings) or "none",
                )
                for name, settings in (*rows, *named.items())
            ],
            note=f"{_IN_USE} in use" if named else "%micromegas_connect URI --as NAME names a connection.",
        )

    @line_magic
    @argument(
        "pattern",
        metavar="PATTERN",
        nargs="?",
        help="list matching columns and the columns of matching tables; * is a wildcard",
    )
    @argument(
        "--count",
        action="store_true",
        help="show the row count and time range of up to 20 matching tables",
    )
    @argument("--profile", metavar="NAME", help="profile of config.json, for this cell only")
    @argument("--connection", metavar="NAME", help="named connection, for this cell only")
    def micromegas_tables(self, arguments: argparse.Namespace) -> QueryResult:
        """List the server's tables, or with PATTERN the columns that match it or whose table does."""
        from micromegas_jupyter.notebook import table_list
        from micromegas_jupyter.notebook.query_result import QueryResult

        check_exclusive(arguments, "connection", "profile")
        named = {"connection": arguments.connection, "profile": arguments.profile}
        with self._named.connected(**named) as (settings, connection, live_line):
            live_line.clear()
            schema = fetch_schema(connection.client)
            if arguments.count:
                found = table_list.count_tables(connection.client, schema, arguments.pattern or "")
            elif arguments.pattern is None:
                found = table_list.list_tables(schema)
            else:
                found = table_list.list_columns(schema, arguments.pattern)
        self._session.note_success(settings, connection.provider)
        self._schemas.note(connection, schema)
        return QueryResult(found, max_rows=parse_result_rows(process_variables()))

    @line_magic
    @argument("folder", metavar="FOLDER", nargs="?", help="directory with files; default: the current one")
    @argument("--lake", metavar="FOLDER", help="lake written by micromegas serve, instead of a directory with files")
    @argument("--stop", action="store_true", help="stop the server; later cells use the previous connection")
    def micromegas_serve(self, arguments: argparse.Namespace) -> None:
        """Serve a folder of tables to this notebook only, until its kernel exits.

        Each Delta table, file and sub-folder of files is a table by its name. Later cells ask this server. Running it
        again replaces it.
        """
        if sum((arguments.folder is not None, arguments.lake is not None, arguments.stop)) > 1:
            raise UsageError("FOLDER, --lake, and --stop cannot be combined.", remedy="Specify only one.")
        if arguments.stop:
            message = "No local server is running."
            if self._server is not None:
                self._leave()
                message = f"The local server was stopped. Later cells use {host_text(self._session.settings().uri)}."
            print(message)  # noqa: T201 - the magic's output
            return
        self._check_not_wrapped("used")
        from micromegas_jupyter.auth import StaticTokenAuthProvider

        with extra("server"):
            from micromegas_jupyter.wiring.server_process import ServerProcess  # imports pyarrow

        folder = arguments.lake or arguments.folder or "."
        started = ServerProcess(folder, is_lake=bool(arguments.lake))
        # Stop the current server only now, so that it keeps running if the directory cannot be served.
        self._leave()
        self._server, served = started, ClientSettings(uri=started.uri)
        choice = SettingsChoice(settings=served)
        self._session.connections.local[served] = StaticTokenAuthProvider(started.key)
        self._named.put(LOCAL, choice, served)
        self._choice_before, self._session.choice = self._session.choice, choice
        print("\n".join(_lines(folder, started)))  # noqa: T201 - the magic's output

    def _leave(self) -> None:
        """Restore the connection that was in use before the server started, and stop the server."""
        if self._server is not None:
            served = ClientSettings(uri=self._server.uri)
            if self._session.choice.settings == served:
                self._session.choice = self._choice_before
            self._named.forget(LOCAL)
            del self._session.connections.local[served]
            self._session.connections.drop(lambda other: other == served, keeps_readers=False)
            self.close()

    def close(self) -> None:
        """Stop the server, if there is one."""
        if self._server is not None:
            self._server.stop()
        self._server = None


def _server_text(settings: ClientSettings) -> str:
    profile = "" if settings.profile is None else f" (profile {printable(settings.profile)})"
    return f"{host_text(settings.uri)}{profile}"


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
