"""Refuses clauses that DataFusion's parser takes and its planner leaves out: they would give other rows than asked for.

They are known by their words, where they can be nothing else: a column or an alias may have such a name. All other
clauses that the engine does not know, it refuses itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from micromegas_jupyter.engine.scanner import Kind, Scan, Token, place_of
from micromegas_jupyter.errors import UnsupportedStatement

if TYPE_CHECKING:
    from collections.abc import Callable

#: Words before a name: behind them the name stands for itself.
_BEFORE_A_NAME: Final = frozenset(
    {
        "all",
        "and",
        "as",
        "by",
        "case",
        "distinct",
        "else",
        "from",
        "having",
        "in",
        "join",
        "not",
        "on",
        "or",
        "recursive",
    }
    | {"select", "then", "when", "where", "with", "between", "like", "ilike", "is", "limit", "offset", "using"}
)
#: Words behind a name.
_BEHIND_A_NAME: Final = frozenset(
    {
        "and",
        "as",
        "asc",
        "between",
        "cross",
        "desc",
        "else",
        "end",
        "except",
        "from",
        "full",
        "group",
        "having",
        "ilike",
    }
    | {"in", "inner", "intersect", "is", "join", "left", "like", "limit", "natural", "nulls", "offset", "on", "or"}
    | {"order", "right", "then", "union", "using", "when", "where", "window", "tablesample", "qualify", "over"}
)
_SAMPLINGS: Final = frozenset({"bernoulli", "system", "row", "block"})
_TOTALS: Final = frozenset({"rollup", "cube", "totals"})


def check_nothing_is_left_out(scanned: Scan) -> None:
    """Check that no clause of a statement would be left out.

    Raises:
        UnsupportedStatement: One would; it has the place.
    """
    tokens = scanned.tokens
    for place, token in enumerate(tokens):
        finder = _FINDERS.get(token.text.lower()) if token.kind in {Kind.WORD, Kind.OPERATOR} else None
        if finder is None or token.start >= scanned.certain_until:
            continue
        found = finder(tokens[max(0, place - 1)] if place else None, [*tokens[place + 1 : place + 3], None, None])
        if found is not None:
            line, column = place_of(scanned.sql, token.start)
            clause, remedy = found
            raise UnsupportedStatement(
                f"The engine does not implement {clause}.", remedy=remedy, line=line, column=column
            )


def _word(token: Token | None) -> str:
    return token.text.lower() if token is not None and token.kind is Kind.WORD else ""


def _is_named(token: Token | None) -> bool:
    """Return whether a table's name or alias, or the end of a sub-query, can stand there."""
    if token is None:
        return False
    return token.kind in {Kind.QUOTED, Kind.CLOSE} or (bool(_word(token)) and _word(token) not in _BEFORE_A_NAME)


def _sampling(before: Token | None, behind: list[Token | None]) -> tuple[str, str] | None:
    first = behind[0]
    is_one = first is not None and (first.kind is Kind.OPEN or _word(first) in _SAMPLINGS)
    return (
        ("TABLESAMPLE", "Write WHERE random() < 0.1 for a tenth of the rows.") if is_one and _is_named(before) else None
    )


def _prewhere(before: Token | None, behind: list[Token | None]) -> tuple[str, str] | None:
    first = behind[0]
    is_name = first is None or first.kind not in {
        Kind.WORD,
        Kind.QUOTED,
        Kind.NUMBER,
        Kind.STRING,
        Kind.OPEN,
        Kind.PLACEHOLDER,
    }
    if is_name or _word(first) in _BEHIND_A_NAME or not _is_named(before):
        return None
    return "PREWHERE", "Write WHERE."


def _totals(before: Token | None, behind: list[Token | None]) -> tuple[str, str] | None:
    first, second = behind[:2]
    is_table = second is not None and (second.kind is Kind.OPEN or _word(second) == "as")
    if before is None or _word(first) not in _TOTALS or is_table:
        return None
    return f"WITH {_word(first).upper()}", "Write GROUP BY ROLLUP (…) or GROUP BY CUBE (…)."


def _hierarchy(before: Token | None, behind: list[Token | None]) -> tuple[str, str] | None:
    return ("CONNECT BY", "Write WITH RECURSIVE.") if before is not None and _word(behind[0]) == "by" else None


def _selected_names(before: Token | None, behind: list[Token | None]) -> tuple[str, str] | None:
    is_wildcard = _word(before) in {"select", "distinct", "all"} or (before is not None and before.text in {",", "."})
    is_one = is_wildcard and _word(behind[0]) == "ilike"
    return ("the choice of columns with ILIKE", "Name the columns.") if is_one else None


_FINDERS: Final[dict[str, Callable[[Token | None, list[Token | None]], tuple[str, str] | None]]] = {
    "tablesample": _sampling,
    "prewhere": _prewhere,
    "with": _totals,
    "connect": _hierarchy,
    "*": _selected_names,
}
