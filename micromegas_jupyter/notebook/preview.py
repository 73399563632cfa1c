"""Lays out the first rows of a result as HTML and as plain text; both are bounded in rows, columns and text.

Everything that came from the server is escaped: a name or a value is never markup.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

from micromegas_jupyter.notebook.cell_texts import column_texts, is_numeric, type_text
from micromegas_jupyter.notebook.words import count_text, cut, printable, rows_text, terminal_width

if TYPE_CHECKING:
    import pyarrow as pa

MAX_PREVIEW_ROWS = 20
MAX_PREVIEW_COLUMNS = 50

_MAX_NAME_CHARACTERS = 100
_MAX_PLAIN_CELL_CHARACTERS = 60
_NULL = "null"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    name: str
    type_name: str
    nulls: str
    is_numeric: bool
    texts: list[str | None]


def preview_html(table: pa.Table) -> str:
    """Return the first rows as an HTML table: names with types under them, null counts in their titles."""
    columns = _columns(table)
    head = "".join(_head_cell(column) for column in columns)
    body = "".join(
        "<tr>" + "".join(_body_cell(column, column.texts[row]) for column in columns) + "</tr>"
        for row in range(_shown_rows(table))
    )
    return (
        '<div class="micromegas-result" style="overflow-x:auto">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f'<p style="margin:0.3em 0;opacity:0.8">{html.escape(_note(table))}</p></div>'
    )


def preview_text(table: pa.Table) -> str:
    """Return the first rows as plain text: names, types, values, and what is left out."""
    columns = [_plain_column(column) for column in _columns(table)]
    lines = ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]
    return "\n".join([*lines, _note(table)])


def _plain_column(column: _Column) -> list[str]:
    """Return a column's name, type, rule and values, all equally wide."""
    values = [cut(_NULL if text is None else text, _MAX_PLAIN_CELL_CHARACTERS) for text in column.texts]
    texts = [column.name, column.type_name, *values]
    width = max(terminal_width(text) for text in texts)
    padded = [_pad(text, width, right=column.is_numeric) for text in texts]
    return [*padded[:2], "-" * width, *padded[2:]]


def _pad(text: str, width: int, *, right: bool) -> str:
    padding = " " * (width - terminal_width(text))
    return padding + text if right else text + padding


def _shown_rows(table: pa.Table) -> int:
    return min(int(table.num_rows), MAX_PREVIEW_ROWS)


def _columns(table: pa.Table) -> list[_Column]:
    head = table.slice(0, MAX_PREVIEW_ROWS)
    return [
        _Column(
            name=cut(printable(field.name), _MAX_NAME_CHARACTERS),
            type_name=type_text(field.type),
            nulls=f"{count_text(table.column(index).null_count)} null of {rows_text(table.num_rows)}",
            is_numeric=is_numeric(field.type),
            texts=column_texts(head.column(index)),
        )
        for index, field in enumerate(list(table.schema)[:MAX_PREVIEW_COLUMNS])
    ]


def _head_cell(column: _Column) -> str:
    kind = f'<br><span style="font-weight:normal;opacity:0.8">{html.escape(column.type_name)}</span>'
    title = html.escape(f"{column.name}: {column.nulls}")
    return f'<th scope="col" title="{title}"{_style(column)}>{html.escape(column.name)}{kind}</th>'


def _body_cell(column: _Column, text: str | None) -> str:
    shown = f'<em style="opacity:0.7">{_NULL}</em>' if text is None else html.escape(text)
    return f"<td{_style(column)}>{shown}</td>"


def _style(column: _Column) -> str:
    return f' style="text-align:{"right" if column.is_numeric else "left"};white-space:pre-wrap;vertical-align:top"'


def _note(table: pa.Table) -> str:
    shown = _shown_rows(table)
    note = rows_text(table.num_rows) if shown == table.num_rows else f"first {shown} of {count_text(table.num_rows)}"
    hidden = table.num_columns - MAX_PREVIEW_COLUMNS
    return note if hidden <= 0 else f"{note} · first {MAX_PREVIEW_COLUMNS} of {table.num_columns} columns"
