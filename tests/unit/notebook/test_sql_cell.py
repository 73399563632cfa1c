import pytest

from micromegas_jupyter.notebook.completion.sql_line import (
    CursorPosition,
    OptionName,
    OptionValue,
    Statement,
    find_position,
)


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
        ("\n\n  %%micromegas_sql\nSELECT |", "SELECT ", ""),
        ("%%sql rows << --begin 1h --traceback\nSELECT |\nFROM t", "SELECT ", "\nFROM t"),
        ("%%sql --begin '1 h' SELECT a,\n|", "SELECT a,\n", ""),
        ("%%sql SEL|\nFROM t", "SEL", "\nFROM t"),
        ("%%sql --begin\nSELECT |", "SELECT ", ""),
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


def test_the_options_before_the_statement_are_told() -> None:
    found = place("%%sql --profile 'prod' --traceback --begin 1h\nSELECT |")

    assert isinstance(found, Statement)
    assert found.options == {"--profile": "prod", "--begin": "1h"}


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
        "%%sql|",
        "%%time\nx = |",
        "text = '%sql' + |",
        "%%sqlish\nSELECT |",
        "%sqlish |",
        "print(%sql |)",
        "%sql SELECT 1\nx = |",
        "",
    ],
)
def test_other_places_are_left_alone(cell: str) -> None:
    assert place(cell or "|") is None


def test_a_magic_of_another_extension_is_left_alone() -> None:
    assert place("%%sql\nSELECT |", cells=("micromegas_sql",)) is None
