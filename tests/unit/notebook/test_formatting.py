"""Numbers, times, text from elsewhere, and errors as a cell shows them."""

import pytest

from micromegas_jupyter.errors import InvalidStatement, QueryCancelled, Unavailable
from micromegas_jupyter.notebook.formatting import (
    bytes_text,
    error_lines,
    errors_as_lines,
    host_text,
    lines_html,
    printable,
)

SQL = "SELECT time, tagret, msg FROM log_entries"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1400, "1.4 kB"), (9_960, "10 kB"), (999_600, "1.0 MB"),
        (131_000_000, "131 MB"), (2_500_000_000, "2.5 GB"), (5_000_000_000_000_000, "5,000 TB"),
    ],
)  # fmt: skip
def test_sizes_are_written_in_decimal_units(size: int, text: str) -> None:
    assert bytes_text(size) == text


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://id.example.com/realms/x", "id.example.com"),
        ("grpc://localhost:50051", "localhost:50051"),
        ("https://user:password@id.example.com/", "id.example.com"),
        ("no url", "no url"),
        ("http://[half", "http://[half"),
    ],
)
def test_a_url_is_known_by_its_host_and_never_shows_a_password(url: str, text: str) -> None:
    assert host_text(url) == text


def test_control_and_direction_characters_are_written_out() -> None:
    assert printable("a\x1b[31mb\u202ec\nd\x9be") == "a\\x1b[31mb\\u202ec\\nd\\x9be"


def test_letters_of_all_scripts_stay() -> None:
    assert printable("Zoë 山田 علی\u200cرضا 👩\u200d🔬") == "Zoë 山田 علی\u200cرضا 👩\u200d🔬"


def test_a_sql_error_points_at_the_place() -> None:
    error = InvalidStatement(
        'No column "tagret" in log_entries. Did you mean "target"?',
        line=1, column=14, remedy="", query_id="7f3a91c2d4e5",
    )  # fmt: skip

    assert error_lines(error, sql=SQL) == [
        '✗ No column "tagret" in log_entries. Did you mean "target"?',
        "    SELECT time, tagret, msg FROM log_entries",
        "                 ^ line 1, column 14",
        "  query 7f3a91c2 · SQL001 · docs/errors.md#sql001",
    ]


def test_the_caret_stands_right_after_tabs_and_wide_characters() -> None:
    error = InvalidStatement("No.", line=2, column=7, remedy="")

    lines = error_lines(error, sql="SELECT\n\t'山', x")

    assert lines[1:3] == ["     '山', x", "           ^ line 2, column 7"]


def test_only_the_part_of_a_long_line_around_the_place_is_shown() -> None:
    error = InvalidStatement("No.", line=1, column=501, remedy="")

    lines = error_lines(error, sql="a" * 500 + "b" + "c" * 500)

    assert lines[1] == "    …" + "a" * 80 + "b" + "c" * 39 + "…"
    assert lines[2].index("^") == lines[1].index("b")


def test_what_a_server_says_cannot_move_the_cursor_or_fill_the_page() -> None:
    (line,) = error_lines(Unavailable("\x1b[2J" + "x" * 5000, remedy=""))

    assert line.startswith("✗ \\x1b[2J")
    assert len(line) < 2100


def test_the_html_form_holds_no_markup_of_the_error() -> None:
    html = lines_html(["✗ <script>alert(1)</script> & more"])

    assert html.count("<") == 2
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in html


def test_an_interrupt_is_one_line_without_a_traceback() -> None:
    with pytest.raises(QueryCancelled) as raised, errors_as_lines():
        raise KeyboardInterrupt

    assert vars(raised.value)["_render_traceback_"]() == ["✗ interrupted"]
