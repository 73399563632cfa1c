"""Lays out the first rows of a result as HTML and as plain text; both are bounded in rows, columns and text.

Everything that came from the server is escaped: a name or a value is never markup.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from micromegas_jupyter.notebook.result_columns import NULL_TEXT, rows_note, shown_columns, shown_texts
from micromegas_jupyter.notebook.words import cut, terminal_width

if TYPE_CHECKING:
    import pyarrow as pa

    from micromegas_jupyter.notebook.result_columns import ShownColumn

MAX_PREVIEW_ROWS = 20

_MAX_PLAIN_CELL_CHARACTERS = 60


def preview_html(table: pa.Table) -> str:
    """Return the first rows as an HTML table: names with types under them, null counts in their titles."""
    columns = shown_columns(table)
    texts = shown_texts(table, first=0, rows=MAX_PREVIEW_ROWS)
    head = "".join(_head_cell(column) for column in columns)
    body = "".join("<tr>" + "".join(map(_body_cell, columns, row)) + "</tr>" for row in zip(*texts, strict=True))
    return (
        '<div class="micromegas-preview" style="overflow-x:auto">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f'<p style="margin:0.3em 0;opacity:0.8">{html.escape(_note(table))}</p></div>'
    )


def preview_text(table: pa.Table) -> str:
    """Return the first rows as plain text: names, types, values, and what is left out."""
    texts = shown_texts(table, first=0, rows=MAX_PREVIEW_ROWS)
    columns = map(_plain_column, shown_columns(table), texts)
    lines = ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]
    return "\n".join([*lines, _note(table)])


def _plain_column(column: ShownColumn, texts: list[str | None]) -> list[str]:
    """Return a column's name, type, rule and values, all equally wide."""
    values = [cut(NULL_TEXT if text is None else text, _MAX_PLAIN_CELL_CHARACTERS) for text in texts]
    lines = [column.name, column.type_name, *values]
    width = max(terminal_width(line) for line in lines)
    padded = [_pad(line, width, right=column.is_numeric) for line in lines]
    return [*padded[:2], "-" * width, *padded[2:]]


def _pad(text: str, width: int, *, right: bool) -> str:
    padding = " " * (width - terminal_width(text))
    return padding + text if right else text + padding


def _head_cell(column: ShownColumn) -> str:
    kind = f'<br><span style="font-weight:normal;opacity:0.8">{html.escape(column.type_name)}</span>'
    title = html.escape(f"{column.name}: {column.nulls}")
    return f'<th scope="col" title="{title}"{_style(column)}>{html.escape(column.name)}{kind}</th>'


def _body_cell(column: ShownColumn, text: str | None) -> str:
    shown = f'<em style="opacity:0.7">{NULL_TEXT}</em>' if text is None else html.escape(text)
    return f"<td{_style(column)}>{shown}</td>"


def _style(column: ShownColumn) -> str:
    return f' style="text-align:{"right" if column.is_numeric else "left"};white-space:pre-wrap;vertical-align:top"'


def _note(table: pa.Table) -> str:
    return rows_note(table, min(int(table.num_rows), MAX_PREVIEW_ROWS))
