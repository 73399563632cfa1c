"""The tables of the data model have upstream's columns, are described, and merge the same way everywhere."""

import datafusion
import pyarrow as pa
import pytest

from micromegas_jupyter.telemetry.tables import (
    LOG_ENTRIES,
    MEASURES,
    PROCESSES,
    REMARKS_KEY,
    STREAMS,
    TABLES,
    ProcessInfo,
    TableDefinition,
    build_process_batch,
    level_from_logging,
    merge_rows,
    with_remarks,
)

DICT = "dictionary<values=string, indices=int32, ordered=0>"
TIME = "timestamp[ns, tz=+00:00]"
MAP = "map<string, string>"


def _described(definition: TableDefinition) -> list[tuple[str, str, bool]]:
    return [(field.name, str(field.type).partition(" ('")[0], field.nullable) for field in definition.schema]


ORIGIN = [
    *((name, DICT, False) for name in ("process_id", "stream_id", "block_id")),
    ("insert_time", TIME, False),
    *((name, DICT, False) for name in ("exe", "username", "computer")),
    ("time", TIME, False),
    ("target", DICT, False),
]
PAIRS = [("properties", MAP, False), ("process_properties", MAP, False)]


@pytest.mark.parametrize(
    ("definition", "columns"),
    [
        (LOG_ENTRIES, [*ORIGIN, ("level", "int32", False), ("msg", "string", False), *PAIRS]),
        (MEASURES, [*ORIGIN, ("name", DICT, False), ("unit", DICT, False), ("value", "double", False), *PAIRS]),
        (
            PROCESSES,
            [
                ("process_id", "string", False),
                *(
                    (name, "string", True)
                    for name in ("exe", "username", "realname", "computer", "distro", "cpu_brand")
                ),
                ("tsc_frequency", "int64", True),
                ("start_time", TIME, True),
                ("start_ticks", "int64", True),
                ("insert_time", TIME, True),
                ("parent_process_id", "string", True),
                ("properties", MAP, True),
                ("last_update_time", TIME, True),
                ("last_block_end_ticks", "int64", True),
                ("last_block_end_time", TIME, True),
            ],
        ),
        (
            STREAMS,
            [
                ("stream_id", "string", False),
                ("process_id", "string", True),
                ("dependencies_metadata", "binary", True),
                ("objects_metadata", "binary", True),
                ("tags", "list<item: string>", True),
                ("properties", MAP, True),
                ("insert_time", TIME, True),
                ("format", "string", True),
                ("last_update_time", TIME, True),
            ],
        ),
    ],
    ids=lambda value: value.name if isinstance(value, TableDefinition) else "",
)
def test_a_table_has_upstreams_columns_in_order(
    definition: TableDefinition, columns: list[tuple[str, str, bool]]
) -> None:
    assert _described(definition) == columns
    assert {*definition.range_columns, *definition.sort_columns} <= set(definition.schema.names)


def _process(process_id: str, *, exe: str, inserted: int) -> ProcessInfo:
    return ProcessInfo(
        process_id=process_id,
        exe=exe,
        username="alice",
        realname="Alice",
        computer="lab",
        distro="Debian",
        cpu_brand="CPU",
        start_time_ns=1,
        insert_time_ns=inserted,
        properties={"exe": exe},
    )


@pytest.fixture
def process_states() -> pa.Table:
    first = _process("p1", exe="first", inserted=10)
    later = _process("p1", exe="later", inserted=20)
    other = _process("p2", exe="other", inserted=15)
    return pa.Table.from_batches(
        [
            build_process_batch(later, last_update_time_ns=25, last_block_end_time_ns=24),
            build_process_batch(first, last_update_time_ns=30, last_block_end_time_ns=None),
            build_process_batch(other, last_update_time_ns=16, last_block_end_time_ns=None),
            build_process_batch(first, last_update_time_ns=11, last_block_end_time_ns=12),
        ]
    )


def _merge_in_engine(definition: TableDefinition, raw: pa.Table) -> pa.Table:
    context = datafusion.SessionContext()
    context.register_record_batches(definition.raw_name, [raw.to_batches()])
    return context.sql(definition.merge_sql).to_arrow_table()


def _facts(merged: pa.Table) -> list[tuple[object, ...]]:
    return sorted(
        (
            row["process_id"],
            row["exe"],
            row["properties"],
            row["insert_time"].value,
            row["last_update_time"].value,
            row["last_block_end_ticks"],
            row["last_block_end_time"].value if row["last_block_end_time"] is not None else None,
        )
        for row in merged.to_pylist()
    )


EXPECTED = [
    ("p1", "first", [("exe", "first")], 10, 30, 24, 24),
    ("p2", "other", [("exe", "other")], 15, 16, None, None),
]


def test_states_are_merged_alike_by_the_engine_and_in_storage_at_once_and_in_parts(process_states: pa.Table) -> None:
    halves = [merge_rows(process_states.slice(0, 2), PROCESSES.merge_rule), process_states.slice(2)]
    merged = [
        _merge_in_engine(PROCESSES, process_states),
        merge_rows(process_states, PROCESSES.merge_rule),
        merge_rows(pa.concat_tables(halves), PROCESSES.merge_rule),
        _merge_in_engine(PROCESSES, pa.concat_tables(halves)),
    ]

    assert [_facts(each) for each in merged] == [EXPECTED] * 4
    assert merged[0].schema.names == PROCESSES.schema.names
    assert merged[1].schema.equals(PROCESSES.schema)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_column_is_described_and_no_other(table: TableDefinition) -> None:
    assert set(table.remarks) == set(table.schema.names)
    assert table.remark.endswith(".")
    if table.raw_name is not None:
        remark = with_remarks(table.raw_name, table.schema).metadata[REMARKS_KEY].decode()
        assert remark.endswith(f"{table.name} are merged from.")


@pytest.mark.parametrize(
    ("levelno", "level"),
    [(1000, 1), (50, 1), (40, 2), (35, 3), (30, 3), (25, 4), (20, 4), (10, 5), (5, 6), (0, 6)],
)
def test_levels_have_upstreams_numbers_and_one_between_two_counts_as_the_lower(levelno: int, level: int) -> None:
    assert level_from_logging(levelno) == level
