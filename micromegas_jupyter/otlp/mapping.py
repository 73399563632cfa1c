"""Converts OTLP messages to rows of the data model, as upstream does; it builds columns instead of row objects.

Each resource of a request is one block. IDs are version 5 UUIDs of their content, so a repeated request has the same
ones. Repeated parts are decoded once: resources for many requests, scopes and attributes within a request.
"""

import binascii
import hashlib
import secrets
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from cachetools import LRUCache
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from micromegas_jupyter.core import jsonb
from micromegas_jupyter.core.text import shown
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.otlp.decode import (
    ValueCount,
    decode_message,
    decode_value,
    malformed,
    plain_attributes,
    plain_value,
    value_text,
)
from micromegas_jupyter.otlp.exchange import MAX_RECORDS, Signal, too_many
from micromegas_jupyter.otlp.histograms import EXPLICIT, EXPONENTIAL, HistogramPoints, number_series
from micromegas_jupyter.telemetry.conversion import ORIGIN_PROPERTY, SERVER_ORIGIN, find_own_targets
from micromegas_jupyter.telemetry.levels import Level
from micromegas_jupyter.telemetry.tables import (
    BLOCKS,
    EMPTY_METADATA,
    HISTOGRAMS,
    LOG_ENTRIES,
    MEASURES,
    NANOSECONDS_PER_SECOND,
    OTEL_SPANS,
    TIMESTAMP,
    ProcessInfo,
    StreamInfo,
    TableDefinition,
    nanoseconds_since_epoch,
)

MAX_ATTRIBUTES: Final = 1000
MAX_ATTRIBUTE_BYTES: Final = 1024 * 1024
"""Size of all attributes of a record, and of its text."""
_MAX_SHARED_BYTES: Final = 4 * MAX_ATTRIBUTE_BYTES  # of a resource or scope, as sent
_MAX_RESOURCES: Final = 1000
_MAX_DAYS: Final = 400
_MAX_CACHED_BYTES: Final = 16 * 1024 * 1024
_MAX_TEXT: Final = 255
_LAST_TIME: Final = 2**63 - 1  # nanoseconds; in the year 2262
_NANOSECONDS_PER_DAY: Final = 86_400 * NANOSECONDS_PER_SECOND
_SEPARATOR: Final = "\x1f"
# Sources: upstream's rust/otel-ingestion.
_PROCESS_NAMESPACE: Final = uuid.UUID("80a447b8-fcdd-42a6-a613-f6c8719cd5fe")
_STREAM_NAMESPACE: Final = uuid.UUID("fe93bacf-e851-4cf6-8526-05f8454b3488")
_BLOCK_NAMESPACE: Final = uuid.UUID("5829a6f7-0577-4c8c-862f-cf4fdab445cc")
_START_TIME: Final = ("process.creation.time", "process.start_time")
_IDENTITY: Final = (
    "host.id", "host.name", "process.pid", _START_TIME, "service.namespace", "service.name", "service.instance.id",
    "owner", "os.type", "os.version", "os.name", "os.description", "os.build_id", "host.arch", "host.type",
    "host.image.id", "host.image.name", "host.image.version", "host.cpu.model.id", "host.cpu.model.name",
    "host.cpu.family", "host.cpu.vendor.id", "host.cpu.stepping", "host.cpu.cache.l2.size", "service.version",
    "telemetry.sdk.name", "telemetry.sdk.language", "telemetry.sdk.version", "process.runtime.name",
    "process.runtime.version", "process.runtime.description",
)  # fmt: skip
_AS_SENT: Final = frozenset({"process.pid", _START_TIME})
_USERS: Final = ("process.owner", "process.user.name", "process.real_user.name", "user.name")
_TAGS: Final = {Signal.LOGS: "log", Signal.METRICS: "metrics", Signal.TRACES: "trace"}
_TRACE_ID: Final = "otel.trace_id"
_SPAN_ID: Final = "otel.span_id"
_TRACE_BYTES: Final = 16
_SPAN_BYTES: Final = 8
_STRING_TAG: Final = 0x0A  # of an `AnyValue` that contains a string
_SHORT: Final = 128  # a shorter length takes one byte
_MAX_HEAD: Final = 16  # before a string in its message
# By severity number, in ranges of four; 0 and higher numbers mean no severity.
_LEVELS: Final = np.array(
    [Level.INFO, *(level for level in reversed(Level) for _ in range(4)), Level.INFO], dtype=np.int32
)
_KINDS: Final = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_STATUSES: Final = ("UNSET", "OK", "ERROR")
_NO_VALUE: Final = 1  # DataPointFlags.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
_NO_TIME: Final = 2**64 - 1
_LONG_TEXT: Final = f"Its text takes more than {MAX_ATTRIBUTE_BYTES:,} bytes."
_METRIC_FACTS: Final = ("otel.metric.kind", "otel.metric.aggregation_temporality", "otel.metric.is_monotonic")
_PROCESS_TEXTS: Final = ("exe", "username", "realname", "computer", "distro", "cpu_brand", "parent_process_id")
# Used instead of a point's value.
_LEFT_OUT, _NO_NUMBER = object(), object()
# Unguessable placeholders for IDs while the rest of a set is encoded, because the logs of a trace differ only in IDs.
_PLACEHOLDERS: Final = tuple(binascii.hexlify(secrets.token_bytes(size)) for size in (_TRACE_BYTES, _SPAN_BYTES))
_NOTHING: Final = jsonb.encode([])
_EMPTY: Final = jsonb.encode({})

Numbers = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A resource as a process and a stream; `start_time_ns` is None if the resource does not contain it."""

    process: ProcessInfo
    stream: StreamInfo
    start_time_ns: int | None
    process_properties: bytes = field(repr=False)
    refusal: str = ""  # why its records are rejected


@dataclass(slots=True, kw_only=True)
class Block:
    """The records of one resource; the times are those of its earliest and latest records."""

    origin: Origin
    block_id: str
    payload_size: int
    record_count: int = 0
    begin_ns: int = 0
    end_ns: int = 0

    @property
    def process(self) -> ProcessInfo:
        """The block's process, which started with the block if the resource doesn't have a start time."""
        start_ns = self.origin.start_time_ns
        return replace(self.origin.process, start_time_ns=self.begin_ns if start_ns is None else start_ns)


@dataclass(slots=True)
class Refusals:
    """The number of rejected records, and the reason for the first."""

    count: int = 0
    reason: str = ""

    def add(self, reason: str, count: int = 1) -> None:
        """Count rejected records."""
        if count and not self.count:
            self.reason = reason
        self.count += count


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedExport:
    """A request's rows by table, and its rejected records."""

    blocks: Sequence[Block]
    records: Mapping[str, pa.RecordBatch] = field(repr=False)
    refusals: Refusals

    @property
    def stored(self) -> int:
        """The number of stored records."""
        return sum(rows.num_rows for rows in self.records.values())

    @property
    def write_id(self) -> str:
        """The ID that a repeated request shares with the first one."""
        ids = [block.block_id for block in self.blocks]
        return ids[0] if len(ids) == 1 else str(_name_id(_BLOCK_NAMESPACE, _SEPARATOR.join(ids).encode()))


class OriginCache:
    """Recently seen resources, keyed by their bytes. For one thread."""

    def __init__(self) -> None:
        self._known: LRUCache[tuple[Signal, bytes, bool], Origin] = LRUCache(_MAX_CACHED_BYTES, getsizeof=_size)

    def find(self, signal: Signal, resource: bytes, count: ValueCount, *, is_own: bool = False) -> Origin:
        """Return the process and stream of a resource."""
        key = signal, resource, is_own
        found = self._known.get(key)
        if found is None:
            _check_shared(resource)
            attributes = decode_message(resource_pb2.Resource, resource).attributes
            found = build_origin(signal, attributes, count, is_own=is_own)
            if _size(found) <= _MAX_CACHED_BYTES:
                self._known[key] = found
        return found


def _size(origin: Origin) -> int:
    return 4096 + 4 * len(origin.process_properties)


def _check_shared(data: bytes) -> None:
    if len(data) > _MAX_SHARED_BYTES:
        raise UsageError(
            f"A resource or scope of the export takes more than {_MAX_SHARED_BYTES:,} bytes.",
            remedy="Send fewer and smaller attributes.",
        )


def build_origin(signal: Signal, attributes: Sequence[Any], count: ValueCount, *, is_own: bool = False) -> Origin:
    """Return the process and stream that a resource's `KeyValue` messages describe; the server's own are marked."""
    refusal = ""
    if len(attributes) > MAX_ATTRIBUTES:
        refusal = f"Its resource has {len(attributes):,} attributes; {MAX_ATTRIBUTES:,} are accepted."
        attributes = attributes[:MAX_ATTRIBUTES]
    texts = {name: value_text(value) for name, value in plain_attributes(attributes, count).items()}
    process_id = _process_id(texts)
    stream_id = str(_name_id(_STREAM_NAMESPACE, f"{process_id}{_SEPARATOR}{signal.value}".encode()))
    namespace, name = (texts.get(f"service.{part}", "") for part in ("namespace", "name"))
    user = _first(texts, _USERS)
    shown = {
        "exe": f"{namespace}/{name}" if namespace else name,
        "username": user,
        "realname": texts.get("user.full_name") or user,
        "computer": texts.get("host.name", ""),
        "distro": texts.get("os.description", ""),
        "cpu_brand": texts.get("host.cpu.model.name", ""),
    }
    properties = {f"otel.resource.{name}": text for name, text in texts.items()}
    if is_own:
        properties[ORIGIN_PROPERTY] = SERVER_ORIGIN
    encoded = _encode(properties)
    if len(encoded) > MAX_ATTRIBUTE_BYTES:
        refusal = refusal or f"The attributes of its resource take more than {MAX_ATTRIBUTE_BYTES:,} bytes."
        properties, encoded = {}, _EMPTY
    return Origin(
        process=ProcessInfo(
            process_id=process_id,
            start_time_ns=0,
            insert_time_ns=0,
            properties=properties,
            **{column: text[:_MAX_TEXT] for column, text in shown.items()},
        ),
        stream=StreamInfo(
            stream_id=stream_id,
            process_id=process_id,
            tags=(_TAGS[signal],),
            format=f"otlp/v1/{signal.value}",
            insert_time_ns=0,
        ),
        start_time_ns=_parse_time(_first(texts, _START_TIME)),
        process_properties=encoded,
        refusal=refusal,
    )


def map_request(  # noqa: PLR0913 - a request, and whose it is
    signal: Signal, request: Any, *, origins: OriginCache, now_ns: int, is_trusted: bool, is_own: bool = False
) -> MappedExport:
    """Return the rows for a request's message."""
    mapper: _Mapper = {Signal.LOGS: _Logs, Signal.METRICS: _Metrics, Signal.TRACES: _Spans}[signal](now_ns)
    resources = getattr(request, f"resource_{'spans' if signal is Signal.TRACES else signal.value}")
    if len(resources) > _MAX_RESOURCES:
        raise UsageError(
            f"The export has {len(resources):,} resources; {_MAX_RESOURCES:,} are accepted.",
            remedy="Export fewer records at a time.",
        )
    for message in resources:
        origin = origins.find(signal, message.resource, mapper.count, is_own=is_own)
        content = message.SerializeToString()
        block = Block(origin=origin, block_id=str(_name_id(_BLOCK_NAMESPACE, content)), payload_size=len(content))
        mapper.add(block, message)
    return mapper.finish(is_trusted=is_trusted)


class _Scopes:
    """The distinct scopes of a request: their names, and the properties that they add to records."""

    def __init__(self, count: ValueCount) -> None:
        self._count = count
        self._positions: dict[tuple[bytes, str], int] = {}
        self.names: list[str] = []
        self.properties: list[Mapping[str, object]] = []

    def find(self, scope: bytes, schema_url: str) -> int:
        position = self._positions.get((scope, schema_url))
        if position is None:
            position = self._positions[scope, schema_url] = len(self.names)
            _check_shared(scope)
            found = decode_message(common_pb2.InstrumentationScope, scope)
            properties: dict[str, object] = {
                "otel.scope.name": found.name,
                "otel.scope.version": found.version,
                "otel.scope.schema_url": schema_url,
            }
            attributes = plain_attributes(found.attributes[:MAX_ATTRIBUTES], self._count)
            self.names.append(found.name)
            self.properties.append(
                {name: value for name, value in properties.items() if value}
                | {f"otel.scope.attr.{name}": value for name, value in attributes.items()}
            )
        return position


class _PropertySets:
    """The properties of a request's records; each distinct set is encoded once."""

    def __init__(self, count: ValueCount) -> None:
        self._count = count
        self._values: dict[bytes, tuple[str, object]] = {}  # keyed by the bytes of a `KeyValue`
        self._positions: dict[Any, int] = {}
        self._encoded: list[bytes] = []
        self.reasons: dict[int, str] = {}  # why records with these sets are rejected

    def find(self, attributes: tuple[bytes, ...], key: Any, more: Callable[[Any], Mapping[str, object]]) -> int:
        """Return the position of the set of these attributes, overridden by what `more` creates from the key."""
        position = self._positions.get((attributes, key))
        if position is None:
            position = self._positions[attributes, key] = self._add(attributes, key, more)
        return position

    def find_spliced(self, position: int, trace_id: bytes, span_id: bytes) -> int:
        """Return the position of a set built with `_PLACEHOLDERS`, with IDs inserted."""
        found = self._positions.get((position, trace_id, span_id))
        if found is None:
            encoded = self._encoded[position]
            for placeholder, one in zip(_PLACEHOLDERS, (trace_id, span_id), strict=True):
                if one:
                    encoded = encoded.replace(placeholder, binascii.hexlify(one))
            found = self._positions[position, trace_id, span_id] = len(self._encoded)
            self._encoded.append(encoded)
            if position in self.reasons:
                self.reasons[found] = self.reasons[position]
        return found

    def column(self, indices: Numbers) -> pa.Array:
        """Return a column of the sets at these positions."""
        return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(self._encoded, pa.binary()))

    def _add(self, attributes: tuple[bytes, ...], key: Any, more: Callable[[Any], Mapping[str, object]]) -> int:
        position = len(self._encoded)
        reason = None
        if len(attributes) > MAX_ATTRIBUTES:
            reason = f"It has {len(attributes):,} attributes; {MAX_ATTRIBUTES:,} are accepted."
        elif sum(map(len, attributes)) > MAX_ATTRIBUTE_BYTES:
            reason = f"Its attributes take more than {MAX_ATTRIBUTE_BYTES:,} bytes."
        if reason is not None:
            self.reasons[position] = reason
            self._encoded.append(_EMPTY)
            return position
        self._encoded.append(_encode({**dict(map(self._decode, attributes)), **more(key)}))
        return position

    def _decode(self, data: bytes) -> tuple[str, object]:
        found = self._values.get(data)
        if found is None:
            message = decode_message(common_pb2.KeyValue, data)
            found = self._values[data] = message.key, plain_value(message.value, self._count)
        return found


class _Checks:
    """A request's rejected rows with the reasons, and the rows to omit."""

    def __init__(self, length: int) -> None:
        self._absent = np.zeros(length, dtype=bool)
        self._refused: list[tuple[Numbers, Callable[[int], str]]] = []

    def leave_out(self, rows: Numbers) -> None:
        """Omit rows without information."""
        self._absent |= rows

    def refuse(self, rows: Numbers, reason: str) -> None:
        """Reject rows for the same reason."""
        self.refuse_each(rows, lambda _row: reason)

    def refuse_each(self, rows: Numbers, reason: Callable[[int], str]) -> None:
        """Reject rows, each for a separate reason."""
        if rows.any():
            self._refused.append((rows & ~self._absent, reason))

    def stored_rows(self, refusals: Refusals, describe: Callable[[int], str]) -> Numbers | None:
        """Return the rows to store, or None for all rows, and record the others."""
        refused = np.zeros_like(self._absent)
        for rows, _ in self._refused:
            refused |= rows
        if refused.any():
            first = int(refused.argmax())
            reason = next(reason(first) for rows, reason in self._refused if rows[first])
            refusals.add(f"{describe(first)}: {reason}", int(refused.sum()))
        kept: Numbers = ~(refused | self._absent)
        return None if kept.all() else kept


class _Mapper:
    """Collects the records of all resources of a request."""

    table: TableDefinition

    def __init__(self, now_ns: int) -> None:
        self.now_ns = now_ns
        self.blocks: list[Block] = []
        self.count = ValueCount()
        self.scopes = _Scopes(self.count)
        self.sets = _PropertySets(self.count)
        self.refusals = Refusals()
        self.rows: list[Any] = []  # each starts with the position of its scope
        self.sizes: list[int] = []  # of each block

    def add(self, block: Block, message: Any) -> None:
        """Add a resource with its records."""
        first = len(self.rows)
        self.read(message)
        block.record_count = len(self.rows) - first
        if block.origin.refusal:
            del self.rows[first:]
            self.refusals.add(block.origin.refusal, block.record_count)
        elif block.record_count:
            self.blocks.append(block)
            self.sizes.append(block.record_count)

    def read(self, message: Any) -> None:
        """Append the contents of a resource's records to `rows`."""
        raise NotImplementedError

    def check_count(self, more: Sequence[Any]) -> None:
        """Check that adding these records doesn't exceed the limit."""
        if len(self.rows) + len(more) > MAX_RECORDS:
            raise too_many()

    def build(self, columns: Sequence[Any], checks: _Checks, *, is_trusted: bool) -> dict[str, pa.Array]:
        """Return the signal's own columns from the rows' columns."""
        raise NotImplementedError

    def finish(self, *, is_trusted: bool) -> MappedExport:
        """Return all rows."""
        if not self.rows:
            return MappedExport(blocks=(), records={}, refusals=self.refusals)
        schema = self.table.schema
        by_column = list(zip(*self.rows, strict=True))
        del self.rows
        checks = _Checks(len(by_column[0]))
        self._set_block_times(by_column)
        indices = np.repeat(np.arange(len(self.blocks), dtype=np.int32), self.sizes)
        columns = self._origin_columns(indices) | self.build(by_column, checks, is_trusted=is_trusted)
        batch = _fit(columns, schema)
        kept = checks.stored_rows(
            self.refusals,
            lambda row: f"Number {row + 1:,}, of the scope {shown(self.scopes.names[by_column[0][row]])}",
        )
        if kept is not None:
            batch = batch.filter(pa.array(kept))
            left = set(indices[kept].tolist())
            self.blocks = [block for index, block in enumerate(self.blocks) if index in left]
        _check_days(batch.column(self.table.range_columns[0]))
        return MappedExport(blocks=self.blocks, records=self.split(batch, kept), refusals=self.refusals)

    def split(self, batch: pa.RecordBatch, chosen: Numbers | None) -> Mapping[str, pa.RecordBatch]:  # noqa: ARG002
        """Return the stored rows by table; `chosen` selects them from all rows, and None selects all."""
        return {self.table.name: batch} if batch.num_rows else {}

    def starts(self) -> Numbers:
        """Return the position of each block's first row."""
        return np.concatenate([[0], np.cumsum(self.sizes[:-1], dtype=np.int64)])

    def times(self, columns: Sequence[Any]) -> tuple[Numbers, Numbers]:
        """Return each row's first and last times, or 0."""
        raise NotImplementedError

    def _set_block_times(self, columns: Sequence[Any]) -> None:
        first, last = self.times(columns)
        starts = self.starts()
        begins = np.minimum.reduceat(np.where((first > 0) & (first <= _LAST_TIME), first, _NO_TIME), starts)
        ends = np.maximum.reduceat(np.where(last <= _LAST_TIME, last, 0), starts)
        for block, begin, end in zip(self.blocks, begins.tolist(), ends.tolist(), strict=True):
            block.begin_ns = self.now_ns if begin == _NO_TIME else begin
            block.end_ns = end or block.begin_ns

    def _origin_columns(self, indices: Numbers) -> dict[str, pa.Array]:
        processes = [block.origin.process for block in self.blocks]
        texts = {
            "process_id": [process.process_id for process in processes],
            "stream_id": [block.origin.stream.stream_id for block in self.blocks],
            "block_id": [block.block_id for block in self.blocks],
            "exe": [process.exe for process in processes],
            "username": [process.username for process in processes],
            "computer": [process.computer for process in processes],
        }
        columns = {name: _spread(values, indices, pa.utf8()) for name, values in texts.items()}
        encoded = [block.origin.process_properties for block in self.blocks]
        columns["process_properties"] = _spread(encoded, indices, pa.binary())
        columns["insert_time"] = pa.repeat(pa.scalar(self.now_ns, TIMESTAMP), len(indices))
        return columns

    def find_sets(
        self, attributes: Sequence[tuple[bytes, ...]], keys: Iterable[Any], more: Callable[[Any], Mapping[str, object]]
    ) -> Numbers:
        """Return the positions of the rows' properties: attributes, overridden by what `more` creates from a key."""
        find = self.sets.find
        return np.array([find(one, key, more) for one, key in zip(attributes, keys, strict=True)], np.int32)

    def check_sets(self, positions: Numbers, checks: _Checks) -> None:
        """Reject rows whose properties are too large."""
        reasons = self.sets.reasons
        if reasons:
            refused = np.isin(positions, np.fromiter(reasons, np.int32))
            checks.refuse_each(refused, lambda row: reasons[int(positions[row])])


class _Logs(_Mapper):
    table = LOG_ENTRIES

    def read(self, message: Any) -> None:
        for part in message.scope_logs:
            scope = self.scopes.find(part.scope, part.schema_url)
            self.check_count(part.log_records)
            self.rows += [
                (
                    scope,
                    one.time_unix_nano,
                    one.observed_time_unix_nano,
                    one.severity_number,
                    one.severity_text,
                    one.event_name,
                    one.trace_id,
                    one.span_id,
                    one.body,
                    tuple(one.attributes),
                )
                for one in part.log_records
            ]

    def times(self, columns: Sequence[Any]) -> tuple[Numbers, Numbers]:
        time, observed = (np.array(columns[index], np.uint64) for index in (1, 2))
        self._times = np.where(time > 0, time, observed)
        return self._times, self._times

    def build(self, columns: Sequence[Any], checks: _Checks, *, is_trusted: bool) -> dict[str, pa.Array]:
        scopes, _, _, severities, texts, events, traces, spans, bodies, attributes = columns
        begins = np.repeat(np.array([block.begin_ns for block in self.blocks], np.uint64), self.sizes)
        times = np.where(self._times > 0, self._times, begins)
        _check_times(times, checks)
        severity = np.array(severities, np.int64)
        scope = np.array(scopes, np.int32)
        if not is_trusted:
            own = find_own_targets(pa.array(self.scopes.names, pa.utf8())).to_numpy(zero_copy_only=False)
            checks.refuse(own[scope], "Its target is for what the server itself records.")
        traces = [one if len(one) == _TRACE_BYTES else b"" for one in traces]
        spans = [one if len(one) == _SPAN_BYTES else b"" for one in spans]
        keys = [
            (scope, text, event, bool(trace), bool(span))
            for scope, text, event, trace, span in zip(scopes, texts, events, traces, spans, strict=True)
        ]
        positions = self.find_sets(attributes, keys, self._more)
        if any(traces) or any(spans):
            splice = self.sets.find_spliced
            positions = np.array(
                [
                    splice(position, trace, span) if trace or span else position
                    for position, trace, span in zip(positions.tolist(), traces, spans, strict=True)
                ],
                np.int32,
            )
        self.check_sets(positions, checks)
        is_long = [len(one) > MAX_ATTRIBUTE_BYTES + _MAX_HEAD for one in bodies]
        messages = [b"" if long else _body_text(one, self.count) for one, long in zip(bodies, is_long, strict=True)]
        too_long = [long or len(one) > MAX_ATTRIBUTE_BYTES for one, long in zip(messages, is_long, strict=True)]
        checks.refuse(np.array(too_long), _LONG_TEXT)
        return {
            "time": _time_column(times),
            "target": _spread(self.scopes.names, scope, pa.utf8()),
            "level": pa.array(_LEVELS[np.where((severity > 0) & (severity < len(_LEVELS)), severity, 0)]),
            "msg": _text_column(messages),
            "properties": self.sets.column(positions),
        }

    def _more(self, key: tuple[int, str, str, bool, bool]) -> Mapping[str, object]:
        scope, text, event, has_trace, has_span = key
        more = {
            _TRACE_ID: _PLACEHOLDERS[0].decode() if has_trace else "",
            _SPAN_ID: _PLACEHOLDERS[1].decode() if has_span else "",
            "otel.severity_text": text,
            "otel.event_name": event,
        }
        return {**self.scopes.properties[scope], **{name: value for name, value in more.items() if value}}


def _fit(columns: Mapping[str, pa.Array], schema: pa.Schema) -> pa.RecordBatch:
    arrays = ((columns[field.name], field.type) for field in schema)
    return pa.RecordBatch.from_arrays(
        [array if array.type == kind else array.cast(kind) for array, kind in arrays], schema=schema
    )


class _Metrics(_Mapper):
    table = MEASURES

    def __init__(self, now_ns: int) -> None:
        super().__init__(now_ns)
        self._histograms = HistogramPoints(self.count)

    def read(self, message: Any) -> None:
        for part in message.scope_metrics:
            scope = self.scopes.find(part.scope, part.schema_url)
            for metric in part.metrics:
                kind = metric.WhichOneof("data")
                if kind is not None:
                    self.check_count(getattr(metric, kind).data_points)
                    self.rows += _read_points(scope, metric, kind, self._histograms)

    def times(self, columns: Sequence[Any]) -> tuple[Numbers, Numbers]:
        self._times = np.array(columns[1], np.uint64)
        return self._times, self._times

    def build(self, columns: Sequence[Any], checks: _Checks, *, is_trusted: bool) -> dict[str, pa.Array]:  # noqa: ARG002
        scopes, _, names, units, values, facts, attributes = columns
        checks.leave_out(np.array([value is _LEFT_OUT for value in values]))
        self._numbers = np.array([value if isinstance(value, int) else -1 for value in values])

        def refuse(rows: Numbers, reason: str) -> None:
            checks.refuse_each(rows, lambda row: f"{shown(names[row])}: {reason}")

        refuse(np.array([value is _NO_NUMBER for value in values]), "It has no value.")
        is_histogram = self._numbers >= 0
        if is_histogram.any():
            for points, reason in self._histograms.find_problems():
                rows = is_histogram.copy()
                rows[is_histogram] = points[self._numbers[is_histogram]]
                refuse(rows, reason)
        refuse(self._times == 0, "It has no time.")
        _check_times(self._times, checks)
        positions = self.find_sets(attributes, facts, lambda fact: dict(zip(_METRIC_FACTS, fact, strict=False)))
        self.check_sets(positions, checks)
        return {
            "time": _time_column(self._times),
            "target": _spread(self.scopes.names, np.array(scopes, np.int32), pa.utf8()),
            "name": pa.array(names, pa.utf8()).dictionary_encode(),
            "unit": pa.array(units, pa.utf8()).dictionary_encode(),
            "value": pa.array([value if isinstance(value, float) else 0.0 for value in values], pa.float64()),
            "properties": self.sets.column(positions),
        }

    def split(self, batch: pa.RecordBatch, chosen: Numbers | None) -> Mapping[str, pa.RecordBatch]:
        numbers = self._numbers if chosen is None else self._numbers[chosen]
        is_histogram = numbers >= 0
        if not is_histogram.any():
            return super().split(batch, chosen)
        rows = batch.filter(pa.array(is_histogram))
        columns = dict(zip(rows.schema.names, rows.columns, strict=True))
        columns |= self._histograms.columns(numbers[is_histogram], _encode)
        columns["series"] = number_series(rows)
        found = {HISTOGRAMS.name: _fit(columns, HISTOGRAMS.schema)}
        return {**super().split(batch.filter(pa.array(~is_histogram)), chosen), **found}


def _read_points(scope: int, metric: Any, kind: str, histograms: HistogramPoints) -> list[Any]:
    """Return one row per point of a metric, with its value, its histogram number, or the reason that it has neither."""
    name, unit, data = metric.name, metric.unit, getattr(metric, kind)
    if kind == "summary":
        return [row for point in data.data_points for row in _read_summary(scope, name, unit, point)]
    points = list(data.data_points)
    if kind in {EXPLICIT, EXPONENTIAL}:
        numbers = histograms.extend(points, kind, data.aggregation_temporality)
        facts: tuple[object, ...] = (kind, data.aggregation_temporality)
        return [
            (scope, one.time_unix_nano, name, unit, _LEFT_OUT if one.flags & _NO_VALUE else number, facts, sent)
            for one, number, sent in zip(points, numbers, [tuple(one.attributes) for one in points], strict=True)
        ]
    facts = ("sum", data.aggregation_temporality, data.is_monotonic) if kind == "sum" else ("gauge",)
    rows = []
    for one in points:
        value: object = _NO_NUMBER
        if one.flags & _NO_VALUE:
            value = _LEFT_OUT
        elif one.HasField("as_double"):
            value = one.as_double
        elif one.HasField("as_int"):
            value = float(one.as_int)
        rows.append((scope, one.time_unix_nano, name, unit, value, facts, tuple(one.attributes)))
    return rows


def _read_summary(scope: int, name: str, unit: str, point: Any) -> list[Any]:
    """Return the four rows for a summary point: count, sum, minimum, and maximum."""
    quantiles = {one.quantile: one.value for one in point.quantile_values}
    values: dict[tuple[str, str], object] = {
        (f"{name}_count", ""): float(point.count),
        (f"{name}_sum", unit): point.sum,
        (f"{name}_min", unit): quantiles.get(0.0, _LEFT_OUT),
        (f"{name}_max", unit): quantiles.get(1.0, _LEFT_OUT),
    }
    is_absent, attributes = point.flags & _NO_VALUE, tuple(point.attributes)
    return [
        (scope, point.time_unix_nano, one, of, _LEFT_OUT if is_absent else value, (), attributes)
        for (one, of), value in values.items()
    ]


class _Spans(_Mapper):
    table = OTEL_SPANS

    def read(self, message: Any) -> None:
        for part in message.scope_spans:
            scope = self.scopes.find(part.scope, part.schema_url)
            self.check_count(part.spans)
            self.rows += [
                (
                    scope,
                    one.start_time_unix_nano,
                    one.end_time_unix_nano,
                    one.trace_id,
                    one.span_id,
                    one.parent_span_id,
                    one.name,
                    one.kind,
                    one.status.code,
                    one.status.message,
                    tuple(one.events),
                    tuple(one.links),
                    tuple(one.attributes),
                )
                for one in part.spans
            ]

    def times(self, columns: Sequence[Any]) -> tuple[Numbers, Numbers]:
        self._starts, self._ends = (np.array(columns[index], np.uint64) for index in (1, 2))
        return self._starts, self._ends

    def build(self, columns: Sequence[Any], checks: _Checks, *, is_trusted: bool) -> dict[str, pa.Array]:  # noqa: ARG002
        scopes, _, _, traces, spans, parents, names, kinds, codes, texts, events, links, attributes = columns
        checks.refuse((self._starts == 0) | (self._ends == 0), "It has no time.")
        _check_times(self._starts, checks)
        _check_times(self._ends, checks)
        has_ids = [
            len(trace) == _TRACE_BYTES and len(span) == _SPAN_BYTES for trace, span in zip(traces, spans, strict=True)
        ]
        checks.refuse(~np.array(has_ids), "Its ids are not 16 and 8 bytes.")
        sizes = [sum(map(len, one)) + sum(map(len, other)) for one, other in zip(events, links, strict=True)]
        is_large = np.array(sizes) > MAX_ATTRIBUTE_BYTES
        checks.refuse(is_large, f"Its events and links take more than {MAX_ATTRIBUTE_BYTES:,} bytes.")
        is_many = np.array([len(one) + len(other) > MAX_ATTRIBUTES for one, other in zip(events, links, strict=True)])
        checks.refuse(is_many, f"It has more than {MAX_ATTRIBUTES:,} events and links.")
        is_large |= is_many
        positions = self.find_sets(attributes, scopes, lambda scope: self.scopes.properties[scope])
        self.check_sets(positions, checks)
        starts, ends = (np.where(one <= _LAST_TIME, one, 0).astype(np.int64) for one in (self._starts, self._ends))
        return {
            "trace_id": _id_column(traces, _TRACE_BYTES),
            "span_id": _id_column(spans, _SPAN_BYTES),
            "parent_span_id": _id_column(parents, _SPAN_BYTES, missing=None),
            "start_time": _time_column(self._starts),
            "end_time": _time_column(self._ends),
            "duration": pa.array(ends - starts),
            "name": pa.array(names, pa.utf8()).dictionary_encode(),
            "kind": _enum_column(_KINDS, kinds),
            "status": _enum_column(_STATUSES, codes),
            "status_message": pa.array([text or None for text in texts], pa.utf8()),
            "properties": self.sets.column(positions),
            "events": _list_column(events, is_large, partial(_plain_event, count=self.count)),
            "links": _list_column(links, is_large, partial(_plain_link, count=self.count)),
        }


def _plain_event(data: bytes, *, count: ValueCount) -> Mapping[str, object]:
    event = decode_message(trace_pb2.Span.Event, data)
    attributes = plain_attributes(event.attributes, count)
    return {"attributes": attributes, "name": event.name, "time": event.time_unix_nano}


def _plain_link(data: bytes, *, count: ValueCount) -> Mapping[str, object]:
    link = decode_message(trace_pb2.Span.Link, data)
    attributes = plain_attributes(link.attributes, count)
    return {"attributes": attributes, "span_id": link.span_id.hex(), "trace_id": link.trace_id.hex()}


def _list_column(
    rows: Sequence[tuple[bytes, ...]], is_large: Numbers, plain: Callable[[bytes], Mapping[str, object]]
) -> pa.Array:
    """Return a JSONB array of each row's messages."""
    return pa.array(
        [
            _encode([plain(one) for one in row]) if row and not large else _NOTHING
            for row, large in zip(rows, is_large.tolist(), strict=True)
        ],
        pa.binary(),
    )


def _id_column(ids: Sequence[bytes], size: int, *, missing: bytes | None = b"") -> pa.Array:
    substitute = None if missing is None else bytes(size)
    return pa.array([one if len(one) == size else substitute for one in ids], pa.binary(size))


def _enum_column(names: Sequence[str], numbers: Sequence[int]) -> pa.Array:
    """Return dictionary-encoded names by number; unknown numbers count as 0."""
    found = np.array(numbers, np.int64)
    return _spread(names, np.where((found >= 0) & (found < len(names)), found, 0), pa.utf8())


def _spread(values: Sequence[str] | Sequence[bytes], indices: Numbers, kind: pa.DataType) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(values, kind))


def _time_column(times: Numbers) -> pa.Array:
    """Return times in nanoseconds; rejected ones are 0."""
    return pa.array(np.where(times <= _LAST_TIME, times, 0).astype(np.int64)).cast(TIMESTAMP)


def _check_times(times: Numbers, checks: _Checks) -> None:
    checks.refuse(times > _LAST_TIME, "Its time is after the year 2262.")


def _check_days(times: pa.Array) -> None:
    days = np.unique(times.cast(pa.int64()).to_numpy() // _NANOSECONDS_PER_DAY)
    if len(days) > _MAX_DAYS:
        raise UsageError(
            f"The records belong to {len(days):,} different days; {_MAX_DAYS:,} are accepted.",
            remedy="Export the records of a few days at a time.",
        )


def _body_text(body: bytes, count: ValueCount) -> bytes:
    """Return a log record's body (`AnyValue`) as UTF-8 text."""
    size = len(body)
    if 1 < size < _SHORT + 2 and body[0] == _STRING_TAG and body[1] == size - 2:
        return body[2:]  # applies to nearly all bodies, and is ten times as fast
    return value_text(decode_value(body, count)).encode("utf-8", "replace") if body else b""


def _text_column(texts: Sequence[bytes]) -> pa.Array:
    try:
        return pa.array(texts, pa.binary()).cast(pa.utf8())
    except pa.ArrowInvalid:
        raise malformed("A log record's body") from None


def _encode(value: object) -> bytes:
    try:
        return jsonb.encode(value, is_signed=True)
    except jsonb.MalformedJsonb:
        raise malformed("A part of the body") from None


def _first(texts: Mapping[str, str], names: Iterable[str]) -> str:
    return next((texts[name] for name in names if texts.get(name)), "")


def _process_id(texts: Mapping[str, str]) -> str:
    parts = [_first(texts, name) if isinstance(name, tuple) else texts.get(name, "") for name in _IDENTITY]
    plain = [part if name in _AS_SENT else part.lower().strip() for name, part in zip(_IDENTITY, parts, strict=True)]
    return str(_name_id(_PROCESS_NAMESPACE, _SEPARATOR.join(plain).encode("utf-8", "replace")))


def _name_id(namespace: uuid.UUID, name: bytes) -> uuid.UUID:
    """Return the UUID of a name (RFC 9562 section 5.5)."""
    digest = hashlib.sha1(namespace.bytes + name, usedforsecurity=False).digest()
    return uuid.UUID(bytes=digest[:16], version=5)


def _parse_time(text: str) -> int | None:
    """Parse an RFC 3339 time to nanoseconds since 1970, or None if it is invalid or earlier."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    seconds = (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
    return nanoseconds_since_epoch(seconds) if 0 < seconds < _LAST_TIME // NANOSECONDS_PER_SECOND else None


def block_rows(blocks: Sequence[Block], *, now_ns: int) -> pa.RecordBatch:
    """Return the rows for the `blocks` table."""
    return pa.RecordBatch.from_pylist([_block_row(block, now_ns) for block in blocks], schema=BLOCKS.schema)


def _block_row(block: Block, now_ns: int) -> dict[str, object]:
    origin, process, stream = block.origin, block.process, block.origin.stream
    named = {name: getattr(process, name) for name in _PROCESS_TEXTS}
    return {
        "block_id": block.block_id,
        "stream_id": stream.stream_id,
        "process_id": process.process_id,
        "begin_time": block.begin_ns,
        "begin_ticks": block.begin_ns,
        "end_time": block.end_ns,
        "end_ticks": block.end_ns,
        "nb_objects": block.record_count,
        "object_offset": 0,
        "payload_size": block.payload_size,
        "insert_time": now_ns,
        "streams.dependencies_metadata": EMPTY_METADATA,
        "streams.objects_metadata": EMPTY_METADATA,
        "streams.tags": list(stream.tags),
        "streams.properties": _EMPTY,
        "streams.insert_time": now_ns,
        "streams.format": stream.format,
        "processes.start_time": process.start_time_ns,
        "processes.start_ticks": process.start_time_ns,
        "processes.tsc_frequency": NANOSECONDS_PER_SECOND,
        **{f"processes.{name}": text for name, text in named.items()},
        "processes.insert_time": now_ns,
        "processes.properties": origin.process_properties,
    }
