"""`%sql` and `%%sql`: one statement, its rows as a DataFrame or as the cell's value.

What stands on the line is `sql_line`'s, running it `running`'s, who is signed in the session's job.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, magics_class

from micromegas_jupyter.errors import MicromegasError, QueryCancelled, UsageError
from micromegas_jupyter.notebook.arguments import parse_options
from micromegas_jupyter.notebook.error_lines import errors_as_lines, show_as_lines
from micromegas_jupyter.notebook.ipython_names import (
    argument,
    display,
    line_cell_magic,
    needs_local_scope,
    no_var_expand,
    with_arguments,
)
from micromegas_jupyter.notebook.live_line import DisplayLine, LiveLine, TerminalLine
from micromegas_jupyter.notebook.running import Answer, Query, run_query
from micromegas_jupyter.notebook.sql_line import SqlLine, split_sql_line
from micromegas_jupyter.notebook.surroundings import has_kernel
from micromegas_jupyter.notebook.words import host_text, moment_text, seconds_text
from micromegas_jupyter.settings.moments import parse_range

if TYPE_CHECKING:
    from collections.abc import Mapping

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.notebook.connections import Connection
    from micromegas_jupyter.notebook.parts import Login
    from micromegas_jupyter.notebook.result import QueryResult
    from micromegas_jupyter.notebook.session import NotebookSession
    from micromegas_jupyter.settings import ClientSettings

SQL_MAGIC_NAME = "micromegas_sql"

_OPTIONS_WITH_VALUE = ("--begin", "--end", "--limit", "--profile")
_FLAGS = ("--traceback",)


@magics_class
class SqlMagic(Magics):
    """The magic that runs a statement.

    Args:
        shell: Where it runs; its variables give the values of `:name`.
        session: The notebook's sign-in and clients; closed by the extension.
    """

    def __init__(self, shell: InteractiveShell, session: NotebookSession) -> None:
        super().__init__(shell)
        self._shell = shell
        self._session = session

    @no_var_expand
    @needs_local_scope
    @with_arguments()
    @argument("--begin", metavar="T", help="start of the time range: 15m, 1h, 7d ago, or RFC 3339")
    @argument("--end", metavar="T", help="end of the time range; now when only --begin is given")
    @argument("--limit", metavar="N", type=int, help="at most so many rows")
    @argument("--profile", metavar="NAME", help="a profile of config.json, for this statement")
    @argument("--traceback", action="store_true", help="show the Python traceback of an error")
    @line_cell_magic(SQL_MAGIC_NAME)
    def micromegas_sql(
        self, line: str, cell: str | None = None, local_ns: Mapping[str, Any] | None = None
    ) -> QueryResult | None:
        """Run a SQL statement.

        `NAME <<` before the options puts the rows into the variable NAME as a pandas DataFrame. `:name` in the
        statement stands for the value of the notebook's variable of that name.
        """
        with errors_as_lines(traceback="--traceback" in line.split()):
            parts = split_sql_line(line, cell, options_with_value=_OPTIONS_WITH_VALUE, flags=_FLAGS)
            arguments = parse_options(self.micromegas_sql, parts.arguments)
            begin, end = parse_range(arguments.begin, arguments.end, now=self._session.parts.clock.now())
            if arguments.limit is not None and arguments.limit < 0:
                raise UsageError("--limit is a number of rows.", remedy="Give a number from 0 upwards.")
            settings = self._session.settings(arguments.profile)
            variables = {**self._shell.user_ns, **(local_ns or {})}
            query = Query(
                sql=parts.sql, params=_values(parts.sql, variables), begin=begin, end=end, limit=arguments.limit
            )
            line_shown = self._new_line()
            with errors_as_lines(sql=parts.sql, traceback=arguments.traceback):
                answer = self._run(settings, query, line_shown)
            return self._hand_over(parts, answer, line_shown)

    def _new_line(self) -> LiveLine:
        return DisplayLine() if has_kernel(self._shell) else TerminalLine(sys.stdout)

    def _run(self, settings: ClientSettings, query: Query, line: LiveLine) -> Answer:
        try:
            connection = self._wait_for_connection(settings, line)
            answer = run_query(connection.client, query, line=line, clock=self._session.parts.clock)
        except MicromegasError as error:
            self._session.note_failure(settings, error)
            raise
        self._session.note_success(settings, connection.provider)
        return answer

    def _wait_for_connection(self, settings: ClientSettings, line: LiveLine) -> Connection:
        clock = self._session.parts.clock
        started = clock.monotonic()

        def say_what_for(login: Login) -> None:
            until = moment_text(login.expires_at, now=clock.now())
            line.rewrite(
                f"⏳ waiting for you to sign in to {host_text(settings.issuer or '')} (until {until})"
                " · interrupt to stop waiting"
            )

        try:
            return self._session.connection(settings, on_wait=say_what_for)
        except KeyboardInterrupt as interrupt:
            stopped = QueryCancelled("The wait for the sign-in was stopped.")
            waited = seconds_text(clock.monotonic() - started)
            show_as_lines(stopped, [f"✗ stopped waiting for the sign-in after {waited}; it stays open"])
            line.clear()
            raise stopped from interrupt
        except MicromegasError:
            line.clear()
            raise

    def _hand_over(self, parts: SqlLine, answer: Answer, line: LiveLine) -> QueryResult | None:
        from micromegas_jupyter.client.frames import to_frame
        from micromegas_jupyter.notebook.preview import preview_html, preview_text
        from micromegas_jupyter.notebook.result import QueryResult

        if parts.name is None:
            line.finish(answer.line)
            return QueryResult(answer.table)

        # Written before the conversion, which gives up the table to save memory.
        preview = {"text/plain": preview_text(answer.table), "text/html": preview_html(answer.table)}
        self._shell.user_ns[parts.name] = to_frame(answer.table)
        line.finish(f"{answer.line} → {parts.name} (DataFrame)")
        display(preview, raw=True)
        return None


def _values(sql: str, variables: Mapping[str, Any]) -> dict[str, object]:
    from micromegas_jupyter.client.parameters import parameter_names

    names = parameter_names(sql)
    missing = [name for name in names if name not in variables]
    if missing:
        listed = ", ".join(f":{name}" for name in missing)
        raise UsageError(
            f"There is no variable for {listed}.",
            remedy=f"Define {missing[0]} in a cell above, or write the value into the statement.",
        )
    return {name: variables[name] for name in names}
