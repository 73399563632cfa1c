"""What a server says of a statement without running it, as the value of a cell: its columns, its plan, its text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from micromegas_jupyter.notebook.error_lines import text_html
from micromegas_jupyter.notebook.text_table import TextTable
from micromegas_jupyter.notebook.words import cut, printable

if TYPE_CHECKING:
    import pyarrow as pa

_MAX_COLUMNS = 500
_MAX_NAME_CHARACTERS = 100


@dataclass(frozen=True, slots=True, repr=False)
class StatementText:
    """Text of several lines that is shown as it is, but for what could steer a terminal or a page."""

    text: str = field()

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return "\n".join(printable(line) for line in self.text.split("\n"))

    def _repr_html_(self) -> str:
        return text_html(repr(self))


def schema_table(schema: pa.Schema) -> TextTable:
    """Return the columns that a statement would give: names, types, and whether a value may be missing."""
    from micromegas_jupyter.notebook.cell_texts import type_text

    shown = list(schema)[:_MAX_COLUMNS]
    hidden = len(schema) - len(shown)
    return TextTable(
        head=("column", "type", "null"),
        rows=[
            (
                cut(printable(column.name), _MAX_NAME_CHARACTERS),
                type_text(column.type),
                "possible" if column.nullable else "never",
            )
            for column in shown
        ],
        note="Nothing was run." + (f" {hidden} more columns are not shown." if hidden > 0 else ""),
    )


def plan_text(answer: pa.Table) -> StatementText:
    """Return the answer to `EXPLAIN` as text: each plan under its name."""
    # DataFusion's two columns; another server's are told one below the other, too.
    columns = [column.to_pylist() for column in answer.columns]
    parts = ["\n".join(str(cell).rstrip() for cell in row if cell is not None) for row in zip(*columns, strict=True)]
    return StatementText("\n\n".join(_titled(part) for part in parts))


def _titled(part: str) -> str:
    title, _, body = part.partition("\n")
    lines = [f"  {line}" for line in body.split("\n")] if body else []
    return "\n".join([title.replace("_", " "), *lines])
