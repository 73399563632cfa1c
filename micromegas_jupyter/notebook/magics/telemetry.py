"""`%micromegas_trace`, `_flame`, and `_logs`: where traces spent their time, and what programs logged."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from IPython.core.magic import Magics, magics_class

from micromegas_jupyter.core.text import parse_range
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.magics.sql import parameter_values
from micromegas_jupyter.notebook.shell import argument, check_exclusive, line_magic

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from datetime import datetime

    import pyarrow as pa
    from IPython.core.interactiveshell import InteractiveShell

    TimeRange = tuple[datetime | None, datetime | None]

    from micromegas_jupyter.client.flames import Flame
    from micromegas_jupyter.client.traces import Trace
    from micromegas_jupyter.notebook.login.connections import Client
    from micromegas_jupyter.notebook.login.session import CellConnections, NotebookSession
    from micromegas_jupyter.notebook.logs.view import LogView
    from micromegas_jupyter.notebook.logs.widget import LogResult

_DEFAULT_BEGIN: Final = "15m"
_DEFAULT_LINES: Final = 20_000
_SAVED_LINES: Final = 50  # that a notebook saves while following a log
_MAX_VIEWS: Final = 8


@magics_class
class TelemetryMagics(Magics):
    """The magics that show traces and logs."""

    def __init__(self, shell: InteractiveShell, session: NotebookSession, connections: CellConnections) -> None:
        super().__init__(shell)
        self._shell = shell
        self._session = session
        self._connections = connections
        self._views: deque[LogView] = deque()  # the oldest one is closed to make room for a new one

    @line_magic
    @argument("trace_id", metavar="ID", help="trace ID (32 hexadecimal digits), or a variable as :NAME")
    @argument("--begin", "--since", metavar="TIME", help="start of the time range: RFC 3339, or 15m, 1h, 7d ago")
    @argument("--end", metavar="TIME", help="end of the time range; default: now")
    @argument("--profile", metavar="NAME", help="profile of config.json, for this cell only")
    @argument("--connection", metavar="NAME", help="named connection, for this cell only")
    def micromegas_trace(self, arguments: argparse.Namespace) -> Trace:
        """Show the spans of a trace as a waterfall, a flame graph, or a table, with self times and the critical path.

        Returns what `client.trace` returns: `trace = _` keeps it, `trace.spans` has all spans as an Arrow table.
        """
        from micromegas_jupyter.client.traces import fetch_trace

        values = parameter_values(arguments.trace_id, self._shell.user_ns)
        trace_id = values.get(arguments.trace_id.removeprefix(":"), arguments.trace_id)
        with self._connected(arguments) as query:
            # Tables contain IDs as bytes.
            return fetch_trace(trace_id.hex() if isinstance(trace_id, bytes) else str(trace_id), query)

    @line_magic
    @argument("--service", metavar="NAME", required=True, help="service whose traces are merged")
    @argument("--begin", "--since", metavar="TIME", help="start of the time range: RFC 3339, or 15m, 1h, 7d ago")
    @argument("--end", metavar="TIME", help="end of the time range; default: now")
    @argument("--where", metavar="SQL", help="only traces in which a span of the service meets this condition")
    @argument(
        "--against", metavar="OTHER", help="compare with a different service, or a different time range as BEGIN..END"
    )
    @argument("--profile", metavar="NAME", help="profile of config.json, for this cell only")
    @argument("--connection", metavar="NAME", help="named connection, for this cell only")
    def micromegas_flame(self, arguments: argparse.Namespace) -> Flame:
        """Show where the traces of a service in the last 15 minutes, or since --begin, spent their time.

        Merges their spans by call path. The value is a `Flame`; `flame.paths` is an Arrow table of all paths.
        """
        from micromegas_jupyter.client.flames import TraceSet, fetch_flame

        if arguments.begin is None and arguments.end is None:
            arguments.begin = _DEFAULT_BEGIN
        service, other_range = arguments.against, None
        if arguments.against is not None and ".." in arguments.against:
            begin, end = arguments.against.split("..", 1)
            service = arguments.service
            other_range = parse_range(begin.strip(), end.strip() or None, now=self._session.dependencies.clock.now())
        values = parameter_values(arguments.where or "", self._shell.user_ns)
        with self._connected(arguments) as query:
            now = TraceSet(arguments.service, query, arguments.where, values)
            before = service and TraceSet(service, partial(query, time_range=other_range), arguments.where, values)
            return fetch_flame(now, before or None)

    @line_magic
    @argument("--begin", "--since", metavar="TIME", help="start of the time range: RFC 3339, or 15m, 1h, 7d ago")
    @argument("--end", metavar="TIME", help="end of the time range; default: now")
    @argument("--level", metavar="LEVEL", help="minimum severity: error, warn, info, …")
    @argument("--search", metavar="TEXT", help="only messages that contain this text")
    @argument("--service", metavar="TEXT", help="only programs whose name (exe) contains this text")
    @argument("--target", metavar="TEXT", help="only modules or loggers whose name contains this string")
    @argument(
        "--last", metavar="N", type=int, default=_DEFAULT_LINES, help="return the last N lines; default: %(default)s"
    )
    @argument("-f", "--follow", action="store_true", help="show new lines as soon as they are stored")
    @argument("--profile", metavar="NAME", help="profile of config.json, for this cell only")
    @argument("--connection", metavar="NAME", help="named connection, for this cell only")
    def micromegas_logs(self, arguments: argparse.Namespace) -> LogResult:
        """Show what programs logged in the last 15 minutes or since --begin, with their volume over time."""
        from micromegas_jupyter.notebook.logs.view import LogQuery, LogView
        from micromegas_jupyter.notebook.logs.widget import LogResult
        from micromegas_jupyter.telemetry.levels import parse_level
        from micromegas_jupyter.telemetry.log_lines import LogFilter

        level = None if arguments.level is None else parse_level(arguments.level)
        if level is None and arguments.level is not None:
            raise UsageError("--level is not a level.", remedy="Use fatal, error, warning, info, debug, or trace.")
        if arguments.last < 1:
            raise UsageError("--last must be a number of lines, 1 or more.")
        if arguments.follow and arguments.end is not None:
            raise UsageError("--follow has no end.", remedy="Leave out --end.")
        if arguments.begin is None and arguments.end is None:
            arguments.begin = _DEFAULT_BEGIN
        chosen = LogFilter(level=level, search=arguments.search, service=arguments.service, target=arguments.target)
        clock = self._session.dependencies.clock
        begin, end = parse_range(arguments.begin, arguments.end, now=clock.now())
        query = LogQuery(begin=begin or clock.now(), end=None if arguments.end is None else end, conditions=chosen)
        count = min(arguments.last, _SAVED_LINES) if arguments.follow else arguments.last
        check_exclusive(arguments, "connection", "profile")
        with self._connections.connected(connection=arguments.connection, profile=arguments.profile) as connected:
            settings, connection, live_line = connected
            live_line.clear()
            lines = query.fetch_lines(connection.client, end or clock.now(), last=count, timeout_seconds=None)
        self._session.note_success(settings, connection.provider)

        def make_view(lines: pa.Table) -> LogView:
            def open_client() -> Client:
                return self._session.connections.get(settings).client

            view = LogView(open_client, query, lines, is_following=arguments.follow, clock=clock)
            self._views.append(view)
            while len(self._views) > _MAX_VIEWS:
                self._views.popleft().close()
            return view

        return LogResult(lines, make_view)

    def close(self) -> None:
        """Stop following in all views."""
        while self._views:
            self._views.popleft().close()

    @contextmanager
    def _connected(self, arguments: argparse.Namespace) -> Iterator[Callable[..., pa.Table]]:
        """Yield a function that runs statements with the cell's connection and time range, even after the cell ends."""
        check_exclusive(arguments, "connection", "profile")
        of_cell = parse_range(arguments.begin, arguments.end, now=self._session.dependencies.clock.now())
        named = {"connection": arguments.connection, "profile": arguments.profile}
        with self._connections.connected(**named) as (settings, connection, live_line):
            live_line.clear()

            def query(
                sql: str, parameters: dict[str, object] | None = None, *, time_range: TimeRange | None = None
            ) -> pa.Table:
                with connection.client.open_query(sql, *(time_range or of_cell), parameters or None) as reader:
                    return reader.read_all()

            yield query
        self._session.note_success(settings, connection.provider)
