"""The tables of a server for a person to look at, as text and as HTML where no widget runs, and what each holds.

Everything in it came from the server: nothing is ever markup, and all of it is bounded. Counting may be dear, so every
question has a deadline, and few are open at a time.
"""

from __future__ import annotations

import contextvars
import html
import re
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.notebook.completion.sql import name_in_sql
from micromegas_jupyter.notebook.formatting import count_text, cut, printable, rows_text, shown_name, terminal_width

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    import pyarrow as pa

    from micromegas_jupyter.notebook.completion.schema import Column, ServerSchema, Table
    from micromegas_jupyter.notebook.login.dependencies import Client

FACTS_SECONDS: Final = 20.0
"""How long a server may take to count."""

MAX_OPEN_QUESTIONS: Final = 4
_PREFERRED_COLUMNS: Final = ("time", "insert_time")
MAX_TABLES: Final = 500
MAX_COLUMNS: Final = 500
"""Of one table."""

_MAX_TEXT_CHARACTERS: Final = 200
_CELL: Final = 'style="text-align:left;vertical-align:top"'


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFacts:
    """What a table holds.

    Attributes:
        rows: How many rows.
        time_column: The column whose range was asked for; empty when the table has no times.
        first: The earliest time in it; None when there is none.
        last: The latest.
    """

    rows: int
    time_column: str = ""
    first: datetime | None = None
    last: datetime | None = None

    @property
    def line(self) -> str:
        """The facts in one line."""
        if self.first is None or self.last is None:
            return rows_text(self.rows)
        zone = " UTC" if self.first.tzinfo is not None else ""
        first, last = (moment.strftime("%Y-%m-%d %H:%M:%S") for moment in (self.first, self.last))
        return f"{rows_text(self.rows)} · {printable(self.time_column)} from {first} to {last}{zone}"


def fetch_facts(client: Client, table: Table) -> TableFacts:
    """Ask a server what a table holds.

    Raises:
        MicromegasError: It did not answer, or not in time.
    """
    time_column = _time_column(table)
    name = "" if time_column is None else name_in_sql(time_column)
    sql = f"SELECT count(*) AS n{f', min({name}), max({name})' if name else ''} FROM {name_in_sql(table.name)}"  # noqa: S608 - names as the server told them, quoted
    with client.open_query(sql, limit=1, timeout_seconds=FACTS_SECONDS) as reader:
        answer = reader.read_all()
    rows = int(answer.column(0)[0].as_py())
    if time_column is None:
        return TableFacts(rows=rows)
    first, last = (_moment(answer.column(index)) for index in (1, 2))
    return TableFacts(rows=rows, time_column=time_column, first=first, last=last)


class FactsDesk:
    """Asks for the facts of tables in the background."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._open: set[str] = set()

    def ask(self, table: Table, tell: Callable[[str, str], None]) -> None:
        """Have a table's facts asked for, unless they are already; returns at once.

        Args:
            table: The table.
            tell: Told its name and the line, on a thread of its own.
        """
        with self._lock:
            if table.name in self._open:
                return
            is_busy = len(self._open) >= MAX_OPEN_QUESTIONS
            if not is_busy:
                self._open.add(table.name)
        if is_busy:
            tell(table.name, "Other tables are being counted. Close this one and open it again.")
            return
        # ipykernel 7 finds the cell that a widget's message belongs to in a context variable.
        context = contextvars.copy_context()
        threading.Thread(
            target=context.run, args=(self._answer, table, tell), name="micromegas-table-facts", daemon=True
        ).start()

    def _answer(self, table: Table, tell: Callable[[str, str], None]) -> None:
        try:
            line = fetch_facts(self._client, table).line
        except MicromegasError as error:
            line = f"Not counted: {printable(error.what)}"
        finally:
            with self._lock:
                self._open.discard(table.name)
        tell(table.name, line)


def _time_column(table: Table) -> str | None:
    times = [column.name for column in table.columns if column.type_text.lower().startswith("timestamp")]
    return next((name for name in _PREFERRED_COLUMNS if name in times), next(iter(times), None))


def _moment(column: pa.ChunkedArray) -> datetime | None:
    import pyarrow as pa

    # Python's times end at microseconds.
    try:
        moment: datetime | None = column.cast(pa.timestamp("us", column.type.tz), safe=False)[0].as_py()
    except (ValueError, OverflowError):
        return None  # a year that Python's times do not reach
    return moment


@dataclass(frozen=True, slots=True, kw_only=True)
class TableListing:
    """The tables to show.

    Attributes:
        server: Host and port of the server.
        tables: The tables, at most `MAX_TABLES`.
        count: How many tables the server has.
        facts: A line about what a table holds, by its name, where that was asked for.
    """

    server: str
    tables: Sequence[Table]
    count: int
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The listing in one line."""
        shown = len(self.tables)
        count = "1 table" if self.count == 1 else f"{count_text(self.count)} tables"
        return (
            f"{count} of {self.server}" if shown == self.count else f"{count_text(shown)} of {count} of {self.server}"
        )


def build_listing(schema: ServerSchema, *, server: str, pattern: str) -> TableListing:
    """Return the tables that match a pattern: by their names, or the columns that do, where only those do.

    Args:
        schema: What the server offers.
        server: Host and port of the server.
        pattern: Part of a name, whatever its case; `*` stands for any text. Empty for all.
    """
    found = [table for table in (_matching(table, pattern) for table in schema.tables.values()) if table is not None]
    return TableListing(server=server, tables=tuple(found[:MAX_TABLES]), count=len(schema.tables))


def search_listing(schema: ServerSchema, shown: TableListing) -> TableListing:
    """Return all tables and what is known of those that are shown, which come first where there are too many tables."""
    everything = build_listing(schema, server=shown.server, pattern="")
    tables = everything.tables
    if len(tables) < everything.count:
        first = {table.name: schema.tables[table.name] for table in shown.tables}
        tables = tuple({**first, **{table.name: table for table in tables}}.values())[:MAX_TABLES]
    return replace(everything, tables=tables, facts=shown.facts)


def listing_text(listing: TableListing) -> str:
    """Return the listing as plain text."""
    lines = [listing.title]
    for table in listing.tables:
        facts = listing.facts.get(table.name, "")
        lines += ["", " · ".join(part for part in (shown_name(table.name), facts, _short(table.remarks)) if part)]
        lines += _column_lines(table)
    return "\n".join(lines)


def listing_html(listing: TableListing) -> str:
    """Return the listing as HTML: a closed part for each table, which opens without any script."""
    parts = [f"<p>{html.escape(listing.title)}</p>"]
    is_open = " open" if len(listing.tables) == 1 else ""
    for table in listing.tables:
        facts = listing.facts.get(table.name, "")
        about = html.escape(" · ".join(part for part in (facts, _short(table.remarks)) if part))
        rows = "".join(
            f"<tr><td {_CELL}><code>{html.escape(shown_name(column.name))}</code></td>"
            f"<td {_CELL}>{html.escape(_type(column))}</td><td {_CELL}>{html.escape(_short(column.remarks))}</td></tr>"
            for column in table.columns[:MAX_COLUMNS]
        )
        parts.append(
            f"<details{is_open}><summary><code>{html.escape(shown_name(table.name))}</code> {about}</summary>"
            f'<table><thead><tr><th scope="col" {_CELL}>Column</th><th scope="col" {_CELL}>Type</th>'
            f'<th scope="col" {_CELL}>Description</th></tr></thead><tbody>{rows}</tbody></table></details>'
        )
    return "".join(parts)


def listing_traits(listing: TableListing) -> list[dict[str, object]]:
    """Return the tables as plain values for a browser: name, remarks, and the columns as name, type and remarks."""
    return [
        {
            "name": shown_name(table.name),
            "remarks": _short(table.remarks),
            "columns": [
                [shown_name(column.name), _type(column), _short(column.remarks)]
                for column in table.columns[:MAX_COLUMNS]
            ],
        }
        for table in listing.tables
    ]


def _matching(table: Table, pattern: str) -> Table | None:
    expression = re.compile(".*".join(re.escape(part) for part in pattern.strip().split("*")), re.IGNORECASE)
    if expression.search(table.name):
        return table
    columns = tuple(column for column in table.columns if expression.search(column.name))
    return replace(table, columns=columns) if columns else None


def _column_lines(table: Table) -> list[str]:
    rows = [(shown_name(column.name), _type(column), _short(column.remarks)) for column in table.columns[:MAX_COLUMNS]]
    widths = [max((terminal_width(row[index]) for row in rows), default=0) for index in (0, 1)]
    return [
        "  "
        + "  ".join(
            part + " " * (width - terminal_width(part)) for part, width in zip(row, (*widths, 0), strict=True)
        ).rstrip()
        for row in rows
    ]


def _type(column: Column) -> str:
    return f"{_short(column.type_text)}{'' if column.is_nullable else ', never null'}"


def _short(text: str) -> str:
    return cut(printable(text), _MAX_TEXT_CHARACTERS)
