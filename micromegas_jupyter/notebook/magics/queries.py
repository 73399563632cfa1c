"""`%micromegas_queries`: the queries of one notebook, kept in memory up to a limit."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING

from IPython.core.magic import Magics, magics_class

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.formatting import (
    PlainText,
    TextTable,
    count_text,
    cut,
    errors_as_lines,
    printable,
    seconds_text,
    short_query_id,
    time_text,
)
from micromegas_jupyter.notebook.results.rows import RowFormat
from micromegas_jupyter.notebook.shell import (
    argument,
    check_exclusive,
    line_magic,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.core.system import Clock
    from micromegas_jupyter.notebook.results.progress import Ending, Progress

MAX_QUERIES = 200
_MAX_BYTES = 16 * 1024 * 1024
_VALUE_BYTES = 64
_MAX_LISTED = 20
_MAX_SQL_CHARACTERS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlRequest:
    """A statement, its values and its options.

    Attributes:
        sql: The statement.
        params: Values of its `:name` parameters.
        name: The variable that takes the rows; None when they are the cell's value.
        begin: `--begin` as it was written.
        end: `--end` as it was written.
        limit: The maximum number of rows; None for all.
        profile: A profile of `config.json`; None for the one in use.
        connection: A named connection; None for the one in use.
        row_format: What the rows become; None shows them as they are.
        plot: Whether to draw them over time.
        dtype: The value of `--dtype`; None for NumPy's column types.
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
        """Return a cell that makes the same request."""
        words = ["%%sql", *(() if self.name is None else (self.name, "<<"))]
        for name in ("begin", "end", "limit", "profile", "connection", "row_format", "dtype"):
            value = getattr(self, name)
            if value is not None:
                words += [f"--{name.removeprefix('row_')}", shlex.quote(str(value))]
        if self.plot:
            words.append("--plot")
        return f"{' '.join(words)}\n{self.sql.strip()}"

    def size_bytes(self) -> int:
        """Return about how much memory the statement and its values take."""
        size = len(self.sql)
        for value in self.params.values():
            for element in value if isinstance(value, tuple) else (value,):
                size += _VALUE_BYTES + (len(element) if isinstance(element, (str, bytes)) else 0)
        return size


@dataclass(frozen=True, slots=True, kw_only=True)
class PastQuery:
    """One query.

    Attributes:
        number: Its number in this notebook, from 1.
        request: The request, with the values at that time.
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
    """The newest queries. `_lock` guards everything: a reader may end on any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._by_number: dict[int, PastQuery] = {}
        self._newest = 0

    def begin(self, request: SqlRequest, *, at: datetime) -> int:
        """Add a query that begins, and return its number."""
        with self._lock:
            self._newest += 1
            self._by_number[self._newest] = PastQuery(number=self._newest, request=request, started_at=at)
            while len(self._by_number) > 1 and self._is_too_large():
                del self._by_number[next(iter(self._by_number))]
            return self._newest

    def _is_too_large(self) -> bool:
        size_bytes = sum(query.request.size_bytes() for query in self._by_number.values())
        return len(self._by_number) > MAX_QUERIES or size_bytes > _MAX_BYTES

    def note(
        self, number: int, progress: Progress, ending: Ending | None = None, *, query_id: str | None = None
    ) -> None:
        """Update a query that is still in the history; `query_id` is for one that only its refusal names."""
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
        """Return the queries, the oldest first."""
        with self._lock:
            return list(self._by_number.values())

    def get(self, number: int) -> PastQuery:
        """Return one query."""
        queries = self.all()
        if not queries:
            raise UsageError("No query has run in this notebook yet.", remedy="Run one with %%sql.")
        known = next((query for query in queries if query.number == number), None)
        if known is None:
            raise UsageError(
                f"There is no query {number}.",
                remedy=f"Numbers {queries[0].number} to {queries[-1].number} are available.",
            )
        return known


@magics_class
class QueriesMagic(Magics):
    """The magic about earlier queries."""

    def __init__(
        self, shell: InteractiveShell, history: QueryHistory, run: Callable[[SqlRequest], object | None], clock: Clock
    ) -> None:
        super().__init__(shell)
        self._history = history
        self._run = run
        self._clock = clock

    @line_magic
    @argument("--rerun", metavar="N", type=int, help="run query N again, with its options and original values")
    @argument("--sql", metavar="N", type=int, help="show all of query N, as a cell that can be copied")
    @argument("--all", action="store_true", help=f"list all queries in the history, not only the newest {_MAX_LISTED}")
    @argument("--traceback", action="store_true", help="show the Python traceback of an error")
    def micromegas_queries(self, arguments: argparse.Namespace) -> object | None:
        """List the queries of this notebook: when, how they ended, rows, time, id and SQL.

        They are kept in memory, until the kernel ends.
        """
        check_exclusive(arguments, "rerun", "sql")
        if arguments.sql is not None:
            return PlainText(self._history.get(arguments.sql).request.cell_text())
        if arguments.rerun is not None:
            request = self._history.get(arguments.rerun).request
            with errors_as_lines(sql=request.sql, traceback=arguments.traceback):
                return self._run(request)
        queries = self._history.all()
        shown = queries if arguments.all else queries[-_MAX_LISTED:]
        is_cut = len(shown) < len(queries)
        note = f"newest {len(shown)} of {len(queries)}; --all lists them all" if is_cut else ""
        return TextTable(
            head=("number", "started", "status", "rows", "time", "query", "SQL"),
            rows=[_row(query, now=self._clock.now()) for query in shown],
            note=note if queries else "No query has run in this notebook yet.",
            right=frozenset({"number", "rows", "time"}),
        )


def _row(query: PastQuery, *, now: datetime) -> tuple[str, ...]:
    return (
        str(query.number),
        time_text(query.started_at, now=now),
        "running" if query.ending is None else str(query.ending),
        count_text(query.rows),
        "" if query.seconds is None else seconds_text(query.seconds),
        "" if query.query_id is None else short_query_id(query.query_id),
        cut(printable(" ".join(query.request.sql.split())), _MAX_SQL_CHARACTERS),
    )
