"""Checks a statement's text before DataFusion parses it: one statement, within the limits, and no clause left out.

Whether it only reads is checked when it is planned (`sessions.READ_ONLY`). How long it takes and how much memory it
needs is limited by the process that runs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from micromegas_jupyter.engine.planning.scanner import Kind, Scan, Token, place_of, scan
from micromegas_jupyter.errors import InvalidStatement, StatementRefused, UnsupportedStatement

if TYPE_CHECKING:
    from collections.abc import Callable

#: DataFusion 55's parser stops at 48; for a CAST in a CAST it then tries again and again, without end.
MAX_BRACKET_DEPTH: Final = 47
#: Of a condition or a rule, which any process may evaluate: DataFusion 55 crashes at 2,000 (`IS TRUE …`).
_MAX_OPERATORS: Final = 256
_OPERATOR_WORDS: Final = frozenset({"and", "or", "not", "is", "in", "like", "ilike", "between", "at", "case"})
#: Words before a name: behind them the name stands for itself.
_BEFORE_A_NAME: Final = frozenset(
    {
        "all", "and", "as", "by", "case", "distinct", "else", "from", "having", "in", "join", "not", "on", "or",
        "recursive", "select", "then", "when", "where", "with", "between", "like", "ilike", "is", "limit", "offset",
        "using", "for", "lateral", "qualify",
    }
)  # fmt: skip
#: Words behind a name.
_BEHIND_A_NAME: Final = frozenset(
    {
        "and", "as", "asc", "between", "cross", "desc", "else", "end", "except", "from", "full", "group", "having",
        "ilike", "in", "inner", "intersect", "is", "join", "left", "like", "limit", "natural", "nulls", "offset",
        "on", "or", "order", "right", "then", "union", "using", "when", "where", "window", "tablesample", "qualify",
        "over",
    }
)  # fmt: skip
_FEWER_ROWS: Final = "Write WHERE random() < 0.1 for a tenth of the rows."
_SAMPLINGS: Final = frozenset({"bernoulli", "system", "row", "block"})
#: Functions with names that also stand behind a name.
_NAMED_LIKE_A_JOIN: Final = frozenset({"left", "right"})
_STARTS_A_CONDITION: Final = frozenset({Kind.WORD, Kind.QUOTED, Kind.NUMBER, Kind.STRING, Kind.OPEN, Kind.PLACEHOLDER})
#: Operators that a condition can start with.
_SIGNS: Final = frozenset({"-", "+", ":", "~", "@"})
_FORMATS: Final = frozenset({"xml", "json"})
_FORMAT_MODES: Final = frozenset({"raw", "auto", "explicit", "path"})
_TOTALS: Final = frozenset({"rollup", "cube", "totals"})
_NO_MORE: Final = (None, None, None)


def check_statement(sql: str, *, max_bytes: int) -> Scan:
    """Return the tokens of `sql` when it is one statement within the limits."""
    _check_size(sql, max_bytes)
    scanned = scan(sql)
    if all(token.kind is Kind.SEMICOLON for token in scanned.tokens):
        raise InvalidStatement("There is no statement.", remedy="Send one SELECT statement.")
    depth = 0
    has_ended = False
    for token in scanned.tokens:
        if token.start >= scanned.certain_until:
            break  # what follows may be part of a quote; DataFusion itself refuses a second statement
        if token.kind is Kind.SEMICOLON:
            has_ended = True
        elif has_ended:
            raise StatementRefused("The text holds several statements.", remedy="Send one statement at a time.")
        elif token.kind is Kind.OPEN:
            depth += 1
            if depth > MAX_BRACKET_DEPTH:
                raise StatementRefused(
                    f"The statement nests brackets deeper than the {MAX_BRACKET_DEPTH} levels that this server takes."
                )
        elif token.kind is Kind.CLOSE:
            depth -= 1
    return scanned


def check_expression(sql: str, *, max_bytes: int) -> Scan:
    """Return the tokens of `sql`, an expression that an administrator wrote, when it is within the limits."""
    scanned = check_statement(sql, max_bytes=max_bytes)
    operators = sum(
        token.kind is Kind.OPERATOR or (token.kind is Kind.WORD and token.name in _OPERATOR_WORDS)
        for token in scanned.tokens
    )
    if operators > _MAX_OPERATORS:
        raise StatementRefused(f"The expression has more operators than the {_MAX_OPERATORS} that this server takes.")
    return scanned


def _check_size(sql: str, max_bytes: int) -> None:
    try:
        is_too_long = len(sql) > max_bytes or len(sql.encode()) > max_bytes
    except UnicodeEncodeError as error:
        raise InvalidStatement("The statement holds half a character (a lone surrogate).") from error
    if is_too_long:
        raise StatementRefused(f"The statement is longer than the {max_bytes} bytes that this server takes.")


def check_nothing_is_left_out(scanned: Scan) -> None:
    """Check for clauses that DataFusion's parser takes and its planner leaves out: they would give other rows.

    Only those below are known, by their words, where they are not likely to be anything else: a column or an alias may
    have such a name. Others that the planner leaves out, such as `FOR UPDATE`, `WITH (NOLOCK)` or `SETTINGS`, pass.
    """
    tokens = scanned.tokens
    for place, token in enumerate(tokens):
        finder = _FINDERS.get(token.text.lower()) if token.kind in {Kind.WORD, Kind.OPERATOR} else None
        if finder is None or token.start >= scanned.certain_until:
            continue
        found = finder(tokens[max(0, place - 1)] if place else None, [*tokens[place + 1 : place + 4], *_NO_MORE])
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
    return ("TABLESAMPLE", _FEWER_ROWS) if is_one and _is_named(before) else None


def _sample(before: Token | None, behind: list[Token | None]) -> tuple[str, str] | None:
    first, second = behind[:2]
    if first is None or not _is_named(before):
        return None
    is_fraction = first.text == "." and second is not None and second.kind is Kind.NUMBER
    is_one = is_fraction or first.kind in {Kind.NUMBER, Kind.OPEN, Kind.PLACEHOLDER}
    return ("SAMPLE", _FEWER_ROWS) if is_one else None


def _partition(before: Token | None, behind: list[Token | None]) -> tuple[str, str] | None:
    first = behind[0]
    is_one = first is not None and first.kind is Kind.OPEN and _is_named(before)
    return ("PARTITION behind a table", "Write WHERE.") if is_one else None


def _format(before: Token | None, behind: list[Token | None]) -> tuple[str, str] | None:
    name, mode = _word(behind[0]), _word(behind[1])
    is_one = before is not None and name in _FORMATS and mode in _FORMAT_MODES
    return (f"FOR {name.upper()}", "Leave it out: rows come as Arrow.") if is_one else None


def _prewhere(before: Token | None, behind: list[Token | None]) -> tuple[str, str] | None:
    first, second = behind[:2]
    if first is None or not _is_named(before):
        return None
    if _word(first) in _BEHIND_A_NAME:
        is_one = _word(first) in _NAMED_LIKE_A_JOIN and second is not None and second.kind is Kind.OPEN
    else:
        is_one = first.kind in _STARTS_A_CONDITION or first.text in _SIGNS
    return ("PREWHERE", "Write WHERE.") if is_one else None


def _with(before: Token | None, behind: list[Token | None]) -> tuple[str, str] | None:
    return _totals(before, behind) or _ordinality(before, behind)


def _ordinality(before: Token | None, behind: list[Token | None]) -> tuple[str, str] | None:
    first, second, third = behind[:3]
    if _word(first) != "ordinality" or not _is_named(before):
        return None
    is_query = third is not None and third.kind is Kind.OPEN and _word(second) == "as"
    is_table = is_query or (second is not None and second.kind is Kind.OPEN)
    return None if is_table else ("WITH ORDINALITY", "Write row_number() OVER ().")


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
    "sample": _sample,
    "partition": _partition,
    "for": _format,
    "prewhere": _prewhere,
    "with": _with,
    "connect": _hierarchy,
    "*": _selected_names,
}
