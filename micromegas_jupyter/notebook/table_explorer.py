"""A server's tables as text, as HTML and as a widget to search and look into, and a line about the rows of each."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import anywidget
import traitlets

from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.notebook.completion.sql import name_in_sql
from micromegas_jupyter.notebook.shell import (
    SAVED_MIME_TYPE,
    count_text,
    cut,
    printable,
    rows_text,
    shown_name,
    start_thread,
    text_html,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import pyarrow as pa

    from micromegas_jupyter.notebook.completion.schema import Column, ServerSchema, Table
    from micromegas_jupyter.notebook.login.connections import Client

COUNT_SECONDS: Final = 20.0
"""How long a server may take to count."""

MAX_OPEN_COUNTS: Final = 4
MAX_TABLES: Final = 500
MAX_COLUMNS: Final = 500
"""Of one table."""

_PREFERRED_COLUMNS: Final = ("time", "insert_time")
_MAX_TEXT_CHARACTERS: Final = 200


def count_rows(client: Client, table: Table) -> str:
    """Return a line about a table's rows and the times that they cover, or why they were not counted."""
    times = [column.name for column in table.columns if column.type_text.lower().startswith("timestamp")]
    time_column = next((name for name in _PREFERRED_COLUMNS if name in times), next(iter(times), ""))
    name = name_in_sql(time_column) if time_column else ""
    sql = f"SELECT count(*) AS n{f', min({name}), max({name})' if name else ''} FROM {name_in_sql(table.name)}"  # noqa: S608 - the server's own names, quoted
    try:
        with client.open_query(sql, limit=1, timeout_seconds=COUNT_SECONDS) as reader:
            answer = reader.read_all()
    except MicromegasError as error:
        return f"Not counted: {printable(error.what)}"
    rows = rows_text(int(answer.column(0)[0].as_py()))
    first, last = (_time(answer.column(index)) for index in (1, 2)) if name else (None, None)
    if first is None or last is None:
        return rows
    zone = " UTC" if first.tzinfo is not None else ""
    begin, end = (time.strftime("%Y-%m-%d %H:%M:%S") for time in (first, last))
    return f"{rows} · {printable(time_column)} from {begin} to {end}{zone}"


def _time(column: pa.ChunkedArray) -> datetime | None:
    import pyarrow as pa

    # Python's times end at microseconds.
    try:
        time: datetime | None = column.cast(pa.timestamp("us", column.type.tz), safe=False)[0].as_py()
    except (ValueError, OverflowError):
        return None  # a year that Python's times do not reach
    return time


@dataclass(frozen=True, slots=True, kw_only=True)
class TableListing:
    """The tables to show, of `count` that the server has, and a line about the rows of each that was counted."""

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
        head = (shown_name(table.name), listing.facts.get(table.name, ""), _short(table.remarks))
        lines += ["", " · ".join(filter(None, head))]
        columns = tabulate(_column_texts(table), tablefmt="plain", disable_numparse=True)
        lines += [f"  {line.rstrip()}" for line in columns.split("\n") if line]
    return "\n".join(lines)


def listing_bundle(listing: TableListing) -> dict[str, str]:
    """Return the listing by MIME type, for where no widget runs."""
    text = listing_text(listing)
    return {"text/plain": text, "text/html": text_html(text)}


def listing_traits(listing: TableListing) -> list[dict[str, object]]:
    """Return the tables as plain values for a browser: name, remarks, and the columns as name, type and remarks."""
    return [
        {"name": shown_name(table.name), "remarks": _short(table.remarks), "columns": _column_texts(table)}
        for table in listing.tables
    ]


def _column_texts(table: Table) -> list[list[str]]:
    return [
        [shown_name(column.name), _type_text(column), _short(column.remarks)] for column in table.columns[:MAX_COLUMNS]
    ]


def _type_text(column: Column) -> str:
    return f"{_short(column.type_text)}{'' if column.is_nullable else ', never null'}"


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
        self._counting: set[str] = set()
        traits = listing_traits(listing)
        # By the names in the browser, which are cut and printable.
        self._tables = {str(shown["name"]): table for shown, table in zip(traits, listing.tables, strict=True)}
        super().__init__(
            server=listing.server,
            title=listing.title,
            search=search,
            tables=traits,
            facts={shown_name(name): line for name, line in shown.facts.items()},
        )
        self.on_msg(self._take_message)

    def _take_message(self, _widget: object, content: object, _buffers: object) -> None:
        name = content.get("open") if isinstance(content, dict) else None
        if not isinstance(name, str) or name not in self._tables:
            return
        table = self._tables[name]
        with self._facts_lock:
            if table.name in self._counting:
                return
            if len(self._counting) >= MAX_OPEN_COUNTS:
                line = "Other tables are being counted. Close this one and open it again."
                self.facts = {**self.facts, name: line}
                return
            self._counting.add(table.name)
        start_thread(self._count, table, name, name="micromegas-table-count")

    def _count(self, table: Table, shown: str) -> None:
        line = ""
        try:
            line = count_rows(self._client, table)
        finally:
            with self._facts_lock:
                self._counting.discard(table.name)
                self.facts = {**self.facts, shown: line}

    def _repr_mimebundle_(self, **options: Any) -> Any:
        shown = super()._repr_mimebundle_(**options)
        if shown is None:
            return shown
        bundle, metadata = shown
        facts = {table.name: str(self.facts[name]) for name, table in self._tables.items() if name in self.facts}
        saved = listing_bundle(replace(self._shown, facts={**self._shown.facts, **facts}))
        return {**bundle, SAVED_MIME_TYPE: {"version": 1}, **saved}, metadata
