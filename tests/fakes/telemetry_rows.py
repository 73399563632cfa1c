"""Rows of the data model for tests: numbered log entries, so that a test can tell each of them."""

from datetime import UTC, datetime, time, timedelta

import pyarrow as pa

from micromegas_jupyter.core import jsonb
from micromegas_jupyter.telemetry.tables import (
    BLOCKS,
    LOG_ENTRIES,
    MEASURES,
    OTEL_SPANS,
    PROPERTIES,
    ProcessInfo,
    build_process_batch,
)

# Retention deletes rows of last week.
NOON = datetime.combine(datetime.now(UTC).date() - timedelta(days=2), time(12), UTC)
NOON_NS = int(NOON.timestamp()) * 10**9


def process_info(process_id="process"):
    return ProcessInfo(
        process_id=process_id, exe="test", username="alice", realname="Alice", computer="lab", distro="Debian",
        cpu_brand="CPU", start_time_ns=NOON_NS, insert_time_ns=NOON_NS, properties={"version": "1"},
    )  # fmt: skip


_ORIGIN = {
    "process_id": "process", "stream_id": "stream", "block_id": "block", "insert_time": NOON_NS, "exe": "test",
    "username": "alice", "computer": "lab", "process_properties": {"version": "1"},
}  # fmt: skip


def log_batch(numbers, *, writer="w"):
    return log_rows([{"time": NOON_NS + number, "target": writer, "msg": f"{writer}:{number}"} for number in numbers])


def log_rows(rows):
    return _rows(LOG_ENTRIES, [{**_ORIGIN, "level": 4, "target": "t", "properties": {}, **one} for one in rows])


def measure_rows(rows):
    return _rows(MEASURES, [{**_ORIGIN, "properties": {}, **one} for one in rows])


def process_state(process_id, *, updated):
    return build_process_batch(process_info(process_id), last_update_time_ns=NOON_NS + updated)


PAIRS = pa.list_(pa.struct([("key", pa.utf8()), ("value", pa.utf8())]))
UTC_NS = pa.timestamp("ns", "UTC")


def sent_processes(*process_ids, **changes):
    """Return rows for `processes` as upstream's replication sends them; a change to None leaves the column out."""
    count = len(process_ids)
    names = ("exe", "username", "realname", "computer", "distro", "cpu_brand")
    columns = {
        "process_id": pa.array(process_ids, pa.utf8()),
        **{name: pa.array([name] * count, pa.utf8()) for name in names},
        "tsc_frequency": pa.array([1] * count, pa.int64()),
        "start_time": pa.array([NOON_NS] * count, pa.int64()).cast(UTC_NS),
        "start_ticks": pa.array([0] * count, pa.int64()),
        "insert_time": pa.array([NOON_NS] * count, pa.int64()).cast(UTC_NS),
        "parent_process_id": pa.array([""] * count, pa.utf8()),
        "properties": pa.array([[{"key": "a", "value": "b"}]] * count, PAIRS),
    }
    columns |= changes
    return pa.table({name: column for name, column in columns.items() if column is not None})


def block_rows(*block_ids, process_id="process", begin_ns=NOON_NS):
    """Return rows of `blocks`, a second long each, that came a minute after they began."""
    texts = ("exe", "username", "realname", "computer", "distro", "cpu_brand", "parent_process_id")
    row = {
        "process_id": process_id, "stream_id": "stream", "begin_time": begin_ns, "begin_ticks": begin_ns,
        "end_time": begin_ns + 10**9, "end_ticks": begin_ns + 10**9, "nb_objects": 7, "object_offset": 0,
        "payload_size": 100, "insert_time": begin_ns + 60 * 10**9, "streams.dependencies_metadata": b"\x80",
        "streams.objects_metadata": b"\x80", "streams.tags": ["log"], "streams.insert_time": begin_ns,
        "streams.format": "otlp/v1/logs", "processes.start_time": begin_ns, "processes.start_ticks": begin_ns,
        "processes.tsc_frequency": 10**9, "processes.insert_time": begin_ns,
        **{f"processes.{name}": name for name in texts},
    }  # fmt: skip
    return _rows(BLOCKS, [{**row, "block_id": one} for one in block_ids])


def span_rows(*names, process_id="process", begin_ns=NOON_NS, trace=1):
    """Return rows of `otel_spans` of one trace, each the child of the one before it and a millisecond shorter."""
    row = {
        "process_id": process_id, "stream_id": "stream", "block_id": "block", "insert_time": begin_ns + 10**9,
        "exe": "exe", "username": "alice", "computer": "lab", "trace_id": trace.to_bytes(16, "big"),
        "kind": "INTERNAL", "status": "UNSET", "events": jsonb.encode([]), "links": jsonb.encode([]),
    }  # fmt: skip
    spans = [
        {
            "name": name,
            "span_id": (number + 1).to_bytes(8, "big"),
            "parent_span_id": number.to_bytes(8, "big") if number else None,
            "start_time": begin_ns + number * 10**6,
            "end_time": begin_ns + 10**9,
            "duration": 10**9 - number * 10**6,
        }
        for number, name in enumerate(names)
    ]
    return _rows(OTEL_SPANS, [row | one for one in spans])


def _rows(definition, rows):
    columns = [
        pa.array([jsonb.encode(row.get(field.name, {"a": "b"})) for row in rows], pa.binary()).dictionary_encode()
        if field.type == PROPERTIES
        else pa.array([row.get(field.name) for row in rows], field.type)
        for field in definition.schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=definition.schema)
