"""The first rows of a result, column by column, as a preview and a table in the browser show them.

How they are laid out is `preview`'s and `result_data`'s job; no more than the rows asked for is made into text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from micromegas_jupyter.notebook.cell_texts import column_texts, is_numeric, type_text
from micromegas_jupyter.notebook.words import count_text, cut, printable, rows_text

if TYPE_CHECKING:
    import pyarrow as pa

MAX_SHOWN_COLUMNS = 50
NULL_TEXT = "null"

_MAX_NAME_CHARACTERS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownColumn:
    """What a person sees of a column.

    Attributes:
        name: Its name, cut and printable.
        type_name: Its Arrow type; a timestamp's time zone is part of it.
        nulls: How many of all rows are null, in words.
        is_numeric: Whether its values are numbers, which stand at the right.
    """

    name: str
    type_name: str
    nulls: str
    is_numeric: bool


def shown_columns(table: pa.Table) -> list[ShownColumn]:
    """Return the columns that are shown, at most `MAX_SHOWN_COLUMNS`."""
    return [
        ShownColumn(
            name=cut(printable(field.name), _MAX_NAME_CHARACTERS),
            type_name=type_text(field.type),
            nulls=f"{count_text(table.column(index).null_count)} null of {rows_text(table.num_rows)}",
            is_numeric=is_numeric(field.type),
        )
        for index, field in enumerate(list(table.schema)[:MAX_SHOWN_COLUMNS])
    ]


def shown_texts(table: pa.Table, *, first: int, rows: int) -> list[list[str | None]]:
    """Return the texts of so many rows from the row `first` on, one list for each shown column; None for null."""
    part = table.slice(first, rows)
    return [column_texts(part.column(index)) for index in range(min(table.num_columns, MAX_SHOWN_COLUMNS))]


def rows_note(table: pa.Table, shown_rows: int) -> str:
    """Return how much of the result is shown: `first 20 of 1,842,113 rows · first 50 of 60 columns`."""
    total = rows_text(table.num_rows)
    note = total if shown_rows == table.num_rows else f"first {count_text(shown_rows)} of {total}"
    hidden = table.num_columns - MAX_SHOWN_COLUMNS
    return note if hidden <= 0 else f"{note} · first {MAX_SHOWN_COLUMNS} of {table.num_columns} columns"
