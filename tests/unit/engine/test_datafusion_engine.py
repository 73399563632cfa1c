"""The embedded engine over real Parquet files."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datafusion import SessionContext, col, lit

from micromegas_jupyter.core.file_list import FileList
from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.engine.contract import TimeRange
from micromegas_jupyter.engine.schemas import to_wire, wire_schema
from micromegas_jupyter.engine.tables import TableBuilder, check_scans
from micromegas_jupyter.errors import Unavailable
from tests.fakes.fixed_tables import LOG_SCHEMA, NOON, data_files, write_log_entries
from tests.unit.engine.conftest import asking

LAST_HALF_HOUR = TimeRange(begin=NOON + timedelta(hours=1, minutes=15), end=NOON + timedelta(hours=1, minutes=45))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT (SELECT count(*) FROM log_entries) AS n",
        "WITH l AS (SELECT * FROM log_entries) SELECT count(*) AS n FROM l",
        "SELECT count(*) AS n FROM (SELECT 1 FROM LOG_ENTRIES) AS x",
        'SELECT count(*) AS n FROM datafusion.public."log_entries"',
    ],
)
def test_a_time_range_cuts_every_way_to_a_table(ask, sql):
    assert ask.rows(sql, time_range=LAST_HALF_HOUR) == [{"n": 3}]


def test_a_time_range_acts_before_the_merge(ask):
    late = TimeRange(begin=NOON + timedelta(hours=2), end=NOON + timedelta(hours=4))
    early = TimeRange(begin=NOON - timedelta(hours=1), end=NOON)

    # The late state of p1 has no start time, so it does not overlap anything; the first states end at noon.
    assert ask.rows("SELECT * FROM processes", time_range=late) == []
    found = ask.rows("SELECT process_id, last_update_time FROM processes ORDER BY process_id", time_range=early)
    assert [(row["process_id"], row["last_update_time"].hour) for row in found] == [("p1", 12), ("p2", 12)]


@pytest.mark.parametrize(("limit", "rows"), [(0, 0), (3, 3), (100, 20)])
def test_a_row_limit_lies_on_top_of_the_statement(ask, limit, rows):
    assert ask.table("SELECT * FROM log_entries", row_limit=limit).num_rows == rows
    assert ask.table("SELECT * FROM log_entries LIMIT 2", row_limit=limit).num_rows == min(rows, 2)


def test_a_file_that_is_gone_is_not_read_as_no_rows(tmp_path):
    table = write_log_entries(tmp_path, 2)
    Path(table.files[1].path).unlink()

    with asking([table]) as ask:
        with pytest.raises(Unavailable, match="removed or replaced"):
            ask.rows("SELECT count(*) FROM log_entries")
        assert ask.rows("SELECT 1 AS x") == [{"x": 1}]


def test_only_mentioned_tables_are_looked_at(tmp_path):
    gone = TableSnapshot(name="gone", schema=LOG_SCHEMA, files=data_files("/nowhere/x.parquet"))

    with asking([write_log_entries(tmp_path, 1), gone]) as ask:
        assert ask.rows("SELECT count(*) AS n FROM log_entries") == [{"n": 4}]
        assert len(ask.rows("SHOW COLUMNS FROM log_entries")) == 6
        for sql in ("SELECT * FROM gone", 'SELECT * FROM "gone"', "SELECT $$x$$ FROM GONE"):
            with pytest.raises(Unavailable):
                ask.rows(sql)


@pytest.mark.parametrize("name", ["Mixed", "with space", "dotted.name", 'quo"te'])
def test_a_table_name_is_taken_as_it_is(name, tmp_path):
    table = replace(write_log_entries(tmp_path, 1), name=name)
    quoted = '"' + name.replace('"', '""') + '"'

    with asking([table]) as ask:
        assert ask.rows(f"SELECT count(*) AS n FROM {quoted}") == [{"n": 4}]


SCHEMA = pa.schema({"n": pa.int64(), "word": pa.dictionary(pa.int32(), pa.string())})

AWKWARD_NAMES = ["a b", "100%", "p%20q", "x[1]*?", "#y", "ünï", "c,d", "date=2026-11-24", "it's", 'say "x"', "..x"]


def write(folder, name, numbers):
    path = folder / f"{name}.parquet"
    rows = pa.table({"n": numbers, "word": ["w"] * len(numbers)}).cast(SCHEMA)
    pq.write_table(rows, path)
    return str(path)


def test_awkward_file_names_are_names_not_patterns(tmp_path):
    files = [write(tmp_path, name, [1]) for name in AWKWARD_NAMES]
    write(tmp_path, "x[1]", [7])
    write(tmp_path, "x1ab", [7])

    table = TableSnapshot(name="t", schema=SCHEMA, files=data_files(*files))

    frame = TableBuilder().read(SessionContext(), table, FileList.of(table.files), SCHEMA)

    assert frame.filter(col("n") == lit(1)).count() == len(AWKWARD_NAMES)
    assert frame.count() == len(AWKWARD_NAMES)


def _bytes_scanned(ask, sql):
    planned = ask.plan(sql)
    list(planned.batches())
    return planned.statistics.bytes_scanned


def test_fewer_columns_and_rows_read_fewer_bytes(ask):
    everything = _bytes_scanned(ask, "SELECT * FROM log_entries")
    column = _bytes_scanned(ask, "SELECT level FROM log_entries")
    nothing = _bytes_scanned(ask, "SELECT level FROM log_entries WHERE time > TIMESTAMP '2200-01-01'")

    assert everything > column > nothing == 0


COLUMNS = {
    "view": pa.array(["a", None, "", "b"], pa.string_view()),
    "seconds": pa.array([1, None, 3, 4], pa.timestamp("s", "UTC")),
    "word": pa.array(["a", None, "a", "b"]).dictionary_encode(),
    "word of views": pa.DictionaryArray.from_arrays(
        pa.array([0, None, 0, 1], pa.int32()), pa.array(["a", "b"], pa.string_view())
    ),
    "properties": pa.DictionaryArray.from_arrays(
        pa.array([0, None, 0, 1], pa.int32()),
        pa.array([[{"key": "k", "value": "v"}], []], pa.list_(pa.struct({"key": pa.string(), "value": pa.string()}))),
    ),
    "list": pa.array([["a"], None, [], ["b", None]], pa.list_(pa.string_view())),
    "list view": pa.array([["a"], None, [], ["b", None]], pa.list_view(pa.string())),
    "struct": pa.StructArray.from_arrays(
        [pa.array(["a", "b", None, "a"]).dictionary_encode(), pa.array([1, 2, 3, 4])],
        names=["word", "number"],
        mask=pa.array([False, True, False, False]),
    ),
    "map": pa.array([[("a", "b")], None, [], [("c", None)]], pa.map_(pa.string(), pa.string_view())),
}


@pytest.mark.parametrize("preserve_dictionary", [False, True])
@pytest.mark.parametrize("rows", [slice(0, 4), slice(1, 3), slice(4, 4)])
@pytest.mark.parametrize("name", COLUMNS)
def test_a_batch_keeps_its_values(name, rows, *, preserve_dictionary):
    batch = pa.record_batch({name: COLUMNS[name][rows]})
    schema = wire_schema(batch.schema, preserve_dictionary=preserve_dictionary, keeps_units=False)

    converted = to_wire(batch, schema)

    converted.validate(full=True)
    assert converted.schema.equals(schema, check_metadata=True)
    assert converted.column(0).to_pylist() == batch.column(0).to_pylist()


def test_this_version_of_datafusion_scans_lists_of_files_as_planned():
    check_scans()


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("SELECT 1", ["1"]),
        ("SELECT 'a', true, 1.5, NULL", ["'a'", "true", "1.5", "NULL"]),
        ("SELECT 1+1, count(*) FROM log_entries", ["1 + 1", "count(*)"]),
        ("SELECT date_trunc('hour', time) FROM log_entries", ["date_trunc('hour',log_entries.time)"]),
        ('SELECT 1 AS "Int64(1)"', ["Int64(1)"]),
        ("SELECT 1, 1e0", ["Int64(1)", "Float64(1)"]),
    ],
)
def test_a_column_without_a_name_is_named_as_it_is_written(ask, sql, names):
    assert ask.plan(sql).schema.names == names
    ask.table(sql)
