"""Completion of SQL: tokens, tables, candidates, and the matcher in a shell."""

from collections.abc import Iterator

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

from micromegas_jupyter.notebook.completion.schema import Column, ServerSchema, Table
from micromegas_jupyter.notebook.completion.sql import (
    MAX_CANDIDATES,
    MAX_CHARACTERS,
    Candidates,
    complete_sql,
    find_tables,
    scan,
)
from micromegas_jupyter.notebook.extension import register, unregister
from tests.fakes.notebook_world import FakeWorld


def make_table(name: str, *columns: str) -> Table:
    return Table(name=name, columns=tuple(Column(name=column, type_text="int64") for column in columns))


SCHEMA = ServerSchema(
    tables={
        found.name: found
        for found in (
            make_table("log_entries", "time", "level", "Upper Case", "order"),
            make_table("measures", "time", "value"),
        )
    },
    functions=("date_bin", "count", "->"),
)


def complete(marked: str, schema: ServerSchema = SCHEMA) -> Candidates:
    """Return what may stand at the `|` in a statement."""
    before, after = marked.split("|")
    return complete_sql(before, after, schema, variables=lambda: ["max_level", "names"])


def texts(marked: str, *kinds: str) -> list[str]:
    return [candidate.text for candidate in complete(marked).found if not kinds or candidate.kind in kinds]


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("SELECT | FROM measures", ["time", "value"]),
        ("SELECT * FROM measures WHERE v|", ["value"]),
        ("SELECT * FROM measures WHERE value > 1 AND T|", ["time"]),
        ("SELECT count(| FROM measures", ["time", "value"]),
        ("SELECT * FROM measures ORDER BY value, |", ["time", "value"]),
        ("SELECT extract(year FROM t|) FROM measures", ["time"]),
        ("SELECT | FROM log_entries", ["time", "level", '"Upper Case"', '"order"']),
        ("WITH q AS (SELECT time AS t FROM measures) SELECT | FROM q", ["time", "value", "t"]),
    ],
)
def test_columns_of_the_statements_tables_come_first_and_in_their_order(sql: str, columns: list[str]) -> None:
    assert texts(sql, "column") == columns
    assert next(candidate.kind for candidate in complete(sql).found) == "column"


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("SELECT l.| FROM log_entries AS l, measures m", ["time", "level", '"Upper Case"', '"order"']),
        ("SELECT m.v| FROM log_entries l JOIN measures m ON true", ["value"]),
        ("SELECT measures.| FROM measures", ["time", "value"]),
        ('SELECT "m".| FROM measures "m"', ["time", "value"]),
        ("WITH q AS (SELECT 1 AS one) SELECT q.| FROM q", ["one"]),
        ("SELECT unknown.| FROM measures", []),
        (".|", []),
    ],
)
def test_behind_a_dot_there_are_the_columns_of_what_is_before_it(sql: str, columns: list[str]) -> None:
    assert texts(sql) == columns


def test_aliases_functions_keywords_and_expressions_are_offered() -> None:
    assert texts("SELECT lo| FROM log_entries AS logs", "alias", "table") == ["logs", "log_entries"]
    assert texts("SELECT da|", "function") == ["date_bin"]
    assert texts("WITH recent AS (SELECT 1) SELECT * FROM rec|") == ["recent"]
    assert texts("SELECT * FROM measures wh|") == ["where"]
    assert texts("SELECT * FROM measures WH|") == ["WHERE"]
    assert "SELECT" in texts("|")


def test_a_name_that_could_steer_a_line_is_not_offered() -> None:
    schema = ServerSchema(tables={"t": make_table("t", "a\u202eb", "a\nb", "", "ab")})

    assert [found.text for found in complete("SELECT a| FROM t", schema).found if found.kind == "column"] == ["ab"]


def test_what_is_offered_and_looked_at_is_bounded() -> None:
    many = ServerSchema(tables={"t": make_table("t", *(f"column_{number}" for number in range(5 * MAX_CANDIDATES)))})

    assert len(complete("SELECT | FROM t", many).found) == MAX_CANDIDATES
    assert complete("SELECT |" + " " * MAX_CHARACTERS).found == ()


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT * FROM logs l, other AS o WHERE x", {"l": ["logs"], "o": ["other"]}),
        ("SELECT * FROM a JOIN b ON a.x = b.x LEFT JOIN c USING (x)", {"a": ["a"], "b": ["b"], "c": ["c"]}),
        ('SELECT * FROM db."Big" "B" GROUP BY 1', {"B": ["Big"]}),
        ("SELECT * FROM view_instance('logs', 'x') v LIMIT 1", {"v": ["view_instance"]}),
        ("SELECT (SELECT max(x) FROM b WHERE b.y = a.y) FROM a", {"b": ["b"], "a": ["a"]}),
        ("SELECT x, y FROM (SELECT * FROM logs) q, b", {"q": [""], "b": ["b"], "logs": ["logs"]}),
        ("FROM", {}),
        ("SELECT * FROM WHERE", {}),
        ("SELECT * FROM logs,", {"logs": ["logs"]}),
        ("SELECT * FROM (", {"": [""]}),
        ("SELECT * FROM " + "FROM a, b JOIN c ON (((" * 400, {"a": ["a"] * 400, "b": ["b"] * 400, "c": ["c"] * 400}),
    ],
)
def test_tables_and_their_aliases_are_found_however_far_the_statement_is(
    sql: str, expected: dict[str, list[str]]
) -> None:
    assert find_tables(scan(sql)) == expected


@pytest.fixture
def shell(
    bare_shell: InteractiveShell, world: FakeWorld, monkeypatch: pytest.MonkeyPatch
) -> Iterator[InteractiveShell]:
    # The first completion waits for the answer, which a loaded machine may take its time for.
    monkeypatch.setattr("micromegas_jupyter.notebook.completion.sql.FIRST_ANSWER_SECONDS", 60.0)
    register(bare_shell, world.dependencies())
    yield bare_shell
    world.tables.may_answer.set()
    unregister(bare_shell)


def offered(shell: InteractiveShell, marked: str) -> list[tuple[str, str]]:
    """Return what IPython offers at the `|` in a cell: the text and its type."""
    before, after = marked.split("|")
    with provisionalcompleter():
        found = list(shell.Completer.completions(before + after, len(before)))
    return [(completion.text, completion.type) for completion in found]


def test_a_sql_cell_is_completed_from_the_server_and_with_nothing_else(shell: InteractiveShell) -> None:
    shell.user_ns["log_frame"] = 1

    assert offered(shell, "%%sql\nSELECT * FROM log|") == [("log_entries", "table")]
    assert offered(shell, "%%micromegas_sql\nSELECT l.le| FROM log_entries l") == [("level", "column")]
    assert offered(shell, "rows = %sql SELECT va| FROM measures")[0] == ("value", "column")
