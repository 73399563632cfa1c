"""Which tables and columns a statement reads, as the audit lists them."""

import itertools
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.engine import datafusion_engine
from micromegas_jupyter.engine.contract import TimeRange
from micromegas_jupyter.engine.plans.reads import MAX_READS_BYTES, bounded
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.lake.lake import Lake
from tests.fakes.fixed_tables import NOON, data_files
from tests.fakes.read_statements import READS
from tests.unit.engine.conftest import asking
from tests.unit.gateway.corpus import CORPUS
from tests.unit.gateway.worlds import SCHEMAS, comparable, rows_of_world


@pytest.fixture(scope="module")
def ask_lake(tmp_path_factory):
    with asking([*Lake(Storage(str(tmp_path_factory.mktemp("lake")))).snapshot()]) as asker:
        yield asker


@pytest.mark.parametrize("sql", READS)
def test_a_plan_names_the_columns_that_its_statement_reads(ask_lake, sql):
    assert {table: list(columns) for table, columns in ask_lake.plan(sql).reads.items()} == READS[sql]


def test_columns_that_only_a_row_filter_needs_are_not_among_those_read(ask_lake):
    seeing = ask_lake.seeing({"log_entries": ("exe = 'x' AND msg <> 'y'",), "processes": ()})

    assert seeing.plan("SELECT target FROM log_entries WHERE level = 1").reads == {"log_entries": ("level", "target")}


def test_reads_cover_all_rows_of_parameters(ask_lake):
    values = pa.RecordBatch.from_pydict({"0": [False, True]})
    planned = ask_lake.plan(
        "SELECT count(*) FROM (SELECT 1 UNION ALL SELECT level FROM log_entries WHERE $1)", parameters=values
    )

    assert planned.reads == {}
    list(planned.batches())
    assert planned.reads == {"log_entries": ()}


def test_a_statement_that_takes_long_to_plan_may_read_any_column_of_what_it_mentions(ask_lake, monkeypatch):
    monkeypatch.setattr(datafusion_engine, "_MAX_PLANNING_SECONDS", 0.0)

    range_of_a_moment = TimeRange(begin=NOON, end=NOON)

    found = ask_lake.plan("SELECT msg FROM log_entries", time_range=range_of_a_moment).reads

    assert found == {"log_entries": ("*",)}


def test_long_lists_of_columns_are_replaced_by_a_mark_that_stands_for_any_column():
    reads = {"wide": [f"column_{number:05d}" for number in range(2000)], "small": ["a"]}

    assert bounded(reads) == {"wide": ("*",), "small": ("a",)}


def test_too_many_tables_are_replaced_by_a_mark_that_stands_for_any_table():
    found = bounded({f"{number:04d}_{'x' * 200}": ("a",) for number in range(500)})

    assert found["*"] == ("*",)
    assert len(json.dumps(found)) <= MAX_READS_BYTES + 16
    assert len(found) > 30


@pytest.fixture(scope="module")
def outcome_of(tmp_path_factory):
    """Return what a statement returns (None if it fails) and reads, perhaps with other values in columns, by table."""
    folder, numbers = tmp_path_factory.mktemp("rows"), itertools.count()

    def outcome(sql, changed=None):
        tables = []
        for name, rows in rows_of_world(1).items():
            columns = {column: rows.column(column) for column in rows.column_names}
            for column in (changed or {}).get(name, ()):
                columns[column] = columns[column].take(pa.array([*range(1, rows.num_rows), 0]))
            files = data_files(folder / f"{next(numbers)}.parquet")
            pq.write_table(pa.table(columns, schema=rows.schema), files[0].path)
            tables.append(TableSnapshot(name=name, schema=rows.schema, files=files))
        with asking(tables) as asker:
            try:
                planned = asker.plan(sql)
                found = pa.Table.from_batches(list(planned.batches()), planned.schema)
            except MicromegasError:
                return None, {}
            return comparable(found, sql), planned.reads

    return outcome


@pytest.mark.parametrize(
    "sql",
    [
        pytest.param(sql, marks=() if place % 12 == 0 else pytest.mark.long)
        for place, sql in enumerate(one for one in CORPUS if not one.startswith("EXPLAIN"))
    ],
)
def test_columns_that_are_not_listed_do_not_change_the_result(outcome_of, sql):
    rows, reads = outcome_of(sql)
    unread = {
        table: [column for column in schema.names if not {column, "*"} & {*reads.get(table, ())}]
        for table, schema in SCHEMAS.items()
    }

    # Of a statement that fails, nothing is known to be read, and it fails with other values, too.
    assert outcome_of(sql, unread)[0] == rows
