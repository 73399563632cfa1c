"""Refuses statements that could hurt the engine, before the engine's parser sees them.

That a statement only reads is checked by plan, in `session`; here it is about size and shape. The limits were
measured: DataFusion 54 and 55 overflow a stack at about 320 EXCEPT or LEFT JOIN, 1,280 `IS NOT NULL`, 2,500 binary
operators, 40 nested casts; each limit below is less than half of the lowest figure for its shape.
"""

from __future__ import annotations

import re
from typing import Final

from micromegas_jupyter.engine.interim.statement_text import Kind, cut_statement
from micromegas_jupyter.errors import InvalidStatement, StatementRefused

MAX_NESTING: Final = 24
MAX_CASE_NESTING: Final = 8
MAX_OPERATORS: Final = 600
MAX_RELATIONS: Final = 100
MAX_COMMON_TABLES: Final = 30

_NEGATIVE_NUMBER = re.compile(r"(?<=[(,])\s*-\s*(?=[0-9])")
_OPERATOR = re.compile(
    r"[-+*/%^|&~=<>!:@#]|\b(?:and|or|not|is|in|like|ilike|between|similar|collate|at|xor|div|isnull|notnull|overlaps)\b",
    re.IGNORECASE,
)
_RELATION = re.compile(
    r"\b(?:select|join|union|except|intersect|minus|values|lateral|unnest|apply|pivot|unpivot|from)\b|\|>", re.IGNORECASE
)
_COMMON_TABLE = re.compile(r"\bas\s*(?:(?:not\s+)?materialized\s*)?\(\s*(?:select|with|values|from|table)\b", re.IGNORECASE)
_NESTING = re.compile(r"[()\[\]{}<>]|\b(?:case|end)\b", re.IGNORECASE)
_WORD = re.compile(r"\w+")
_SHOW_SETTINGS = re.compile(r"^\s*show\s+(?!tables\b|columns\b|functions\b)", re.IGNORECASE)
_STAND_INS = {Kind.STRING: "''", Kind.NAME: '""', Kind.COMMENT: " "}
_EXPLAIN = re.compile(r"\bexplain\b", re.IGNORECASE)


def check_statement(sql: str, *, max_bytes: int) -> None:
    """Check that `sql` holds one statement of a size and shape that the engine survives.

    Raises:
        InvalidStatement: There is no statement.
        StatementRefused: There are several, or it is larger or deeper than the limits.
    """
    if len(sql.encode("utf-8", "surrogatepass")) > max_bytes:
        raise StatementRefused(
            f"The statement is larger than {max_bytes // 1024} kB.", remedy="Send a smaller one; bind long values."
        )
    code = code_of(sql)
    if not code.replace(";", " ").strip():
        raise InvalidStatement("The statement is empty.", remedy="Give a statement, for example SELECT 1.")
    if ";" in code.rstrip("; \t\r\n"):
        raise StatementRefused("There is more than one statement.", remedy="Send one statement at a time.")
    if _SHOW_SETTINGS.match(code) or "df_settings" in words_of(sql):
        raise StatementRefused("The server's settings are not shown.", remedy="SHOW TABLES and SHOW COLUMNS work.")
    _check_shape(code)

def words_of(sql: str) -> frozenset[str]:
    """Return every word that could name a table in the statement, in lower case."""
    return frozenset(
        word.lower()
        for piece in cut_statement(sql)
        if piece.kind in {Kind.CODE, Kind.NAME}
        for word in _WORD.findall(piece.text)
    )


def code_of(sql: str) -> str:
    """Return the statement with an empty text for every string and quoted name and a blank for every comment."""
    return "".join(_STAND_INS.get(piece.kind, piece.text) for piece in cut_statement(sql))


def _check_shape(code: str) -> None:
    _check_nesting(code)
    counted = _NEGATIVE_NUMBER.sub("", code)
    for pattern, limit, what in (
        (_OPERATOR, MAX_OPERATORS, "operators"),
        (_RELATION, MAX_RELATIONS, "SELECT, FROM, JOIN and UNION"),
        (_COMMON_TABLE, MAX_COMMON_TABLES, "common table expressions"),
        (_EXPLAIN, 1, "EXPLAIN"),
    ):
        if len(pattern.findall(counted)) > limit:
            raise StatementRefused(
                f"The statement has more than {limit} {what}.", remedy="Split it, or use IN with a list of values."
            )


def _check_nesting(code: str) -> None:
    depth = cases = 0
    for found in _NESTING.finditer(code):
        mark = found[0].lower()
        if mark in "([{":
            depth += 1
        elif mark in ")]}":
            depth = max(depth - 1, 0)
        elif mark == "case":
            cases += 1
        elif mark == "end":
            cases = max(cases - 1, 0)
        if depth > MAX_NESTING or cases > MAX_CASE_NESTING:
            raise StatementRefused(
                f"The statement is nested deeper than {MAX_NESTING} brackets or {MAX_CASE_NESTING} CASE.",
                remedy="Flatten it, for example with common table expressions.",
            )
