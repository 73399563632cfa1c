"""What may be written at a cursor in SQL: the candidates, in the order in which they are offered.

Where the cursor is stands in `sql_cell`; what the server offers, in `server_schema`. Nothing here waits or asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.notebook.sql_relations import Relation, find_relations
from micromegas_jupyter.notebook.sql_tokens import Kind, Token, scan
from micromegas_jupyter.notebook.sql_words import AFTER_TABLE, FIRST_WORDS, KEYWORDS, RESERVED, TYPES, name_in_sql
from micromegas_jupyter.notebook.words import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from micromegas_jupyter.notebook.server_schema import ServerSchema

MAX_CANDIDATES: Final = 1000
MAX_CHARACTERS: Final = 50_000
"""How long a statement may be that is looked at while somebody types."""

_INSIDE: Final = frozenset({Kind.OPEN_STRING, Kind.OPEN_COMMENT, Kind.NUMBER})
_BEFORE_TABLE: Final = ("from", "join", "describe", "table")
_CLAUSES: Final = (RESERVED - {"as"}) | {"table"}
_CALLS_WITH_FROM: Final = ("extract", "substring", "trim", "overlay", "position")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What may be written.

    Attributes:
        text: The text.
        kind: What it is: `column`, `alias`, `table`, `function`, `keyword`, `type` or `variable`.
    """

    text: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """What may stand in place of `typed`, the beginning that is there."""

    typed: str
    found: tuple[Candidate, ...] = ()


def complete_sql(
    before: str, after: str, schema: ServerSchema, *, variables: Callable[[], Iterable[str]]
) -> Candidates:
    """Return what may be written between `before` and `after`.

    Args:
        before: The statement up to the cursor.
        after: The rest of it.
        schema: What the server offers, as far as that is known.
        variables: Gives the names that `:name` may stand for.
    """
    if len(before) + len(after) > MAX_CHARACTERS:
        return Candidates(typed="")
    tokens = scan(before)
    last = tokens[-1] if tokens and before.endswith(tokens[-1].text) else None
    if last is not None and last.kind in _INSIDE:
        return Candidates(typed="")
    if last is not None and last.kind is Kind.PLACEHOLDER:
        return _fitting(last.text[1:], (Candidate(text=name, kind="variable") for name in variables()))
    typed = ""
    if last is not None and last.kind in {Kind.WORD, Kind.OPEN_QUOTED}:
        typed = last.text
        tokens.pop()
    # An editor may have written the closing quote already.
    is_closed = typed.startswith('"') and after.startswith('"')
    rest = after[1:] if is_closed else after
    offered = _Statement(tokens, scan(rest), schema).candidates(typed)
    if is_closed:
        offered = (Candidate(text=each.text[:-1], kind=each.kind) for each in offered if each.text.startswith('"'))
    return _fitting(typed, offered)


def _fitting(typed: str, offered: Iterable[Candidate]) -> Candidates:
    beginning = typed.lower()
    found: dict[str, Candidate] = {}
    for candidate in offered:
        text = candidate.text.lower()
        if text.startswith((beginning, '"' + beginning)):
            found.setdefault(candidate.text, candidate)
            if len(found) == MAX_CANDIDATES:
                break
    return Candidates(typed=typed, found=tuple(found.values()))


class _Statement:
    """A statement with a cursor in it, and what its names stand for."""

    def __init__(self, before: list[Token], after: list[Token], schema: ServerSchema) -> None:
        self._before = before
        self._schema = schema
        self._relations = find_relations([*before, *after], schema.columns_of)
        self._tables_by_name: dict[str, list[Relation]] = {}
        for relation in dict.fromkeys(self._relations.tables):
            self._tables_by_name.setdefault(relation.alias or relation.name, []).append(relation)

    def candidates(self, typed: str) -> Iterator[Candidate]:
        if not self._before:
            return _keywords(FIRST_WORDS, typed)
        last = self._before[-1]
        if last.text == ".":
            return self._columns_of(self._before[-2].name if len(self._before) > 1 else "")
        if last.kind is Kind.CAST or (last.is_word(("as",)) and self._is_in_cast()):
            return _keywords(TYPES, typed, kind="type")
        if last.is_word(("as",)):
            return iter(())  # a new name
        return self._in_clause(last, typed)

    def _in_clause(self, last: Token, typed: str) -> Iterator[Candidate]:
        if self._is_table_expected(last):
            return self._tables()
        if self._is_table_done():
            return _keywords(AFTER_TABLE, typed)
        return self._expression(typed)

    def _expression(self, typed: str) -> Iterator[Candidate]:
        for qualifier in self._tables_by_name:
            yield from self._columns_of(qualifier)
        yield from _names((relation.alias for relation in self._relations.tables), "alias")
        if not self._tables_by_name and typed:
            for name in self._schema.tables:
                yield from _names(self._schema.columns_of(name), "column")
        yield from (Candidate(text=name, kind="function") for name in self._schema.functions if name.isidentifier())
        yield from _keywords(KEYWORDS, typed)
        yield from self._tables()

    def _tables(self) -> Iterator[Candidate]:
        yield from _names(self._relations.expressions, "table")
        yield from _names(self._schema.tables, "table")

    def _columns_of(self, qualifier: str) -> Iterator[Candidate]:
        for relation in self._tables_by_name.get(qualifier, ()):
            yield from _names(relation.outputs, "column")
            yield from _names(self._relations.expressions.get(relation.name, ()), "column")
            if relation.name not in self._relations.expressions:
                yield from _names(self._schema.columns_of(relation.name), "column")

    def _is_table_expected(self, last: Token) -> bool:
        return (last.is_word(_BEFORE_TABLE) or last.text == ",") and self._is_in_table_list()

    def _is_table_done(self) -> bool:
        """Whether a table's name, or its alias, has just been written."""
        last = self._before[-1]
        return (bool(last.name) or last.text == ")") and self._is_in_table_list()

    def _is_in_table_list(self) -> bool:
        return self._clause() in _BEFORE_TABLE and not self._is_in_call(*_CALLS_WITH_FROM)

    def _is_in_cast(self) -> bool:
        return self._is_in_call("cast", "try_cast")

    def _is_in_call(self, *functions: str) -> bool:
        _, opening = self._level()
        return opening > 0 and self._before[opening - 1].is_word(functions)

    def _clause(self) -> str:
        """Return the nearest word to the left that begins a clause, within the cursor's brackets; else nothing."""
        same_level, _ = self._level()
        return next((token.name for token in same_level if token.is_word(_CLAUSES)), "")

    def _level(self) -> tuple[list[Token], int]:
        """Return the tokens in the cursor's brackets, the nearest first, and where their bracket opens, else -1."""
        found: list[Token] = []
        depth = 0
        for index in reversed(range(len(self._before))):
            token = self._before[index]
            if token.text == ")":
                depth += 1
            elif token.text == "(" and depth == 0:
                return found, index
            elif token.text == "(":
                depth -= 1
            elif depth == 0:
                found.append(token)
        return found, -1


def _names(names: Iterable[str], kind: str) -> Iterator[Candidate]:
    # A name that would steer a terminal or a line's direction is nothing to write.
    return (Candidate(text=name_in_sql(name), kind=kind) for name in names if name and printable(name) == name)


def _keywords(words: Sequence[str], typed: str, *, kind: str = "keyword") -> Iterator[Candidate]:
    return (Candidate(text=word.lower() if typed.islower() else word, kind=kind) for word in words)
