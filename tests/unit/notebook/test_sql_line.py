"""The line of `%sql`: parsed to run it, and to complete at a cursor."""

import pytest

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.shell import (
    CursorPosition,
    OptionName,
    OptionValue,
    SqlLine,
    Statement,
    find_position,
    split_sql_line,
)


def split(line: str, cell: str | None = None) -> SqlLine:
    return split_sql_line(line, cell, options_with_value=("--begin", "--limit"), flags=("--traceback",))


@pytest.mark.parametrize(
    ("line", "cell", "name", "arguments", "sql"),
    [
        ("SELECT 1", None, None, (), "SELECT 1"),
        ("df << SELECT 1", None, "df", (), "SELECT 1"),
        ("", "SELECT 1\n", None, (), "SELECT 1\n"),
        ("df <<", "SELECT 1\n", "df", (), "SELECT 1\n"),
        ("\u00b5s <<", "SELECT 1", "\u03bcs", (), "SELECT 1"),
        ("df << --begin 1h --limit=5", "SELECT 1", "df", ("--begin", "1h", "--limit", "5"), "SELECT 1"),
        ('--begin "2026-01-31 12:00:00Z" SELECT 1', None, None, ("--begin", "2026-01-31 12:00:00Z"), "SELECT 1"),
        ("--begin '1h' SELECT 'it''s'", None, None, ("--begin", "1h"), "SELECT 'it''s'"),
        ("SELECT 1 << 2", None, None, (), "SELECT 1 << 2"),
        ("SELECT 1 --begin of a comment", None, None, (), "SELECT 1 --begin of a comment"),
        ("-- a comment", "SELECT 1", None, (), "-- a comment\nSELECT 1"),
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


def place(marked: str, *, cells: tuple[str, ...] = ("sql", "micromegas_sql")) -> CursorPosition | None:
    """Return the place of the `|` in a cell."""
    before, after = marked.split("|")
    return find_position(
        before + after,
        len(before),
        cell_magics=cells,
        line_magics=cells,
        options_with_value=("--begin", "--profile"),
    )


@pytest.mark.parametrize(
    ("cell", "before", "after"),
    [
        ("%%sql\nSELECT | FROM t", "SELECT ", " FROM t"),
        ("%%sql rows << --begin 1h --traceback\nSELECT |\nFROM t", "SELECT ", "\nFROM t"),
        ("%%sql --begin '1 h' SELECT a,\n|", "SELECT a,\n", ""),
        ("%%sql SEL|\nFROM t", "SEL", "\nFROM t"),
        ("x = 1\nrows = %sql --begin=1h SELECT |\ny = 2", "SELECT ", ""),
        ("%sql SELECT a| FROM t", "SELECT a", " FROM t"),
        ("frames['a'] = %sql |", "", ""),
    ],
)
def test_a_cursor_in_sql_sees_what_is_before_and_after_it(cell: str, before: str, after: str) -> None:
    found = place(cell)

    assert isinstance(found, Statement) or before == ""
    if isinstance(found, Statement):
        assert (found.before, found.after) == (before, after)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("%%sql |\nSELECT 1", OptionName(typed="")),
        ("%%sql --be|\nSELECT 1", OptionName(typed="--be")),
        ("%%sql rows << -|", OptionName(typed="-")),
        ("%sql --begin 1h --|", OptionName(typed="--")),
        ("%%sql --profile pr|\n", OptionValue(option="--profile", typed="pr")),
        ("%%sql --profile=|", OptionValue(option="--profile", typed="")),
    ],
)
def test_a_cursor_on_the_magics_line_sees_its_options(cell: str, expected: CursorPosition) -> None:
    assert place(cell) == expected


@pytest.mark.parametrize(
    "cell",
    [
        "x = |",
        "%%sq|l\nSELECT 1",
        "text = '%sql' + |",
        "%%sqlish\nSELECT |",
        "print(%sql |)",
        "%sql SELECT 1\nx = |",
        "",
    ],
)
def test_other_places_are_left_alone(cell: str) -> None:
    assert place(cell or "|") is None
