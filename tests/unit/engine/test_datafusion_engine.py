"""The embedded engine over real Parquet files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.engine import (
    DataFusionEngine,
    EngineSettings,
    PlannedQuery,
    TimeRange,
)
from micromegas_jupyter.errors import InternalError, InvalidStatement, StatementRefused, Unavailable
from tests.fakes.fixed_tables import CALLER, LOG_SCHEMA, NOON, FixedTables, write_log_entries
from tests.unit.engine.conftest import Asker

LAST_HALF_HOUR = TimeRange(begin=NOON + timedelta(hours=1, minutes=15), end=NOON + timedelta(hours=1, minutes=45))


def test_a_planned_query_keeps_its_protocol(ask: Asker) -> None:
    assert isinstance(ask.plan("SELECT 1"), PlannedQuery)


def test_all_files_of_a_table_are_read(ask: Asker) -> None:
    assert ask.rows("SELECT count(*) AS n, count(msg) AS messages FROM log_entries") == [{"n": 20, "messages": 15}]


def test_a_table_without_files_has_its_schema_and_no_rows(ask: Asker) -> None:
    found = ask.table("SELECT * FROM measures")

    assert found.num_rows == 0
    assert found.schema.names == LOG_SCHEMA.names
    assert found.schema.field("time").type == pa.timestamp("ns", "+00:00")


def test_a_result_of_no_rows_keeps_its_schema(ask: Asker) -> None:
    found = ask.table("SELECT exe, upper(exe) AS loud, time FROM log_entries WHERE level > 90")

    assert found.num_rows == 0
    assert found.schema.types == [pa.string(), pa.string(), pa.timestamp("ns", "+00:00")]


def test_dictionaries_are_flattened(ask: Asker) -> None:
    schema = ask.plan("SELECT * FROM log_entries").schema

    assert schema.field("exe") == pa.field("exe", pa.string(), nullable=False)
    assert schema.field("properties").type == pa.binary()
    assert ask.rows("SELECT exe, properties FROM log_entries ORDER BY time LIMIT 3") == [
        {"exe": "web", "properties": b"{}"},
        {"exe": "web", "properties": b"{}"},
        {"exe": "job", "properties": None},
    ]


def test_dictionaries_are_kept_on_request(ask: Asker) -> None:
    found = ask.table("SELECT exe, properties FROM log_entries ORDER BY time LIMIT 3", preserve_dictionary=True)

    assert found.schema.types == [pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.int32(), pa.binary())]
    assert found.column("exe").to_pylist() == ["web", "web", "job"]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("upper(exe)", "WEB"),
        ("concat(exe, '-', msg)", "web-start 0"),
        ("exe || '!'", "web!"),
        ("substr(msg, 1, 5)", "start"),
        ("split_part(msg, ' ', 2)", "0"),
        ("arrow_cast(msg, 'Utf8View')", "start 0"),
        ("CASE WHEN level > 3 THEN exe ELSE msg END", "web"),
        ("'it''s'", "it's"),
    ],
)
def test_a_string_function_gives_plain_strings(ask: Asker, expression: str, value: str) -> None:
    found = ask.table(f"SELECT {expression} AS v FROM log_entries ORDER BY time LIMIT 1")

    assert found.schema.field("v").type == pa.string()
    assert found.column("v").to_pylist() == [value]


def test_other_times_count_nanoseconds(ask: Asker) -> None:
    found = ask.table("SELECT arrow_cast(1, 'Timestamp(Second, Some(\"UTC\"))') AS t, [to_timestamp_millis(5)] AS l")

    assert found.schema.field("t").type == pa.timestamp("ns", "UTC")
    assert found.schema.field("l").type.value_type == pa.timestamp("ns")
    assert found.column("t").cast(pa.int64()).to_pylist() == [10**9]


def test_a_time_that_nanoseconds_cannot_hold_is_a_wrong_value(ask: Asker) -> None:
    with pytest.raises(InvalidStatement):
        ask.rows("SELECT arrow_cast(99999999999, 'Timestamp(Second, None)')")


def test_a_merged_table_gives_one_row_per_key_and_shows_its_raw_rows(ask: Asker) -> None:
    merged = ask.rows("SELECT process_id, last_update_time FROM processes ORDER BY process_id")
    raw = ask.rows("SELECT count(*) AS n FROM __processes__partitions")

    assert merged == [
        {
            "process_id": "p1",
            "last_update_time": pa.scalar(NOON + timedelta(hours=3), pa.timestamp("ns", "UTC")).as_py(),
        },
        {"process_id": "p2", "last_update_time": pa.scalar(NOON, pa.timestamp("ns", "UTC")).as_py()},
    ]
    assert raw == [{"n": 3}]


def test_a_time_range_is_closed_at_both_ends(ask: Asker) -> None:
    found = ask.rows("SELECT msg FROM log_entries ORDER BY time", time_range=LAST_HALF_HOUR)

    assert [row["msg"] for row in found] == ["error 1", "step 1", None]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT (SELECT count(*) FROM log_entries) AS n",
        "WITH l AS (SELECT * FROM log_entries) SELECT count(*) AS n FROM l",
        "SELECT count(*) AS n FROM (SELECT 1 FROM LOG_ENTRIES) AS x",
        'SELECT count(*) AS n FROM datafusion.public."log_entries"',
    ],
)
def test_a_time_range_cuts_every_way_to_a_table(ask: Asker, sql: str) -> None:
    assert ask.rows(sql, time_range=LAST_HALF_HOUR) == [{"n": 3}]


def test_a_time_range_acts_before_the_merge(ask: Asker) -> None:
    late = TimeRange(begin=NOON + timedelta(hours=2), end=NOON + timedelta(hours=4))
    early = TimeRange(begin=NOON - timedelta(hours=1), end=NOON)

    # The late state of p1 has no start time, so it does not overlap anything; the first states end at noon.
    assert ask.rows("SELECT * FROM processes", time_range=late) == []
    found = ask.rows("SELECT process_id, last_update_time FROM processes ORDER BY process_id", time_range=early)
    assert [(row["process_id"], row["last_update_time"].hour) for row in found] == [("p1", 12), ("p2", 12)]


def test_a_range_that_ends_before_it_begins_holds_nothing(ask: Asker) -> None:
    backwards = TimeRange(begin=NOON + timedelta(hours=2), end=NOON)

    assert ask.rows("SELECT count(*) AS n FROM log_entries", time_range=backwards) == [{"n": 0}]


def test_a_range_beyond_nanoseconds_is_all_there_is(ask: Asker) -> None:
    everything = TimeRange(begin=datetime(1, 1, 1, tzinfo=UTC), end=datetime(9999, 12, 31, tzinfo=UTC))

    assert ask.rows("SELECT count(*) AS n FROM log_entries", time_range=everything) == [{"n": 20}]


@pytest.mark.parametrize(("limit", "rows"), [(0, 0), (3, 3), (100, 20)])
def test_a_row_limit_lies_on_top_of_the_statement(ask: Asker, limit: int, rows: int) -> None:
    assert ask.table("SELECT * FROM log_entries", row_limit=limit).num_rows == rows
    assert ask.table("SELECT * FROM log_entries LIMIT 2", row_limit=limit).num_rows == min(rows, 2)


@pytest.mark.parametrize("sql", ["EXPLAIN SELECT 1", "DESCRIBE log_entries", "SHOW TABLES", "EXPLAIN ANALYZE SELECT 1"])
def test_a_row_limit_works_on_descriptions(ask: Asker, sql: str) -> None:
    assert ask.table(sql, row_limit=1).num_rows == 1
    assert ask.table(sql, row_limit=0).num_rows == 0


@pytest.mark.parametrize(
    "sql",
    [
        "EXPLAIN SELECT * FROM log_entries WHERE level = 2",
        "EXPLAIN VERBOSE SELECT * FROM log_entries l JOIN processes p ON l.process_id = p.process_id",
        "EXPLAIN ANALYZE SELECT count(*) FROM log_entries",
        "EXPLAIN ANALYZE VERBOSE SELECT count(*) FROM log_entries",
        "EXPLAIN FORMAT TREE SELECT * FROM log_entries",
        "EXPLAIN FORMAT PGJSON SELECT * FROM log_entries",
        "EXPLAIN FORMAT GRAPHVIZ SELECT * FROM log_entries",
    ],
)
def test_a_described_plan_shows_no_file(ask: Asker, sql: str) -> None:
    folder = Path(ask.tables.snapshot()[0].files[0]).parent

    text = str(ask.rows(sql))

    assert "plan" in text
    assert ".parquet" not in text
    assert folder.name not in text


def test_information_schema_names_all_tables_and_columns(ask: Asker) -> None:
    tables = ask.rows("SHOW TABLES")
    columns = ask.rows(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_name LIKE 'process%' ORDER BY 1"
    )

    assert {row["table_name"] for row in tables if row["table_schema"] == "public"} == {
        "log_entries",
        "processes",
        "measures",
    }
    assert "df_settings" not in {row["table_name"] for row in tables}
    assert [row["column_name"] for row in columns] == ["last_update_time", "process_id", "start_time"]


def test_information_schema_shows_no_definition(ask: Asker) -> None:
    definitions = ask.rows("SELECT definition FROM information_schema.views")
    created = ask.rows("SHOW CREATE TABLE log_entries")

    assert {row["definition"] for row in [*definitions, *created]} == {None}


def test_tables_are_listed_with_their_wire_schemas(ask: Asker) -> None:
    found = dict(ask.engine.tables(CALLER))

    assert list(found) == ["log_entries", "processes", "measures"]
    assert found["log_entries"] == ask.plan("SELECT * FROM log_entries").schema
    assert found["processes"] == ask.plan("SELECT * FROM processes").schema


@pytest.mark.parametrize(
    ("sql", "words", "place"),
    [
        ("SELEC 1", "not SELEC", (1, 1)),
        ("SELECT 1 FROM\n  log_entry", "no table named log_entry. Did you mean log_entries?", (2, 3)),
        ("SELECT\n  mgs FROM log_entries", "no column named mgs. Did you mean msg?", (2, 3)),
        ("SELECT ?, mgs FROM log_entries", "no column named mgs", (1, 11)),
        ("SELECT count_of(1)", "no function named count_of", (1, 8)),
        ("SELECT msg + time FROM log_entries", "types do not fit", (None, None)),
        ("SELECT X'zz'", "literal is not supported", (None, None)),
        (f"SELECT CAST('{'x' * 200}' AS BIGINT)", "to value of Int64 type", (None, None)),
        ("SELECT 1 / 0", "divides by zero", (None, None)),
        ("SELECT CAST(msg AS INT) FROM log_entries", "Cannot cast string 'start", (None, None)),
        ("SELECT to_timestamp('x')", "Error parsing timestamp", (None, None)),
        ("SELECT regexp_like('a', '(')", "regular expression", (None, None)),
    ],
)
def test_a_wrong_statement_is_explained(ask: Asker, sql: str, words: str, place: tuple[int | None, int | None]) -> None:
    row = pa.record_batch({"0": [1]}) if "?" in sql else None

    with pytest.raises(InvalidStatement) as caught:
        ask.rows(sql, parameters=row)

    assert words in str(caught.value)
    assert (caught.value.line, caught.value.column) == place


def test_a_statement_over_the_limit_is_refused(ask: Asker) -> None:
    with pytest.raises(StatementRefused, match="47 levels"):
        ask.rows("SELECT " + "(" * 48 + "1" + ")" * 48)


def test_a_file_that_is_gone_is_not_read_as_no_rows(tmp_path: Path) -> None:
    table = write_log_entries(tmp_path, 2)
    Path(table.files[1]).unlink()
    engine = DataFusionEngine(FixedTables([table]), EngineSettings())

    with pytest.raises(Unavailable, match="removed or replaced"):
        _run(engine, "SELECT count(*) FROM log_entries")

    assert _run(engine, "SELECT 1 AS x") == [{"x": 1}]
    engine.close()


def test_only_mentioned_tables_are_looked_at(tmp_path: Path) -> None:
    gone = TableSnapshot(name="gone", schema=LOG_SCHEMA, files=("/nowhere/x.parquet",))
    table = write_log_entries(tmp_path, 1)
    engine = DataFusionEngine(FixedTables([table, gone]), EngineSettings())

    assert _run(engine, "SELECT count(*) AS n FROM log_entries") == [{"n": 4}]
    assert len(_run(engine, "SHOW COLUMNS FROM log_entries")) == 6
    for sql in ("SELECT * FROM gone", 'SELECT * FROM "gone"', "SELECT $$x$$ FROM GONE"):
        with pytest.raises(Unavailable):
            _run(engine, sql)
    engine.close()


@pytest.mark.parametrize("name", ["Mixed", "with space", "dotted.name", 'quo"te'])
def test_a_table_name_is_taken_as_it_is(name: str, tmp_path: Path) -> None:
    table = write_log_entries(tmp_path, 1)
    named = TableSnapshot(name=name, schema=table.schema, files=table.files)
    engine = DataFusionEngine(FixedTables([named]), EngineSettings())
    quoted = '"' + name.replace('"', '""') + '"'

    assert _run(engine, f"SELECT count(*) AS n FROM {quoted}") == [{"n": 4}]
    engine.close()


def test_a_file_that_is_no_parquet_is_told_to_the_log_only(tmp_path: Path) -> None:
    path = tmp_path / "damaged.parquet"
    path.write_bytes(b"PAR1 not really PAR1")
    engine = DataFusionEngine(
        FixedTables([TableSnapshot(name="t", schema=LOG_SCHEMA, files=(str(path),))]),
        EngineSettings(),
    )

    with pytest.raises(InternalError) as caught:
        _run(engine, "SELECT msg FROM t")

    assert str(tmp_path) not in str(caught.value)
    engine.close()


@pytest.mark.parametrize("sql", ["SELECT 1", "SELECT count(*) FROM log_entries"])
def test_a_query_runs_once(ask: Asker, sql: str) -> None:
    planned = ask.plan(sql)

    assert len(list(planned.batches())) == 1
    with pytest.raises(InternalError):
        planned.batches()


@pytest.mark.parametrize("sql", ["SELECT nobody", "SELECT nobody FROM log_entries"])
def test_a_name_that_is_unknown_is_told_when_the_statement_is_planned(ask: Asker, sql: str) -> None:
    with pytest.raises(InvalidStatement):
        ask.plan(sql)


@pytest.mark.parametrize("sql", ["SELECT 1 / 0", "SELECT 1 / (level - level) FROM log_entries"])
def test_a_wrong_value_is_told_when_the_statement_runs(ask: Asker, sql: str) -> None:
    planned = ask.plan(sql)

    with pytest.raises(InvalidStatement, match="zero"):
        list(planned.batches())


def test_an_engine_that_is_warm_answers_alike(tmp_path: Path) -> None:
    engine = DataFusionEngine(FixedTables([write_log_entries(tmp_path, 1)]), EngineSettings())

    engine.warm()

    assert _run(engine, "SELECT count(*) AS n FROM log_entries") == [{"n": 4}]
    engine.close()


def _run(engine: DataFusionEngine, sql: str) -> list[dict[str, Any]]:
    return Asker(engine, FixedTables()).rows(sql)
