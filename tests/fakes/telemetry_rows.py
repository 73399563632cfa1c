"""Rows of the data model for tests: numbered log entries, so that a test can tell each of them."""

import pyarrow as pa

from micromegas_jupyter.telemetry.tables import BlockOrigin, LogRow, ProcessInfo, build_log_batch, build_process_batch

NOON_NS = 1_795_521_600_000_000_000


def process_info(process_id="process"):
    return ProcessInfo(
        process_id=process_id, exe="test", username="alice", realname="Alice", computer="lab", distro="Debian",
        cpu_brand="CPU", start_time_ns=NOON_NS, insert_time_ns=NOON_NS, properties={"version": "1"},
    )  # fmt: skip


def log_batch(numbers, *, writer="w"):
    origin = BlockOrigin(process=process_info(), stream_id="stream", block_id="block", insert_time_ns=NOON_NS)
    rows = [LogRow(time_ns=NOON_NS + number, target=writer, level=4, msg=f"{writer}:{number}") for number in numbers]
    return build_log_batch(rows, origin)


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
