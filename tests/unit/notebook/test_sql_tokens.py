import pytest

from micromegas_jupyter.notebook.completion.sql import Kind, scan


def kinds(sql: str) -> list[tuple[Kind, str]]:
    return [(token.kind, token.text) for token in scan(sql)]


def test_blanks_and_closed_comments_are_left_out() -> None:
    assert kinds("a -- one\n /* two */ b") == [(Kind.WORD, "a"), (Kind.WORD, "b")]


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("'it''s'", Kind.STRING),
        (r"e'it\'s'", Kind.STRING),
        ("$$it's$$", Kind.STRING),
        ("$q$it's $$ $q$", Kind.STRING),
        ('"a ""b"', Kind.QUOTED),
        ("12.5e3", Kind.NUMBER),
        (":name", Kind.PLACEHOLDER),
        (":", Kind.PLACEHOLDER),
        ("'it''s", Kind.OPEN_STRING),
        ("$$it's", Kind.OPEN_STRING),
        ('"a ""b', Kind.OPEN_QUOTED),
        ("-- a 'quote", Kind.OPEN_COMMENT),
        ("/* a 'quote", Kind.OPEN_COMMENT),
    ],
)
def test_a_construct_is_one_token_with_or_without_its_end(sql: str, kind: Kind) -> None:
    assert kinds(sql) == [(kind, sql)]


@pytest.mark.parametrize("sql", ["x::int", "m[1:2]", "f(x):int"])
def test_a_colon_after_a_value_is_no_placeholder(sql: str) -> None:
    assert Kind.PLACEHOLDER not in {token.kind for token in scan(sql)}


def test_a_name_is_what_datafusion_reads() -> None:
    assert [token.name for token in scan('Time "Time" "a""b" \'s\' 1')] == ["time", "Time", 'a"b', "", ""]
