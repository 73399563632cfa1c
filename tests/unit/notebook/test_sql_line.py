import pytest

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.completion.sql_line import SqlLine, split_sql_line


def split(line: str, cell: str | None = None) -> SqlLine:
    return split_sql_line(line, cell, options_with_value=("--begin", "--limit"), flags=("--traceback",))


@pytest.mark.parametrize(
    ("line", "cell", "name", "arguments", "sql"),
    [
        ("SELECT 1", None, None, (), "SELECT 1"),
        ("df << SELECT 1", None, "df", (), "SELECT 1"),
        ("", "SELECT 1\n", None, (), "SELECT 1\n"),
        ("df <<", "SELECT 1\n", "df", (), "SELECT 1\n"),
        ("größe <<", "SELECT 1", "größe", (), "SELECT 1"),
        ("\u00b5s <<", "SELECT 1", "\u03bcs", (), "SELECT 1"),
        ("df << --begin 1h --limit=5", "SELECT 1", "df", ("--begin", "1h", "--limit", "5"), "SELECT 1"),
        ("--begin 1h df <<", "SELECT 1", "df", ("--begin", "1h"), "SELECT 1"),
        ("--traceback SELECT 1", None, None, ("--traceback",), "SELECT 1"),
        ('--begin "2026-01-31 12:00:00Z" SELECT 1', None, None, ("--begin", "2026-01-31 12:00:00Z"), "SELECT 1"),
        ("--begin '1h' SELECT 'it''s'", None, None, ("--begin", "1h"), "SELECT 'it''s'"),
        ("SELECT 1 << 2", None, None, (), "SELECT 1 << 2"),
        ("SELECT 1 --begin of a comment", None, None, (), "SELECT 1 --begin of a comment"),
        ("-- a comment", "SELECT 1", None, (), "-- a comment\nSELECT 1"),
        ("SELECT 1,", "2", None, (), "SELECT 1,\n2"),
    ],
)
def test_the_line_is_taken_apart(
    line: str, cell: str | None, name: str | None, arguments: tuple[str, ...], sql: str
) -> None:
    parts = split(line, cell)

    assert parts == SqlLine(name=name, arguments=arguments, sql=sql)


@pytest.mark.parametrize(
    ("line", "cell", "what"),
    [
        ("", None, "No SQL"),
        ("", " \n", "No SQL"),
        ("df <<", None, "No SQL"),
        ("--beginning 1h SELECT 1", None, "--beginning is not an option. Did you mean --begin?"),
        ("--xyz SELECT 1", None, "--xyz is not an option. The options are --begin, --limit, --traceback."),
        ("--begin", "SELECT 1", "--begin needs a value"),
        ("\u2460 << SELECT 1", None, '"1" is not a name'),
        ("class << SELECT 1", None, '"class" is a Python keyword'),
    ],
)
def test_a_line_that_cannot_be_understood_says_why(line: str, cell: str | None, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        split(line, cell)
