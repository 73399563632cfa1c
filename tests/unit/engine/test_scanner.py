"""How a statement is cut into tokens, and where that stops being certain."""

from __future__ import annotations

import pytest

from micromegas_jupyter.engine.scanner import Kind, scan


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
