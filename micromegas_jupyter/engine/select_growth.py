"""Bounds, from the text alone, how much the SELECTs of a statement multiply what they name.

DataFusion-Python does not show the plan of a subquery that stands in an expression, so `plan_work` cannot look into it.
The bound is coarse: what the columns of a SELECT are made of grows at most by the most frequent name in its list, and
any SELECT may stand on any other.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.engine.scanner import Kind, Token

if TYPE_CHECKING:
    from micromegas_jupyter.engine.scanner import Scan

_MOST: Final = 1 << 40
_NAMED: Final = (Kind.WORD, Kind.QUOTED)
_END: Final = Token(Kind.OTHER, "", -1)
#: Words that are no column; a quoted name always counts as one.
_NO_COLUMN: Final = frozenset(
    {
        "select", "distinct", "as", "case", "when", "then", "else", "end", "and", "or", "not", "is", "null", "in",
        "like", "ilike", "between", "true", "false", "over", "partition", "by", "order", "asc", "desc", "from",
        "interval", "filter", "where", "rows", "range", "preceding", "following", "current", "row", "unbounded",
    }
)  # fmt: skip
#: What the optimiser may write in simpler terms that name an operand several times.
_REPEATING: Final = frozenset({"case", "between", "in", "coalesce", "nvl", "ifnull", "nvl2", "array_has"})
_REPEATS: Final = 3
#: Functions whose result's type holds the types of several arguments.
_MAKES_TYPES: Final = frozenset({"struct", "named_struct", "row", "map", "arrays_zip", "list_zip"})


def select_growth(scanned: Scan) -> int:
    """Return how large, at most, a statement's SELECTs make what one of its expressions stands for.

    A statement whose quotes are not certain may grow without a bound.
    """
    if not scanned.is_certain:
        return _MOST
    growth = 1
    depth = 0
    lists: list[tuple[int, _Names]] = []
    elsewhere = _Names()
    for token, following in zip(scanned.tokens, (*scanned.tokens[1:], None), strict=True):
        word = token.text.lower() if token.kind is Kind.WORD else ""
        if token.kind is Kind.OPEN:
            depth += 1
        elif token.kind is Kind.CLOSE:
            depth -= 1
        if word == "select":
            lists.append((depth, _Names()))
        elif lists and (depth < lists[-1][0] or (word == "from" and depth == lists[-1][0])):
            growth = min(_MOST, growth * lists.pop()[1].factor)
        for names in [names for _, names in lists] or [elsewhere]:
            names.read(token, following)
    for names in [elsewhere, *(names for _, names in lists)]:
        growth = min(_MOST, growth * names.factor)
    return growth


def makes_types(scanned: Scan) -> bool:
    """Return whether a statement makes types of other types, which then grow as expressions do."""
    return any(
        token.text == "{"
        or (following.kind is Kind.OPEN and token.kind in _NAMED and token.name.lower() in _MAKES_TYPES)
        for token, following in itertools.pairwise((*scanned.tokens, _END))
    )


class _Names:
    """Counts the names in one list of columns, or in all that is no such list."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._repeats = 1
        self._stars = 0
        self._follows_as = False

    def read(self, token: Token, following: Token | None) -> None:
        """Count one token."""
        word = token.text.lower() if token.kind is Kind.WORD else ""
        if word in _REPEATING:
            self._repeats = _REPEATS
        self._stars = self._stars or int(token.text == "*")
        is_name = token.kind is Kind.QUOTED or (token.kind is Kind.WORD and word not in _NO_COLUMN)
        is_other = following is not None and (following.text == "." or following.kind is Kind.OPEN)
        if is_name and not is_other and not self._follows_as:
            self._counts[token.name] += 1
        self._follows_as = word == "as"

    @property
    def factor(self) -> int:
        """Return how often one name stands here at most; more where the optimiser may repeat it."""
        return self._repeats * (max(self._counts.values(), default=1) + self._stars)
