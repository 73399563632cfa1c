"""Values of the data model and the record batches made of them; every builder returns exactly its table's schema."""

import enum
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from micromegas_jupyter.telemetry.tables import (
    LOG_ENTRIES,
    MEASURES,
    PROCESSES,
    STREAMS,
    TIMESTAMP,
    TableDefinition,
    build_constant_dictionary,
    build_constant_properties,
    build_dictionary,
    build_properties,
)

NANOSECONDS_PER_SECOND = 1_000_000_000
# CBOR (RFC 8949 section 3.1) of an empty list: a stream that describes no types.
EMPTY_METADATA = b"\x80"


class Level(enum.IntEnum):
    """Severity of a log entry as the column `level` of `log_entries` holds it; a lower number is worse."""

    FATAL = 1
    ERROR = 2
    WARN = 3
    INFO = 4
    DEBUG = 5
    TRACE = 6


_FROM_LOGGING = (
    (logging.CRITICAL, Level.FATAL),
    (logging.ERROR, Level.ERROR),
    (logging.WARNING, Level.WARN),
    (logging.INFO, Level.INFO),
    (logging.DEBUG, Level.DEBUG),
)


def level_from_logging(levelno: int) -> Level:
    """Return the level of a `logging` number; one that is between two names counts as the lower name."""
    return next((level for threshold, level in _FROM_LOGGING if levelno >= threshold), Level.TRACE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessInfo:
    """A process that records, as the table `processes` describes it; times are nanoseconds since 1970 UTC."""

    process_id: str
    exe: str
    username: str
    realname: str
    computer: str
    distro: str
    cpu_brand: str
    start_time_ns: int
    insert_time_ns: int
    parent_process_id: str = ""
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """One kind of data of one process; `tags` says which, `format` how its blocks are encoded."""

    stream_id: str
    process_id: str
    tags: tuple[str, ...]
    format: str
    insert_time_ns: int
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockOrigin:
    """Where the rows of one batch come from: process, stream, block, and when they arrived."""

    process: ProcessInfo
    stream_id: str
    block_id: str
    insert_time_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRow:
    """One log entry; `target` is the logger's name, `level` one of `Level`."""

    time_ns: int
    target: str
    level: int
    msg: str
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureRow:
    """One measured value in the named unit."""

    time_ns: int
    target: str
    name: str
    unit: str
    value: float
    properties: Mapping[str, str] = field(default_factory=dict)


def nanoseconds_since_epoch(seconds: float) -> int:
    """Return seconds since 1970 UTC as nanoseconds, rounded to microseconds: a float holds no more today."""
    return round(seconds * 1e6) * 1000


def build_log_batch(rows: Sequence[LogRow], origin: BlockOrigin) -> pa.RecordBatch:
    """Return `rows` as a batch of `log_entries`."""
    columns = [pa.array([row.level for row in rows], pa.int32()), pa.array([row.msg for row in rows], pa.utf8())]
    return _build_batch(rows, columns, origin, LOG_ENTRIES)


def build_measure_batch(rows: Sequence[MeasureRow], origin: BlockOrigin) -> pa.RecordBatch:
    """Return `rows` as a batch of `measures`."""
    columns = [
        build_dictionary([row.name for row in rows]),
        build_dictionary([row.unit for row in rows]),
        pa.array([row.value for row in rows], pa.float64()),
    ]
    return _build_batch(rows, columns, origin, MEASURES)


def _build_batch(
    rows: Sequence[LogRow] | Sequence[MeasureRow], columns: list[pa.Array], origin: BlockOrigin, table: TableDefinition
) -> pa.RecordBatch:
    length, process = len(rows), origin.process
    arrays = [
        build_constant_dictionary(process.process_id, length),
        build_constant_dictionary(origin.stream_id, length),
        build_constant_dictionary(origin.block_id, length),
        pa.repeat(pa.scalar(origin.insert_time_ns, TIMESTAMP), length),
        build_constant_dictionary(process.exe, length),
        build_constant_dictionary(process.username, length),
        build_constant_dictionary(process.computer, length),
        pa.array([row.time_ns for row in rows], TIMESTAMP),
        build_dictionary([row.target for row in rows]),
        *columns,
        build_properties(row.properties for row in rows),
        build_constant_properties(process.properties, length),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=table.schema)


def build_process_batch(
    process: ProcessInfo, *, last_update_time_ns: int, last_block_end_time_ns: int | None = None
) -> pa.RecordBatch:
    """Return the state of a process as one row; ticks are nanoseconds since 1970 UTC."""
    texts = ("process_id", "exe", "username", "realname", "computer", "distro", "cpu_brand", "parent_process_id")
    values = {name: getattr(process, name) for name in texts} | {
        "tsc_frequency": NANOSECONDS_PER_SECOND,
        "start_time": process.start_time_ns,
        "start_ticks": process.start_time_ns,
        "insert_time": process.insert_time_ns,
        "properties": list(process.properties.items()),
        "last_update_time": last_update_time_ns,
        "last_block_end_ticks": last_block_end_time_ns,
        "last_block_end_time": last_block_end_time_ns,
    }
    return pa.RecordBatch.from_pylist([values], schema=PROCESSES.schema)


def build_stream_batch(stream: StreamInfo, *, last_update_time_ns: int) -> pa.RecordBatch:
    """Return the state of a stream as one row."""
    values = {
        "stream_id": stream.stream_id,
        "process_id": stream.process_id,
        "dependencies_metadata": EMPTY_METADATA,
        "objects_metadata": EMPTY_METADATA,
        "tags": list(stream.tags),
        "properties": list(stream.properties.items()),
        "insert_time": stream.insert_time_ns,
        "format": stream.format,
        "last_update_time": last_update_time_ns,
    }
    return pa.RecordBatch.from_pylist([values], schema=STREAMS.schema)
