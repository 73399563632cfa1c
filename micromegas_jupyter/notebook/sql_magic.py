"""`%sql` and `%%sql`: one statement and its options; running it is `sql_runner`'s job.

What stands on the line is `sql_line`'s, who is signed in the session's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, magics_class

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.arguments import check_exclusive, flags, help_text, options_with_value, parse_options
from micromegas_jupyter.notebook.error_lines import errors_as_lines
from micromegas_jupyter.notebook.ipython_names import (
    argument,
    line_cell_magic,
    needs_local_scope,
    no_var_expand,
    with_arguments,
)
from micromegas_jupyter.notebook.row_formats import RowFormat
from micromegas_jupyter.notebook.sql_line import check_no_template, split_sql_line
from micromegas_jupyter.notebook.sql_request import SqlRequest

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.notebook.sql_runner import SqlRunner

SQL_MAGIC_NAME = "micromegas_sql"

_FORMATS = tuple(found.value for found in RowFormat)


@magics_class
class SqlMagic(Magics):
    """The magic that runs a statement.

    Args:
        shell: Where it runs; its variables give the values of `:name`.
        runner: Runs it.
    """

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
