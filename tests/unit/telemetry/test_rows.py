"""Rows become batches with exactly the columns of their tables."""

import logging
from datetime import UTC, datetime

import pytest

from micromegas_jupyter.telemetry import (
    LOG_ENTRIES,
    MEASURES,
    PROCESSES,
    STREAMS,
    BlockOrigin,
    Level,
    LogRow,
    MeasureRow,
    ProcessInfo,
    StreamInfo,
    build_log_batch,
    build_measure_batch,
    build_process_batch,
    build_stream_batch,
    level_from_logging,
    nanoseconds_since_epoch,
)

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
NOON_NS = 1_795_521_600_000_000_000
SECOND_NS = 1_000_000_000


@pytest.fixture
def process() -> ProcessInfo:
    return ProcessInfo(
        process_id="11111111-1111-4111-8111-111111111111",
        exe="server",
        username="alice",
        realname="Alice",
        computer="lab",
        distro="Debian",
        cpu_brand="CPU",
        start_time_ns=NOON_NS,
        insert_time_ns=NOON_NS + SECOND_NS,
        properties={"version": "1"},
    )


@pytest.fixture
def origin(process: ProcessInfo) -> BlockOrigin:
    return BlockOrigin(process=process, stream_id="stream", block_id="block", insert_time_ns=NOON_NS + SECOND_NS)


def test_log_rows_become_a_batch_of_log_entries(origin: BlockOrigin) -> None:
    row = LogRow(time_ns=NOON_NS, target="app", level=Level.WARN, msg="disk low", properties={"free": "1"})

    batch = build_log_batch([row, LogRow(time_ns=NOON_NS + 1, target="lib", level=4, msg="ok")], origin)

    assert batch.schema.equals(LOG_ENTRIES.schema)
    assert batch.column("time").cast("int64").to_pylist() == [NOON_NS, NOON_NS + 1]
    first = {**batch.to_pylist()[0], "time": None, "insert_time": None}
    assert first == {
        "process_id": "11111111-1111-4111-8111-111111111111",
        "stream_id": "stream",
        "block_id": "block",
        "insert_time": None,
        "exe": "server",
        "username": "alice",
        "computer": "lab",
        "time": None,
        "target": "app",
        "level": 3,
        "msg": "disk low",
        "properties": [("free", "1")],
        "process_properties": [("version", "1")],
    }


def test_measures_become_a_batch_of_measures(origin: BlockOrigin) -> None:
    row = MeasureRow(time_ns=NOON_NS, target="app", name="used_memory", unit="bytes", value=12.5)

    batch = build_measure_batch([row], origin)

    assert batch.schema.equals(MEASURES.schema)
    found = batch.to_pylist()[0]
    assert (found["name"], found["unit"], found["value"], found["properties"]) == ("used_memory", "bytes", 12.5, [])


def test_no_rows_make_an_empty_batch_of_the_same_schema(origin: BlockOrigin) -> None:
    assert build_log_batch([], origin).schema.equals(LOG_ENTRIES.schema)
    assert build_measure_batch([], origin).num_rows == 0


def test_a_process_becomes_one_row(process: ProcessInfo) -> None:
    batch = build_process_batch(process, last_update_time_ns=NOON_NS + 2 * SECOND_NS)

    assert batch.schema.equals(PROCESSES.schema)
    row = batch.to_pylist()[0]
    assert row["start_time"] == NOON
    assert (row["start_ticks"], row["tsc_frequency"]) == (NOON_NS, 1_000_000_000)
    assert row["last_update_time"].second == 2
    assert (row["parent_process_id"], row["last_block_end_time"]) == ("", None)
    assert row["properties"] == [("version", "1")]


def test_a_stream_becomes_one_row_that_describes_no_types() -> None:
    stream = StreamInfo(
        stream_id="stream", process_id="process", tags=("log",), format="rows/v1", insert_time_ns=NOON_NS
    )

    batch = build_stream_batch(stream, last_update_time_ns=NOON_NS)

    assert batch.schema.equals(STREAMS.schema)
    row = batch.to_pylist()[0]
    assert (row["tags"], row["format"], row["objects_metadata"]) == (["log"], "rows/v1", b"\x80")


def test_seconds_become_nanoseconds_without_noise() -> None:
    assert nanoseconds_since_epoch(1_795_521_600.25) == 1_795_521_600_250_000_000


@pytest.mark.parametrize(
    ("levelno", "level"),
    [
        (logging.CRITICAL, 1),
        (logging.ERROR, 2),
        (logging.WARNING, 3),
        (logging.INFO, 4),
        (logging.DEBUG, 5),
        (5, 6),
        (logging.NOTSET, 6),
        (1000, 1),
        (35, 3),
        (25, 4),
    ],
)
def test_levels_have_upstreams_numbers_and_one_between_two_counts_as_the_lower(levelno: int, level: int) -> None:
    assert level_from_logging(levelno) == level
