import pytest

from micromegas_jupyter.errors import InvalidStatement, LoginRequired, MicromegasError, QueryCancelled, Unavailable
from micromegas_jupyter.notebook.formatting import error_lines, errors_as_lines, lines_html

SQL = "SELECT time, tagret, msg FROM log_entries"


def test_an_error_without_a_place_is_one_line_with_its_remedy_and_code() -> None:
    error = LoginRequired("You are not signed in to lake.example.com.", remedy="Run %micromegas_login.")

    assert error_lines(error) == ["✗ You are not signed in to lake.example.com. Run %micromegas_login. · AUTH001"]


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


@pytest.mark.parametrize(("line", "column"), [(9, 1), (0, 1), (None, 3), (3, None)])
def test_a_place_outside_the_statement_is_left_out(line: int | None, column: int | None) -> None:
    error = InvalidStatement("No.", line=line, column=column, remedy="")

    assert error_lines(error, sql=SQL) == ["✗ No. · SQL001"]


def test_a_column_behind_the_line_points_at_its_end() -> None:
    error = InvalidStatement("No.", line=1, column=99, remedy="")

    assert error_lines(error, sql="SELECT")[2] == "          ^ line 1, column 99"


def test_what_a_server_says_cannot_move_the_cursor_or_fill_the_page() -> None:
    (line,) = error_lines(Unavailable("\x1b[2J" + "x" * 5000, remedy=""))

    assert line.startswith("✗ \\x1b[2J")
    assert len(line) < 2100


def test_the_html_form_holds_no_markup_of_the_error() -> None:
    html = lines_html(["✗ <script>alert(1)</script> & more"])

    assert html.count("<") == 2
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in html


def test_an_error_keeps_its_class_and_tells_ipython_its_lines() -> None:
    with pytest.raises(InvalidStatement) as raised, errors_as_lines(sql=SQL):
        raise InvalidStatement("No.", line=1, column=1, remedy="")

    assert raised.value._render_traceback_()[0] == "✗ No."
    assert "SELECT" in raised.value._repr_html_()


def test_the_innermost_statement_wins() -> None:
    with pytest.raises(MicromegasError) as raised, errors_as_lines(), errors_as_lines(sql=SQL):
        raise InvalidStatement("No.", line=1, column=1, remedy="")

    assert len(raised.value._render_traceback_()) == 4


def test_with_traceback_an_error_is_left_alone() -> None:
    with pytest.raises(MicromegasError) as raised, errors_as_lines(traceback=True):
        raise Unavailable("No.")

    assert not hasattr(raised.value, "_render_traceback_")


def test_other_exceptions_pass() -> None:
    with pytest.raises(ZeroDivisionError), errors_as_lines():
        _ = 1 / 0


def test_an_interrupt_is_one_line_without_a_traceback() -> None:
    with pytest.raises(QueryCancelled) as raised, errors_as_lines():
        raise KeyboardInterrupt

    assert vars(raised.value)["_render_traceback_"]() == ["✗ interrupted"]


def test_an_interrupt_stays_what_it_is_when_the_traceback_is_wanted() -> None:
    with pytest.raises(KeyboardInterrupt), errors_as_lines(traceback=True):
        raise KeyboardInterrupt
