"""Where placeholders stand in SQL, and where a colon is something else."""

from __future__ import annotations

import pytest

from micromegas_jupyter.client.parameters import find_placeholders, quote_identifier, quote_literal
from micromegas_jupyter.errors import UsageError


def _names(sql: str) -> list[str]:
    return [placeholder.name for placeholder in find_placeholders(sql)]


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("SELECT :a, :b_2 FROM t WHERE x=:a", ["a", "b_2", "a"]),
        (":a", ["a"]),
        ("(:a)", ["a"]),
        ("x>:a::int", ["a"]),
        ("'it''s :a' || :b", ["b"]),
        ('"col:a" = :b', ["b"]),
        ('"a"" :x" = :b', ["b"]),
        ("`a :x` = :b", ["b"]),
        ("-- :a\n:b", ["b"]),
        ("/* :a */ :b", ["b"]),
        ("/* /* :a */ :b */ :c", ["c"]),
        ("$$ :a $$ :b", ["b"]),
        ("$q$ $$ :a $q$ :b", ["b"]),
        (r"e'\' :a' = :b", ["b"]),
        (r"'\' = :b", ["b"]),
        ("x::a", []),
        ("x :: a", []),
        ("'12:30' '12' :b", ["b"]),
        ("arr[1:n]", []),
        ("arr[lo:hi]", []),
        ("{'key':value}", []),
        ("f(x):b", []),
        (":1 : a :", []),
        ("$1 = $name", []),
        ("a$$b :c", ["c"]),
        ("'unclosed :a", []),
        ("/* unclosed :a", []),
        ("/* /* :a */ unclosed", []),
        ("$$ unclosed :a", []),
        (":größe", ["größe"]),
        ("", []),
    ],
)
def test_placeholders_are_found_where_values_may_stand(sql: str, names: list[str]) -> None:
    assert _names(sql) == names


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("x in :a", "IN"),
        ("x IN /* these */ :a", "IN"),
        ("x IN -- these\n :a", "IN"),
        ("x IN (:a", "("),
        ("x IN (1, :a", ","),
        ("x IN ('in', :a", ","),
        ("'in' :a", "X"),
        ("x = :a", "="),
        (":b :a", "X"),
        (":a", ""),
    ],
)
def test_the_word_before_a_placeholder_is_known(sql: str, word: str) -> None:
    assert list(find_placeholders(sql))[-1].preceded_by == word


def test_the_place_of_a_placeholder_is_exact() -> None:
    sql = "x = :abc;"

    (placeholder,) = find_placeholders(sql)

    assert sql[placeholder.start : placeholder.end] == ":abc"


@pytest.mark.parametrize("text", ["'" * 200_000, "/*" * 100_000, "$a" * 100_000, "x " * 100_000 + ":a", "$$ " * 70_000])
def test_a_hostile_statement_is_read_in_one_pass(text: str) -> None:
    assert len(_names(text)) <= 1


@pytest.mark.parametrize(("text", "literal"), [("a", "'a'"), ("it's", "'it''s'"), ("\\", "'\\'"), ("", "''")])
def test_text_is_quoted_as_a_literal(text: str, literal: str) -> None:
    assert quote_literal(text) == literal


@pytest.mark.parametrize("text", ["a\0b", None, 7, b"a"])
def test_what_no_literal_can_hold_is_refused(text: object) -> None:
    with pytest.raises(UsageError):
        quote_literal(text)


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("log_entries", '"log_entries"'),
        ("user id", '"user id"'),
        ('a"; DROP TABLE t; --', '"a""; DROP TABLE t; --"'),
        ("größe", '"größe"'),
        (":a {{b}} ' \n", '":a {{b}} \' \n"'),
    ],
)
def test_a_name_is_quoted(name: str, quoted: str) -> None:
    assert quote_identifier(name) == quoted
    assert _names(f"SELECT {quoted}, :b") == ["b"]


@pytest.mark.parametrize("name", ["", "a\0", "\ud800", None, 3, ["a"]])
def test_what_is_no_name_is_not_quoted(name: object) -> None:
    with pytest.raises(UsageError):
        quote_identifier(name)
