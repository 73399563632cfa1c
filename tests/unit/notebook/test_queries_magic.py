"""`%micromegas_queries`: earlier queries, and running them again."""

from datetime import UTC, datetime

import pytest
from IPython.core.interactiveshell import InteractiveShell

from micromegas_jupyter.errors import InvalidStatement, UsageError
from micromegas_jupyter.notebook.magics.sql import MAX_QUERIES, QueryHistory, SqlRequest
from tests.fakes.notebook_world import FakeWorld

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def listed(shell: InteractiveShell, line: str = "") -> list[tuple[str, ...]]:
    return [tuple(row) for row in shell.run_line_magic("micromegas_queries", line).rows]


def test_queries_are_listed_with_how_they_ended(shell: InteractiveShell, world: FakeWorld) -> None:
    rows = world.script
    shell.run_cell("a = %sql SELECT n,   msg FROM t")
    world.script = [rows[0], KeyboardInterrupt()]
    shell.run_cell("b = %sql SELECT 2")
    world.script, world.open_failure = rows, InvalidStatement("No.", query_id="5e5e5e5e5e5e")
    shell.run_cell("c = %sql SELECT 3")
    world.open_failure = None
    shell.run_cell("d = %sql --format reader SELECT 4")
    running = listed(shell)[-1]
    shell.run_cell("d.read_all()")

    table = shell.run_line_magic("micromegas_queries", "")

    assert [tuple(row[2:]) for row in table.rows] == [
        ("done", "3", "1.0 s", "7f3a91c2", "SELECT n, msg FROM t"),
        ("cancelled", "2", "1.0 s", "7f3a91c2", "SELECT 2"),
        ("failed", "0", "0.00 s", "5e5e5e5e", "SELECT 3"),
        ("done", "3", "1.0 s", "7f3a91c2", "SELECT 4"),
    ]
    assert repr(table).splitlines()[-1].endswith("done            3   1.0 s  7f3a91c2  SELECT 4")
    assert running[2] == "running"


def test_a_statement_is_shown_escaped(shell: InteractiveShell) -> None:
    shell.run_cell("%%sql\nSELECT '<script>\x1b[2J'")

    table = shell.run_line_magic("micromegas_queries", "")
    whole = shell.run_line_magic("micromegas_queries", "--sql 1")

    assert "<script>" not in table._repr_html_()
    assert "&lt;script&gt;\\x1b[2J" in table._repr_html_()
    assert "\x1b" not in repr(table)
    assert "<script>" not in whole._repr_html_()
    assert "\x1b" not in repr(whole)


def test_a_query_is_shown_whole_as_the_cell_that_it_was(shell: InteractiveShell) -> None:
    shell.user_ns["level"] = "a secret value"
    sql = "SELECT n,\n       msg\nFROM t WHERE level = :level"
    shell.run_cell(f"%%sql rows << --begin '2026-11-24 11:00:00Z' --limit 5 --format arrow\n{sql}\n")

    whole = shell.run_line_magic("micromegas_queries", "--sql 1")

    assert str(whole) == f"%%sql rows << --begin '2026-11-24 11:00:00Z' --limit 5 --format arrow\n{sql}"
    assert "secret" not in str(whole)


def test_a_query_is_run_again_with_its_options_and_the_values_of_then(
    shell: InteractiveShell, world: FakeWorld
) -> None:
    shell.user_ns["levels"] = [1, 2]
    shell.run_cell("%sql rows << --begin 1h --limit 5 --format arrow SELECT n FROM t WHERE level IN :levels")
    shell.user_ns["levels"].append(3)
    del shell.user_ns["rows"]
    world.clock.advance(600)

    shell.run_line_magic("micromegas_queries", "--rerun 1")

    assert world.asked[1]["params"] == {"levels": (1, 2)}
    assert (world.asked[1]["limit"], world.asked[1]["sql"]) == (5, world.asked[0]["sql"])
    assert world.asked[1]["begin"] > world.asked[0]["begin"]
    assert shell.user_ns["rows"].num_rows == 3
    assert [row[0] for row in listed(shell)] == ["1", "2"]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("--rerun 1", "No query has run"),
        ("--sql 1 --rerun 1", "cannot be combined"),
        ("--rerun x", "invalid int"),
        ("--return 1", "Did you mean --rerun?"),
    ],
)
def test_what_cannot_be_done_is_said(shell: InteractiveShell, line: str, what: str) -> None:
    with pytest.raises(UsageError, match=what.replace("?", r"\?")):
        shell.run_line_magic("micromegas_queries", line)


def test_only_the_newest_queries_are_kept() -> None:
    history = QueryHistory()
    for _ in range(MAX_QUERIES + 1):
        history.begin(SqlRequest(sql="SELECT 1"), at=NOW)

    assert [query.number for query in history.all()][::199] == [2, 201]
    with pytest.raises(UsageError, match=r"There is no query 1\. Numbers 2 to 201 are available"):
        history.get(1)


def test_large_values_push_older_queries_out() -> None:
    history = QueryHistory()
    for _ in range(3):
        history.begin(SqlRequest(sql="SELECT :a", params={"a": ("x" * 4_000_000, b"y" * 4_000_000)}), at=NOW)

    assert [query.number for query in history.all()] == [2, 3]
