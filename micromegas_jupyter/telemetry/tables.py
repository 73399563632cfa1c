"""The tables of the data model, with the same names and types as upstream, so queries run on both."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple

import pyarrow as pa

from micromegas_jupyter.core import jsonb
from micromegas_jupyter.telemetry.histograms import OTEL_HISTOGRAM

DICTIONARY = pa.dictionary(pa.int32(), pa.utf8())
TIMESTAMP = pa.timestamp("ns", tz="+00:00")
PROPERTIES = pa.dictionary(pa.int32(), pa.binary())
"""Binary JSON objects (`core.jsonb`), dictionary-encoded."""
NANOS: Final = "_nanos"
"""Suffix of the stored column with the nanoseconds (0 to 999) that microseconds can't represent."""
REMARKS_KEY: Final = b"ARROW:FLIGHT:SQL:REMARKS"
"""Metadata key of a table or column description (Flight SQL, column metadata of `CommandGetTables`)."""
ROLE_KEY: Final = b"micromegas.role"
"""Metadata key of a column's role, one of `ROLES`."""
UNIT_KEY: Final = b"micromegas.unit"
"""Metadata key of a measure's unit in OpenTelemetry (UCUM) notation."""
_POSITION = "__position"


def build_constant_properties(properties: Mapping[str, object], length: int) -> pa.Array:
    """Return a column of `length` rows with the same property set."""
    encoded = pa.array([jsonb.encode(properties)], pa.binary())
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), length), encoded)


class ColumnRole(NamedTuple):
    """The role of a column, and the unit of a measure if all rows have the same unit."""

    role: str
    unit: str | None = None


_COLUMNS_BY_ROLE: Final = {
    "time": "time insert_time start_time end_time begin_time begin end last_update_time last_block_end_time time_bin",
    "measure": "value increase rate seconds:s duration:ns count:1 nb_objects:1 payload_size:By bit_size:bit "
    "tsc_frequency:Hz",
    "category": "exe username realname computer distro cpu_brand target name unit kind status format is_cumulative "
    "is_outgoing depth event_type filename line thread_name connection_name",
    "identifier": "process_id parent_process_id stream_id block_id trace_id span_id parent_span_id series id parent "
    "hash",
    "severity": "level",
    "text": "msg status_message",
}
ROLES: Final = tuple(_COLUMNS_BY_ROLE)
_ROLE_OF_COLUMN: Final = {
    column.partition(":")[0]: ColumnRole(role, column.partition(":")[2] or None)
    for role, columns in _COLUMNS_BY_ROLE.items()
    for column in columns.split()
}


def find_role(column: str) -> ColumnRole | None:
    """Return the role of a data model column, or None; a name has the same role in all tables."""
    return _ROLE_OF_COLUMN.get(column.rpartition(".")[2])


@lru_cache(maxsize=64)
def role_metadata(role: ColumnRole | None) -> pa.KeyValueMetadata:
    """Return the field metadata for this role; empty if the column has no role."""
    unit = {UNIT_KEY: role.unit} if role and role.unit else {}
    return pa.KeyValueMetadata({ROLE_KEY: role.role, **unit} if role and role.role in ROLES else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeRule:
    """How to merge partial states with the same key: the maximum of `latest` columns, the first value of the others.

    It exists twice, as SQL for queries and as a function for compaction; both give the same rows.
    """

    key: str
    order_by: tuple[str, ...]
    latest: tuple[str, ...]


def merge_rows(rows: pa.Table, rule: MergeRule) -> pa.Table:
    """Merge the partial states in `rows` into one row per key, with the same schema."""
    ordered = rows.sort_by([(name, "ascending") for name in rule.order_by])
    numbered = ordered.append_column(_POSITION, pa.array(range(ordered.num_rows), pa.int64()))
    grouped = numbered.group_by(rule.key, use_threads=False).aggregate(
        [(_POSITION, "min"), *((name, "max") for name in rule.latest)]
    )
    merged = ordered.take(grouped.column(f"{_POSITION}_min"))
    for name in rule.latest:
        index = merged.schema.get_field_index(name)
        merged = merged.set_column(index, merged.schema.field(index), grouped.column(f"{name}_max"))
    return merged


_Column = tuple[str, pa.DataType, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDefinition:
    """One table; without a `merge_rule`, its rows are the stored rows. A time range filters by `range_columns`.

    Times are stored in microseconds; those of `split_times` have their nanoseconds in a second column (`NANOS`).
    """

    name: str
    remark: str = field(repr=False)
    schema: pa.Schema = field(repr=False)
    remarks: Mapping[str, str] = field(repr=False)
    range_columns: tuple[str, str]
    sort_columns: tuple[str, ...]
    merge_rule: MergeRule | None = None
    split_times: tuple[str, ...] = ()

    @property
    def raw_name(self) -> str | None:
        """The name of the table of partial states, or None."""
        return None if self.merge_rule is None else f"__{self.name}__partitions"

    @property
    def merge_sql(self) -> str | None:
        """The SELECT (DataFusion SQL) that merges the partial states into the table, or None."""
        rule = self.merge_rule
        if rule is None:
            return None
        order = ", ".join(f'"{name}"' for name in rule.order_by)
        columns = [f'first_value("{name}" ORDER BY {order}) AS "{name}"' for name in self.schema.names]
        for position, name in enumerate(self.schema.names):
            if name == rule.key:
                columns[position] = f'"{name}"'
            elif name in rule.latest:
                columns[position] = f'max("{name}") AS "{name}"'
        # All names come from this package's table definitions.
        return f'SELECT {", ".join(columns)} FROM "{self.raw_name}" GROUP BY "{rule.key}"'  # noqa: S608


# Columns that identify the origin of a row.
_PROCESS_ID: Final = ("process_id", DICTIONARY, "Sending process.")
_STREAM_ID: Final = ("stream_id", DICTIONARY, "Stream of the row.")
_BLOCK_ID: Final = ("block_id", DICTIONARY, "Block of the row.")
_INSERT_TIME: Final = ("insert_time", TIMESTAMP, "Arrival time.")
_PROGRAM: Final = (
    ("exe", DICTIONARY, "Program name."),
    ("username", DICTIONARY, "Account name."),
    ("computer", DICTIONARY, "Host name."),
)
_PROCESS_PROPERTIES: Final = (
    "process_properties", PROPERTIES, "Process attributes (object).",
)  # fmt: skip
_ORIGIN: Final = (_PROCESS_ID, _STREAM_ID, _BLOCK_ID, _INSERT_TIME)


def _define_rows(
    name: str,
    remark: str,
    *columns: _Column,
    range_columns: tuple[str, str],
    optional: Collection[str] = (),
    split_times: tuple[str, ...] = (),
) -> TableDefinition:
    return TableDefinition(
        name=name,
        remark=remark,
        schema=pa.schema([pa.field(column, kind, nullable=column in optional) for column, kind, _ in columns]),
        remarks={column: text for column, _, text in columns},
        range_columns=range_columns,
        sort_columns=range_columns[:1],
        split_times=split_times,
    )


def _define_events(name: str, remark: str, *own: _Column, optional: Collection[str] = ()) -> TableDefinition:
    return _define_rows(
        name,
        remark,
        *_ORIGIN,
        *_PROGRAM,
        ("time", TIMESTAMP, "Event time."),
        ("target", DICTIONARY, "Module or logger."),
        *own,
        ("properties", PROPERTIES, "Attributes (object)."),
        _PROCESS_PROPERTIES,
        range_columns=("time", "time"),
        optional=optional,
    )


def _define_states(name: str, remark: str, *columns: _Column, latest: tuple[str, ...]) -> TableDefinition:
    key = columns[0][0]
    order = ("insert_time", "last_update_time")
    return TableDefinition(
        name=name,
        remark=remark,
        schema=pa.schema([pa.field(column, kind, nullable=column != key) for column, kind, _ in columns]),
        remarks={column: text for column, _, text in columns},
        range_columns=order,
        sort_columns=order,
        merge_rule=MergeRule(key=key, order_by=order, latest=latest),
    )


LOG_ENTRIES = _define_events(
    "log_entries",
    "Log entries that programs sent, one row per entry.",
    ("level", pa.int32(), "Severity: 1 fatal, 2 error, 3 warning, 4 info, 5 debug, 6 trace."),
    ("msg", pa.utf8(), "Message text."),
)

MEASURES = _define_events(
    "measures",
    "Metrics that programs sent, one row per value.",
    ("name", DICTIONARY, "Metric name."),
    ("unit", DICTIONARY, "Unit of the value."),
    ("value", pa.float64(), "Measured value."),
)

HISTOGRAMS = _define_events(
    "histograms",
    "Histogram metrics that programs sent, one row per data point.",
    ("name", DICTIONARY, "Metric name."),
    ("unit", DICTIONARY, "Unit of the values."),
    ("series", pa.int64(), "ID of process, metric, and attributes."),
    ("start_time", TIMESTAMP, "Start of counting; changes at a reset."),
    ("is_cumulative", pa.bool_(), "Counts since start_time, not since the previous point."),
    ("histogram", OTEL_HISTOGRAM, "Count, sum, minimum, maximum, and buckets."),
    ("exemplars", pa.binary(), "JSONB array: value, time, trace_id, span_id."),
    optional={"start_time", "exemplars"},
)

PROCESSES = _define_states(
    "processes",
    "Processes that sent telemetry, one row per program run.",
    ("process_id", pa.utf8(), "Process ID."),
    ("exe", pa.utf8(), "Program name."),
    ("username", pa.utf8(), "Account name."),
    ("realname", pa.utf8(), "Account owner."),
    ("computer", pa.utf8(), "Host name."),
    ("distro", pa.utf8(), "Operating system."),
    ("cpu_brand", pa.utf8(), "Processor."),
    ("tsc_frequency", pa.int64(), "Clock ticks per second."),
    ("start_time", TIMESTAMP, "Program start."),
    ("start_ticks", pa.int64(), "Ticks at start_time."),
    ("insert_time", TIMESTAMP, "First arrival."),
    ("parent_process_id", pa.utf8(), "Parent process."),
    ("properties", PROPERTIES, "Process attributes (object)."),
    ("last_update_time", TIMESTAMP, "Last arrival."),
    ("last_block_end_ticks", pa.int64(), "Ticks at last_block_end_time."),
    ("last_block_end_time", TIMESTAMP, "End of the latest block."),
    latest=("last_update_time", "last_block_end_ticks", "last_block_end_time"),
)

STREAMS = _define_states(
    "streams",
    "Streams in which processes sent telemetry, one row per stream.",
    ("stream_id", pa.utf8(), "Stream ID."),
    ("process_id", pa.utf8(), "Sending process."),
    ("dependencies_metadata", pa.binary(), "Layout of referenced objects."),
    ("objects_metadata", pa.binary(), "Event layout."),
    ("tags", pa.list_(pa.utf8()), "Kinds of data, such as log."),
    ("properties", PROPERTIES, "Stream attributes (object)."),
    ("insert_time", TIMESTAMP, "First arrival."),
    ("format", pa.utf8(), "Event encoding."),
    ("last_update_time", TIMESTAMP, "Last arrival."),
    latest=("last_update_time",),
)

OTEL_SPANS = _define_rows(
    "otel_spans",
    "Trace spans that programs sent, one row per span.",
    *_ORIGIN,
    *((name, pa.utf8(), remark) for name, _, remark in _PROGRAM),
    _PROCESS_PROPERTIES,
    ("trace_id", pa.binary(16), "Trace ID."),
    ("span_id", pa.binary(8), "Span ID."),
    ("parent_span_id", pa.binary(8), "Parent span; null for the root."),
    ("start_time", TIMESTAMP, "Start."),
    ("end_time", TIMESTAMP, "End."),
    ("duration", pa.int64(), "Nanoseconds."),
    ("name", DICTIONARY, "Operation name."),
    ("kind", DICTIONARY, "INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER, or UNSPECIFIED."),
    ("status", DICTIONARY, "OK, ERROR, or UNSET."),
    ("status_message", pa.utf8(), "Status description."),
    ("properties", PROPERTIES, "Attributes (object)."),
    ("events", pa.binary(), "JSONB array: name, time, attributes."),
    ("links", pa.binary(), "JSONB array: trace_id, span_id, attributes."),
    optional={"parent_span_id", "status_message"},
    range_columns=("start_time", "end_time"),
    split_times=("start_time", "end_time"),
)

_STREAM_OF_BLOCK: Final = "dependencies_metadata objects_metadata tags properties insert_time format"
_PROCESS_OF_BLOCK: Final = (
    "start_time start_ticks tsc_frequency exe username realname computer distro cpu_brand insert_time "
    "parent_process_id properties"
)
BLOCKS = _define_rows(
    "blocks",
    "Blocks (batches) of telemetry, one row per block, with their stream and process.",
    ("block_id", pa.utf8(), "Block ID."),
    ("stream_id", pa.utf8(), _STREAM_ID[2]),
    ("process_id", pa.utf8(), _PROCESS_ID[2]),
    ("begin_time", TIMESTAMP, "Earliest event time."),
    ("begin_ticks", pa.int64(), "Ticks at begin_time."),
    ("end_time", TIMESTAMP, "Latest event time."),
    ("end_ticks", pa.int64(), "Ticks at end_time."),
    ("nb_objects", pa.int32(), "Number of events."),
    ("object_offset", pa.int64(), "Earlier events in the stream."),
    ("payload_size", pa.int64(), "Bytes as sent."),
    _INSERT_TIME,
    *(
        (f"{table.name}.{name}", table.schema.field(name).type, table.remarks[name])
        for table, names in ((STREAMS, _STREAM_OF_BLOCK), (PROCESSES, _PROCESS_OF_BLOCK))
        for name in names.split()
    ),
    range_columns=("begin_time", "insert_time"),
)

LOG_STATS = _define_rows(
    "log_stats",
    "Number of log entries per minute, process, level, and target, computed on each query.",
    ("time_bin", TIMESTAMP, "Start of the minute."),
    _PROCESS_ID,
    ("level", pa.int32(), LOG_ENTRIES.remarks["level"]),
    ("target", DICTIONARY, LOG_ENTRIES.remarks["target"]),
    ("count", pa.int64(), "Number of entries."),
    range_columns=("time_bin", "time_bin"),
)
LOG_STATS_BIN: Final = "minute"
"""The `date_trunc` unit that converts a time to `time_bin`."""

_SECONDS: Final = ("seconds", pa.float64(), "Length of the period.")
HISTOGRAM_INCREASES = _define_events(
    "histogram_increases",
    "Increase of each histogram point over the previous one, computed on each query.",
    *((name, HISTOGRAMS.schema.field(name).type, HISTOGRAMS.remarks[name]) for name in ("name", "unit", "series")),
    ("histogram", OTEL_HISTOGRAM, "Increase; null for the first point."),
    _SECONDS,
    ("exemplars", pa.binary(), HISTOGRAMS.remarks["exemplars"]),
    optional={"histogram", "seconds", "exemplars"},
)
COUNTER_INCREASES = _define_events(
    "counter_increases",
    "Increase of each counter value over the previous one, computed on each query.",
    *((name, MEASURES.schema.field(name).type, MEASURES.remarks[name]) for name in ("name", "unit", "value")),
    ("increase", pa.float64(), "Increase; null for the first value."),
    _SECONDS,
    ("rate", pa.float64(), "Increase per second."),
    optional={"increase", "seconds", "rate"},
)
INCREASE_LOOKBACK_SECONDS: Final = 300
"""How far before a time range to look for the point that precedes its first point."""

_SPAN_COLUMNS: Final = (
    ("id", pa.int64(), "Call ID."),
    ("parent", pa.int64(), "Calling function's ID."),
    ("depth", pa.uint32(), "Nesting depth."),
    ("hash", pa.uint32(), "Code location ID."),
    ("begin", TIMESTAMP, "Start."),
    ("end", TIMESTAMP, 'End; write "end" in quotes.'),
    ("duration", pa.int64(), "Nanoseconds."),
    ("name", DICTIONARY, "Function name."),
    ("target", DICTIONARY, "Module."),
    ("filename", DICTIONARY, "Source file."),
    ("line", pa.uint32(), "Source line."),
)
THREAD_SPANS = _define_rows(
    "thread_spans", "Function calls in a thread.", *_SPAN_COLUMNS, range_columns=("begin", "end")
)

_SHORT_DICTIONARY: Final = pa.dictionary(pa.int16(), pa.utf8())
PROCESS_SPANS = _define_rows(
    "process_spans",
    "Function calls of all threads of a process, and its asynchronous operations.",
    ("stream_id", _SHORT_DICTIONARY, "Thread; empty for asynchronous operations."),
    ("thread_name", _SHORT_DICTIONARY, "Thread name; async for asynchronous operations."),
    *_SPAN_COLUMNS,
    range_columns=("begin", "end"),
)
"""Result of the table function with this name."""

PERFETTO_CHUNKS = _define_rows(
    "perfetto_trace_chunks",
    "Spans of a process as a Perfetto file, in chunks.",
    ("chunk_id", pa.int32(), "Chunk number from 0."),
    ("chunk_data", pa.binary(), "Chunk."),
    range_columns=("chunk_id", "chunk_id"),
)
"""Result of the table function with this name."""

ASYNC_EVENTS = _define_rows(
    "async_events",
    "Begin and end events of asynchronous operations.",
    _STREAM_ID,
    _BLOCK_ID,
    ("time", TIMESTAMP, "Event time."),
    ("event_type", DICTIONARY, "begin or end."),
    ("span_id", pa.int64(), "Operation ID."),
    ("parent_span_id", pa.int64(), "Parent operation."),
    ("depth", pa.uint32(), "Nesting depth."),
    ("hash", pa.uint32(), "Code location ID."),
    ("name", DICTIONARY, "Operation name."),
    ("filename", DICTIONARY, "Source file."),
    ("target", DICTIONARY, "Module."),
    ("line", pa.uint32(), "Source line."),
    range_columns=("time", "time"),
)

NET_SPANS = _define_rows(
    "net_spans",
    "Network traffic by connection, object, property, and call.",
    _PROCESS_ID,
    _STREAM_ID,
    ("span_id", pa.int64(), "Span ID."),
    ("parent_span_id", pa.int64(), "Parent span; -1 for the root."),
    ("depth", pa.uint32(), "Nesting depth."),
    ("kind", DICTIONARY, "connection, object, property, or rpc."),
    ("name", DICTIONARY, "Item name."),
    ("connection_name", DICTIONARY, "Connection name."),
    ("is_outgoing", pa.bool_(), "Sent, not received."),
    ("begin_bits", pa.int64(), "Start in the packet."),
    ("end_bits", pa.int64(), "End in the packet."),
    ("bit_size", pa.int64(), "Size in bits."),
    ("begin_time", TIMESTAMP, "Start."),
    ("end_time", TIMESTAMP, "End."),
    range_columns=("begin_time", "end_time"),
)

IMAGES = _define_rows(
    "images",
    "Images that programs sent.",
    *_ORIGIN,
    *_PROGRAM,
    ("time", TIMESTAMP, "Capture time."),
    ("name", pa.utf8(), "Image name."),
    ("format", DICTIONARY, "Image format."),
    ("payload_size", pa.int64(), "Size in bytes."),
    ("data", pa.binary(), "Image bytes."),
    range_columns=("time", "time"),
)

DEMO_REQUESTS: Final = _define_rows(
    "requests",
    "Requests that the demo's sample program sends every second, one row per request.",
    ("time", pa.timestamp("us", "UTC"), "When the request was sent."),
    ("service", pa.string(), "Target of the request: the identity provider or the SQL server."),
    ("path", pa.string(), "Requested page or SQL statement."),
    ("status", pa.int32(), "HTTP status of a page, or 0 for a successful statement; null without a response."),
    ("duration_ms", pa.float64(), "Response time in milliseconds."),
    ("size_bytes", pa.int64(), "Response size in bytes; null without a response."),
    range_columns=("time", "time"),
    optional=("status", "size_bytes"),
)
"""The demo's own table, which isn't part of the data model."""
TABLES = (PROCESSES, STREAMS, BLOCKS, LOG_ENTRIES, MEASURES, HISTOGRAMS, OTEL_SPANS)
VIEW_INSTANCE: Final = "view_instance"
"""The table function that returns the rows of a view set for one process or stream."""
VIEWS = (LOG_STATS, HISTOGRAM_INCREASES, COUNTER_INCREASES)
"""Views, which are computed from tables."""
VIEW_SOURCES: Final = {
    LOG_STATS.name: LOG_ENTRIES.name,
    HISTOGRAM_INCREASES.name: HISTOGRAMS.name,
    COUNTER_INCREASES.name: MEASURES.name,
}
"""The source table of each view."""
EMPTY_SETS = (THREAD_SPANS, ASYNC_EVENTS, NET_SPANS, IMAGES)
"""View sets that are always empty here, because only Micromegas's own libraries send their rows."""
DEFINITIONS: Final = {one.name: one for one in (*TABLES, *VIEWS, *EMPTY_SETS, PROCESS_SPANS, PERFETTO_CHUNKS)}
MODEL_NAMES: Final = frozenset(DEFINITIONS)
"""Tables and views of the data model; their times have nanoseconds in results."""


def with_remarks(table: str, schema: pa.Schema) -> pa.Schema:
    """Add the descriptions of a table and its columns to the schema's metadata, if the table is known."""
    others = (DEMO_REQUESTS,) if schema.names == DEMO_REQUESTS.schema.names else ()
    for definition in (*TABLES, *VIEWS, *others):
        if table == definition.name:
            remark, remarks = definition.remark, definition.remarks
            break
        if table == definition.raw_name:
            remark, remarks = f"Partial states that are merged into the rows of {definition.name}.", {}
            break
    else:
        return schema
    fields = [
        column.with_metadata(
            {**(column.metadata or {}), REMARKS_KEY: remarks[column.name], **role_metadata(find_role(column.name))}
        )
        if column.name in remarks
        else column
        for column in schema
    ]
    return pa.schema(fields, metadata={**(schema.metadata or {}), REMARKS_KEY: remark})


NANOSECONDS_PER_SECOND = 1_000_000_000
# CBOR (RFC 8949 section 3.1) of an empty list: a stream that describes no types.
EMPTY_METADATA = b"\x80"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessInfo:
    """A process that sends telemetry (see table `processes`); times are nanoseconds since 1970 UTC."""

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
    properties: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """One kind of data from one process: `tags` is the kind, `format` the encoding of its blocks."""

    stream_id: str
    process_id: str
    tags: tuple[str, ...]
    format: str
    insert_time_ns: int
    properties: Mapping[str, object] = field(default_factory=dict)


def nanoseconds_since_epoch(seconds: float) -> int:
    """Convert seconds since 1970 UTC to nanoseconds, rounded to microseconds, the precision of a float."""
    return round(seconds * 1e6) * 1000


def build_process_batch(
    process: ProcessInfo, *, last_update_time_ns: int, last_block_end_time_ns: int | None = None
) -> pa.RecordBatch:
    """Return a process as one row; ticks are nanoseconds since 1970 UTC."""
    texts = ("process_id", "exe", "username", "realname", "computer", "distro", "cpu_brand", "parent_process_id")
    values = {name: getattr(process, name) for name in texts} | {
        "tsc_frequency": NANOSECONDS_PER_SECOND,
        "start_time": process.start_time_ns,
        "start_ticks": process.start_time_ns,
        "insert_time": process.insert_time_ns,
        "properties": jsonb.encode(process.properties),
        "last_update_time": last_update_time_ns,
        "last_block_end_ticks": last_block_end_time_ns,
        "last_block_end_time": last_block_end_time_ns,
    }
    return pa.RecordBatch.from_pylist([values], schema=PROCESSES.schema)


def build_stream_batch(stream: StreamInfo, *, last_update_time_ns: int) -> pa.RecordBatch:
    """Return a stream as one row."""
    values = {
        "stream_id": stream.stream_id,
        "process_id": stream.process_id,
        "dependencies_metadata": EMPTY_METADATA,
        "objects_metadata": EMPTY_METADATA,
        "tags": list(stream.tags),
        "properties": jsonb.encode(stream.properties),
        "insert_time": stream.insert_time_ns,
        "format": stream.format,
        "last_update_time": last_update_time_ns,
    }
    return pa.RecordBatch.from_pylist([values], schema=STREAMS.schema)
