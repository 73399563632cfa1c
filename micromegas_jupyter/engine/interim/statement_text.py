"""Cuts SQL text into code, strings, quoted names and comments, the way the engine's own parser does.

Judging what the code says is left to `guard`, replacing placeholders to `placeholders`.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PART = re.compile(
    r"""
    (?P<comment>--[^\n]*)
  | (?P<block>/\*)
  | (?P<string>'(?:[^']|'')*')
  | (?P<name>"(?:[^"]|"")*")
  | (?P<doubt>'|"|`|[eE]'|[$][A-Za-z_]*[$])
    """,
    re.VERBOSE,
)
_BLOCK_END = re.compile(r"/\*|\*/")
_ESCAPED_STRING = re.compile(r"[eE]'(?:[^'\\]|'')*'")


class Kind(enum.Enum):
    """What a piece of a statement is."""

    CODE = "code"
    STRING = "string"
    NAME = "name"
    COMMENT = "comment"


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of a statement; `start` is its offset."""

    kind: Kind
    text: str
    start: int


def cut_statement(sql: str) -> Iterator[Piece]:
    """Yield the pieces of a statement in order; together they are the statement.

    Where two readers of SQL could disagree on what is quoted (escapes, dollar quotes, back quotes, comments within
    comments, a quote that does not end), everything from there on is code, so that nothing can hide in a quote.
    """
    position = code_from = 0
    while found := _PART.search(sql, position):
        end = _end_of(sql, found)
        if end is None:
            break
        if found.start() > code_from:
            yield Piece(Kind.CODE, sql[code_from : found.start()], code_from)
        yield Piece(_kind_of(found), sql[found.start() : end], found.start())
        position = code_from = end
    if code_from < len(sql):
        yield Piece(Kind.CODE, sql[code_from:], code_from)


def _kind_of(found: re.Match[str]) -> Kind:
    if found["comment"] is not None or found["block"] is not None:
        return Kind.COMMENT
    return Kind.NAME if found["name"] is not None else Kind.STRING


def _end_of(sql: str, found: re.Match[str]) -> int | None:
    """Return where the piece ends; None when readers could disagree."""
    if found["block"] is not None:
        mark = _BLOCK_END.search(sql, found.end())
        return mark.end() if mark is not None and mark[0] == "*/" else None
    if found["doubt"] is not None:
        # A string with escapes is plain when it holds none.
        plain = _ESCAPED_STRING.match(sql, found.start())
        return plain.end() if plain is not None else None
    if found["string"] is not None and found.start() > 0 and sql[found.start() - 1] in "eE" and "\\" in found["string"]:
        return None
    return found.end()
