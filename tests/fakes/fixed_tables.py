"""Tables that stand as a test wrote them, in Parquet files of its own."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq

from micromegas_jupyter.core.protocols import AuthContext, AuthType, DataFile, TableSnapshot
from micromegas_jupyter.flightsql.commands import messages

CALLER = AuthContext(subject="ann", issuer="none", auth_type=AuthType.NONE)
NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)

_WORD = pa.dictionary(pa.int32(), pa.string())
_TIME = pa.timestamp("ns", "+00:00")


def _schema(needed, **columns):
    """Return a schema whose first columns have a value in every row."""
    return pa.schema(
        [pa.field(name, kind, nullable=place >= needed) for place, (name, kind) in enumerate(columns.items())]
    )


LOG_SCHEMA = _schema(
    4, process_id=_WORD, exe=_WORD, time=_TIME, level=pa.int32(), msg=pa.string(),
    properties=pa.dictionary(pa.int32(), pa.binary()),
)  # fmt: skip
PARTIAL_SCHEMA = _schema(1, process_id=pa.string(), start_time=_TIME, last_update_time=_TIME)
MERGE_SQL = (
    "SELECT process_id, min(start_time) AS start_time, max(last_update_time) AS last_update_time "
    "FROM __processes__partitions GROUP BY process_id"
)

LEDGER_SCHEMA = _schema(
    1, id=pa.int64(), shown=pa.bool_(), secret=pa.string(), word=_WORD, x=pa.int64(), tags=pa.list_(pa.int64()),
    time=_TIME,
)  # fmt: skip


@dataclass
class FixedTables:
    """Implements `core.protocols.TableSource`; a test may replace `tables`."""

    tables: list[TableSnapshot] = field(default_factory=list)

    def snapshot(self, sql=None):
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


def _write(folder, names, tables, **options):
    files = data_files(*[folder / f"{name}.parquet" for name in names])
    for file, table in zip(files, tables, strict=True):
        pq.write_table(table, file.path, **options)
    return files


def data_files(*paths):
    """Return files of which nothing is known."""
    return tuple(DataFile(str(path)) for path in paths)


def write_log_entries(folder, hours):
    files = _write(folder, [f"log {hour}" for hour in range(hours)], map(log_rows, range(hours)))
    return TableSnapshot(name="log_entries", schema=LOG_SCHEMA, files=files, range_columns=("time", "time"))


def write_processes(folder):
    """Write two partial states of process p1 and one of p2, in two files, and return the table that merges them."""
    first = {"process_id": ["p1", "p2"], "start_time": [NOON, NOON], "last_update_time": [NOON, NOON]}
    second = {"process_id": ["p1"], "start_time": [None], "last_update_time": [NOON + timedelta(hours=3)]}
    tables = [pa.Table.from_pydict(rows, schema=PARTIAL_SCHEMA) for rows in (first, second)]
    return TableSnapshot(
        name="processes",
        schema=PARTIAL_SCHEMA,
        files=_write(folder, ("processes-0", "processes-1"), tables),
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
    tables = [ledger_rows(number, with_hidden=with_hidden) for number in range(6)]
    files = _write(folder, [f"{name}-{number}" for number in range(6)], tables, row_group_size=5)
    return TableSnapshot(name=name, schema=LEDGER_SCHEMA, files=files, range_columns=("time", "time"))


def encode_stream(*rows, schema=None, compression=None, deltas=False):
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression, emit_dictionary_deltas=deltas)
    with pa.ipc.new_stream(sink, rows[0].schema if schema is None else schema, options=options) as writer:
        for part in rows:
            writer.write(part)
    return as_frames(sink.getvalue())


def as_frames(stream):
    """The messages of an Arrow IPC stream as `FlightData`."""
    return [
        messages.FlightData(
            data_header=message.metadata.to_pybytes(), data_body=message.body.to_pybytes() if message.body else b""
        ).SerializeToString()
        for message in pa.ipc.MessageReader.open_stream(stream)
    ]
