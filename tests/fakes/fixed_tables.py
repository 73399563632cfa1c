"""Tables that stand as a test wrote them, in Parquet files of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq

from micromegas_jupyter.core.protocols import AuthContext, AuthType, TableSnapshot
from micromegas_jupyter.flightsql.commands import messages

CALLER = AuthContext(subject="ann", issuer="none", auth_type=AuthType.NONE)
NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)

_WORD = pa.dictionary(pa.int32(), pa.string())
LOG_SCHEMA = pa.schema(
    [
        pa.field("process_id", _WORD, nullable=False),
        pa.field("exe", _WORD, nullable=False),
        pa.field("time", pa.timestamp("ns", "+00:00"), nullable=False),
        pa.field("level", pa.int32(), nullable=False),
        pa.field("msg", pa.string()),
        pa.field("properties", pa.dictionary(pa.int32(), pa.binary())),
    ]
)
PARTIAL_SCHEMA = pa.schema(
    [
        pa.field("process_id", pa.string(), nullable=False),
        pa.field("start_time", pa.timestamp("ns", "+00:00")),
        pa.field("last_update_time", pa.timestamp("ns", "+00:00")),
    ]
)
MERGE_SQL = (
    "SELECT process_id, min(start_time) AS start_time, max(last_update_time) AS last_update_time "
    "FROM __processes__partitions GROUP BY process_id"
)

LEDGER_SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("shown", pa.bool_()),
        pa.field("secret", pa.string()),
        pa.field("word", _WORD),
        pa.field("x", pa.int64()),
        pa.field("tags", pa.list_(pa.int64())),
        pa.field("time", pa.timestamp("ns", "+00:00")),
    ]
)


@dataclass
class FixedTables:
    """Implements `core.protocols.TableSource`; a test may replace `tables`."""

    tables: list[TableSnapshot] = field(default_factory=list)

    def snapshot(self):
        return self.tables


def log_rows(hour):
    """Return four rows, at minutes 0, 15, 30 and 45 of the hour after `NOON`; the last has no message."""
    times = [NOON + timedelta(hours=hour, minutes=minute) for minute in (0, 15, 30, 45)]
    return pa.table(
        {
            "process_id": ["p1", "p1", "p2", "p2"],
            "exe": ["web", "web", "job", "job"],
            "time": times,
            "level": [4, 2, 4, 5],
            "msg": [f"start {hour}", f"error {hour}", f"step {hour}", None],
            "properties": [b"{}", b"{}", None, b"x"],
        }
    ).cast(LOG_SCHEMA)


def write_log_entries(folder, hours):
    files = []
    for hour in range(hours):
        path = folder / f"log {hour}.parquet"
        pq.write_table(log_rows(hour), path)
        files.append(str(path))
    return TableSnapshot(name="log_entries", schema=LOG_SCHEMA, files=tuple(files), range_columns=("time", "time"))


def write_processes(folder):
    """Write two partial states of process p1 and one of p2, in two files, and return the table that merges them."""
    first = {"process_id": ["p1", "p2"], "start_time": [NOON, NOON], "last_update_time": [NOON, NOON]}
    second = {"process_id": ["p1"], "start_time": [None], "last_update_time": [NOON + timedelta(hours=3)]}
    files = []
    for index, rows in enumerate((first, second)):
        path = folder / f"processes-{index}.parquet"
        pq.write_table(pa.Table.from_pydict(rows, schema=PARTIAL_SCHEMA), path)
        files.append(str(path))
    return TableSnapshot(
        name="processes",
        schema=PARTIAL_SCHEMA,
        files=tuple(files),
        range_columns=("start_time", "last_update_time"),
        merge_sql=MERGE_SQL,
        raw_name="__processes__partitions",
    )


def empty_table():
    return TableSnapshot(name="measures", schema=LOG_SCHEMA, files=(), range_columns=("time", "time"))


def ledger_rows(number, *, with_hidden):
    """Return ten rows: where `shown` is true, `secret` and `word` are numbers, `x` is one and `tags` hold a one.

    In the others, of which some have no `shown`, a cast of `secret` or `word` and a division by `x - 5` fail.
    """
    rows = [
        {
            "id": number * 10 + index,
            "shown": True if index % 2 == 0 else (None, False)[index % 4 // 2],
            "secret": "7" if index % 2 == 0 else "hidden",
            "word": "7" if index % 2 == 0 else "hidden",
            "x": 1 if index % 2 == 0 else 5,
            "tags": [1] if index % 2 == 0 else [0],
            "time": NOON + timedelta(minutes=number * 10 + index),
        }
        for index in range(10)
        if with_hidden or index % 2 == 0
    ]
    return pa.Table.from_pylist(rows, schema=LEDGER_SCHEMA)


def write_ledger(folder, name, *, with_hidden):
    """Write six files of `ledger_rows` in small row groups and return them as the table `name`."""
    files = []
    for number in range(6):
        path = folder / f"{name}-{number}.parquet"
        pq.write_table(ledger_rows(number, with_hidden=with_hidden), path, row_group_size=5)
        files.append(str(path))
    return TableSnapshot(name=name, schema=LEDGER_SCHEMA, files=tuple(files), range_columns=("time", "time"))


def encode_stream(*rows, schema=None, compression=None, deltas=False):
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression, emit_dictionary_deltas=deltas)
    with pa.ipc.new_stream(sink, rows[0].schema if schema is None else schema, options=options) as writer:
        for part in rows:
            writer.write(part)
    return [
        messages.FlightData(
            data_header=message.metadata.to_pybytes(), data_body=message.body.to_pybytes() if message.body else b""
        ).SerializeToString()
        for message in pa.ipc.MessageReader.open_stream(sink.getvalue())
    ]
