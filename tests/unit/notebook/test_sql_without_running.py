"""`--explain`, `--dry-run`, `--help`, and what is refused before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from micromegas_jupyter.errors import InvalidStatement, UnsupportedRequest, UsageError
from tests.fakes import notebook_world
from tests.fakes.notebook_world import ROWS

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from tests.fakes.notebook_world import FakeWorld

PLAN = pa.record_batch(
    {"plan_type": ["logical_plan", "physical_plan"], "plan": ["Projection: a\n  TableScan: t", "ProjectionExec\n"]}
)


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


def test_a_variable_takes_the_plan_as_text(shell: InteractiveShell, world: FakeWorld) -> None:
    world.script = [PLAN]

    shell.run_cell("%%sql plan << --explain\nSELECT a FROM t")

    assert shell.user_ns["plan"].startswith("logical plan\n")


def test_an_error_in_a_statement_that_is_explained_is_at_its_place_there(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.open_failure = InvalidStatement("No column.", line=2, column=8, remedy="")

    shell.run_cell("%%sql --explain\nSELECT tagret FROM t")

    assert "    SELECT tagret FROM t\n           ^ line 1, column 8\n" in capsys.readouterr().out


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


def test_a_variable_takes_the_schema_of_a_dry_run(shell: InteractiveShell) -> None:
    shell.run_cell("%sql schema << --dry-run SELECT n, msg FROM t")

    assert shell.user_ns["schema"] == ROWS.schema


def test_a_wrapper_s_client_that_cannot_look_ahead_says_so(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(notebook_world.FakeClient, "prepare_statement")

    with pytest.raises(UnsupportedRequest, match="without running it"):
        shell.run_line_magic("sql", "--dry-run SELECT 1")


def test_an_interrupt_of_a_dry_run_is_one_line(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.open_failure = KeyboardInterrupt()

    shell.run_cell("%sql --dry-run SELECT 1")

    assert capsys.readouterr().out == "✗ interrupted\n"


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


@pytest.mark.parametrize("source", ["%%sql --help", "%%sql --help\nSELECT 1", "%sql --help", "%%sql rows << --help\n"])
def test_help_lists_the_options_and_runs_nothing(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    done = shell.run_cell(source)

    shown = capsys.readouterr().out
    assert done.success
    assert all(option in shown for option in ("--begin T", "--format {pandas,", "--connection NAME", "--dry-run"))
    assert world.asked == []
