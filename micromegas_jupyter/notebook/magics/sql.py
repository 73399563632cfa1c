"""`%sql` and `%%sql`: one statement and its options; running it is `sql_runner`'s job.

What stands on the line is `sql_line`'s, who is signed in the session's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, magics_class

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.arguments import (
    answers_help,
    check_exclusive,
    flags,
    help_text,
    options_with_value,
    parse_options,
    parse_words,
)
from micromegas_jupyter.notebook.completion.sql_line import check_no_template, split_sql_line
from micromegas_jupyter.notebook.formatting import (
    TextTable,
    count_text,
    cut,
    errors_as_lines,
    moment_text,
    printable,
    seconds_text,
    short_query_id,
)
from micromegas_jupyter.notebook.magics.queries import PastQuery, QueryHistory, SqlRequest
from micromegas_jupyter.notebook.magics.sql_runner import SqlRunner, StatementText
from micromegas_jupyter.notebook.results.rows import RowFormat
from micromegas_jupyter.notebook.shell import (
    argument,
    line_cell_magic,
    line_magic,
    needs_local_scope,
    no_var_expand,
    with_arguments,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from datetime import datetime

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.notebook.login.session import NotebookSession

_MAX_LISTED = 20
_MAX_SQL_CHARACTERS = 80

SQL_MAGIC_NAME = "micromegas_sql"

_FORMATS = tuple(found.value for found in RowFormat)


@magics_class
class SqlMagic(Magics):
    """The magic that runs a statement."""

    def __init__(self, shell: InteractiveShell, runner: SqlRunner) -> None:
        super().__init__(shell)
        self._shell = shell
        self._runner = runner

    @no_var_expand
    @needs_local_scope
    @with_arguments()
    @argument("--begin", metavar="T", help="start of the time range: 15m, 1h, 7d ago, or RFC 3339")
    @argument("--end", metavar="T", help="end of the time range; now when only --begin is given")
    @argument("--limit", metavar="N", type=int, help="at most so many rows")
    @argument("--profile", metavar="NAME", help="a profile of config.json, for this statement")
    @argument("--connection", metavar="NAME", help="a connection that %%micromegas_connect named, for this statement")
    @argument(
        "--format", choices=_FORMATS, help="what the rows become; those of a reader come as you iterate, at any size"
    )
    @argument("--explain", action="store_true", help="show how the server would run it; nothing is run")
    @argument("--dry-run", action="store_true", help="show which columns it would give; nothing is run")
    @argument("--plot", action="store_true", help="draw numbers over time, above the rows")
    @argument("--dtype", choices=("pyarrow",), help="columns of pandas.ArrowDtype: less time and memory")
    @argument("--traceback", action="store_true", help="show the Python traceback of an error")
    @line_cell_magic(SQL_MAGIC_NAME)
    def micromegas_sql(
        self, line: str, cell: str | None = None, local_ns: Mapping[str, Any] | None = None
    ) -> object | None:
        """Run a SQL statement.

        `NAME <<` before the options puts the rows into the variable NAME, as a pandas DataFrame unless --format says
        otherwise. `:name` in the statement stands for the value of the notebook's variable of that name.
        """
        with errors_as_lines(traceback="--traceback" in line.split()):
            magic = self.micromegas_sql
            parts = split_sql_line(line, cell, options_with_value=options_with_value(magic), flags=flags(magic))
            if parts.wants_help:
                print(help_text(magic))  # noqa: T201 - the magic's output
                return None
            arguments = parse_options(magic, parts.arguments)
            _check(arguments)
            run = self._runner.run
            if arguments.explain or arguments.dry_run:
                run = self._runner.explain if arguments.explain else self._runner.describe
            with errors_as_lines(sql=parts.sql, traceback=arguments.traceback):
                check_no_template(parts.sql)
                request = SqlRequest(
                    sql=parts.sql,
                    params=_values(parts.sql, {**self._shell.user_ns, **(local_ns or {})}),
                    name=parts.name,
                    begin=arguments.begin,
                    end=arguments.end,
                    limit=arguments.limit,
                    profile=arguments.profile,
                    connection=arguments.connection,
                    row_format=None if arguments.format is None else RowFormat(arguments.format),
                    plot=arguments.plot,
                    dtype=arguments.dtype,
                )
                return run(request)


def _check(arguments: argparse.Namespace) -> None:
    if arguments.limit is not None and arguments.limit < 0:
        raise UsageError("--limit is a number of rows.", remedy="Give a number from 0 upwards.")
    exclusive = [("connection", "profile"), ("explain", "dry_run")]
    exclusive += [(one, other) for one in ("explain", "dry_run") for other in ("format", "plot", "dtype")]
    for one, other in exclusive:
        check_exclusive(arguments, one, other)


def _values(sql: str, variables: Mapping[str, Any]) -> dict[str, object]:
    from micromegas_jupyter.client.parameters import frozen_values, parameter_names

    names = parameter_names(sql)
    missing = [name for name in names if name not in variables]
    if missing:
        listed = ", ".join(f":{name}" for name in missing)
        raise UsageError(
            f"There is no variable for {listed}.",
            remedy=f"Define {missing[0]} in a cell above, or write the value into the statement.",
        )
    return frozen_values(sql, variables)


@magics_class
class QueriesMagic(Magics):
    """The magic about what was asked before."""

    def __init__(
        self, shell: InteractiveShell, session: NotebookSession, history: QueryHistory, runner: SqlRunner
    ) -> None:
        super().__init__(shell)
        self._session = session
        self._history = history
        self._runner = runner

    @answers_help
    @no_var_expand
    @with_arguments()
    @argument("--rerun", metavar="N", type=int, help="run query N again, with its options and the values of then")
    @argument("--sql", metavar="N", type=int, help="show query N whole, as a cell that can be copied")
    @argument("--all", action="store_true", help=f"list all that are kept, not only the newest {_MAX_LISTED}")
    @argument("--traceback", action="store_true", help="show the Python traceback of an error")
    @line_magic
    def micromegas_queries(self, line: str) -> object | None:
        """List the queries of this notebook: when, how they ended, rows, time, id and SQL.

        They are kept in memory, until the kernel ends.
        """
        with errors_as_lines(traceback="--traceback" in line.split()):
            arguments = parse_words(self.micromegas_queries, line)
            if arguments.rerun is not None and arguments.sql is not None:
                raise UsageError("--rerun and --sql are two wishes.", remedy="Give one of them.")
            if arguments.sql is not None:
                return StatementText(self._history.get(arguments.sql).request.cell_text())
            if arguments.rerun is not None:
                request = self._history.get(arguments.rerun).request
                with errors_as_lines(sql=request.sql, traceback=arguments.traceback):
                    return self._runner.run(request)
            kept = self._history.all()
            return _listed(kept if arguments.all else kept[-_MAX_LISTED:], kept, now=self._session.parts.clock.now())


def _listed(shown: list[PastQuery], kept: list[PastQuery], *, now: datetime) -> TextTable:
    note = "" if len(shown) == len(kept) else f"newest {len(shown)} of {len(kept)}; --all lists them all"
    return TextTable(
        head=("number", "started", "status", "rows", "time", "query", "SQL"),
        rows=[_row(query, now=now) for query in shown],
        note=note if kept else "No query has run in this notebook yet.",
        right=frozenset({"number", "rows", "time"}),
    )


def _row(query: PastQuery, *, now: datetime) -> tuple[str, ...]:
    return (
        str(query.number),
        moment_text(query.started_at, now=now),
        "running" if query.ending is None else str(query.ending),
        count_text(query.rows),
        "" if query.seconds is None else seconds_text(query.seconds),
        "" if query.query_id is None else short_query_id(query.query_id),
        cut(printable(" ".join(query.request.sql.split())), _MAX_SQL_CHARACTERS),
    )
