"""Rows as clients send them into tables of the data model."""

from __future__ import annotations

import pyarrow as pa

from tests.fakes.telemetry_rows import NOON_NS

PAIRS = pa.list_(pa.struct([("key", pa.utf8()), ("value", pa.utf8())]))
UTC_NS = pa.timestamp("ns", "UTC")


def sent_processes(*process_ids: str, **changes: pa.Array | None) -> pa.Table:
    """Return rows for `processes` as upstream's replication sends them; a change to None leaves the column out."""
    count = len(process_ids)
    columns: dict[str, pa.Array | None] = {
        "process_id": pa.array(process_ids, pa.utf8()),
        **{
            name: pa.array([name] * count, pa.utf8())
            for name in ("exe", "username", "realname", "computer", "distro", "cpu_brand")
        },
        "tsc_frequency": pa.array([1] * count, pa.int64()),
        "start_time": pa.array([NOON_NS] * count, pa.int64()).cast(UTC_NS),
        "start_ticks": pa.array([0] * count, pa.int64()),
        "insert_time": pa.array([NOON_NS] * count, pa.int64()).cast(UTC_NS),
        "parent_process_id": pa.array([""] * count, pa.utf8()),
        "properties": pa.array([[{"key": "a", "value": "b"}]] * count, PAIRS),
    }
    columns |= changes
    return pa.table({name: column for name, column in columns.items() if column is not None})
