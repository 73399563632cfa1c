"""The tables of a server for a person to look at, and the same as text and as HTML where no widget runs.

Everything in it came from the server: nothing is ever markup, and all of it is bounded.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.notebook.words import count_text, cut, printable, terminal_width

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from micromegas_jupyter.notebook.server_schema import Column, ServerSchema, Table

MAX_TABLES: Final = 500
MAX_COLUMNS: Final = 500
"""Of one table."""

_MAX_TEXT_CHARACTERS: Final = 200
_MAX_NAME_CHARACTERS: Final = 120
_CELL: Final = 'style="text-align:left;vertical-align:top"'


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
        lines += ["", " · ".join(part for part in (_name(table.name), facts, _short(table.remarks)) if part)]
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
            f"<tr><td {_CELL}><code>{html.escape(_name(column.name))}</code></td>"
            f"<td {_CELL}>{html.escape(_type(column))}</td><td {_CELL}>{html.escape(_short(column.remarks))}</td></tr>"
            for column in table.columns[:MAX_COLUMNS]
        )
        parts.append(
            f"<details{is_open}><summary><code>{html.escape(_name(table.name))}</code> {about}</summary>"
            f'<table><thead><tr><th scope="col" {_CELL}>Column</th><th scope="col" {_CELL}>Type</th>'
            f'<th scope="col" {_CELL}>Description</th></tr></thead><tbody>{rows}</tbody></table></details>'
        )
    return "".join(parts)


def listing_traits(listing: TableListing) -> list[dict[str, object]]:
    """Return the tables as plain values for a browser: name, remarks, and the columns as name, type and remarks."""
    return [
        {
            "name": _name(table.name),
            "remarks": _short(table.remarks),
            "columns": [
                [_name(column.name), _type(column), _short(column.remarks)] for column in table.columns[:MAX_COLUMNS]
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
    rows = [(_name(column.name), _type(column), _short(column.remarks)) for column in table.columns[:MAX_COLUMNS]]
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


def _name(text: str) -> str:
    return cut(printable(text), _MAX_NAME_CHARACTERS)


def _short(text: str) -> str:
    return cut(printable(text), _MAX_TEXT_CHARACTERS)
