"""`%sql` and `%%sql`: one statement with its options, run over the cell's connection.

It also defines `%micromegas_queries` and `%micromegas_cancel`, which list and cancel queries.
"""

from __future__ import annotations

from argparse import Namespace
from collections import deque
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from IPython.core.magic import Magics, magics_class
from traitlets import Bool, Enum, Int, Unicode

from micromegas_jupyter.config.client import parse_result_rows
from micromegas_jupyter.core.system import process_variables
from micromegas_jupyter.core.text import bytes_text, parse_range, seconds_text, short_query_id
from micromegas_jupyter.errors import UnsupportedRequest, UsageError, extra
from micromegas_jupyter.notebook.plotting import KINDS
from micromegas_jupyter.notebook.results.rows import (
    Ending,
    LiveLine,
    Progress,
    RowReader,
    shown_progress,
    to_polars,
)
from micromegas_jupyter.notebook.shell import (
    HELP_OPTION,
    PlainText,
    TextTable,
    argument,
    check_exclusive,
    check_no_template,
    display,
    error_lines,
    errors_as_lines,
    help_text,
    line_cell_magic,
    line_magic,
    load_libraries,
    needs_local_scope,
    no_var_expand,
    option_value,
    parse_sql_line,
    show_once,
    shown_name,
    time_text,
    with_arguments,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    import pyarrow as pa
    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.client.commands import RunningQuery
    from micromegas_jupyter.client.query_reader import QueryReader
    from micromegas_jupyter.config.client import ClientSettings
    from micromegas_jupyter.core.system import Clock
    from micromegas_jupyter.notebook.history import StoredHistory
    from micromegas_jupyter.notebook.login.connections import Client, Connection
    from micromegas_jupyter.notebook.login.session import CellConnections, NotebookSession
    from micromegas_jupyter.notebook.results.grid import CellSource

    TimeRange = tuple[datetime | None, datetime | None]

FORMATS = {"pandas": "DataFrame", "arrow": "pyarrow.Table", "polars": "polars.DataFrame", "reader": "reader"}
"""The values of `--format`, and the name of the variable's type in the output line."""

CHART_OPTIONS = ("x", "y", "color", "agg", "bins", "log")
MAX_QUERIES = 200
SQL_MAGIC_NAME = "micromegas_sql"
_MAX_LISTED = 20
_LIST_THEM = "%micromegas_queries --server lists those that run."


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlRequest:
    """A statement, its parameter values, the variable for the rows (if any), and the options as written."""

    sql: str
    params: Mapping[str, object] = field(default_factory=dict, repr=False)
    name: str | None = None
    options: Namespace

    @property
    def row_format(self) -> str:
        """The format of the rows."""
        return self.options.format or "pandas"

    @property
    def target(self) -> str:
        """The rows' destination at the end of a line: ` → errors (DataFrame)`; empty for the cell's value."""
        return "" if self.name is None else f" → {self.name} ({FORMATS[self.row_format]})"

    def cell_text(self) -> str:
        """Return a cell that makes the same request."""
        words = ["%%sql", *(() if self.name is None else (self.name, "<<")), *self._option_texts()]
        return f"{' '.join(words)}\n{self.sql.strip()}"

    def source(self) -> CellSource:
        """Return the source for a new cell that requests the same rows."""
        from micromegas_jupyter.notebook.results.grid import CellSource

        words = self._option_texts(without=("plot", "limit", "format", "dtype", *CHART_OPTIONS))
        return CellSource(" ".join(["%%sql", *words]), self.sql, self.options.limit)

    def _option_texts(self, without: Sequence[str] = ()) -> list[str]:
        given = {name: value for name, value in vars(self.options).items() if name not in without}
        return [
            f"--{option}" if value is True else f"--{option} {option_value(str(value))}"
            for option, value in given.items()
            if value is not None and value is not False
        ]


class PastQuery(NamedTuple):
    """A query in this notebook: its number, starting at 1, and its progress."""

    number: int
    request: SqlRequest
    started_at: datetime
    progress: Progress


@magics_class
class SqlMagic(Magics):
    """The magics that run statements and list past queries.

    ```python
    %config SqlMagic.limit = 1000  # for this notebook; c.SqlMagic.limit = 1000 in ipython_config.py for all of them
    ```
    """

    begin = Unicode(None, allow_none=True, help="Default of --begin.").tag(config=True)
    limit = Int(None, allow_none=True, min=0, help="Default of --limit.").tag(config=True)
    format = Enum(tuple(FORMATS), allow_none=True, help="Default of --format.").tag(config=True)

    keep_history = Bool(False, help="Keep statements, without values, for the side panels of other kernels.").tag(
        config=True
    )

    def __init__(self, shell: InteractiveShell, session: NotebookSession, connections: CellConnections) -> None:
        super().__init__(shell)
        self._shell = shell
        self._session = session
        self._connections = connections
        self.history: deque[PastQuery] = deque(maxlen=MAX_QUERIES)
        self._stored_history: StoredHistory | None = None

    @property
    def stored_history(self) -> StoredHistory | None:
        """The statements that other kernels see; None unless `keep_history`."""
        if self.keep_history and self._stored_history is None:
            from micromegas_jupyter.notebook.history import StoredHistory
            from micromegas_jupyter.wiring.client_side import config_folder

            self._stored_history = StoredHistory(config_folder() / "history")
        return self._stored_history if self.keep_history else None

    @no_var_expand
    @needs_local_scope
    @with_arguments()
    @argument("--begin", metavar="T", help="start of the time range: RFC 3339, or 15m, 1h, 7d ago")
    @argument("--end", metavar="T", help="end of the time range; default: now")
    @argument("--limit", metavar="N", type=int, help="maximum number of rows")
    @argument("--profile", metavar="NAME", help="profile of config.json, for this cell only")
    @argument("--connection", metavar="NAME", help="named connection, for this cell only")
    @argument("--format", choices=FORMATS, help="result type; default with NAME <<: pandas")
    @argument(
        "--explain",
        action="store_true",
        help="show the plan and the data to be read, without running the query",
    )
    @argument(
        "--dry-run",
        action="store_true",
        help="show the result's columns and the data to be read, without running the query",
    )
    @argument(
        "--plot",
        metavar="KIND",
        nargs="?",
        const=True,
        choices=KINDS,
        help="show a chart: line, area, bar, hist (histogram), heat (heat map), or point",
    )
    @argument("--x", metavar="NAME", help="column for the x axis")
    @argument("--y", metavar="NAMES", help="numeric columns for the y axis, separated by commas")
    @argument("--color", metavar="NAME", help="column that determines the color")
    @argument("--agg", metavar="NAMES", help="aggregates of y: count, sum, mean, min, max, p50, p99.9, …")
    @argument("--bins", metavar="N", type=int, help="approximate number of bins on the x axis")
    @argument("--log", choices=("x", "y", "xy"), help="logarithmic axes")
    @argument("--dtype", choices=("pyarrow",), help="use pandas.ArrowDtype columns, which need less time and memory")
    @argument("--traceback", action="store_true", help="show the Python traceback of an error")
    @line_cell_magic(SQL_MAGIC_NAME)
    def micromegas_sql(
        self, line: str, cell: str | None = None, local_ns: Mapping[str, Any] | None = None
    ) -> object | None:
        """Run a SQL statement.

        `NAME <<` before the options stores the rows in the variable NAME, as a pandas DataFrame unless --format says
        otherwise. `:name` in the statement stands for the value of the notebook's variable of that name.
        """
        with errors_as_lines(traceback="--traceback" in line.split()):
            magic = self.micromegas_sql
            if HELP_OPTION in line.split():
                print(help_text(magic))  # noqa: T201 - the magic's output
                return None
            variables = {**self._shell.user_ns, **(local_ns or {})}
            parts = parse_sql_line(magic, line, cell, variables)
            arguments = parts.options
            if arguments.limit is not None and arguments.limit < 0:
                raise UsageError("--limit must be a number of rows.", remedy="Specify a number that is 0 or greater.")
            check_exclusive(arguments, "connection", "profile")
            for option in ("format", "plot", "dtype"):
                check_exclusive(arguments, "explain", "dry_run", option)
            for option in CHART_OPTIONS:
                if arguments.plot is None and getattr(arguments, option) is not None:
                    raise UsageError(f"--{option} requires a chart.", remedy="Add --plot.")
            for option in ("begin", "limit", "format"):
                if getattr(arguments, option) is None:
                    setattr(arguments, option, getattr(self, option))
            run = self._explain if arguments.explain else self._describe if arguments.dry_run else self._run
            with errors_as_lines(sql=parts.sql, traceback=arguments.traceback):
                check_no_template(parts.sql)
                request = SqlRequest(
                    sql=parts.sql,
                    params=parameter_values(parts.sql, variables),
                    name=parts.name,
                    options=arguments,
                )
                return run(request)

    @line_magic
    @argument("--rerun", metavar="N", type=int, help="run query N again with its options and original values")
    @argument("--sql", metavar="N", type=int, help="show query N as a cell to copy")
    @argument("--all", action="store_true", help=f"list all queries in the history, not just the newest {_MAX_LISTED}")
    @argument(
        "--server",
        action="store_true",
        help="list your running queries on the server; administrators see all",
    )
    @argument("--profile", metavar="NAME", help="with --server: profile of config.json")
    @argument("--connection", metavar="NAME", help="with --server: named connection")
    def micromegas_queries(self, arguments: Namespace) -> object | None:
        """List this notebook's queries: start, outcome, rows, duration, ID, and SQL.

        They are kept in memory, until the kernel ends.
        """
        for option in ("rerun", "sql", "all"):
            check_exclusive(arguments, "server", option)
        check_exclusive(arguments, "rerun", "sql")
        if arguments.server:
            with self._client(arguments) as client:
                return _running_table(client.running_queries(), now=self._session.dependencies.clock.now())
        for option in ("profile", "connection"):
            if getattr(arguments, option) is not None:
                raise UsageError(f"--{option} requires --server.", remedy="Add --server.")
        if arguments.sql is not None:
            return PlainText(self._past_request(arguments.sql).cell_text())
        if arguments.rerun is not None:
            request = self._past_request(arguments.rerun)
            with errors_as_lines(sql=request.sql, traceback=arguments.traceback):
                return self._run(request)
        queries = list(self.history)
        shown = queries if arguments.all else queries[-_MAX_LISTED:]
        is_cut = len(shown) < len(queries)
        note = f"newest {len(shown)} of {len(queries)}; --all lists them all" if is_cut else ""
        now = self._session.dependencies.clock.now()
        return TextTable(
            head=("number", "started", "status", "rows", "time", "query", "SQL"),
            rows=[
                (
                    str(number),
                    time_text(started_at, now=now),
                    progress.ending or "running",
                    f"{progress.rows:,}",
                    seconds_text(progress.seconds),
                    short_query_id(progress.query_id or ""),
                    shown_name(" ".join(request.sql.split())),
                )
                for number, request, started_at, progress in shown
            ],
            note=note if queries else "No query has run in this notebook yet.",
            right=frozenset({"number", "rows", "time"}),
        )

    @line_magic
    @argument("query_id", metavar="ID", help="query ID, or its first eight characters")
    @argument("--profile", metavar="NAME", help="profile of config.json, for this cell only")
    @argument("--connection", metavar="NAME", help="named connection, for this cell only")
    def micromegas_cancel(self, arguments: Namespace) -> None:
        """Cancel a query that is running on the server: one of yours or, as an administrator, any user's."""
        wanted = arguments.query_id
        with self._client(arguments) as client:
            found = [one.query_id for one in client.running_queries() if wanted == short_query_id(one.query_id)]
            if len(found) > 1:
                raise UsageError(
                    f"{len(found)} query IDs begin with {shown_name(wanted)}.",
                    remedy="Specify the full ID: SELECT query_id, sql FROM running_queries().",
                )
            query_id = found[0] if found else wanted
            status = client.cancel_query(query_id)
        shown = short_query_id(query_id)
        if status == "not_cancellable":
            raise UsageError(f"You have no running query with the ID {shown} on this server.", remedy=_LIST_THEM)
        print(f"✓ query {shown} was cancelled" if status == "cancelled" else f"query {shown} is being cancelled")  # noqa: T201 - the magic's output

    @contextmanager
    def _client(self, arguments: Namespace) -> Iterator[Client]:
        """Yield the client of the connection in the options."""
        check_exclusive(arguments, "connection", "profile")
        named = {"connection": arguments.connection, "profile": arguments.profile}
        with self._connections.connected(**named) as (settings, connection, line):
            line.clear()
            yield connection.client
        self._session.note_success(settings, connection.provider)
        _print_notices(connection)

    def _past_request(self, number: int) -> SqlRequest:
        if not self.history:
            raise UsageError("No query has run in this notebook yet.", remedy="Run one with %%sql.")
        first = self.history[0].number
        if not first <= number < first + len(self.history):
            remedy = f"Numbers {first} to {first + len(self.history) - 1} are available."
            raise UsageError(f"There is no query {number}.", remedy=remedy)
        return self.history[number - first].request

    def _run(self, request: SqlRequest) -> object | None:
        """Run the request and return the cell's value, or None if the rows were assigned to a variable."""
        row_format, options, clock = request.row_format, request.options, self._session.dependencies.clock
        if row_format == "polars":
            with extra("polars"):
                load_libraries("polars")  # before the query runs
        if options.plot is not None and row_format == "reader":
            raise UsageError("--plot needs all rows, but a reader hasn't fetched any yet.", remedy="Omit one of them.")
        if options.dtype is not None and row_format != "pandas":
            raise UsageError(
                "--dtype is only for pandas DataFrames.", remedy=f"Leave it out with --format {row_format}."
            )
        is_frame = row_format == "pandas" and request.name is not None
        load_libraries("pyarrow.flight", *(["pandas"] if is_frame else []))
        max_rows = parse_result_rows(process_variables())
        time_range = parse_range(options.begin, options.end, now=clock.now())
        value: object
        # An interrupt's traceback would keep a reader alive, and its query running, if no `with` block closed it.
        with ExitStack() as reading:
            with self._connected(request) as (settings, connection, line):
                progress = Progress(clock)
                number = self.history[-1].number + 1 if self.history else 1
                self.history.append(PastQuery(number, request, clock.now(), progress))
                if (stored := self.stored_history) is not None:
                    stored.add(request.sql)
                with _shown(progress, line, connection, clock):
                    reader = reading.enter_context(_open(connection, request, time_range))
                    progress.note(reader)
                    if row_format != "reader":
                        table, value = _collect(request, reader, progress, max_rows=max_rows)
            self._session.note_success(settings, connection.provider)
            if row_format == "reader":
                on_failure = partial(self._session.note_reader_failure, settings, connection)
                value = RowReader(reader, progress, line, target=request.target, sql=request.sql, on_failure=on_failure)
                reading.pop_all()
        if row_format != "reader":
            progress.end(Ending.DONE)
            line.finish(f"{progress.line()}{request.target}")
            self._show(table, value, request, max_rows=max_rows)
        return self._assign(value, request, connection)

    def _show(self, table: pa.Table, value: object, request: SqlRequest, *, max_rows: int) -> None:
        """Show the requested chart, and the rows unless the cell's value shows them itself."""
        from micromegas_jupyter.notebook.query_result import QueryResult
        from micromegas_jupyter.notebook.results.grid import shown_table

        chart = None
        if (plot := request.options.plot) is not None:
            from micromegas_jupyter.notebook.charts.chart import Chart

            options = {name: getattr(request.options, name) for name in CHART_OPTIONS}
            options["kind"] = None if plot is True else plot
            try:
                chart = Chart(table, **options)
            except UsageError as error:  # the rows are shown anyway
                print("\n".join(error_lines(error)))  # noqa: T201 - the magic's output
        if isinstance(value, QueryResult):
            if chart is not None:
                value.open_chart(chart)
            return
        build_bundle = partial(
            shown_table,
            table,
            max_rows=max_rows,
            is_referenced=value is table,
            source=request.source(),
            plot=chart.plot if chart else None,
        )
        if request.name is None:
            show_once(self._shell, value, build_bundle)
        else:
            bundle, metadata = build_bundle()
            display(bundle, metadata=metadata, raw=True)

    def _explain(self, request: SqlRequest) -> object | None:
        """Fetch the plan of the request's statement without running it."""
        from micromegas_jupyter.client.explain import EXPLAIN, positions_without_explain, read_plan

        explaining = replace(request, sql=f"{EXPLAIN}{request.sql}", options=Namespace(limit=None))
        clock = self._session.dependencies.clock
        time_range = parse_range(request.options.begin, request.options.end, now=clock.now())
        with self._connected(request) as (_, connection, line):
            progress = Progress(clock)
            with (
                positions_without_explain(),
                _shown(progress, line, connection, clock),
                _open(connection, explaining, time_range) as reader,
            ):
                progress.note(reader)
                plan = read_plan(reader)
            line.clear()
        return self._assign(PlainText(plan) if request.name is None else plan, request, connection)

    def _describe(self, request: SqlRequest) -> object | None:
        """Fetch the result columns of the request's statement without running it."""
        from micromegas_jupyter.client.commands import original_positions
        from micromegas_jupyter.client.flight_client import FlightSQLClient
        from micromegas_jupyter.client.query_reader import NO_ESTIMATE, parse_estimate
        from micromegas_jupyter.flightsql.parameters import bind_named
        from micromegas_jupyter.notebook.formats import sql_type_of

        options = request.options
        time_range = parse_range(options.begin, options.end, now=self._session.dependencies.clock.now())
        with self._connected(request) as (_, connection, line):
            client = connection.client
            prepare = getattr(client, "prepare_statement", None)
            if not callable(prepare):
                raise UnsupportedRequest(
                    "The wrapper's client cannot describe a statement without running it.", remedy="Use --limit 0."
                )
            line.clear()
            if isinstance(client, FlightSQLClient):
                params = dict(request.params) or None
                schema = client.describe_statement(request.sql, *time_range, params, limit=options.limit)
            else:
                bound = bind_named(request.sql, request.params)
                with original_positions(bound):
                    schema = prepare(bound.sql).dataset_schema
        estimate = parse_estimate(schema)
        nulls = {True: "possible", False: "never"}
        rows = [(shown_name(each.name), sql_type_of(each), nulls[each.nullable]) for each in schema]
        told = NO_ESTIMATE if estimate is None else f"It {estimate.text()}."
        table = TextTable(head=("column", "type", "null"), rows=rows, note=f"{told} The statement was not run.")
        return self._assign(table if request.name is None else schema, request, connection)

    def _connected(self, request: SqlRequest) -> AbstractContextManager[tuple[ClientSettings, Connection, LiveLine]]:
        return self._connections.connected(connection=request.options.connection, profile=request.options.profile)

    def _assign(self, value: object, request: SqlRequest, connection: Connection) -> object | None:
        """Return the cell's value or assign it to the request's variable, and print the server's notices."""
        if request.name is not None:
            self._shell.user_ns[request.name] = value
        _print_notices(connection)
        return value if request.name is None else None


def _print_notices(connection: Connection) -> None:
    for notice in connection.notices.take_new():
        print(f"⚠ {notice}")  # noqa: T201 - the magic's output


def _running_table(queries: Sequence[RunningQuery], *, now: datetime) -> TextTable:
    """Return a server's running queries, the longest-running first."""
    return TextTable(
        head=("query", "user", "started", "time", "memory", "SQL"),
        rows=[
            (
                short_query_id(one.query_id),
                shown_name(one.email if one.email not in {"", "unknown"} else one.user),
                time_text(one.began_at, now=now),
                seconds_text(one.seconds) + ("" if one.is_running else ", waits"),
                bytes_text(one.peak_memory_bytes),
                shown_name(" ".join(one.sql.split())),
            )
            for one in queries
        ],
        note="%micromegas_cancel ID ends one." if queries else "No query runs on the server.",
        right=frozenset({"time", "memory"}),
    )


def parameter_values(sql: str, variables: Mapping[str, Any]) -> dict[str, object]:
    """Return the values of the variables that a statement refers to as `:name`.

    Raises:
        UsageError: There is no variable with that name.
    """
    from micromegas_jupyter.flightsql.parameters import frozen_values, parameter_names

    missing = [name for name in parameter_names(sql) if name not in variables]
    if missing:
        listed = ", ".join(f":{name}" for name in missing)
        raise UsageError(
            f"There is no variable for {listed}.",
            remedy=f"Define {missing[0]} in a cell above, or write the value into the statement.",
        )
    return frozen_values(sql, variables)


def _shown(progress: Progress, line: LiveLine, connection: Connection, clock: Clock) -> AbstractContextManager[None]:
    """Show the progress of a query on a connection."""
    from micromegas_jupyter.client.query_reader import ScanFollower

    return shown_progress(progress, line, ScanFollower(connection.client.query_progress, clock))


def _open(connection: Connection, request: SqlRequest, time_range: TimeRange) -> QueryReader:
    params, limit = dict(request.params) or None, request.options.limit
    return connection.client.open_query(request.sql, *time_range, params, limit=limit)


def _collect(request: SqlRequest, reader: QueryReader, progress: Progress, *, max_rows: int) -> tuple[pa.Table, object]:
    """Return all rows in the requested format, or by default as a result that can display itself."""
    options, row_format = request.options, request.row_format

    def noted(batch: pa.RecordBatch) -> pa.RecordBatch:
        progress.note(reader)
        return batch

    with reader:
        import pyarrow as pa

        from micromegas_jupyter.notebook.query_result import QueryResult

        if row_format == "polars":
            to_polars(reader.schema.empty_table())  # otherwise all rows would be fetched needlessly
        table = pa.Table.from_batches(map(noted, reader), reader.schema)  # a generator would hold the last batch
        progress.note(reader)
    if row_format == "polars":
        return table, to_polars(table)
    if row_format == "arrow":
        return table, table
    if request.name is None and options.format is None and options.dtype is None:
        return table, QueryResult(table, max_rows=max_rows, source=request.source())
    from micromegas_jupyter.client.json_columns import to_frame

    return table, to_frame(table, dtype_backend=options.dtype)
