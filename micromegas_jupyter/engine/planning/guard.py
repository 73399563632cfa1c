"""Checks a statement's text before DataFusion parses it: one statement, within the limits, no clause ignored.

Whether it only reads is checked when it is planned (`sessions.READ_ONLY`). The process that runs it limits its time and
memory.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from micromegas_jupyter.engine.scanner import Kind, Scan, Token, line_and_column, scan
from micromegas_jupyter.errors import InvalidStatement, StatementRefused, UnsupportedStatement

#: DataFusion 55's parser stops at 48; for a CAST in a CAST it then tries again and again, without end.
MAX_BRACKET_DEPTH: Final = 47
#: Of a condition or a rule, which any process may evaluate: DataFusion 55 crashes at 2,000 (`IS TRUE …`).
_MAX_OPERATORS: Final = 256
_OPERATOR_KEYWORDS: Final = frozenset({"and", "or", "not", "is", "in", "like", "ilike", "between", "at", "case"})


class _IgnoredClause(NamedTuple):
    """A clause that DataFusion's parser accepts and its planner ignores, as a pattern of the tokens around its word."""

    clause: str
    remedy: str
    pattern: re.Pattern[str]


def _ignored(clause: str, remedy: str, pattern: str) -> _IgnoredClause:
    # The end of a table's name, its alias or a subquery; after these words a name stands for itself.
    name = (
        r"(?:[\"\])}]|(?!(?:all|and|as|by|case|distinct|else|from|having|in|join|not|on|or|recursive|select|then|when|"
        r"where|with|between|like|ilike|is|limit|offset|using|for|lateral|qualify) )[^\W\d]\S*)"
    )
    return _IgnoredClause(clause, remedy, re.compile(pattern.replace("NAME", name).replace("OPEN", r"[(\[{]")))


_FEWER_ROWS: Final = "Write WHERE random() < 0.1 for a tenth of the rows."
# A window of the token before and four after; see `_describe`.
_IGNORED_CLAUSES: Final = {
    "tablesample": [
        _ignored("TABLESAMPLE", _FEWER_ROWS, r"NAME tablesample (?:OPEN|(?:bernoulli|system|row|block) )"),
    ],
    "sample": [_ignored("SAMPLE", _FEWER_ROWS, r"NAME sample (?:OPEN|0|\?|\. 0)")],
    "partition": [_ignored("PARTITION after a table", "Write WHERE.", r"NAME partition OPEN")],
    "for": [
        _ignored("FOR {0}", "Leave it out: rows are sent as Arrow.", r"\S+ for (xml|json) (?:raw|auto|explicit|path) "),
    ],
    "prewhere": [
        _ignored(
            "PREWHERE",
            "Write WHERE.",
            # None of the words that follow a name, unless it is a function.
            r"NAME prewhere (?:(?:left|right) OPEN|[-+:~@(\[{\"'0?]|(?!(?:and|as|asc|between|cross|desc|else|end|"
            r"except|from|full|group|having|ilike|in|inner|intersect|is|join|left|like|limit|natural|nulls|offset|on|or|order|"
            r"right|then|union|using|when|where|window|tablesample|qualify|over) )[^\W\d])",
        ),
    ],
    "with": [
        _ignored(
            "WITH {0}",
            "Write GROUP BY ROLLUP (…) or GROUP BY CUBE (…).",
            r"\S+ with (rollup|cube|totals) (?!as |OPEN)",
        ),
        _ignored("WITH ORDINALITY", "Write row_number() OVER ().", r"NAME with ordinality (?!OPEN|as OPEN)"),
    ],
    "connect": [_ignored("CONNECT BY", "Write WITH RECURSIVE.", r"\S+ connect by ")],
    "*": [
        _ignored("choosing columns with ILIKE", "Name the columns.", r"(?:select|distinct|all|,|\.) \* ilike "),
    ],
}


def check_statement(sql: str, *, max_bytes: int) -> Scan:
    """Return the tokens of `sql` when it is one statement within the limits."""
    _check_size(sql, max_bytes)
    scanned = scan(sql)
    if all(token.kind is Kind.SEMICOLON for token in scanned.tokens):
        raise InvalidStatement("The statement is empty.", remedy="Send one SELECT statement.")
    depth = 0
    has_ended = False
    for token in scanned.tokens:
        if token.start >= scanned.certain_until:
            break  # what follows may be part of a quote; DataFusion itself refuses a second statement
        if token.kind is Kind.SEMICOLON:
            has_ended = True
        elif has_ended:
            raise StatementRefused("The text contains several statements.", remedy="Send one statement at a time.")
        elif token.kind is Kind.OPEN:
            depth += 1
            if depth > MAX_BRACKET_DEPTH:
                raise StatementRefused(
                    f"The statement nests brackets deeper than the {MAX_BRACKET_DEPTH} levels that this server allows."
                )
        elif token.kind is Kind.CLOSE:
            depth -= 1
    return scanned


def check_expression(sql: str, *, max_bytes: int) -> Scan:
    """Return the tokens of `sql`, an expression that an administrator wrote, when it is within the limits."""
    scanned = check_statement(sql, max_bytes=max_bytes)
    operators = sum(
        token.kind is Kind.OPERATOR or (token.kind is Kind.WORD and token.name in _OPERATOR_KEYWORDS)
        for token in scanned.tokens
    )
    if operators > _MAX_OPERATORS:
        raise StatementRefused(f"The expression has more operators than the {_MAX_OPERATORS} that this server allows.")
    return scanned


def _check_size(sql: str, max_bytes: int) -> None:
    try:
        is_too_long = len(sql) > max_bytes or len(sql.encode()) > max_bytes
    except UnicodeEncodeError as error:
        raise InvalidStatement("The statement contains half a character (a lone surrogate).") from error
    if is_too_long:
        raise StatementRefused(f"The statement is longer than the {max_bytes} bytes that this server allows.")


def check_no_ignored_clause(scanned: Scan) -> None:
    """Check for clauses that DataFusion's parser accepts and its planner ignores: they would give other rows.

    Only those below are known, by their words, where they are not likely to be anything else: a column or an alias may
    have such a name. Others that the planner ignores, such as `FOR UPDATE`, `WITH (NOLOCK)` or `SETTINGS`, pass.
    """
    tokens = scanned.tokens
    for index, token in enumerate(tokens):
        if token.start >= scanned.certain_until:
            return
        clauses = _IGNORED_CLAUSES.get(token.text.lower(), ()) if token.kind in {Kind.WORD, Kind.OPERATOR} else ()
        if clauses and index:
            window = "".join(_describe(one) for one in tokens[index - 1 : index + 4])
            for clause, remedy, pattern in clauses:
                if found := pattern.match(window):
                    line, column = line_and_column(scanned.sql, token.start)
                    what = clause.format(*(group.upper() for group in found.groups()))
                    raise UnsupportedStatement(
                        f"The engine does not implement {what}.", remedy=remedy, line=line, column=column
                    )


def _describe(token: Token) -> str:
    """Return a word or an operator as it is, and one character for any name in quotes, text, number or placeholder."""
    short = {Kind.QUOTED: '"', Kind.STRING: "'", Kind.NUMBER: "0", Kind.PLACEHOLDER: "?"}
    return short.get(token.kind, token.text.lower()) + " "
