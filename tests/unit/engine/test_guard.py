"""Which shapes of statements are refused before DataFusion sees them."""

from __future__ import annotations

import pytest

from micromegas_jupyter.engine.guard import check_statement
from micromegas_jupyter.errors import InvalidStatement, StatementRefused

LIMIT = 65536


def check(sql: str) -> None:
    check_statement(sql, max_bytes=LIMIT)


# Each: the largest statement of a shape that is accepted, and the smallest that is not, with the words that say why.
EDGES = {
    "bytes": (lambda n: "SELECT '" + "x" * n + "'", LIMIT - 9, "65536 bytes"),
    "bytes of two": (lambda n: "SELECT '" + "é" * n + "'", (LIMIT - 9) // 2, "65536 bytes"),
    "brackets": (lambda n: "SELECT " + "(" * n + "1" + ")" * n, 16, "16 levels"),
    "open brackets": (lambda n: "SELECT " + "(" * n, 16, "16 levels"),
    "functions": (lambda n: "SELECT " + "abs(" * n + "1" + ")" * n, 16, "16 levels"),
    "casts": (lambda n: "SELECT " + "CAST(" * n + "1" + " AS INT)" * n, 16, "16 levels"),
    "arrays": (lambda n: "SELECT " + "[" * n + "1" + "]" * n, 16, "16 levels"),
    "structs": (lambda n: "SELECT " + "{'a':" * n + "1" + "}" * n, 16, "16 levels"),
    "sub-queries": (lambda n: "SELECT * FROM " + "(SELECT * FROM " * n + "t" + ")" * n, 16, "16 levels"),
    "case in case": (lambda n: "SELECT " + "CASE WHEN " * n + "b" + " THEN b END" * n, 8, "8 levels"),
    "case after case": (lambda n: "SELECT " + ", ".join(["CASE WHEN b THEN 1 END"] * n), 2000, "bytes"),
    "plus": (lambda n: "SELECT 1" + "+1" * n, 256, "256"),
    "minus signs": (lambda n: "SELECT " + "- " * n + "1", 256, "256"),
    "not": (lambda n: "SELECT " + "NOT " * n + "true", 256, "256"),
    "and": (lambda n: "SELECT 1 WHERE true" + " AND b" * n, 256, "256"),
    "or with comparisons": (lambda n: "SELECT 1 WHERE b" + " OR x=1" * n, 128, "256"),
    "concatenation": (lambda n: "SELECT s" + "||s" * n, 256, "256"),
    "cast signs": (lambda n: "SELECT x" + "::int" * n, 256, "256"),
    "is true": (lambda n: "SELECT b" + " IS TRUE" * n, 256, "256"),
    "at time zone": (lambda n: "SELECT t" + " AT TIME ZONE 'UTC'" * n, 256, "256"),
    "like": (lambda n: "SELECT s" + " LIKE s" * n, 256, "256"),
    "operators inside brackets": (lambda n: "SELECT (x" + "+1" * n + ") + 1", 255, "256"),
    "operators in many columns": (lambda n: "SELECT " + ", ".join(["x + 1"] * n), 512, "512"),
    "unions": (lambda n: "SELECT 1" + " UNION ALL SELECT 1" * n, 64, "64"),
    "set operations": (lambda n: "SELECT 1" + " EXCEPT SELECT 1 INTERSECT SELECT 1" * n, 32, "64"),
    "joins": (lambda n: "SELECT 1 FROM t" + " JOIN t USING (x)" * n, 64, "64"),
    "joins by comma": (lambda n: "SELECT 1 FROM t" + ", t" * n, 64, "64"),
    "selects": (lambda n: "SELECT " + ", ".join(["(SELECT 1)"] * n), 127, "128"),
    "withs": (lambda n: "WITH a AS (SELECT 1) SELECT 1" * n, 12, "12"),
    "calls": (lambda n: "SELECT " + ", ".join(["f()"] * n), 1000, "1000"),
    "windows": (lambda n: "SELECT " + ", ".join(["f(x) OVER w"] * n), 128, "128"),
    "cube": (lambda n: "SELECT 1 GROUP BY CUBE(" + ", ".join(["x"] * n) + ")", 12, "12"),
    "grouping sets": (lambda n: "SELECT 1 GROUP BY GROUPING SETS (" + ", ".join(["(x)"] * n) + ")", 12, "12"),
    "cubes": (lambda n: "SELECT 1 GROUP BY " + ", ".join(["CUBE(x, y)"] * n), 6, "12"),
    "doubling tables": (
        lambda n: (
            "WITH c0 AS (SELECT 1)"
            + "".join(f", c{i + 1} AS (SELECT 1 FROM c{i} a, c{i} b)" for i in range(n))
            + f" SELECT * FROM c{n}"
        ),
        8,
        "1000",
    ),
}


@pytest.mark.parametrize("shape", [name for name in EDGES if name != "case after case"])
def test_a_shape_is_accepted_up_to_its_limit_and_refused_beyond_it(shape: str) -> None:
    build, most, words = EDGES[shape]

    check(build(most))

    with pytest.raises(StatementRefused, match=words):
        check(build(most + 1))


def test_cases_beside_each_other_do_not_nest() -> None:
    build, many, _ = EDGES["case after case"]

    check(build(many))


@pytest.mark.parametrize(
    "hiding",
    [
        "$$ {} $$",
        "b'\\' {} '",
        "/* /* */ {} */",
        "`{}`",
        "-- \r {}",
        "q'[ ' {} ]'",
        "' {}",
    ],
)
def test_operators_cannot_hide_behind_doubtful_quotes(hiding: str) -> None:
    code = "SELECT 1" + "+1" * 300

    with pytest.raises(StatementRefused, match="256"):
        check("SELECT " + hiding.format(code))


def test_an_escape_string_is_read_exactly() -> None:
    many = "+1" * 300

    check(f"SELECT E'\\' {many}'")

    with pytest.raises(StatementRefused, match="256"):
        check(f"SELECT E'\\'' {many}")


def test_closing_brackets_in_a_doubtful_string_do_not_lower_the_depth() -> None:
    with pytest.raises(StatementRefused, match="16 levels"):
        check("SELECT " + "f($$)$$, " * 17)


def test_an_end_that_is_a_column_does_not_close_a_case() -> None:
    with pytest.raises(StatementRefused, match="8 levels"):
        check("SELECT " + "CASE WHEN t.end THEN " * 9 + "1" + " END" * 9)


def test_a_long_statement_may_not_nest_as_deep_as_a_short_one() -> None:
    with pytest.raises(StatementRefused, match="how deeply"):
        check("SELECT " + "(" * 15 + "1, " * 1000 + "1" + ")" * 15)


@pytest.mark.parametrize("sql", ["", " \n\t", ";", " ; ; ", "-- only a comment", "/* only a comment */"])
def test_no_statement_is_invalid(sql: str) -> None:
    with pytest.raises(InvalidStatement, match="no statement"):
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


def test_a_chain_of_forty_tables_is_accepted() -> None:
    chain = "".join(f", c{i + 1} AS (SELECT c{i}.x FROM c{i} WHERE c{i}.x > 1)" for i in range(40))

    check("WITH c0 AS (SELECT 1 AS x)" + chain + " SELECT c40.x FROM c40")


def test_a_large_ordinary_statement_is_accepted() -> None:
    ids = ", ".join(f"'{index:08x}-0000-4000-8000-{index:012x}'" for index in range(1200))

    check(f"SELECT * FROM log_entries WHERE process_id IN ({ids})")
