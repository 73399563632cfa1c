"""A server's tables as text and as a widget to search and look into, and a line about the rows of each."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock, Semaphore
from typing import TYPE_CHECKING, Any, Final

import anywidget
import traitlets

from micromegas_jupyter.core.system import start_thread
from micromegas_jupyter.core.text import cut, printable, rows_text
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.notebook.completion import name_in_sql
from micromegas_jupyter.notebook.shell import SAVED_MIME_TYPE, count_text, shown_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from micromegas_jupyter.notebook.completion import ServerSchema, Table
    from micromegas_jupyter.notebook.login.connections import Client

COUNT_SECONDS: Final = 20.0
"""How long a server may take to count."""

MAX_OPEN_COUNTS: Final = 4
"""How many tables a widget counts at once; others wait."""

MAX_TABLES: Final = 500
MAX_COLUMNS: Final = 500
"""Of one table."""

_PREFERRED_COLUMNS: Final = ("time", "insert_time")
_MAX_TEXT_CHARACTERS: Final = 200
_FRACTION: Final = re.compile(r"\.\d+")


def count_rows(client: Client, table: Table) -> str:
    """Return a line about a table's rows and the times that they cover, or why they were not counted."""
    times = [column.name for column in table.columns if column.type_text.lower().startswith("timestamp")]
    time_column = next((name for name in _PREFERRED_COLUMNS if name in times), next(iter(times), ""))
    # Read as text: Python's times end at microseconds and at the year 9999.
    ends = "".join(f", CAST({end}({name_in_sql(time_column)}) AS VARCHAR)" for end in ("min", "max") if time_column)
    sql = f"SELECT count(*){ends} FROM {name_in_sql(table.name)}"  # noqa: S608 - the server's own names, quoted
    try:
        with client.open_query(sql, limit=1, timeout_seconds=COUNT_SECONDS) as reader:
            count, *covered = (column[0].as_py() for column in reader.read_all().columns)
    except MicromegasError as error:
        return f"Not counted: {printable(error.what)}"
    if not all(covered) or not covered:
        return rows_text(count)
    begin, end = (_FRACTION.sub("", _short(str(time)).replace("T", " ")) for time in covered)
    return f"{rows_text(count)} · {shown_name(time_column)} from {begin} to {end}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableListing:
    """The tables to show, of `count` that the server has, and a line (by the shown name) about those counted."""

    server: str
    tables: Sequence[Table]
    count: int
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The listing in one line."""
        shown = len(self.tables)
        count = "1 table" if self.count == 1 else f"{count_text(self.count)} tables"
        return f"{'' if shown == self.count else f'{count_text(shown)} of '}{count} of {self.server}"


def build_listing(schema: ServerSchema, *, server: str, pattern: str) -> TableListing:
    """Return the tables that match a pattern by their names, or with the columns that match, where only those do."""
    expression = re.compile(".*".join(re.escape(part) for part in pattern.strip().split("*")), re.IGNORECASE)
    found: list[Table] = []
    for table in schema.tables.values():
        columns = tuple(column for column in table.columns if expression.search(column.name))
        if expression.search(table.name):
            found.append(table)
        elif columns:
            found.append(replace(table, columns=columns))
    return TableListing(server=server, tables=tuple(found[:MAX_TABLES]), count=len(schema.tables))


def listing_text(listing: TableListing) -> str:
    """Return the listing as plain text."""
    from tabulate import tabulate

    lines = [listing.title]
    for table in listing.tables:
        name = shown_name(table.name)
        lines += ["", " · ".join(filter(None, (name, listing.facts.get(name, ""), _short(table.remarks))))]
        columns = tabulate(_column_texts(table), tablefmt="plain", disable_numparse=True)
        lines += [f"  {line.rstrip()}" for line in columns.split("\n") if line]
    return "\n".join(lines)


def listing_traits(listing: TableListing) -> list[dict[str, object]]:
    """Return the tables as plain values for a browser: name, remarks, and the columns as name, type and remarks."""
    return [
        {"name": shown_name(table.name), "remarks": _short(table.remarks), "columns": _column_texts(table)}
        for table in listing.tables
    ]


def _column_texts(table: Table) -> list[list[str]]:
    return [
        [
            shown_name(column.name),
            f"{_short(column.type_text)}{'' if column.is_nullable else ', never null'}",
            _short(column.remarks),
        ]
        for column in table.columns[:MAX_COLUMNS]
    ]


def _short(text: str) -> str:
    return cut(printable(text), _MAX_TEXT_CHARACTERS)


_STATIC = Path(__file__).parent / "frontend" / "static"


class TablesWidget(anywidget.AnyWidget):
    """Shows all tables (where no script runs `shown`), and counts the rows of those that a person opens."""

    _esm = _STATIC / "tables.js"
    _css = _STATIC / "tables.css"

    server = traitlets.Unicode("").tag(sync=True)
    title = traitlets.Unicode("").tag(sync=True)
    search = traitlets.Unicode("").tag(sync=True)
    tables = traitlets.List(traitlets.Dict()).tag(sync=True)
    facts = traitlets.Dict().tag(sync=True)

    def __init__(self, client: Client, listing: TableListing, *, search: str, shown: TableListing) -> None:
        self._client = client
        self._shown = shown
        self._facts_lock = Lock()
        self._asked: set[str] = set()
        self._may_count = Semaphore(MAX_OPEN_COUNTS)
        self._tables = {shown_name(table.name): table for table in listing.tables}
        super().__init__(
            server=listing.server,
            title=listing.title,
            search=search,
            tables=listing_traits(listing),
            facts=dict(shown.facts),
        )
        self.on_msg(self._take_message)

    def _take_message(self, _widget: object, content: object, _buffers: object) -> None:
        name = content.get("open") if isinstance(content, dict) else None
        if not isinstance(name, str) or name not in self._tables:
            return
        with self._facts_lock:
            if name in self._asked:
                return
            self._asked.add(name)
        start_thread(self._count, name, name="micromegas-table-count")

    def _count(self, name: str) -> None:
        with self._may_count:
            line = count_rows(self._client, self._tables[name])
        with self._facts_lock:
            self._asked.discard(name)
            self.facts = {**self.facts, name: line}

    def _repr_mimebundle_(self, **options: Any) -> Any:
        shown = super()._repr_mimebundle_(**options)
        if shown is None:
            return shown
        text = listing_text(replace(self._shown, facts=self.facts))
        saved = {SAVED_MIME_TYPE: {"version": 1}, "text/plain": text, "text/html": f"<pre>{html.escape(text)}</pre>"}
        return shown[0] | saved, shown[1]
