"""Rows of the data model for tests: numbered log entries, so that a test can tell each of them."""

from collections.abc import Iterable

import pyarrow as pa

from micromegas_jupyter.telemetry import BlockOrigin, LogRow, ProcessInfo, build_log_batch, build_process_batch

NOON_NS = 1_795_521_600_000_000_000


def process_info(process_id: str = "process") -> ProcessInfo:
    return ProcessInfo(
        process_id=process_id,
        exe="test",
        username="alice",
        realname="Alice",
        computer="lab",
        distro="Debian",
        cpu_brand="CPU",
        start_time_ns=NOON_NS,
        insert_time_ns=NOON_NS,
        properties={"version": "1"},
    )


def log_batch(numbers: Iterable[int], *, writer: str = "w") -> pa.RecordBatch:
    """Return log entries `<writer>:<number>`, one nanosecond apart."""
    origin = BlockOrigin(process=process_info(), stream_id="stream", block_id="block", insert_time_ns=NOON_NS)
    rows = [LogRow(time_ns=NOON_NS + number, target=writer, level=4, msg=f"{writer}:{number}") for number in numbers]
    return build_log_batch(rows, origin)


def process_state(process_id: str, *, updated: int) -> pa.RecordBatch:
    """Return one partial state of a process, updated that many nanoseconds after noon."""
    return build_process_batch(process_info(process_id), last_update_time_ns=NOON_NS + updated)
