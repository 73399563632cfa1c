"""Checks a statement's text before DataFusion parses it: one statement, within the byte and nesting limits.

Whether it only reads is checked when it is planned (`sessions.READ_ONLY`). How long it takes and how much memory it
needs is limited by the process that runs it.
"""

from __future__ import annotations

from typing import Final

from micromegas_jupyter.engine.scanner import Kind, Scan, scan
from micromegas_jupyter.errors import InvalidStatement, StatementRefused

#: DataFusion 55's parser stops at 48; for a CAST in a CAST it then tries again and again, without end.
MAX_BRACKET_DEPTH: Final = 47
#: Of a condition or a rule, which any process may evaluate: DataFusion 55 crashes at 2,000 (`IS TRUE …`).
_MAX_OPERATORS: Final = 256
_OPERATOR_WORDS: Final = frozenset({"and", "or", "not", "is", "in", "like", "ilike", "between", "at", "case"})


def check_statement(sql: str, *, max_bytes: int) -> Scan:
    """Return the tokens of `sql` when it is one statement within the limits.

    Raises:
        InvalidStatement: There is no statement, or the text is not Unicode.
        StatementRefused: It is too long or nests too deeply, or there are several statements.
    """
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
    """Return the tokens of `sql`, an expression that an administrator wrote, when it is within the limits.

    Raises:
        InvalidStatement: There is no expression, or the text is not Unicode.
        StatementRefused: It is too long, nests too deeply or has too many operators, or there are several.
    """
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
