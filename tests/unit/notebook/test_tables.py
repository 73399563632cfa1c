"""`%micromegas_tables`: tables, columns, and counted rows as a result."""

import pyarrow as pa
import pytest

from micromegas_jupyter.errors import ServerUnavailable


def test_tables_are_listed_with_their_columns_and_descriptions(shell):
    tables = shell.run_line_magic("micromegas_tables", "")

    assert list(tables) == [
        {"table": "log_entries", "columns": 3, "description": "What programs logged."},
        {"table": "measures", "columns": 2, "description": ""},
    ]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("LOG", ["log_entries.time", "log_entries.level", "log_entries.msg"]),
        ("val", ["measures.value"]),
        ("m*s", ["log_entries.msg", "measures.time", "measures.value"]),
        ("(", []),
    ],
)
def test_a_pattern_lists_the_columns_of_matching_tables_and_matching_columns(shell, pattern, found):
    rows = list(shell.run_line_magic("micromegas_tables", f"'{pattern}'"))

    assert [f"{row['table']}.{row['column']}" for row in rows] == found


def test_a_column_has_its_type_and_description(shell):
    time, level, _ = shell.run_line_magic("micromegas_tables", "log_entries")

    assert (time["type"], time["null"]) == ("timestamp (UTC)", "never")
    assert (level["type"], level["null"], level["description"]) == ("integer", "possible", "How severe.")


def test_rows_and_the_times_that_they_cover_are_counted(shell, world):
    last = "12345-01-01T00:00:00Z"  # beyond the times of Python
    world.script = pa.table({"rows": [2], "first": ["2026-11-24T11:00:00Z"], "last": [last]}).to_batches()

    (row,) = shell.run_line_magic("micromegas_tables", "log --count")

    assert row == {"table": "log_entries", "rows": 2, "first": "2026-11-24T11:00:00Z", "last": last, "problem": None}
    (sql,) = (query["sql"] for query in world.asked if "count" in query["sql"])
    assert sql.endswith("min(time) AS VARCHAR) AS first, CAST(max(time) AS VARCHAR) AS last FROM log_entries")


def test_a_table_that_cannot_be_counted_has_the_reason(shell, world):
    world.open_failure = ServerUnavailable("It took too long.", remedy="")

    rows = list(shell.run_line_magic("micromegas_tables", "--count"))

    assert [(row["rows"], row["problem"]) for row in rows] == [(None, "It took too long.")] * 2


def test_names_from_the_server_cannot_steer_a_terminal(shell, world):
    name = "\x1b[2J\u202e"
    world.tables.schemas = {name: pa.schema([pa.field(name, pa.int64())])}

    for line in ("", name[2:4]):
        assert not {"\x1b", "\u202e"} & set(repr(shell.run_line_magic("micromegas_tables", line)))
