"""What the text of a statement alone tells, the same for every caller: whether it is within limits, and what it names.

Texts that come again are not read again. What a statement means over a caller's tables is the engine's business.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.engine.denial_functions import DENIAL_NAMES, with_denial_as_rows
from micromegas_jupyter.engine.guard import check_statement
from micromegas_jupyter.engine.huge_values import check_huge_values
from micromegas_jupyter.engine.identity import IDENTITY_NAMES, with_identity_syntax
from micromegas_jupyter.engine.left_out import check_nothing_is_left_out
from micromegas_jupyter.engine.one_row import may_be_one_row
from micromegas_jupyter.engine.placeholders import Placeholders, find_placeholders
from micromegas_jupyter.engine.plan_checks import check_types
from micromegas_jupyter.engine.scanner import Kind, Scan
from micromegas_jupyter.engine.tables import Mention, find_mentions

if TYPE_CHECKING:
    from collections.abc import Callable

#: Longer texts are read each time, so that what is kept stays below some 25 MiB whatever it is.
_LONGEST_KEPT: Final = 1024
_MOST_KEPT: Final = 256
_CONSTANT_WORDS: Final = frozenset({"as", "null", "true", "false"})
_CONSTANT_KINDS: Final = frozenset({Kind.NUMBER, Kind.STRING, Kind.COMMA, Kind.SEMICOLON})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A statement's text, read.

    Attributes:
        scanned: Its tokens, as DataFusion's parser takes them.
        placeholders: What it wants bound.
        mentions: What it may refer to.
        needs_nothing: Whether it mentions no function that a caller's session is given.
        is_constant: Whether it is a SELECT of literals, so that its row is always the same.
    """

    scanned: Scan
    placeholders: Placeholders
    mentions: Mention
    needs_nothing: bool
    is_constant: bool

    @property
    def may_stand_alone(self) -> bool:
        """Return whether it is likely to be one row that is made of nothing, so that tables need not be looked for."""
        return self.needs_nothing and "from" not in self.mentions.names and may_be_one_row(self.mentions.names)

    @property
    def names_join(self) -> bool:
        """Return whether it is likely to have a join; others have one, too, such as sub-queries in conditions."""
        return "join" in self.mentions.names


def read_statement(sql: str, *, max_bytes: int, knows_denials: bool) -> Reading:
    """Return what a text tells.

    Args:
        sql: One statement.
        max_bytes: How long it may be.
        knows_denials: Whether its caller has the functions that deny statements.

    Raises:
        InvalidStatement: There is no statement, or its placeholders are wrong.
        StatementRefused: It is larger or deeper than the limits, or there are several.
        UnsupportedStatement: The engine would leave a clause of it out.
    """
    read: Callable[[str, int, bool], Reading] = _read if len(sql) > _LONGEST_KEPT else _kept
    return read(sql, max_bytes, knows_denials)


def _read(sql: str, max_bytes: int, knows_denials: bool) -> Reading:  # noqa: FBT001 - what is kept is kept by position
    scanned = check_statement(sql, max_bytes=max_bytes)
    check_huge_values(scanned)
    check_nothing_is_left_out(scanned)
    check_types(scanned)
    scanned = with_identity_syntax(scanned)
    if knows_denials:
        scanned = with_denial_as_rows(scanned)
    mentions = find_mentions(scanned)
    return Reading(
        scanned=scanned,
        placeholders=find_placeholders(scanned),
        mentions=mentions,
        needs_nothing=mentions.text is None and mentions.names.isdisjoint(IDENTITY_NAMES | DENIAL_NAMES),
        is_constant=_is_constant(scanned),
    )


_kept: Final = functools.lru_cache(maxsize=_MOST_KEPT)(_read)


def _is_constant(scanned: Scan) -> bool:
    """Return whether a statement is SELECT, then literals with or without a name after AS, and nothing else."""
    tokens = scanned.tokens
    if not scanned.is_certain or tokens[0].kind is not Kind.WORD or tokens[0].name != "select":
        return False
    for before, token in itertools.pairwise(tokens):
        is_name = token.kind in {Kind.WORD, Kind.QUOTED} and before.kind is Kind.WORD and before.name == "as"
        is_word = token.kind is Kind.WORD and token.name in _CONSTANT_WORDS
        if not (is_name or is_word or token.kind in _CONSTANT_KINDS):
            return False
    return True
