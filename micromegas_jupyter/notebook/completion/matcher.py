"""Completion in the cells of `%%sql` and the lines of `%sql` and `%micromegas_tables`, as a matcher of IPython's.

What fits where is `completion`'s, what the server offers the session's `schemas`. Other cells are left to the others.
"""

from __future__ import annotations

import re
import uuid
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult

from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.notebook.arguments import flags, option_values, options_with_value
from micromegas_jupyter.notebook.completion.schema import SchemaCache, ServerSchema
from micromegas_jupyter.notebook.completion.sql import Candidate, Candidates, complete_sql
from micromegas_jupyter.notebook.completion.sql_line import OptionName, OptionValue, Place, Statement, find_place
from micromegas_jupyter.notebook.shell import completion_matcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.notebook.login.session import CellConnections

FIRST_ANSWER_SECONDS: Final = 0.25
"""How long the first completion of a notebook waits for a server that is near; the others wait for nothing."""

_PLAIN_WORD: Final = re.compile(r"\w[\w.:-]*")
_BINDABLE: Final = (
    str,
    int,
    float,
    bytes,
    Decimal,
    date,
    timedelta,
    uuid.UUID,
    list,
    tuple,
    set,
    frozenset,
    type(None),
)


class SqlCompleter:
    """Offers what may be written at the cursor; knows nothing in other cells.

    Args:
        shell: Whose completer it joins; its variables are what `:name` may stand for.
        connections: Which server a cell names.
        schemas: What the servers offer.
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

    def join(self) -> None:
        """Take part in the shell's completion."""
        self._shell.Completer.custom_matchers.append(self._matcher)

    def leave(self) -> None:
        """Take no part any more."""
        matchers = self._shell.Completer.custom_matchers
        if self._matcher in matchers:
            matchers.remove(self._matcher)

    def _match(self, context: CompletionContext) -> SimpleMatcherResult:
        lines = context.full_text.split("\n")
        cursor = sum(len(line) + 1 for line in lines[: context.cursor_line]) + context.cursor_position
        found = self._complete(context.full_text, cursor)
        if found is None:
            return {"completions": []}
        return {
            "completions": [SimpleCompletion(text=candidate.text, type=candidate.kind) for candidate in found.found],
            "matched_fragment": found.typed,
            "suppress": True,
            "ordered": True,
        }

    def _complete(self, text: str, cursor: int) -> Candidates | None:
        for magic, in_statement in ((self._sql_magic, self._in_sql), (self._tables_magic, self._in_pattern)):
            place = self._find_place(text, cursor, magic)
            if place is not None:
                return self._candidates(place, magic, in_statement=in_statement)
        return None

    def _find_place(self, text: str, cursor: int, magic: Callable[..., object]) -> Place | None:
        return find_place(
            text,
            cursor,
            cell_magics=self._names("cell", magic),
            line_magics=self._names("line", magic),
            options_with_value=options_with_value(magic),
        )

    def _candidates(
        self, place: Place, magic: Callable[..., object], *, in_statement: Callable[[Statement], Candidates]
    ) -> Candidates:
        match place:
            case Statement():
                return in_statement(place)
            case OptionName():
                return _beginning_with(place.typed, (*options_with_value(magic), *flags(magic)))
            case OptionValue(option="--connection"):
                return _beginning_with(place.typed, self._connections.names(), kind="value")
            case OptionValue():
                return _beginning_with(place.typed, option_values(magic, place.option), kind="value")

    def _in_sql(self, place: Statement) -> Candidates:
        return complete_sql(place.before, place.after, self._schema(place.options), variables=self._variables)

    def _in_pattern(self, place: Statement) -> Candidates:
        tables = (name for name in self._schema(place.options).tables if _PLAIN_WORD.fullmatch(name))
        return _beginning_with(place.before, tables, kind="table")

    def _names(self, kind: str, magic: Callable[..., object]) -> list[str]:
        return [name for name, known in self._shell.magics_manager.magics[kind].items() if known == magic]

    def _schema(self, options: Mapping[str, str]) -> ServerSchema:
        try:
            settings = self._connections.settings(
                connection=options.get("--connection"), profile=options.get("--profile")
            )
        except MicromegasError:
            return ServerSchema()
        return self._schemas.look_up(settings, wait_seconds=FIRST_ANSWER_SECONDS) or ServerSchema()

    def _variables(self) -> Iterator[str]:
        for name, value in self._shell.user_ns.items():
            is_own = not name.startswith("_") and name not in self._shell.user_ns_hidden and name.isascii()
            if is_own and (isinstance(value, _BINDABLE) or type(value).__module__ == "numpy"):
                yield name


def _beginning_with(typed: str, texts: Iterable[str], *, kind: str = "option") -> Candidates:
    found = tuple(Candidate(text=text, kind=kind) for text in texts if text.startswith(typed))
    return Candidates(typed=typed, found=found)
