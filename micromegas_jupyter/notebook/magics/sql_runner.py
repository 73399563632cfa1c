"""Runs what `%%sql` was asked for: takes the connection, runs the query, hands its rows over."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from micromegas_jupyter.config.client import parse_result_rows
from micromegas_jupyter.config.moments import parse_range
from micromegas_jupyter.core.system import process_variables
from micromegas_jupyter.errors import MicromegasError, QueryCancelled, QueryError, UnsupportedRequest, UsageError
from micromegas_jupyter.notebook.formatting import TextTable, cut, error_lines, printable, show_as_lines, text_html
from micromegas_jupyter.notebook.results.progress import Ending, LineTicker, LiveLine, Progress
from micromegas_jupyter.notebook.results.rows import (
    RowFormat,
    RowReader,
    RowsSeen,
    StartedQuery,
    check_available,
    check_dtype,
    check_schema,
    convert,
)
from micromegas_jupyter.notebook.shell import display, load_libraries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from datetime import datetime

    import pandas as pd
    import pyarrow as pa
    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.client.query_reader import QueryReader
    from micromegas_jupyter.config.client import ClientSettings
    from micromegas_jupyter.notebook.login.connections import Connection
    from micromegas_jupyter.notebook.login.session import CellConnections, NotebookSession
    from micromegas_jupyter.notebook.magics.queries import QueryHistory, SqlRequest

T = TypeVar("T")
_MAX_COLUMNS = 500
_MAX_NAME_CHARACTERS = 100
_EXPLAIN = "EXPLAIN\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A statement with its values and bounds.

    Attributes:
        sql: The statement.
        params: Values of its `:name` parameters.
        begin: Start of the time range (aware), None for no range.
        end: End of the time range (aware).
        limit: At most so many rows; None for all.
    """

    sql: str
    params: Mapping[str, object] = field(default_factory=dict, repr=False)
    begin: datetime | None = None
    end: datetime | None = None
    limit: int | None = None


def run_query(
    connection: Connection,
    query: Query,
    *,
    progress: Progress,
    line: LiveLine,
    collect: Callable[[pa.Schema, Iterator[pa.RecordBatch]], T],
) -> T:
    """Run the query and return what `collect` makes of its rows; `line` is left for the caller to finish.

    Args:
        connection: Where.
        query: What.
        progress: Is told how far it is.
        line: Shows that.
        collect: Given the schema and the batches as they come; raises when the caller cannot use such rows.

    Raises:
        QueryCancelled: The person interrupted it; it is shown as the one line that says so.
        MicromegasError: It failed.
    """
    with _telling(progress, line), _open(connection, query, progress) as reader:
        return collect(reader.schema, _noted(reader, progress))


def open_query(connection: Connection, query: Query, *, progress: Progress, line: LiveLine) -> QueryReader:
    """Start the query and return the reader of its rows, which the caller closes; the rest as for `run_query`."""
    with _telling(progress, line):
        return _open(connection, query, progress)


def _noted(reader: QueryReader, progress: Progress) -> Iterator[pa.RecordBatch]:
    def noted(batch: pa.RecordBatch) -> pa.RecordBatch:
        progress.note_batch()
        return batch

    return map(noted, reader)  # unlike a generator it does not hold the batch that it gave last


def _open(connection: Connection, query: Query, progress: Progress) -> QueryReader:
    reader = connection.client.open_query(
        query.sql, query.begin, query.end, dict(query.params) or None, limit=query.limit
    )
    progress.note_opened(reader, token_ends_at=connection.token_ends_at())
    return reader


@contextmanager
def _telling(progress: Progress, line: LiveLine) -> Iterator[None]:
    try:
        with LineTicker(line, progress.running_line):
            yield
    except (KeyboardInterrupt, QueryCancelled) as interrupt:
        cancelled = QueryCancelled("The query was cancelled.", query_id=progress.query_id)
        show_as_lines(cancelled, [progress.ended_line(Ending.CANCELLED)])
        line.clear()
        raise cancelled from interrupt
    except MicromegasError:
        if line.is_shown:
            line.finish(progress.ended_line(Ending.FAILED))
        raise


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
    from micromegas_jupyter.notebook.values import type_text

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """A DataFrame, and what a display of it needs of the rows that it was made of; a plot needs all of them."""

    value: pd.DataFrame
    shown: RowsSeen | pa.Table


class SqlRunner:
    """Runs requests in a notebook."""

    def __init__(
        self, shell: InteractiveShell, session: NotebookSession, connections: CellConnections, history: QueryHistory
    ) -> None:
        self._shell = shell
        self._session = session
        self._connections = connections
        self._history = history

    def run(self, request: SqlRequest) -> object | None:
        """Run the request and return the cell's value; None when a variable took the rows."""
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
        """Ask for the plan of the request's statement, which is not run; the rest as for `run`."""
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
        """Ask for the columns that the request's statement would give, without running it; the rest as for `run`."""
        from micromegas_jupyter.client.parameters import bind_named
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
        from micromegas_jupyter.notebook.results.table import QueryResult, result_bundle

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
        from micromegas_jupyter.notebook.charts.plot import plot_bundle

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
        from micromegas_jupyter.notebook.results.table import MAX_PREVIEW_ROWS

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
