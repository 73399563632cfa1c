"""Completion in cells of `%%sql` and on lines of `%sql` and `%micromegas_tables`, as an IPython matcher."""

from __future__ import annotations

import re
import uuid
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult

from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.notebook.completion.schema import SchemaCache, ServerSchema
from micromegas_jupyter.notebook.completion.sql import Candidate, Candidates, complete_sql
from micromegas_jupyter.notebook.completion.sql_line import (
    OptionName,
    OptionValue,
    Statement,
    find_position,
)
from micromegas_jupyter.notebook.shell import completion_matcher, flags, option_values, options_with_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.notebook.completion.sql_line import CursorPosition
    from micromegas_jupyter.notebook.login.session import CellConnections

FIRST_ANSWER_SECONDS: Final = 0.25
"""How long the first completion of a notebook waits for a nearby server; the others do not wait."""

_PLAIN_WORD: Final = re.compile(r"\w[\w.:-]*")
_BINDABLE: Final = (
    *(str, int, float, bytes, Decimal, date, timedelta, uuid.UUID),
    *(list, tuple, set, frozenset, type(None)),
)


class SqlCompleter:
    """Completes SQL, options and table names; offers nothing in other cells.

    Args:
        shell: Its completer is extended; its variables are candidates for `:name`.
        connections: The servers that cells name.
        schemas: The servers' tables and functions.
        sql_magic: The magic whose cells and lines hold SQL, under each name that it is registered with.
        tables_magic: The magic whose lines hold the name of a table.
    """

    def __init__(
        self,
        shell: InteractiveShell,
        connections: CellConnections,
        schemas: SchemaCache,
        *,
        sql_magic: Callable[..., object],
        tables_magic: Callable[..., object],
    ) -> None:
        self._shell = shell
        self._connections = connections
        self._schemas = schemas
        self._sql_magic = sql_magic
        self._tables_magic = tables_magic

        # The decorator sets attributes, which a bound method does not take.
        @completion_matcher(identifier="micromegas.sql", priority=200, api_version=2)
        def matcher(context: CompletionContext) -> SimpleMatcherResult:
            return self._match(context)

        self._matcher = matcher

    def register(self) -> None:
        """Extend the shell's completion."""
        self._shell.Completer.custom_matchers.append(self._matcher)

    def unregister(self) -> None:
        """Undo `register`."""
        matchers = self._shell.Completer.custom_matchers
        if self._matcher in matchers:
            matchers.remove(self._matcher)

    def _match(self, context: CompletionContext) -> SimpleMatcherResult:
        lines = context.full_text.split("\n")
        cursor = sum(len(line) + 1 for line in lines[: context.cursor_line]) + context.cursor_position
        for magic, complete in ((self._sql_magic, self._complete_sql), (self._tables_magic, self._complete_pattern)):
            position = find_position(
                context.full_text,
                cursor,
                cell_magics=self._names("cell", magic),
                line_magics=self._names("line", magic),
                options_with_value=options_with_value(magic),
            )
            if position is not None:
                candidates = self._candidates(position, magic, complete)
                return {
                    "completions": [SimpleCompletion(text=found.text, type=found.kind) for found in candidates.found],
                    "matched_fragment": candidates.typed,
                    "suppress": True,
                    "ordered": True,
                }
        return {"completions": []}

    def _candidates(
        self, position: CursorPosition, magic: Callable[..., object], complete: Callable[[Statement], Candidates]
    ) -> Candidates:
        match position:
            case Statement():
                return complete(position)
            case OptionName():
                return _beginning_with(position.typed, (*options_with_value(magic), *flags(magic)), kind="option")
            case OptionValue(option="--connection"):
                return _beginning_with(position.typed, self._connections.names(), kind="value")
            case OptionValue():
                return _beginning_with(position.typed, option_values(magic, position.option), kind="value")

    def _complete_sql(self, statement: Statement) -> Candidates:
        schema = self._schema(statement.options)
        return complete_sql(statement.before, statement.after, schema, variables=self._variables)

    def _complete_pattern(self, statement: Statement) -> Candidates:
        tables = (name for name in self._schema(statement.options).tables if _PLAIN_WORD.fullmatch(name))
        return _beginning_with(statement.before, tables, kind="table")

    def _names(self, kind: str, magic: Callable[..., object]) -> list[str]:
        return [name for name, known in self._shell.magics_manager.magics[kind].items() if known == magic]

    def _schema(self, options: Mapping[str, str]) -> ServerSchema:
        connection, profile = options.get("--connection"), options.get("--profile")
        try:
            settings = self._connections.settings(connection=connection, profile=profile)
        except MicromegasError:
            return ServerSchema()
        return self._schemas.look_up(settings, wait_seconds=FIRST_ANSWER_SECONDS) or ServerSchema()

    def _variables(self) -> Iterator[str]:
        for name, value in self._shell.user_ns.items():
            is_own = not name.startswith("_") and name not in self._shell.user_ns_hidden and name.isascii()
            if is_own and (isinstance(value, _BINDABLE) or type(value).__module__ == "numpy"):
                yield name


def _beginning_with(typed: str, texts: Iterable[str], *, kind: str) -> Candidates:
    found = tuple(Candidate(text, kind) for text in texts if text.startswith(typed))
    return Candidates(typed, found)
