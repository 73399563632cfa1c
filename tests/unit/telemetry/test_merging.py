import datafusion
import pyarrow as pa
import pytest

from micromegas_jupyter.telemetry import (
    PROCESSES,
    STREAMS,
    ProcessInfo,
    StreamInfo,
    TableDefinition,
    build_process_batch,
    build_stream_batch,
    merge_rows,
)


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


def test_the_engine_takes_the_first_attributes_and_the_latest_times(process_states: pa.Table) -> None:
    merged = _merge_in_engine(PROCESSES, process_states)

    assert merged.schema.names == PROCESSES.schema.names
    assert _facts(merged) == EXPECTED


def test_merging_stored_rows_gives_the_same_rows_as_the_engine(process_states: pa.Table) -> None:
    merged = merge_rows(process_states, PROCESSES.merge_rule)

    assert merged.schema.equals(PROCESSES.schema)
    assert _facts(merged) == EXPECTED


def test_merging_in_parts_gives_the_same_rows_as_merging_at_once(process_states: pa.Table) -> None:
    halves = [merge_rows(process_states.slice(0, 2), PROCESSES.merge_rule), process_states.slice(2)]

    merged = merge_rows(pa.concat_tables(halves), PROCESSES.merge_rule)

    assert _facts(merged) == EXPECTED
    assert _facts(_merge_in_engine(PROCESSES, pa.concat_tables(halves))) == EXPECTED


def test_streams_are_merged_by_their_id() -> None:
    stream = StreamInfo(stream_id="s", process_id="p", tags=("log", "app"), format="rows/v1", insert_time_ns=5)
    raw = pa.Table.from_batches([build_stream_batch(stream, last_update_time_ns=time_ns) for time_ns in (9, 7)])

    merged = _merge_in_engine(STREAMS, raw)

    assert merged.schema.names == STREAMS.schema.names
    row = merged.to_pylist()[0]
    assert merged.num_rows == 1
    assert (row["tags"], row["objects_metadata"], row["last_update_time"].value) == (["log", "app"], b"\x80", 9)
