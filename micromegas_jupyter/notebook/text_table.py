"""Lays out short tables of text that the magics make, plainly and as HTML in which nothing is markup.

The rows of a query are `preview`'s business.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

from micromegas_jupyter.notebook.words import terminal_width

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_UNBROKEN_CHARACTERS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTable:
    """A table of printable text, which IPython shows as the value of a cell.

    Attributes:
        head: The names of the columns.
        rows: The lines, each as long as the head.
        note: A sentence below the table; empty when there is none to say.
        right: The columns that stand at the right, by name.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    right: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        lines = []
        if self.rows:
            widths = [
                max(terminal_width(text) for text in column) for column in zip(self.head, *self.rows, strict=True)
            ]
            rule = ["-" * width for width in widths]
            lines = [self._line(texts, widths) for texts in (self.head, rule, *self.rows)]
        return "\n".join([*lines, self.note] if self.note else lines)

    def _repr_html_(self) -> str:
        table = ""
        if self.rows:
            head = "".join(f'<th scope="col"{self._style(name, name)}>{html.escape(name)}</th>' for name in self.head)
            body = "".join(f"<tr>{self._cells(row)}</tr>" for row in self.rows)
            table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        note = f'<p style="margin:0.3em 0;opacity:0.8">{html.escape(self.note)}</p>' if self.note else ""
        return f'<div class="micromegas-table" style="overflow-x:auto">{table}{note}</div>'

    def _cells(self, row: Sequence[str]) -> str:
        return "".join(
            f"<td{self._style(name, text)}>{html.escape(text)}</td>" for name, text in zip(self.head, row, strict=True)
        )

    def _style(self, name: str, text: str) -> str:
        side = "right" if name in self.right else "left"
        white_space = "pre" if len(text) <= _MAX_UNBROKEN_CHARACTERS else "pre-wrap"
        return f' style="text-align:{side};white-space:{white_space}"'

    def _line(self, texts: Sequence[str], widths: Sequence[int]) -> str:
        cells = []
        for name, text, width in zip(self.head, texts, widths, strict=True):
            padding = " " * (width - terminal_width(text))
            cells.append(padding + text if name in self.right else text + padding)
        return "  ".join(cells).rstrip()
