"""`%micromegas_tables`: the tables of the server, to search and to look into."""

import argparse
from dataclasses import replace
from typing import Final

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, magics_class

from micromegas_jupyter.notebook.completion.schema import SchemaCache, fetch_schema
from micromegas_jupyter.notebook.login.cells import CellConnections
from micromegas_jupyter.notebook.login.session import NotebookSession
from micromegas_jupyter.notebook.shell import (
    argument,
    check_exclusive,
    display,
    has_kernel,
    host_text,
    is_attended,
    line_magic,
)

MAX_COUNTED: Final = 20
"""How many tables one cell counts."""


@magics_class
class TablesMagic(Magics):
    """The magic that shows tables."""

    def __init__(
        self, shell: InteractiveShell, session: NotebookSession, connections: CellConnections, schemas: SchemaCache
    ) -> None:
        super().__init__(shell)
        self._shell = shell
        self._session = session
        self._connections = connections
        self._schemas = schemas

    @line_magic
    @argument(
        "pattern", metavar="PATTERN", nargs="?", default="", help="part of a table's or column's name; * is any text"
    )
    @argument("--count", action="store_true", help="count the rows of the tables shown, and show the times they cover")
    @argument("--profile", metavar="NAME", help="a profile of config.json, for this cell")
    @argument("--connection", metavar="NAME", help="a connection that %%micromegas_connect named, for this cell")
    def micromegas_tables(self, arguments: argparse.Namespace) -> None:
        """Show the server's tables with their columns, types and descriptions, to search and to look into."""
        from micromegas_jupyter.notebook import table_explorer  # with anywidget

        check_exclusive(arguments, "connection", "profile")
        named = {"connection": arguments.connection, "profile": arguments.profile}
        with self._connections.connected(**named) as (settings, connection, live_line):
            live_line.clear()
            schema = fetch_schema(connection.client)
        self._session.note_success(settings, connection.provider)
        self._schemas.note(connection, schema)
        shown = table_explorer.build_listing(schema, server=host_text(settings.uri), pattern=arguments.pattern)
        if arguments.count:
            counted = shown.tables[:MAX_COUNTED]
            shown = replace(
                shown, facts={table.name: table_explorer.count_rows(connection.client, table) for table in counted}
            )
        if not has_kernel(self._shell):
            print(table_explorer.listing_text(shown))  # noqa: T201 - a terminal
        elif is_attended(self._shell):
            listing = table_explorer.build_listing(schema, server=shown.server, pattern="")
            display(table_explorer.TablesWidget(connection.client, listing, search=arguments.pattern, shown=shown))
        else:
            display(table_explorer.listing_bundle(shown), raw=True)
