"""The schema explorer's kernel half: a listing becomes traits, and text and HTML for where widgets do not run.

The browser half (`static/tables.js`) searches and draws. It sends one message only: a table that a person opens.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from micromegas_jupyter.notebook.magics.table_listing import TableListing, listing_html, listing_text, listing_traits

if TYPE_CHECKING:
    from collections.abc import Callable

    from micromegas_jupyter.notebook.completion.schema import Table

_STATIC = Path(__file__).parents[1] / "static"


class TablesWidget(anywidget.AnyWidget):
    """Shows one `TableListing`.

    Args:
        listing: All tables.
        search: The initial search.
        shown: The tables that match it, for where no widget runs.
        count: Has a table's rows counted, and calls back with its name and a line about them.
    """

    _esm = _STATIC / "tables.js"
    _css = _STATIC / "tables.css"

    server = traitlets.Unicode("").tag(sync=True)
    title = traitlets.Unicode("").tag(sync=True)
    search = traitlets.Unicode("").tag(sync=True)
    tables = traitlets.List(traitlets.Dict()).tag(sync=True)
    facts = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        listing: TableListing,
        *,
        search: str,
        shown: TableListing,
        count: Callable[[Table, Callable[[str, str], None]], None],
    ) -> None:
        self._shown = shown
        self._count = count
        self._facts_lock = Lock()
        # By the names in the browser, which are cut and printable.
        names = [str(traits["name"]) for traits in listing_traits(listing)]
        self._tables = dict(zip(names, listing.tables, strict=True))
        self._shown_names = {table.name: name for name, table in zip(names, listing.tables, strict=True)}
        super().__init__(
            server=listing.server,
            title=listing.title,
            search=search,
            tables=listing_traits(listing),
            facts={self._shown_names[name]: line for name, line in listing.facts.items()},
        )
        self.on_msg(self._take_message)

    def notify(self, table: str, line: str) -> None:
        """Show a line about a table (by its own name) from now on; any thread."""
        with self._facts_lock:
            self.facts = {**self.facts, self._shown_names[table]: line}

    def _take_message(self, _widget: object, content: object, _buffers: object) -> None:
        name = content.get("open") if isinstance(content, dict) else None
        table = self._tables.get(name) if isinstance(name, str) else None
        if table is not None:
            self._count(table, self.notify)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        shown = super()._repr_mimebundle_(**options)
        if shown is None:
            return shown
        bundle, metadata = shown
        listing = replace(self._shown, facts={**self._shown.facts, **self._facts_by_table()})
        return {**bundle, "text/plain": listing_text(listing), "text/html": listing_html(listing)}, metadata

    def _facts_by_table(self) -> dict[str, str]:
        return {self._tables[name].name: line for name, line in self.facts.items() if name in self._tables}
