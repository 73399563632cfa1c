"""The tables of the data model, with upstream's names and types: one query runs on either implementation."""

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
"""JSON objects in binary (`core.jsonb`), each distinct one once."""
NANOS: Final = "_nanos"
"""The end of the name of a stored column with the nanoseconds (0 to 999) that its time has beyond microseconds."""
REMARKS_KEY: Final = b"ARROW:FLIGHT:SQL:REMARKS"
"""The metadata key of a remark (Flight SQL, column metadata of `CommandGetTables`)."""
ROLE_KEY: Final = b"micromegas.role"
"""The metadata key of what a column is: one of `ROLES`."""
UNIT_KEY: Final = b"micromegas.unit"
"""The metadata key of a measure's unit, in the notation of OpenTelemetry (UCUM)."""
_POSITION = "__position"


def build_constant_properties(properties: Mapping[str, object], length: int) -> pa.Array:
    """Return the same property set in all `length` rows."""
    encoded = pa.array([jsonb.encode(properties)], pa.binary())
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), length), encoded)


class ColumnRole(NamedTuple):
    """What a column is, and of a measure the unit, if all rows have the same."""

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
    """Return the role of a column of the data model, None if it has none; names mean the same in all tables."""
    return _ROLE_OF_COLUMN.get(column.rpartition(".")[2])


@lru_cache(maxsize=64)
def role_metadata(role: ColumnRole | None) -> pa.KeyValueMetadata:
    """Return the metadata of a column with this role; empty for others."""
    unit = {UNIT_KEY: role.unit} if role and role.unit else {}
    return pa.KeyValueMetadata({ROLE_KEY: role.role, **unit} if role and role.role in ROLES else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeRule:
    """How the partial states of one key are merged: the greatest of `latest` columns, else the first state's value.

    It exists twice, as SQL for queries and as a function for compaction; both give the same rows.
    """

    key: str
    order_by: tuple[str, ...]
    latest: tuple[str, ...]


def merge_rows(rows: pa.Table, rule: MergeRule) -> pa.Table:
    """Merge the partial states in `rows`; the result is a state of the same schema, one row for each key."""
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
    """One table; without a `merge_rule` the stored rows are its rows. A time range filters by `range_columns`.

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
        """The name under which the partial states are visible, None when there are none."""
        return None if self.merge_rule is None else f"__{self.name}__partitions"

    @property
    def merge_sql(self) -> str | None:
        """The SELECT (DataFusion SQL) that makes the table of its partial states, None when there are none."""
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
        # Every name comes from a table definition of this package.
        return f'SELECT {", ".join(columns)} FROM "{self.raw_name}" GROUP BY "{rule.key}"'  # noqa: S608


# Where a row comes from, in all tables of such rows.
_PROCESS_ID: Final = ("process_id", DICTIONARY, "The run of a program that sent it; see processes.")
_STREAM_ID: Final = ("stream_id", DICTIONARY, "The channel that it came through; see streams.")
_BLOCK_ID: Final = ("block_id", DICTIONARY, "The batch that it came in; see blocks.")
_INSERT_TIME: Final = ("insert_time", TIMESTAMP, "When it reached the lake.")
_PROGRAM: Final = (
    ("exe", DICTIONARY, "The program."),
    ("username", DICTIONARY, "The account that the program ran under."),
    ("computer", DICTIONARY, "The machine that the program ran on."),
)
_PROCESS_PROPERTIES: Final = (
    "process_properties", PROPERTIES, "JSON object (JSONB) of the attributes of the program's run.",
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
        ("time", TIMESTAMP, "When it happened, by the program's clock."),
        ("target", DICTIONARY, "The module or logger that it comes from."),
        *own,
        ("properties", PROPERTIES, "JSON object (JSONB) of this row's attributes."),
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
    "What programs logged, one row for each entry.",
    ("level", pa.int32(), "How severe: 1 fatal, 2 error, 3 warning, 4 info, 5 debug, 6 trace."),
    ("msg", pa.utf8(), "The message."),
)

MEASURES = _define_events(
    "measures",
    "What programs measured, one row for each value of a metric.",
    ("name", DICTIONARY, "The metric."),
    ("unit", DICTIONARY, "What the value is counted in."),
    ("value", pa.float64(), "The measured value."),
)

HISTOGRAMS = _define_events(
    "histograms",
    "What programs measured as histograms, one row for each point, as it was sent.",
    ("name", DICTIONARY, "The metric."),
    ("unit", DICTIONARY, "What the values are counted in."),
    ("series", pa.int64(), "The same in all points of a program's metric that have the same attributes."),
    ("start_time", TIMESTAMP, "The time since which it counts; a new one is a reset. Null if the program didn't say."),
    ("is_cumulative", pa.bool_(), "Whether it counts since start_time, not since the point before it."),
    ("histogram", OTEL_HISTOGRAM, "Count, sum, minimum, maximum, and the buckets; see histogram_quantile."),
    ("exemplars", pa.binary(), "Single values: a JSONB array of objects with value, time, trace_id, and span_id."),
    optional={"start_time", "exemplars"},
)

PROCESSES = _define_states(
    "processes",
    "The programs that sent telemetry, one row for each run of a program.",
    ("process_id", pa.utf8(), "Identifies this run of the program."),
    ("exe", pa.utf8(), "The program."),
    ("username", pa.utf8(), "The account that it ran under."),
    ("realname", pa.utf8(), "The name of that account's owner."),
    ("computer", pa.utf8(), "The machine that it ran on."),
    ("distro", pa.utf8(), "The machine's operating system."),
    ("cpu_brand", pa.utf8(), "The machine's processor."),
    ("tsc_frequency", pa.int64(), "Ticks of the program's clock in a second."),
    ("start_time", TIMESTAMP, "When the program started."),
    ("start_ticks", pa.int64(), "The program's clock when it started."),
    ("insert_time", TIMESTAMP, "When the lake first heard of it."),
    ("parent_process_id", pa.utf8(), "The run that started this one."),
    ("properties", PROPERTIES, "JSON object (JSONB) of the run's attributes."),
    ("last_update_time", TIMESTAMP, "When the lake last heard of it."),
    ("last_block_end_ticks", pa.int64(), "The program's clock at the end of its latest batch."),
    ("last_block_end_time", TIMESTAMP, "When its latest batch ended."),
    latest=("last_update_time", "last_block_end_ticks", "last_block_end_time"),
)

STREAMS = _define_states(
    "streams",
    "The channels through which programs sent telemetry, one row each.",
    ("stream_id", pa.utf8(), "Identifies the channel."),
    ("process_id", pa.utf8(), "The run of a program that it belongs to; see processes."),
    ("dependencies_metadata", pa.binary(), "The layout of the objects that its events refer to."),
    ("objects_metadata", pa.binary(), "The layout of its events."),
    ("tags", pa.list_(pa.utf8()), "What it carries, for example log or metrics."),
    ("properties", PROPERTIES, "JSON object (JSONB) of the channel's attributes."),
    ("insert_time", TIMESTAMP, "When the lake first heard of it."),
    ("format", pa.utf8(), "The encoding of its events."),
    ("last_update_time", TIMESTAMP, "When the lake last heard of it."),
    latest=("last_update_time",),
)

OTEL_SPANS = _define_rows(
    "otel_spans",
    "The spans of traces that programs sent, one row each.",
    *_ORIGIN,
    *((name, pa.utf8(), remark) for name, _, remark in _PROGRAM),
    _PROCESS_PROPERTIES,
    ("trace_id", pa.binary(16), "The trace that it belongs to: 16 bytes; encode(trace_id, 'hex') is their text."),
    ("span_id", pa.binary(8), "Identifies the span in its trace: 8 bytes."),
    ("parent_span_id", pa.binary(8), "The span that this one is a part of; null at the root."),
    ("start_time", TIMESTAMP, "When it began, by the program's clock."),
    ("end_time", TIMESTAMP, "When it ended."),
    ("duration", pa.int64(), "How long it took, in nanoseconds."),
    ("name", DICTIONARY, "The operation."),
    ("kind", DICTIONARY, "Its part in a call: INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER or UNSPECIFIED."),
    ("status", DICTIONARY, "How it ended: OK, ERROR or UNSET."),
    ("status_message", pa.utf8(), "What the program said about its end."),
    ("properties", PROPERTIES, "JSON object (JSONB) of the span's attributes."),
    ("events", pa.binary(), "What happened meanwhile: a JSONB array of objects with name, time and attributes."),
    ("links", pa.binary(), "Spans of other traces: a JSONB array of objects with trace_id, span_id and attributes."),
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
    "The batches in which telemetry arrived, one row each, with their stream and process.",
    ("block_id", pa.utf8(), "Identifies the batch."),
    ("stream_id", pa.utf8(), _STREAM_ID[2]),
    ("process_id", pa.utf8(), _PROCESS_ID[2]),
    ("begin_time", TIMESTAMP, "The earliest time in it."),
    ("begin_ticks", pa.int64(), "The program's clock then."),
    ("end_time", TIMESTAMP, "The latest time in it."),
    ("end_ticks", pa.int64(), "The program's clock then."),
    ("nb_objects", pa.int32(), "How many events it has."),
    ("object_offset", pa.int64(), "How many events the stream had before it."),
    ("payload_size", pa.int64(), "How many bytes it had on its way."),
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
    "How many log entries there were in each minute, by process, level and target; counted when it is asked.",
    ("time_bin", TIMESTAMP, "The minute, as the time at which it begins."),
    _PROCESS_ID,
    ("level", pa.int32(), LOG_ENTRIES.remarks["level"]),
    ("target", DICTIONARY, LOG_ENTRIES.remarks["target"]),
    ("count", pa.int64(), "How many entries."),
    range_columns=("time_bin", "time_bin"),
)
LOG_STATS_BIN: Final = "minute"
"""The unit of `date_trunc` that makes `time_bin` of a time."""

_SECONDS: Final = ("seconds", pa.float64(), "How long it took; null if that isn't known.")
HISTOGRAM_INCREASES = _define_events(
    "histogram_increases",
    "What each point of a histogram added to the one before it; computed when it is asked for.",
    *((name, HISTOGRAMS.schema.field(name).type, HISTOGRAMS.remarks[name]) for name in ("name", "unit", "series")),
    ("histogram", OTEL_HISTOGRAM, "What was added; null for the first point of a series that began earlier."),
    _SECONDS,
    ("exemplars", pa.binary(), HISTOGRAMS.remarks["exemplars"]),
    optional={"histogram", "seconds", "exemplars"},
)
COUNTER_INCREASES = _define_events(
    "counter_increases",
    "What each value of a counter added to the one before it; computed when it is asked for.",
    *((name, MEASURES.schema.field(name).type, MEASURES.remarks[name]) for name in ("name", "unit", "value")),
    ("increase", pa.float64(), "What was added; null for the first value."),
    _SECONDS,
    ("rate", pa.float64(), "The increase in one second."),
    optional={"increase", "seconds", "rate"},
)
INCREASE_LOOKBACK_SECONDS: Final = 300
"""The time before a time range in which the point before its first one is found."""

_SPAN_COLUMNS: Final = (
    ("id", pa.int64(), "Identifies the call in its thread."),
    ("parent", pa.int64(), "The call that it was made in."),
    ("depth", pa.uint32(), "How many calls it was made in."),
    ("hash", pa.uint32(), "Identifies the place in the code."),
    ("begin", TIMESTAMP, "When it began."),
    ("end", TIMESTAMP, "When it ended; a keyword, so write it in double quotes."),
    ("duration", pa.int64(), "How long it took, in nanoseconds."),
    ("name", DICTIONARY, "The function."),
    ("target", DICTIONARY, "The module."),
    ("filename", DICTIONARY, "The file of the code."),
    ("line", pa.uint32(), "The line in it."),
)
THREAD_SPANS = _define_rows(
    "thread_spans", "The calls of functions that a thread made.", *_SPAN_COLUMNS, range_columns=("begin", "end")
)

_SHORT_DICTIONARY: Final = pa.dictionary(pa.int16(), pa.utf8())
PROCESS_SPANS = _define_rows(
    "process_spans",
    "The calls of all threads of a process, and its asynchronous operations.",
    ("stream_id", _SHORT_DICTIONARY, "The thread; empty for asynchronous operations."),
    ("thread_name", _SHORT_DICTIONARY, "Its name; async for asynchronous operations."),
    *_SPAN_COLUMNS,
    range_columns=("begin", "end"),
)
"""What the table function of this name gives."""

PERFETTO_CHUNKS = _define_rows(
    "perfetto_trace_chunks",
    "The spans of a process as a file for Perfetto, in parts.",
    ("chunk_id", pa.int32(), "The number of the part, from 0 on."),
    ("chunk_data", pa.binary(), "Its bytes."),
    range_columns=("chunk_id", "chunk_id"),
)
"""What the table function of this name gives."""

ASYNC_EVENTS = _define_rows(
    "async_events",
    "The begin and the end of each asynchronous operation.",
    _STREAM_ID,
    _BLOCK_ID,
    ("time", TIMESTAMP, "When it happened."),
    ("event_type", DICTIONARY, "Which of both: begin or end."),
    ("span_id", pa.int64(), "Identifies the operation."),
    ("parent_span_id", pa.int64(), "The operation that it is a part of."),
    ("depth", pa.uint32(), "How many operations it is a part of."),
    ("hash", pa.uint32(), "Identifies the place in the code."),
    ("name", DICTIONARY, "The operation."),
    ("filename", DICTIONARY, "The file of the code."),
    ("target", DICTIONARY, "The module."),
    ("line", pa.uint32(), "The line in the file."),
    range_columns=("time", "time"),
)

NET_SPANS = _define_rows(
    "net_spans",
    "What was sent and received over a network, and in what.",
    _PROCESS_ID,
    _STREAM_ID,
    ("span_id", pa.int64(), "Identifies the part of the traffic."),
    ("parent_span_id", pa.int64(), "The part that it is in; -1 at the root."),
    ("depth", pa.uint32(), "How many parts it is in."),
    ("kind", DICTIONARY, "connection, object, property or rpc."),
    ("name", DICTIONARY, "What was sent."),
    ("connection_name", DICTIONARY, "The connection."),
    ("is_outgoing", pa.bool_(), "Whether it was sent, and not received."),
    ("begin_bits", pa.int64(), "Where it begins in its packet, in bits."),
    ("end_bits", pa.int64(), "Where it ends."),
    ("bit_size", pa.int64(), "How many bits it has."),
    ("begin_time", TIMESTAMP, "When it began."),
    ("end_time", TIMESTAMP, "When it ended."),
    range_columns=("begin_time", "end_time"),
)

IMAGES = _define_rows(
    "images",
    "Pictures that programs sent.",
    *_ORIGIN,
    *_PROGRAM,
    ("time", TIMESTAMP, "When it was taken."),
    ("name", pa.utf8(), "The picture."),
    ("format", DICTIONARY, "How it is encoded."),
    ("payload_size", pa.int64(), "How many bytes it has."),
    ("data", pa.binary(), "The bytes."),
    range_columns=("time", "time"),
)

DEMO_REQUESTS: Final = _define_rows(
    "requests",
    "Requests that the demo's small program makes every second, one row each.",
    ("time", pa.timestamp("us", "UTC"), "When the request was sent."),
    ("service", pa.string(), "What was asked: the identity provider, or the SQL server."),
    ("path", pa.string(), "The page that was requested, or the statement."),
    ("status", pa.int32(), "The HTTP status of a page, 0 for a statement that succeeded; null without a response."),
    ("duration_ms", pa.float64(), "How long the response took, in milliseconds."),
    ("size_bytes", pa.int64(), "The size of the response in bytes; null without a response."),
    range_columns=("time", "time"),
    optional=("status", "size_bytes"),
)
"""The demo's own table, which is no part of the data model."""
TABLES = (PROCESSES, STREAMS, BLOCKS, LOG_ENTRIES, MEASURES, HISTOGRAMS, OTEL_SPANS)
VIEW_INSTANCE: Final = "view_instance"
"""The table function that names what one process or stream sent of a view set."""
VIEWS = (LOG_STATS, HISTOGRAM_INCREASES, COUNTER_INCREASES)
"""What is computed from tables."""
VIEW_SOURCES: Final = {
    LOG_STATS.name: LOG_ENTRIES.name,
    HISTOGRAM_INCREASES.name: HISTOGRAMS.name,
    COUNTER_INCREASES.name: MEASURES.name,
}
"""The table that each view is computed from."""
EMPTY_SETS = (THREAD_SPANS, ASYNC_EVENTS, NET_SPANS, IMAGES)
"""View sets whose rows only Micromegas's own libraries send; here they have none."""
DEFINITIONS: Final = {one.name: one for one in (*TABLES, *VIEWS, *EMPTY_SETS, PROCESS_SPANS, PERFETTO_CHUNKS)}
MODEL_NAMES: Final = frozenset(DEFINITIONS)
"""The tables and views of the data model, whose times are in nanoseconds in results."""


def with_remarks(table: str, schema: pa.Schema) -> pa.Schema:
    """Return the schema with what is known about a table and its columns in their metadata; else as it is."""
    others = (DEMO_REQUESTS,) if schema.names == DEMO_REQUESTS.schema.names else ()
    for definition in (*TABLES, *VIEWS, *others):
        if table == definition.name:
            remark, remarks = definition.remark, definition.remarks
            break
        if table == definition.raw_name:
            remark, remarks = f"The partial states that the rows of {definition.name} are merged from.", {}
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
    properties: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """One kind of data of one process; `tags` says which, `format` how its blocks are encoded."""

    stream_id: str
    process_id: str
    tags: tuple[str, ...]
    format: str
    insert_time_ns: int
    properties: Mapping[str, object] = field(default_factory=dict)


def nanoseconds_since_epoch(seconds: float) -> int:
    """Return seconds since 1970 UTC as nanoseconds, rounded to microseconds: a float holds no more today."""
    return round(seconds * 1e6) * 1000


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
        "properties": jsonb.encode(process.properties),
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
        "properties": jsonb.encode(stream.properties),
        "insert_time": stream.insert_time_ns,
        "format": stream.format,
        "last_update_time": last_update_time_ns,
    }
    return pa.RecordBatch.from_pylist([values], schema=STREAMS.schema)
