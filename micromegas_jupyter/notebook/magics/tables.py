"""`%micromegas_tables`: the tables of the server, to search and to look into."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from IPython.core.magic import Magics, magics_class

from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.notebook.arguments import answers_help, check_exclusive, parse_words
from micromegas_jupyter.notebook.completion.schema import SchemaCache, ServerSchema, fetch_schema
from micromegas_jupyter.notebook.formatting import errors_as_lines, host_text, printable
from micromegas_jupyter.notebook.magics.table_listing import (
    FactsDesk,
    TableListing,
    build_listing,
    fetch_facts,
    listing_html,
    listing_text,
    search_listing,
)
from micromegas_jupyter.notebook.shell import (
    argument,
    display,
    has_kernel,
    is_attended,
    line_magic,
    no_var_expand,
    with_arguments,
)

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.config.client import ClientSettings
    from micromegas_jupyter.notebook.login.connections import Connection
    from micromegas_jupyter.notebook.login.dependencies import Client
    from micromegas_jupyter.notebook.login.session import CellConnections, NotebookSession

MAX_COUNTED: Final = 20
"""How many tables one cell counts."""


@magics_class
class TablesMagic(Magics):
    """The magic that shows tables."""

    def __init__(
        self,
        shell: InteractiveShell,
        session: NotebookSession,
        connections: CellConnections,
        schemas: SchemaCache,
    ) -> None:
        super().__init__(shell)
        self._shell = shell
        self._session = session
        self._connections = connections
        self._schemas = schemas

    @answers_help
    @no_var_expand
    @with_arguments()
    @argument(
        "pattern", metavar="PATTERN", nargs="?", default="", help="part of a table's or column's name; * is any text"
    )
    @argument("--count", action="store_true", help="count the rows of the tables shown, and tell the times they cover")
    @argument("--profile", metavar="NAME", help="a profile of config.json, for this cell")
    @argument("--connection", metavar="NAME", help="a connection that %%micromegas_connect named, for this cell")
    @argument("--traceback", action="store_true", help="show the Python traceback of an error")
    @line_magic
    def micromegas_tables(self, line: str) -> None:
        """Show the server's tables with their columns, types and descriptions, to search and to look into."""
        with errors_as_lines(traceback="--traceback" in line.split()):
            arguments = parse_words(self.micromegas_tables, line)
            check_exclusive(arguments, "connection", "profile")
            settings, connection, schema = self._ask(connection=arguments.connection, profile=arguments.profile)
            server = host_text(settings.uri)
            shown = build_listing(schema, server=server, pattern=arguments.pattern)
            if arguments.count:
                shown = replace(shown, facts=_count(connection.client, shown))
            if not has_kernel(self._shell):
                print(listing_text(shown))  # noqa: T201 - a terminal
            elif is_attended(self._shell):
                listing = search_listing(schema, shown)
                self._show_widget(connection, listing, shown, search=arguments.pattern)
            else:
                display({"text/plain": listing_text(shown), "text/html": listing_html(shown)}, raw=True)

    def _ask(self, *, connection: str | None, profile: str | None) -> tuple[ClientSettings, Connection, ServerSchema]:
        with self._connections.connected(connection=connection, profile=profile) as (settings, connected, line):
            line.clear()
            schema = fetch_schema(connected.client)
        self._session.note_success(settings, connected.provider)
        self._schemas.note(settings, connected, schema)
        return settings, connected, schema

    def _show_widget(self, connection: Connection, listing: TableListing, shown: TableListing, *, search: str) -> None:
        from micromegas_jupyter.notebook.magics.tables_widget import TablesWidget

        desk = FactsDesk(connection.client)
        display(TablesWidget(listing, search=search, shown=shown, ask=desk.ask))


def _count(client: Client, listing: TableListing) -> dict[str, str]:
    facts = {}
    for table in listing.tables[:MAX_COUNTED]:
        try:
            facts[table.name] = fetch_facts(client, table).line
        except MicromegasError as error:
            facts[table.name] = f"Not counted: {printable(error.what)}"
    return facts
