"""How a statement is cut into tokens, and where that stops being certain."""

from __future__ import annotations

import pytest

from micromegas_jupyter.engine.scanner import Kind, line_and_column, quoted, scan


def test_words_signs_and_values_are_told_apart() -> None:
    found = scan('SELECT a.x, 1.5e-3 FROM "my ""T""" WHERE s = \'it\'\'s\' AND y[1] >= $1 OR z = ?;')

    assert [(token.kind.value, token.text) for token in found.tokens] == [
        ("word", "SELECT"),
        ("word", "a"),
        ("other", "."),
        ("word", "x"),
        ("comma", ","),
        ("number", "1.5e-3"),
        ("word", "FROM"),
        ("quoted", '"my ""T"""'),
        ("word", "WHERE"),
        ("word", "s"),
        ("operator", "="),
        ("string", "'it''s'"),
        ("word", "AND"),
        ("word", "y"),
        ("open", "["),
        ("number", "1"),
        ("close", "]"),
        ("operator", ">="),
        ("placeholder", "$1"),
        ("word", "OR"),
        ("word", "z"),
        ("operator", "="),
        ("placeholder", "?"),
        ("semicolon", ";"),
    ]
    assert found.is_certain


def test_a_name_is_folded_unless_quoted() -> None:
    word, quoted = scan('Log_Entries "My ""T"""').tokens

    assert word.name == "log_entries"
    assert quoted.name == 'My "T"'


@pytest.mark.parametrize(
    "hiding",
    [
        "'a + b'",
        '"a + b"',
        "-- a + b\n",
        "-- a + b\r\n",
        "-- a + b",
        "/* a + b */",
        "/* a * b / c ** */",
        "e'a \\' + b'",
        "E'a '' + b'",
        "x'00 + 11'",
        "N'a + b'",
        "date'a + b'",
        "'''a + b'''",
    ],
)
def test_quotes_and_comments_hide_what_they_hold(hiding: str) -> None:
    found = scan("SELECT " + hiding)

    assert Kind.OPERATOR not in {token.kind for token in found.tokens}
    assert found.is_certain


@pytest.mark.parametrize(
    "doubtful",
    [
        "$$a + b$$",
        "$tag$a + b$tag$",
        "a$b$ + c",
        "`a + b`",
        "b'a + b'",
        "r'a \\' + b'",
        "q'[a + b]'",
        "nq'[a + b]'",
        "u&'a + b'",
        "/* a /* + b */ c */",
        "/* a + b",
        "'a + b",
        "'a'' + b",
        '"a + b',
        "e'a + b\\'",
        "-- a \r + b\n",
    ],
)
def test_a_doubtful_construct_hides_nothing(doubtful: str) -> None:
    found = scan("SELECT 1, " + doubtful + " + c")

    assert found.certain_until == 10
    assert sum(token.text == "+" for token in found.tokens) == 2


def test_a_backslash_is_an_ordinary_character_in_an_ordinary_string() -> None:
    found = scan("SELECT 'a\\' + 'b'")

    assert [token.text for token in found.tokens] == ["SELECT", "'a\\'", "+", "'b'"]


def test_a_place_counts_lines_and_columns_from_one() -> None:
    sql = "SELECT 1,\n  nope"

    assert line_and_column(sql, 0) == (1, 1)
    assert line_and_column(sql, sql.index("nope")) == (2, 3)


def test_a_quote_in_a_name_is_doubled() -> None:
    assert quoted('a"B c') == '"a""B c"'
