"""Which texts are refused before DataFusion parses them."""

from __future__ import annotations

import pytest
from datafusion import SessionContext

from micromegas_jupyter.engine.planning.guard import MAX_BRACKET_DEPTH, check_expression, check_statement
from micromegas_jupyter.errors import InvalidStatement, StatementRefused

LIMIT = 131072
NESTED = {
    "brackets": lambda n: "SELECT " + "(" * n + "1" + ")" * n,
    "functions": lambda n: "SELECT " + "abs(" * n + "1" + ")" * n,
    "casts": lambda n: "SELECT " + "CAST(" * n + "1" + " AS INT)" * n,
    "arrays": lambda n: "SELECT " + "[" * n + "1" + "]" * n,
    "structs": lambda n: "SELECT " + "{'a':" * n + "1" + "}" * n,
}


def check(sql: str) -> None:
    check_statement(sql, max_bytes=LIMIT)


@pytest.mark.parametrize("shape", NESTED)
def test_brackets_may_nest_as_deep_as_the_parser_goes(shape: str) -> None:
    deepest = NESTED[shape](MAX_BRACKET_DEPTH)

    check(deepest)
    SessionContext().sql(deepest)

    with pytest.raises(StatementRefused, match="47 levels"):
        check(NESTED[shape](MAX_BRACKET_DEPTH + 1))


def test_brackets_beside_each_other_and_in_quotes_do_not_nest() -> None:
    check("SELECT " + ", ".join(["abs(1)"] * 1000))
    check("SELECT '" + "(" * 1000 + "'")
    check("SELECT $$" + "(" * 1000 + "$$")


@pytest.mark.parametrize("letter", ["x", "é"])
def test_a_statement_is_as_long_as_its_bytes(letter: str) -> None:
    longest = "SELECT '" + letter * ((LIMIT - 9) // len(letter.encode())) + "'"

    check(longest)

    with pytest.raises(StatementRefused, match="131072 bytes"):
        check(longest + "  ")


@pytest.mark.parametrize("sql", ["", " \n\t", ";", " ; ; ", "-- only a comment", "/* only a comment */"])
def test_no_statement_is_invalid(sql: str) -> None:
    with pytest.raises(InvalidStatement, match="empty"):
        check(sql)


@pytest.mark.parametrize("sql", ["SELECT 1; SELECT 2", "SELECT 1;\n;x", "; SELECT 1"])
def test_several_statements_are_refused(sql: str) -> None:
    with pytest.raises(StatementRefused, match="several statements"):
        check(sql)


@pytest.mark.parametrize("sql", ["SELECT 1;", "SELECT 1 ; \n", "SELECT 1; -- done", "SELECT ';'", 'SELECT 1 AS ";"'])
def test_a_trailing_semicolon_is_accepted(sql: str) -> None:
    check(sql)


def test_half_a_character_is_invalid() -> None:
    with pytest.raises(InvalidStatement, match="surrogate"):
        check("SELECT '\ud800'")


@pytest.mark.parametrize("operator", [" + x", " AND x", " IS TRUE", " OR x = 1"])
def test_an_expression_of_an_administrator_has_few_operators(operator: str) -> None:
    for text in ("x" + operator * 100, f"x IN ({', '.join(['1'] * 1000)})"):
        check_expression(text, max_bytes=LIMIT)

    with pytest.raises(StatementRefused, match="256"):
        check_expression("x" + operator * 300, max_bytes=LIMIT)
