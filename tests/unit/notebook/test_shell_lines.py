"""Texts from elsewhere in a line: errors, and what could move a cursor."""

import pytest

from micromegas_jupyter.core.text import printable
from micromegas_jupyter.errors import InvalidStatement, Unavailable
from micromegas_jupyter.notebook.shell import error_lines


def test_control_and_direction_characters_are_written_out():
    assert printable("a\x1b[31mb\u202ec\nd\x9be") == "a\\x1b[31mb\\u202ec\\nd\\x9be"


@pytest.mark.parametrize(
    ("sql", "line", "column", "shown"),
    [
        ("SELECT\n\t'山', x", 2, 7, ["     '山', x", "           ^ line 2, column 7"]),
        ("a" * 500 + "b" + "c" * 500, 1, 501, [f"    …{'a' * 80}b{'c' * 39}…", " " * 85 + "^ line 1, column 501"]),
    ],
    ids=["wide characters", "long line"],
)
def test_the_caret_stands_below_the_place_of_the_error(sql, line, column, shown):
    error = InvalidStatement("No.", line=line, column=column, remedy="")

    assert error_lines(error, sql=sql)[1:3] == shown


def test_what_a_server_says_cannot_move_the_cursor_or_fill_the_page():
    (line,) = error_lines(Unavailable("\x1b[2J" + "x" * 5000, remedy=""))

    assert line.startswith("✗ \\x1b[2J")
    assert len(line) < 2100
