"""`%sql` and `%%sql` in a shell."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from IPython.core.interactiveshell import InteractiveShell

from micromegas_jupyter.errors import (
    InvalidStatement,
    LoginRequired,
    QueryCancelled,
    UnsupportedRequest,
    UsageError,
)
from tests.fakes import notebook_world
from tests.fakes.notebook_world import FakeWorld

PLAN = pa.record_batch(
    {"plan_type": ["logical_plan", "physical_plan"], "plan": ["Projection: a\n  TableScan: t", "ProjectionExec\n"]}
)


def test_the_variable_says_how_many_rows_can_be_worked_with(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MICROMEGAS_RESULT_ROWS", "2")

    done = shell.run_cell("%sql SELECT n, msg FROM t")

    assert '{"rows":2,"total":3,' in done.result._repr_html_()


def test_what_the_server_says_about_the_credential_is_shown_below_the_line_once(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.notices = ("This key ends soon.",)

    shell.run_line_magic("sql", "SELECT 1")
    first = capsys.readouterr().out
    shell.run_line_magic("sql", "SELECT 1")

    assert first.splitlines()[1:] == ["⚠ This key ends soon."]
    assert "⚠" not in capsys.readouterr().out


def test_the_line_form_can_be_assigned_and_keeps_its_quotes(shell: InteractiveShell, world: FakeWorld) -> None:
    shell.run_cell("rows = %sql --limit 5 SELECT 'it''s' AS \"x\"")

    assert len(shell.user_ns["rows"]) == 3
    assert world.asked[0]["sql"] == "SELECT 'it''s' AS \"x\""
    assert world.asked[0]["limit"] == 5


def test_a_range_a_limit_and_a_profile_are_passed_on(shell: InteractiveShell, world: FakeWorld) -> None:
    shell.run_cell_magic("sql", "--begin 1h --end 15m --limit 10 --profile prod", "SELECT 1")

    assert world.asked[0]["begin"] == datetime(2026, 11, 24, 11, 0, tzinfo=UTC)
    assert world.asked[0]["end"] == datetime(2026, 11, 24, 11, 45, tzinfo=UTC)
    assert world.asked[0]["limit"] == 10
    assert world.profiles == ["prod"]


def test_names_in_the_statement_stand_for_the_variables_of_the_notebook(
    shell: InteractiveShell, world: FakeWorld
) -> None:
    shell.user_ns["max_level"] = 3

    shell.run_cell("%%sql\nSELECT ':not' FROM t WHERE level <= :max_level AND x::int > 0 -- :nor this")

    assert world.asked[0]["params"] == {"max_level": 3}


def test_the_line_form_sees_a_function_s_own_variables(shell: InteractiveShell, world: FakeWorld) -> None:
    shell.run_cell("def f(level):\n    return get_ipython().run_line_magic('sql', 'SELECT :level')\nf(7)")

    assert world.asked[0]["params"] == {"level": 7}


def test_braces_and_dollars_in_sql_are_left_alone(shell: InteractiveShell, world: FakeWorld) -> None:
    shell.user_ns["x"] = "expanded"

    shell.run_cell("%sql SELECT '{x} $x'")

    assert world.asked[0]["sql"] == "SELECT '{x} $x'"


def test_a_name_without_a_variable_is_refused_before_anything_is_sent(
    shell: InteractiveShell, world: FakeWorld
) -> None:
    with pytest.raises(UsageError, match="There is no variable for :low, :high"):
        shell.run_line_magic("sql", "SELECT :low, :high")

    assert world.asked == []


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("--limit many", "Argument --limit: invalid int value: 'many'"),
        ("--limit -1", "--limit is a number of rows"),
        ("--begin yesterday", "'yesterday' is not a time"),
        ("--end 1h", "--end needs --begin"),
        ("--unknown", "--unknown is not an option"),
    ],
)
def test_options_that_cannot_be_understood_are_refused(shell: InteractiveShell, line: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        shell.run_cell_magic("sql", line, "SELECT 1")


def test_an_error_is_shown_as_its_lines_and_keeps_its_class(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.open_failure = InvalidStatement(
        'No column "tagret". Did you mean "target"?', line=1, column=8, remedy="", query_id="7f3a91c2"
    )

    done = shell.run_cell("%%sql\nSELECT tagret FROM log_entries")

    assert isinstance(done.error_in_exec, InvalidStatement)
    assert capsys.readouterr().out == (
        '✗ No column "tagret". Did you mean "target"?\n'
        "    SELECT tagret FROM log_entries\n"
        "           ^ line 1, column 8\n"
        "  query 7f3a91c2 · SQL001 · docs/errors.md#sql001\n"
    )


def test_an_interrupt_cancels_the_query_and_the_next_one_works(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = world.script
    world.script = [rows[0], KeyboardInterrupt()]

    done = shell.run_cell("%sql SELECT 1")
    shown = capsys.readouterr().out
    world.script = rows
    again = shell.run_cell("rows = %sql SELECT 1")

    assert isinstance(done.error_in_exec, QueryCancelled)
    assert shown == "✗ cancelled after 1.0 s, 2 rows received, stopped on the server · query 7f3a91c2\n"
    assert world.readers[0].is_closed
    assert again.success
    assert len(world.clients) == 1


def test_an_ended_sign_in_is_looked_up_afresh_by_the_next_query(shell: InteractiveShell, world: FakeWorld) -> None:
    world.stored.failure = LoginRequired("The provider ended the session.")
    failed = shell.run_cell("%sql SELECT 1")
    world.stored.failure = None

    done = shell.run_cell("%sql SELECT 1")

    assert isinstance(failed.error_in_exec, LoginRequired)
    assert done.success
    assert len(world.clients) == 2


def test_what_a_plot_lacks_is_one_line_and_the_rows_are_there(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    done = shell.run_cell("%%sql --plot\nSELECT n, msg FROM t")

    assert done.success
    assert len(done.result) == 3
    assert capsys.readouterr().out.splitlines()[1] == (
        "✗ --plot needs a column of times, and this result has none (n int64, msg string). "
        "Select a time and a number, for example: SELECT time, value FROM measures. · USE001"
    )


def test_a_reader_cannot_be_drawn_and_nothing_is_sent(shell: InteractiveShell, world: FakeWorld) -> None:
    with pytest.raises(UsageError, match="--plot needs all rows, and a reader has none yet"):
        shell.run_cell_magic("sql", "--plot --format reader", "SELECT 1")

    assert world.asked == []


def test_the_plan_is_shown_readably_and_nothing_is_run(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.script = [PLAN]

    shell.run_cell("%%sql --explain --limit 5\nSELECT a FROM t")

    assert capsys.readouterr().out.endswith(
        "logical plan\n  Projection: a\n    TableScan: t\n\nphysical plan\n  ProjectionExec\n"
    )
    assert world.asked[0]["sql"] == "EXPLAIN\nSELECT a FROM t\n"
    assert world.asked[0]["limit"] is None
    assert shell.run_line_magic("micromegas_queries", "").rows == []


def test_a_dry_run_shows_the_columns_and_runs_nothing(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.user_ns["ids"] = [1, 2]

    shell.run_cell("%%sql --dry-run\nSELECT n, msg FROM t WHERE n IN :ids")

    assert [line.split() for line in capsys.readouterr().out.splitlines()[-3:]] == [
        ["n", "int64", "possible"],
        ["msg", "string", "possible"],
        ["The", "statement", "was", "not", "run."],
    ]
    assert world.prepared == ["SELECT n, msg FROM t WHERE n IN ($ids_1, $ids_2)\n"]
    assert world.asked == []
    assert shell.run_line_magic("micromegas_queries", "").rows == []


def test_an_error_behind_a_list_in_a_dry_run_is_at_its_place_in_the_cell(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.user_ns["ids"] = [1, 2]
    world.open_failure = InvalidStatement("No column.", line=1, column=49, remedy="")

    shell.run_cell("%%sql --dry-run\nSELECT n FROM t WHERE n IN :ids AND tagret = 1")

    assert "AND tagret = 1\n" + " " * 40 + "^ line 1, column 37\n" in capsys.readouterr().out


def test_a_wrapper_s_client_that_cannot_look_ahead_says_so(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(notebook_world.FakeClient, "prepare_statement")

    with pytest.raises(UnsupportedRequest, match="without running it"):
        shell.run_line_magic("sql", "--dry-run SELECT 1")


@pytest.mark.parametrize("options", ["--explain --dry-run", "--explain --format arrow", "--dry-run --format reader"])
def test_options_that_exclude_each_other_are_refused(shell: InteractiveShell, options: str) -> None:
    with pytest.raises(UsageError, match="cannot be combined"):
        shell.run_line_magic("sql", f"{options} SELECT 1")


def test_a_template_is_refused_with_its_place_and_what_to_write_instead(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.user_ns["table"] = "t"

    shell.run_cell("%%sql\nSELECT *\nFROM {{table}}")

    shown = capsys.readouterr().out
    assert shown.startswith("✗ {{…}} is not filled in here. Write :name for a value;")
    assert "quote_identifier()" in shown
    assert "    FROM {{table}}\n         ^ line 2, column 6\n" in shown
    assert world.asked == []


def test_a_value_that_cannot_be_bound_is_refused_before_anything_is_sent(
    shell: InteractiveShell, world: FakeWorld
) -> None:
    shell.user_ns["when"] = object()

    with pytest.raises(UsageError, match=":when cannot be bound"):
        shell.run_line_magic("sql", "SELECT :when")

    assert world.clients == []
