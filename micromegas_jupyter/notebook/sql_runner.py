"""Runs what `%%sql` was asked for: takes the connection, runs the query, hands its rows over.

How the magic is written down is `sql_magic`'s job, waiting for a sign-in `cell_connections`'; a query on its way is
`running`'s and `row_reader`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from micromegas_jupyter.errors import (
    MicromegasError,
    QueryCancelled,
    QueryError,
    UnsupportedRequest,
    UsageError,
)
from micromegas_jupyter.notebook.error_lines import error_lines
from micromegas_jupyter.notebook.ipython_names import display
from micromegas_jupyter.notebook.loading import load_libraries
from micromegas_jupyter.notebook.progress import Ending, Progress
from micromegas_jupyter.notebook.row_formats import RowFormat, check_available, check_dtype, check_schema, convert
from micromegas_jupyter.notebook.row_reader import RowReader, StartedQuery
from micromegas_jupyter.notebook.rows_seen import RowsSeen
from micromegas_jupyter.notebook.running import Query, open_query, run_query
from micromegas_jupyter.notebook.statement_views import plan_text, schema_table
from micromegas_jupyter.seams import process_variables
from micromegas_jupyter.settings.moments import parse_range
from micromegas_jupyter.settings.result_rows import parse_result_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    import pandas as pd
    import pyarrow as pa
    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.client import QueryReader
    from micromegas_jupyter.notebook.cell_connections import CellConnections
    from micromegas_jupyter.notebook.connections import Connection
    from micromegas_jupyter.notebook.live_line import LiveLine
    from micromegas_jupyter.notebook.query_history import QueryHistory
    from micromegas_jupyter.notebook.session import NotebookSession
    from micromegas_jupyter.notebook.sql_request import SqlRequest
    from micromegas_jupyter.settings import ClientSettings

_EXPLAIN = "EXPLAIN\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """A DataFrame, and what a display of it needs of the rows that it was made of; a plot needs all of them."""

    value: pd.DataFrame
    shown: RowsSeen | pa.Table


class SqlRunner:
    """Runs requests in a notebook.

    Args:
        shell: Whose variables take the rows.
        session: The notebook's sign-in and clients; closed by the extension.
        connections: What `--connection` and `--profile` mean.
        history: Notes the queries.
    """

    def __init__(
        self, shell: InteractiveShell, session: NotebookSession, connections: CellConnections, history: QueryHistory
    ) -> None:
        self._shell = shell
        self._session = session
        self._connections = connections
        self._history = history

    def run(self, request: SqlRequest) -> object | None:
        """Run the request and return the cell's value; None when a variable took the rows.

        Raises:
            UsageError: An option cannot be used, or a format cannot hold the rows.
            QueryCancelled: The person interrupted it.
            MicromegasError: It failed.
        """
        row_format = request.row_format or RowFormat.PANDAS
        check_available(row_format)
        if request.plot and row_format is RowFormat.READER:
            raise UsageError("--plot needs all rows, and a reader has none yet.", remedy="Leave one of the two out.")
        check_dtype(request.dtype, row_format)
        load_libraries("pyarrow.flight", *(["pandas"] if _is_frame(request) else []))
        max_rows = parse_result_rows(process_variables())
        query = self._query(request)
        with self._connected(request) as (settings, connection, line):
            progress = Progress(self._session.parts.clock)
            number = self._history.begin(request, at=self._session.parts.clock.now())
            try:
                if row_format is RowFormat.READER:
                    reader = open_query(connection, query, progress=progress, line=line)
                else:
                    collect = _collector(request, max_rows=max_rows)
                    answer = run_query(connection, query, progress=progress, line=line, collect=collect)
            except QueryCancelled:
                self._history.note(number, progress, Ending.CANCELLED)
                raise
            except BaseException as error:
                self._history.note(number, progress, Ending.FAILED, query_id=getattr(error, "query_id", None))
                raise
        self._session.note_success(settings, connection.provider)
        value: object
        if row_format is RowFormat.READER:
            self._history.note(number, progress)
            value = self._reader(reader, request, settings, progress=progress, line=line, number=number)
        else:
            self._history.note(number, progress, Ending.DONE)
            value = self._take(answer, request, max_rows=max_rows, progress=progress, line=line)
        return self._given(value, request, connection)

    def explain(self, request: SqlRequest) -> object | None:
        """Ask for the plan of the request's statement, which is not run; the rest as for `run`.

        Raises:
            MicromegasError: The server does not understand it, or cannot be asked.
        """
        # On a line of its own, so that a place in the statement is in the same column.
        query = replace(self._query(request), sql=f"{_EXPLAIN}{request.sql}", limit=None)
        with self._connected(request) as (_, connection, line):
            try:
                progress = Progress(self._session.parts.clock)
                table = run_query(connection, query, progress=progress, line=line, collect=_collect_table)
            except QueryError as error:
                if error.line is not None:
                    error.line = max(error.line - 1, 1)
                raise
            line.clear()
        plan = plan_text(table)
        return self._given(plan if request.name is None else plan.text, request, connection)

    def describe(self, request: SqlRequest) -> object | None:
        """Ask for the columns that the request's statement would give, without running it; the rest as for `run`.

        Raises:
            MicromegasError: The server does not understand it, or cannot be asked.
        """
        from micromegas_jupyter.client import bind_named
        from micromegas_jupyter.client.prepared import places_as_given

        with self._connected(request) as (_, connection, line):
            prepare = getattr(connection.client, "prepare_statement", None)
            if not callable(prepare):
                raise UnsupportedRequest(
                    "The wrapper's client cannot look at a statement without running it.", remedy="Use --limit 0."
                )
            line.clear()
            bound = bind_named(request.sql, request.params)
            with places_as_given(bound):
                schema = prepare(bound.sql).dataset_schema
        return self._given(schema_table(schema) if request.name is None else schema, request, connection)

    def _query(self, request: SqlRequest) -> Query:
        begin, end = parse_range(request.begin, request.end, now=self._session.parts.clock.now())
        return Query(sql=request.sql, params=request.params, begin=begin, end=end, limit=request.limit)

    def _connected(self, request: SqlRequest) -> AbstractContextManager[tuple[ClientSettings, Connection, LiveLine]]:
        return self._connections.connected(connection=request.connection, profile=request.profile)

    def _given(self, value: object, request: SqlRequest, connection: Connection) -> object | None:
        """Return the cell's value, or hand it to the variable that takes it; then say what the server had to say."""
        if request.name is not None:
            self._shell.user_ns[request.name] = value
        for notice in connection.notices.take_new():
            print(f"⚠ {notice}")  # noqa: T201 - the magic's output
        return value if request.name is None else None

    def _reader(  # noqa: PLR0913 - what goes on when the cell has ended
        self,
        reader: QueryReader,
        request: SqlRequest,
        settings: ClientSettings,
        *,
        progress: Progress,
        line: LiveLine,
        number: int,
    ) -> RowReader:
        def note_end(ending: Ending, error: MicromegasError | None) -> None:
            self._history.note(number, progress, ending)
            if error is not None:
                self._session.note_failure(settings, error)

        return RowReader(
            StartedQuery(
                reader=reader,
                progress=progress,
                line=line,
                target=request.target,
                sql=request.sql,
                on_end=note_end,
            )
        )

    def _take(
        self, answer: pa.Table | _Frame, request: SqlRequest, *, max_rows: int, progress: Progress, line: LiveLine
    ) -> object:
        """Return the rows in the format that was asked for, and show the first of those that a variable takes."""
        from micromegas_jupyter.notebook.result import QueryResult, result_bundle

        done = f"{progress.done_line()}{request.target}"
        value: object
        if isinstance(answer, _Frame):
            shown, value = answer.shown, answer.value
        elif request.row_format is None:
            shown, value = answer, QueryResult(answer, max_rows=max_rows)
        else:
            shown, value = answer, convert(request.row_format, answer)
        line.finish(done)
        if request.plot:
            _Plot(shown).show()
        if request.name is not None:
            display(result_bundle(shown, max_rows=max_rows), raw=True)
        return value


class _Plot:
    """A plot, or the reason why there is none, which must not keep the rows from the person."""

    def __init__(self, table: pa.Table) -> None:
        from micromegas_jupyter.notebook.plot import plot_bundle

        self._lines: list[str] = []
        try:
            self._bundle = plot_bundle(table)
        except UsageError as error:
            self._lines = error_lines(error)

    def show(self) -> None:
        if self._lines:
            print("\n".join(self._lines))  # noqa: T201 - the magic's output
        else:
            display(self._bundle, raw=True)


def _collector(
    request: SqlRequest, *, max_rows: int
) -> Callable[[pa.Schema, Iterator[pa.RecordBatch]], pa.Table | _Frame]:
    """Return what takes the rows as they come: into a DataFrame at once, or into a table for every other use."""

    def collect_table(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> pa.Table:
        if request.row_format is not None:
            check_schema(request.row_format, schema)
        return _collect_table(schema, batches)

    def collect_frame(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> _Frame:
        from micromegas_jupyter.client.frames import build_frame, to_frame
        from micromegas_jupyter.notebook.preview import MAX_PREVIEW_ROWS

        if request.plot:
            table = collect_table(schema, batches)
            return _Frame(value=to_frame(table, dtype_backend=request.dtype), shown=table)
        seen = RowsSeen(schema, max_rows=max(max_rows, MAX_PREVIEW_ROWS))
        return _Frame(value=build_frame(schema, map(seen.note, batches), dtype_backend=request.dtype), shown=seen)

    return collect_frame if _is_frame(request) else collect_table


def _is_frame(request: SqlRequest) -> bool:
    """Whether the rows become a pandas DataFrame while they come."""
    is_shown_as_it_is = request.name is None and request.row_format is None and request.dtype is None
    return (request.row_format or RowFormat.PANDAS) is RowFormat.PANDAS and not is_shown_as_it_is


def _collect_table(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_batches(batches, schema)
