"""The embedded engine over real Parquet files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.engine.contract import EngineSettings, TimeRange
from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
from micromegas_jupyter.errors import Unavailable
from tests.fakes.fixed_tables import LOG_SCHEMA, NOON, FixedTables, write_log_entries
from tests.unit.engine.conftest import Asker

LAST_HALF_HOUR = TimeRange(begin=NOON + timedelta(hours=1, minutes=15), end=NOON + timedelta(hours=1, minutes=45))


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


@pytest.mark.parametrize(("limit", "rows"), [(0, 0), (3, 3), (100, 20)])
def test_a_row_limit_lies_on_top_of_the_statement(ask: Asker, limit: int, rows: int) -> None:
    assert ask.table("SELECT * FROM log_entries", row_limit=limit).num_rows == rows
    assert ask.table("SELECT * FROM log_entries LIMIT 2", row_limit=limit).num_rows == min(rows, 2)


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


def _run(engine: DataFusionEngine, sql: str) -> list[dict[str, Any]]:
    return Asker(engine, FixedTables()).rows(sql)


NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
