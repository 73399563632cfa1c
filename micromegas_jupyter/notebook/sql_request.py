"""What `%%sql` was asked for: the statement, its values and its options, as they can be run again."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from micromegas_jupyter.notebook.row_formats import RowFormat

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlRequest:
    """A statement, its values and the options that it came with.

    Attributes:
        sql: The statement.
        params: Values of its `:name` parameters.
        name: The variable that takes the rows; None when they are the cell's value.
        begin: `--begin` as it was written.
        end: `--end` as it was written.
        limit: At most so many rows; None for all.
        profile: A profile of `config.json`; None for the one in use.
        connection: A connection that was named; None for the one in use.
        row_format: What the rows become; None shows them and keeps them as they are.
        plot: Whether to draw them over time.
        dtype: The kind of a DataFrame's columns, a value of `--dtype`; None for NumPy's.
    """

    sql: str
    params: Mapping[str, object] = field(default_factory=dict, repr=False)
    name: str | None = None
    begin: str | None = None
    end: str | None = None
    limit: int | None = None
    profile: str | None = None
    connection: str | None = None
    row_format: RowFormat | None = None
    plot: bool = False
    dtype: str | None = None

    @property
    def target(self) -> str:
        """Where the rows go, for the end of a line: ` → errors (DataFrame)`; empty for the cell's value."""
        return "" if self.name is None else f" → {self.name} ({(self.row_format or RowFormat.PANDAS).shown})"

    def cell_text(self) -> str:
        """Return the cell that asks for the same."""
        options = (
            ("--begin", self.begin),
            ("--end", self.end),
            ("--limit", self.limit),
            ("--profile", self.profile),
            ("--connection", self.connection),
            ("--format", self.row_format),
            ("--dtype", self.dtype),
        )
        words = ["%%sql", *(() if self.name is None else (self.name, "<<"))]
        for option, value in options:
            if value is not None:
                words += [option, shlex.quote(str(value))]
        if self.plot:
            words.append("--plot")
        return f"{' '.join(words)}\n{self.sql.strip()}"
