"""Finds the tables, aliases and common table expressions in a statement that is still being written.

Which columns a table has is the server's knowledge; names in several scopes all count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.notebook.sql_words import AFTER_TABLE, RESERVED

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from micromegas_jupyter.notebook.sql_tokens import Token

_NO_ALIAS: Final = RESERVED | {word.lower() for word in AFTER_TABLE}
_BEFORE_TABLE: Final = ("from", "join")
_BEFORE_EXPRESSION: Final = ("with", "recursive")
_MAX_DEPTH: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A table in a statement.

    Attributes:
        name: Its name as it is, without quotes; empty for a sub-query.
        alias: What the statement calls it; empty when it has no other name.
        outputs: The columns of a sub-query, as far as they can be told.
    """

    name: str
    alias: str = ""
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Relations:
    """All tables in a statement, and its common table expressions with their columns as far as they can be told."""

    tables: tuple[Relation, ...]
    expressions: Mapping[str, tuple[str, ...]]


def find_relations(tokens: Sequence[Token], columns_of: Callable[[str], Sequence[str]]) -> Relations:
    """Return the tables of a statement.

    Args:
        tokens: The statement.
        columns_of: Gives the columns of a table of the server, for what `*` stands for.
    """
    return _Finder(tokens, columns_of).find()


class _Finder:
    """Looks at one statement; what it is given are indices of its tokens, `stop` the first that does not count."""

    def __init__(self, tokens: Sequence[Token], columns_of: Callable[[str], Sequence[str]]) -> None:
        self._tokens = tokens
        self._columns_of = columns_of
        self._closing = _closing_brackets(tokens)
        self._expressions: dict[str, tuple[str, ...]] = {}

    def find(self) -> Relations:
        for index, token in enumerate(self._tokens[:-1]):
            if token.text == "," or token.is_word(_BEFORE_EXPRESSION):
                self._note_expression(index + 1)
        tables: list[Relation] = []
        for index, token in enumerate(self._tokens):
            if token.is_word(_BEFORE_TABLE):
                tables += self._list_at(index + 1, len(self._tokens), depth=0)
        return Relations(tables=tuple(tables), expressions=self._expressions)

    def _note_expression(self, index: int) -> None:
        """Note `NAME [(…)] AS (…)`."""
        name = self._tokens[index].name
        names: tuple[str, ...] = ()
        index += 1
        if name and self._text(index) == "(":
            names = tuple(found.name for found in self._tokens[index + 1 : self._closing[index]] if found.name)
            index = self._closing[index] + 1
        if name and self._is_word(index, ("as",)) and self._text(index + 1) == "(":
            stop = self._closing[index + 1]
            self._expressions[name] = names or self._outputs(index + 2, stop, depth=1)

    def _list_at(self, index: int, stop: int, *, depth: int) -> list[Relation]:
        """Return the tables between commas that a FROM or JOIN is followed by."""
        found: list[Relation] = []
        while index < stop:
            outputs: tuple[str, ...] = ()
            name = ""
            if self._text(index) == "(":
                outputs = self._outputs(index + 1, self._closing[index], depth=depth + 1)
                index = self._closing[index] + 1
            elif self._tokens[index].name and not self._is_word(index, RESERVED):
                name, index = self._name_at(index)
            else:
                break
            index += self._is_word(index, ("as",))
            alias = ""
            if index < stop and not self._is_word(index, _NO_ALIAS):
                alias = self._tokens[index].name
                index += bool(alias)
            found.append(Relation(name=name, alias=alias, outputs=outputs))
            if self._text(index) != ",":
                break
            index += 1
        return found

    def _name_at(self, index: int) -> tuple[str, int]:
        """Return the last part of a dotted name, and what comes after it and the arguments of a table function."""
        while self._text(index + 1) == "." and index + 2 < len(self._tokens) and self._tokens[index + 2].name:
            index += 2
        after = index + 1
        return self._tokens[index].name, self._closing[after] + 1 if self._text(after) == "(" else after

    def _outputs(self, start: int, stop: int, *, depth: int) -> tuple[str, ...]:
        """Return the columns that a SELECT gives, as far as they have names."""
        if depth > _MAX_DEPTH or start >= stop or not self._is_word(start, ("select",)):
            return ()
        items, end = self._select_items(start + 1, stop)
        names: list[str] = []
        for item in items:
            if item[-1].text == "*" and (len(item) == 1 or item[-2].text == "."):
                for relation in self._list_at(end + 1, stop, depth=depth):
                    names += relation.outputs or self._columns(relation.name)
            elif item[-1].name:
                names.append(item[-1].name)
        return tuple(dict.fromkeys(names))

    def _select_items(self, start: int, stop: int) -> tuple[list[list[Token]], int]:
        """Return what a SELECT selects, and where its FROM stands, else `stop`."""
        items: list[list[Token]] = [[]]
        index = start
        while index < stop and not self._is_word(index, ("from",)):
            token = self._tokens[index]
            if token.text == ",":
                items.append([])
            elif not token.is_word(("distinct",)):
                items[-1].append(token)
            # What stands in brackets has no part in it.
            index = self._closing[index] if token.text == "(" else index + 1
        return [item for item in items if item], index

    def _columns(self, name: str) -> Sequence[str]:
        return self._expressions[name] if name in self._expressions else self._columns_of(name)

    def _text(self, index: int) -> str:
        return self._tokens[index].text if index < len(self._tokens) else ""

    def _is_word(self, index: int, words: Collection[str]) -> bool:
        return index < len(self._tokens) and self._tokens[index].is_word(words)


def _closing_brackets(tokens: Sequence[Token]) -> dict[int, int]:
    """Return for each opening bracket where it closes, else the number of tokens."""
    closing: dict[int, int] = {}
    opened: list[int] = []
    for index, token in enumerate(tokens):
        if token.text == "(":
            opened.append(index)
            closing[index] = len(tokens)
        elif token.text == ")" and opened:
            closing[opened.pop()] = index
    return closing
