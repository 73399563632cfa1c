"""A statement that fails says so in words for people, in the right class, and reveals nothing of the server."""

import logging
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.engine.errors import Context, translate
from micromegas_jupyter.engine.schemas import with_sql_names
from micromegas_jupyter.errors import (
    InternalError,
    InvalidStatement,
    MicromegasError,
    QueryError,
    ResourcesExhausted,
    StatementRefused,
    Unavailable,
    UnsupportedStatement,
)
from tests.fakes.fixed_tables import data_files, empty_table, write_log_entries, write_processes
from tests.unit.engine.conftest import asking
from tests.unit.engine.statements import EXHAUSTED, INVALID, REFUSED, UNSUPPORTED

CONTEXT = Context(sql="SELECT 1,\n  mgs FROM log_entry", tables=("log_entries", "processes"))

IN_THE_READER = "Parquet error: External: Compute error: Error evaluating filter predicate: "


def told(text):
    return translate(Exception(text), CONTEXT)


@pytest.mark.parametrize(
    ("text", "kind", "what"),
    [
        (f'{IN_THE_READER}ArrowError(CastError("Cannot cast a"), Some(""))', InvalidStatement, "Cannot cast a"),
        (f'{IN_THE_READER}ArrowError(DivideByZero, Some(""))', InvalidStatement, "divides by zero"),
        ("Not enough memory.\ncaused by\nResources exhausted: Failed to allocate", ResourcesExhausted, "more memory"),
        ("Arrow error: Io error: IO error: No space left on device (os error 28)", ResourcesExhausted, "disk"),
        ("Object Store error: Object at location /srv/a.parquet not found: x", Unavailable, "removed or replaced"),
        ("Object Store error: x for path a: x in 1s - x status code: 403 Forbidden: ", Unavailable, "credentials"),
        ("Parquet error: External: x error: Out of range of file /srv/a: 9", Unavailable, "removed or replaced"),
        ("Arrow error: Parquet argument error: External: snappy: corrupt input", Unavailable, "corrupted"),
        ("Object Store error: Generic x error: Unable to open file /srv/a: x", Unavailable, "not allowed to read it"),
        ("Execution error: PyErr { type: <class 'KeyError'>, traceback: ... }", InternalError, "internal error"),
        ("something that nobody has seen", InternalError, "internal error"),
    ],
)
def test_a_text_becomes_an_error_of_its_class(text, kind, what):
    found = told(f"DataFusion error: {text}")

    assert type(found) is kind
    assert what in found.what
    assert "/srv" not in str(found)


@pytest.mark.parametrize(("kind", "is_of_time"), [("Int32", False), ("Float64", False), ("Timestamp(ns)", True)])
def test_only_where_a_time_is_due_its_form_is_told(kind, is_of_time):
    found = told(f"DataFusion error: Arrow error: Cast error: Cannot cast string 'error' to value of {kind} type")

    assert ("2026-11-25T12:00:00Z" in found.remedy) is is_of_time


@pytest.mark.parametrize("repeated", [".x", "x.y/", "/a/b", " ", "\n", "a://", "No field named ", "a.parquet", "\"'"])
def test_a_huge_text_is_read_in_no_time(repeated):
    found = told("Error during planning: Unsupported compound identifier 't" + repeated * 30000 + "'")

    assert type(found) is InvalidStatement
    assert len(found.what) < 700


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("DataFusion error: Arrow error: Cast error: Cannot cast string 'abc' to Int32 type", InvalidStatement),
        (
            "Arrow error: Cannot cast string 'abc backtrace: Cannot access field at argument 1: type Binary'",
            InvalidStatement,
        ),
        ("DataFusion error: This feature is not implemented: Filter: tenant = Utf8('abc')", UnsupportedStatement),
        ("DataFusion error: Internal error: tenant = Utf8('abc')", InternalError),
    ],
)
def test_values_are_left_out_where_rows_are_hidden(text, kind, caplog):
    with caplog.at_level(logging.DEBUG):
        found = translate(Exception(text), Context(sql="SELECT 1", hides_values=True))

    assert type(found) is kind
    assert "abc" not in str(found)
    assert not any("abc" in str(record.__dict__) for record in caplog.records)


CASES = [
    *((sql, place, InvalidStatement) for sql, place in INVALID),
    *((sql, place, UnsupportedStatement) for sql, place in UNSUPPORTED),
    *((sql, place, StatementRefused) for sql, place in REFUSED),
    *((sql, place, ResourcesExhausted) for sql, place in EXHAUSTED),
]
# Words of Rust, Arrow and Python, their sources, and how they write their own values.
INNER = re.compile(
    r"\.rs\b|\.py\b|PyErr|Traceback|panick|backtrace|unwrap|DataFusion error|Arrow error|External error|Internal error"
    r"|Execution error|ParserError|SchemaError|Ident\b|Span\(|Location\(|ObjectName|\w \{ \w|Some\(|None\)"
    r"|github|bug report|\?table\?|ValueWithSpan|Literal\("
)
FOLDER = re.compile(r"/(?:root|tmp|home|usr|var|srv|opt)/|\.parquet")


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """Log entries, processes and a table of nested types, on an engine with little memory and disk."""
    folder = tmp_path_factory.mktemp("failing lake")
    nested = pa.table(
        {
            "id": [1, 2],
            "tags": [[1, 2], [3]],
            "s": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}],
            "d": pa.array([1, 2], pa.decimal128(10, 2)),
            "b": [b"a", b"\xff"],
        }
    )
    pq.write_table(nested, folder / "nested.parquet")
    tables = [
        write_log_entries(folder, 2),
        write_processes(folder),
        empty_table(),
        TableSnapshot(name="nested", schema=nested.schema, files=data_files(folder / "nested.parquet")),
    ]
    with asking(tables, memory_limit_bytes=20 << 20, spill_limit_bytes=1 << 20) as asker:
        yield asker


@pytest.mark.parametrize(("sql", "place", "kind"), CASES)
def test_a_failure_is_told_in_its_class_and_in_words_for_people(ask, sql, place, kind):
    with pytest.raises(QueryError) as failed:
        ask.rows(sql)

    error = failed.value
    assert type(error) is kind
    assert (error.line, error.column) == (place or (None, None))
    assert error.remedy
    told = f"{error.what} {error.remedy}"
    assert not INNER.search(told)
    assert not FOLDER.search(told.replace("/tmp/x.parquet", "").replace("file:///etc/x.parquet", ""))
    assert error.what[-1] in ".…"
    assert len(error.what) < 800


@pytest.mark.parametrize(
    ("sql", "what", "place"),
    [
        ("SELECT level * interval '1 hour' FROM log_entries", "INT * INTERVAL", (1, 14)),
        ("SELECT 2 * 3 + (3 * interval '1 hour')", "BIGINT * INTERVAL", (None, None)),
        ("SELECT msg + 1 FROM log_entries", "VARCHAR + BIGINT", (1, 12)),
        ("SELECT level = time FROM log_entries", "INT = TIMESTAMP WITH TIME ZONE", (1, 14)),
        ("SELECT d LIKE 1 FROM nested", "DECIMAL(10, 2) and BIGINT", (1, 10)),
        ("SELECT msg FROM log_entries WHERE time", "log_entries.time is TIMESTAMP WITH TIME ZONE", (1, 35)),
    ],
)
def test_an_error_names_types_of_sql_and_the_operator(ask, sql, what, place):
    with pytest.raises(QueryError) as failed:
        ask.rows(sql)

    assert what in failed.value.what
    assert (failed.value.line, failed.value.column) == place


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('Int64(1) = Utf8("x")', "1 = 'x'"),
        ("Timestamp(ns) and Timestamp(Nanosecond, None)", "TIMESTAMP and TIMESTAMP"),
        ("Dictionary(Int32, Utf8), Utf8View, LargeBinary", "VARCHAR, VARCHAR, BYTEA"),
        ("Decimal128(10, 2), Duration(ns), UInt64", "DECIMAL(10, 2), DURATION, BIGINT UNSIGNED"),
        ('the column t."Binary" is 0x1', 'the column t."Binary" is 0x1'),
    ],
)
def test_names_of_the_engine_become_those_of_sql(text, shown):
    assert with_sql_names(text) == shown


def test_a_damaged_file_is_the_servers_fault(tmp_path):
    rows = pa.table({"word": [f"{n * 7919 % 10_007:050d}" for n in range(10_000)]})
    file = tmp_path / "secret name.parquet"
    pq.write_table(rows, file, compression="snappy")
    content = file.read_bytes()
    file.write_bytes(content[:200] + bytes(reversed(content[200:20_000])) + content[20_000:])
    table = TableSnapshot(name="words", schema=rows.schema, files=data_files(file))

    with asking([table]) as ask, pytest.raises(MicromegasError) as failed:
        ask.rows("SELECT max(word), count(DISTINCT word) FROM words")

    assert type(failed.value) is Unavailable
    assert not isinstance(failed.value, QueryError)
    assert "secret" not in str(failed.value)
    assert "arquet" not in str(failed.value)


@pytest.mark.parametrize("options", ["", "ANALYZE ", "VERBOSE ", "ANALYZE VERBOSE ", "FORMAT TREE "])
def test_a_described_plan_shows_no_path(ask, options):
    rows = ask.rows(f"EXPLAIN {options}SELECT msg, count(*) FROM log_entries WHERE level > 1 GROUP BY msg ORDER BY 1")

    assert rows
    assert not FOLDER.search(str(rows))
    assert "failing lake" not in str(rows)
    assert "failing%20lake" not in str(rows)


@pytest.mark.parametrize(
    ("sql", "what", "remedy", "place"),
    [
        ("SELECT 1,\n  mgs FROM log_entries", "column named mgs", "Did you mean msg?", (2, 3)),
        ("SELECT l.msg FROM log_entries AS e", "table or alias named l", "Known here: e.", (1, 8)),
        ("SELECT avgg(level) FROM log_entries", "function named avgg", "Did you mean avg?", (1, 8)),
        ("SELECT * FROM thread_spans", "table named thread_spans", "view_instance(", (1, 15)),
        ("SELECT * FROM __blocks__partitions", "", "Only Micromegas's own server", None),
        ("SELECT row_number() FROM log_entries", "", "OVER (ORDER BY", None),
    ],
)
def test_who_asks_for_what_is_not_there_is_told_what_to_do(ask, sql, what, remedy, place):
    with pytest.raises(InvalidStatement, match=f"There is no {what}") as caught:
        ask.plan(sql)

    assert remedy in caught.value.remedy
    assert place in {(caught.value.line, caught.value.column), None}


@pytest.mark.parametrize(
    "secret", ["/srv/lake/a.parquet", "s3://bucket/key", "file:///srv/x", "srv/lake/date=2026/x.parquet", "/mnt/ann/x"]
)
def test_no_path_passes(secret):
    found = told(f"Error during planning: cannot use {secret} here")

    assert found.what == "cannot use … here."


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT properties['key'] FROM log_entries",
        "SELECT properties.key FROM log_entries",
        "SELECT map_keys(properties) FROM log_entries",
        "SELECT element_at(properties, 'key') FROM log_entries",
        "SELECT properties ->> 'key' FROM log_entries",
        "SELECT msg FROM log_entries WHERE properties['key'] = 'x'",
    ],
)
@pytest.mark.parametrize("conditions", [{}, {"log_entries": "level > 1"}], ids=["all rows", "some rows"])
def test_statements_for_maps_are_told_the_functions_of_binary_json(tmp_path, sql, conditions):
    tables = [write_log_entries(tmp_path, 1)]
    with asking(tables, default_conditions=conditions) as ask, pytest.raises(QueryError) as caught:
        list(ask.plan(sql).batches())

    assert "property_get(properties, 'key')" in caught.value.remedy
