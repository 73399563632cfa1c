"""The queries of one notebook, as they were asked for and how they ended, and `%micromegas_queries`, which lists them.

They are kept in memory only, and bounded.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.results.rows import RowFormat

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from micromegas_jupyter.notebook.results.progress import Ending, Progress

MAX_QUERIES = 200
_MAX_BYTES = 16 * 1024 * 1024
_VALUE_BYTES = 64


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PastQuery:
    """One query.

    Attributes:
        number: Its number in this notebook, from 1.
        request: What was asked for, with the values of then.
        started_at: When (aware).
        ending: How it ended; None while it runs, and while its reader is open.
        query_id: The server's id; None when there is none, or not yet.
        rows: How many rows have come.
        seconds: How long it took.
    """

    number: int
    request: SqlRequest
    started_at: datetime
    ending: Ending | None = None
    query_id: str | None = None
    rows: int = 0
    seconds: float | None = None


class QueryHistory:
    """Keeps the newest queries. `_lock` guards everything: a reader may end on any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._by_number: dict[int, PastQuery] = {}
        self._bytes = 0
        self._newest = 0

    def begin(self, request: SqlRequest, *, at: datetime) -> int:
        """Note a query that begins, and return its number."""
        with self._lock:
            self._newest += 1
            self._by_number[self._newest] = PastQuery(number=self._newest, request=request, started_at=at)
            self._bytes += _size(request)
            while len(self._by_number) > 1 and (len(self._by_number) > MAX_QUERIES or self._bytes > _MAX_BYTES):
                oldest = self._by_number.pop(next(iter(self._by_number)))
                self._bytes -= _size(oldest.request)
            return self._newest

    def note(
        self, number: int, progress: Progress, ending: Ending | None = None, *, query_id: str | None = None
    ) -> None:
        """Note how far a query is, or how it ended; one that is not kept any more is left aside.

        Args:
            number: Which query.
            progress: How far it is.
            ending: How it ended; None while it goes on.
            query_id: The server's id, when only its refusal tells it.
        """
        with self._lock:
            known = self._by_number.get(number)
            if known is not None:
                self._by_number[number] = replace(
                    known,
                    ending=ending,
                    query_id=progress.query_id or query_id,
                    rows=progress.rows,
                    seconds=progress.seconds,
                )

    def all(self) -> list[PastQuery]:
        """Return the queries that are kept, the oldest first."""
        with self._lock:
            return list(self._by_number.values())

    def get(self, number: int) -> PastQuery:
        """Return one query."""
        with self._lock:
            known = self._by_number.get(number)
            kept = list(self._by_number)
        if known is not None:
            return known
        if not kept:
            raise UsageError("No query has run in this notebook yet.", remedy="Run one with %%sql.")
        raise UsageError(f"There is no query {number}.", remedy=f"Numbers {kept[0]} to {kept[-1]} are kept.")


def _size(request: SqlRequest) -> int:
    return len(request.sql) + _values_size(request.params)


def _values_size(params: Mapping[str, object]) -> int:
    elements = [element for value in params.values() for element in (value if isinstance(value, tuple) else (value,))]
    return sum(_VALUE_BYTES + (len(one) if isinstance(one, (str, bytes)) else 0) for one in elements)
