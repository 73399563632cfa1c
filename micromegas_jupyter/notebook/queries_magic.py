"""`%micromegas_queries`: lists the queries of this notebook, shows one whole, runs one again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from IPython.core.magic import Magics, magics_class

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.arguments import answers_help, parse_words
from micromegas_jupyter.notebook.error_lines import errors_as_lines
from micromegas_jupyter.notebook.ipython_names import argument, line_magic, no_var_expand, with_arguments
from micromegas_jupyter.notebook.statement_views import StatementText
from micromegas_jupyter.notebook.text_table import TextTable
from micromegas_jupyter.notebook.words import count_text, cut, moment_text, printable, seconds_text, short_query_id

if TYPE_CHECKING:
    from datetime import datetime

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.notebook.query_history import PastQuery, QueryHistory
    from micromegas_jupyter.notebook.session import NotebookSession
    from micromegas_jupyter.notebook.sql_runner import SqlRunner

_MAX_LISTED = 20
_MAX_SQL_CHARACTERS = 80


@magics_class
class QueriesMagic(Magics):
    """The magic about what was asked before.

    Args:
        shell: Where it runs.
        session: Tells the time.
        history: The queries.
        runner: Runs one again.
    """

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
