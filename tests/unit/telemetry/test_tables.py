"""The tables of the data model have upstream's columns, are described, and merge the same way everywhere."""

from dataclasses import replace

import datafusion
import pyarrow as pa
import pytest

from micromegas_jupyter.core.jsonb import encode
from micromegas_jupyter.telemetry import tables
from micromegas_jupyter.telemetry.levels import level_from_logging
from micromegas_jupyter.telemetry.tables import BLOCKS, LOG_ENTRIES, MEASURES, OTEL_SPANS, PROCESSES, STREAMS
from tests.fakes.telemetry_rows import process_info

DICT = "dictionary<values=string, indices=int32, ordered=0>"
TIME = "timestamp[ns, tz=+00:00]"
PROPERTIES = "dictionary<values=binary, indices=int32, ordered=0>"


def _described(definition):
    return [(field.name, str(field.type).partition(" ('")[0], field.nullable) for field in definition.schema]


ORIGIN = [
    *((name, DICT, False) for name in ("process_id", "stream_id", "block_id")),
    ("insert_time", TIME, False),
    *((name, DICT, False) for name in ("exe", "username", "computer")),
    ("time", TIME, False),
    ("target", DICT, False),
]
OF_ROWS = [("properties", PROPERTIES, False), ("process_properties", PROPERTIES, False)]


@pytest.mark.parametrize(
    ("definition", "columns"),
    [
        (LOG_ENTRIES, [*ORIGIN, ("level", "int32", False), ("msg", "string", False), *OF_ROWS]),
        (MEASURES, [*ORIGIN, ("name", DICT, False), ("unit", DICT, False), ("value", "double", False), *OF_ROWS]),
        (PROCESSES, [
            ("process_id", "string", False),
            *((name, "string", True) for name in ("exe", "username", "realname", "computer", "distro", "cpu_brand")),
            ("tsc_frequency", "int64", True), ("start_time", TIME, True), ("start_ticks", "int64", True),
            ("insert_time", TIME, True), ("parent_process_id", "string", True), ("properties", PROPERTIES, True),
            ("last_update_time", TIME, True), ("last_block_end_ticks", "int64", True),
            ("last_block_end_time", TIME, True)]),
        (STREAMS, [
            ("stream_id", "string", False), ("process_id", "string", True), ("dependencies_metadata", "binary", True),
            ("objects_metadata", "binary", True), ("tags", "list<item: string>", True),
            ("properties", PROPERTIES, True),
            ("insert_time", TIME, True), ("format", "string", True), ("last_update_time", TIME, True)]),
        (BLOCKS, [
            *((name, "string", False) for name in ("block_id", "stream_id", "process_id")),
            ("begin_time", TIME, False), ("begin_ticks", "int64", False), ("end_time", TIME, False),
            ("end_ticks", "int64", False), ("nb_objects", "int32", False), ("object_offset", "int64", False),
            ("payload_size", "int64", False), ("insert_time", TIME, False),
            ("streams.dependencies_metadata", "binary", False), ("streams.objects_metadata", "binary", False),
            ("streams.tags", "list<item: string>", False), ("streams.properties", PROPERTIES, False),
            ("streams.insert_time", TIME, False), ("streams.format", "string", False),
            ("processes.start_time", TIME, False), ("processes.start_ticks", "int64", False),
            ("processes.tsc_frequency", "int64", False),
            *((f"processes.{name}", "string", False)
              for name in ("exe", "username", "realname", "computer", "distro", "cpu_brand")),
            ("processes.insert_time", TIME, False), ("processes.parent_process_id", "string", False),
            ("processes.properties", PROPERTIES, False)]),
        (OTEL_SPANS, [
            *ORIGIN[:4], *((name, "string", False) for name in ("exe", "username", "computer")), OF_ROWS[1],
            ("trace_id", "fixed_size_binary[16]", False), ("span_id", "fixed_size_binary[8]", False),
            ("parent_span_id", "fixed_size_binary[8]", True), ("start_time", TIME, False), ("end_time", TIME, False),
            ("duration", "int64", False), *((name, DICT, False) for name in ("name", "kind", "status")),
            ("status_message", "string", True), OF_ROWS[0], ("events", "binary", False), ("links", "binary", False)]),
    ],
    ids=lambda value: value.name if isinstance(value, tables.TableDefinition) else "",
)  # fmt: skip
def test_a_table_has_upstreams_columns_in_order(definition, columns):
    assert _described(definition) == columns
    assert {*definition.range_columns, *definition.sort_columns} <= set(definition.schema.names)


def _process(process_id, *, exe, inserted):
    return replace(process_info(process_id), exe=exe, insert_time_ns=inserted, properties={"exe": exe})


def _facts(merged):
    names = ("process_id", "exe", "properties", "insert_time", "last_update_time", "last_block_end_time")
    return sorted(tuple(getattr(row[name], "value", row[name]) for name in names) for row in merged.to_pylist())


def _merge_in_engine(raw):
    context = datafusion.SessionContext()
    context.register_record_batches(PROCESSES.raw_name, [raw.to_batches()])
    return context.sql(PROCESSES.merge_sql).to_arrow_table()


def test_states_are_merged_alike_by_the_engine_and_in_storage_at_once_and_in_parts():
    first, later = _process("p1", exe="first", inserted=10), _process("p1", exe="later", inserted=20)
    other = _process("p2", exe="other", inserted=15)
    updates = [(later, 25, 24), (first, 30, None), (other, 16, None), (first, 11, 12)]
    states = pa.Table.from_batches(
        tables.build_process_batch(process, last_update_time_ns=updated, last_block_end_time_ns=ended)
        for process, updated, ended in updates
    )
    halves = pa.concat_tables([tables.merge_rows(states.slice(0, 2), PROCESSES.merge_rule), states.slice(2)])

    merged = [
        *map(_merge_in_engine, (states, halves)),
        *(tables.merge_rows(raw, PROCESSES.merge_rule) for raw in (states, halves)),
    ]

    expected = [
        ("p1", "first", encode({"exe": "first"}), 10, 30, 24),
        ("p2", "other", encode({"exe": "other"}), 15, 16, None),
    ]
    assert [_facts(each) for each in merged] == [expected] * 4
    assert merged[0].schema.names == PROCESSES.schema.names
    assert merged[2].schema.equals(PROCESSES.schema)


@pytest.mark.parametrize("table", tables.TABLES, ids=lambda table: table.name)
def test_every_column_is_described_and_no_other(table):
    assert set(table.remarks) == set(table.schema.names)
    assert table.remark.endswith(".")
    if table.raw_name is not None:
        remark = tables.with_remarks(table.raw_name, table.schema).metadata[tables.REMARKS_KEY].decode()
        assert remark.endswith(f"merged into the rows of {table.name}.")


@pytest.mark.parametrize(
    ("levelno", "level"), [(1000, 1), (50, 1), (40, 2), (35, 3), (30, 3), (25, 4), (20, 4), (10, 5), (5, 6), (0, 6)]
)
def test_levels_have_upstreams_numbers_and_one_between_two_counts_as_the_lower(levelno, level):
    assert level_from_logging(levelno) == level


def test_the_demos_requests_are_described_and_a_users_table_of_that_name_is_not():
    described = tables.with_remarks("requests", tables.DEMO_REQUESTS.schema)
    other = pa.schema([("time", pa.timestamp("us")), ("status", pa.int32())])

    assert all(field.metadata[tables.REMARKS_KEY] for field in described)
    assert b"demo" in described.metadata[tables.REMARKS_KEY]
    assert tables.with_remarks("requests", other) == other
