"""Decodes an export's body into OTLP messages, within limits.

Repeated parts of a request stay encoded: resources, scopes, attributes, bodies, events, and links. So equal ones are
found without decoding them, and each distinct one is decoded once.
"""

import base64
import zlib
from collections.abc import Iterable, Sequence
from functools import cache
from types import ModuleType
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from micromegas_jupyter.core import jsonb
from micromegas_jupyter.core.text import JsonError, decode_strict_json
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.otlp.exchange import MAX_RECORDS, Encoding, ExportRequest, Signal, too_large, too_many

MAX_UNPACKED_BYTES: Final = 32 * 1024 * 1024
_COUNTED_BYTES: Final = 1024 * 1024  # smaller requests are decoded without counting first
_MAX_JSON_BYTES: Final = 8 * 1024 * 1024  # Python objects take up many times that size
_MAX_JSON_DEPTH: Final = 128  # an attribute's value has four levels of JSON per level
_GZIP: Final = 16 + zlib.MAX_WBITS
_MAX_REASON: Final = 200
_CORRECT: Final = "Correct the exporter; OTLP is described at https://opentelemetry.io/docs/specs/otlp/."
_PACKAGE: Final = ".opentelemetry.proto."
_LEFT_AS_BYTES: Final = frozenset(
    _PACKAGE + name
    for name in (
        "common.v1.AnyValue", "common.v1.KeyValue", "common.v1.InstrumentationScope", "resource.v1.Resource",
        "trace.v1.Span.Event", "trace.v1.Span.Link", "metrics.v1.Exemplar",
        "metrics.v1.ExponentialHistogramDataPoint.Buckets",
    )
)  # fmt: skip
# Fields of explicit histograms have eight bytes per value, so packed lists can be read as arrays.
_LEFT_PACKED: Final = frozenset({"bucket_counts", "explicit_bounds"})
# An empty part that is kept as bytes takes 16 bytes of memory instead of 140. The parts kept as bytes, from the top
# down:
_RESOURCES: Final = ("logs.v1.ResourceLogs", "metrics.v1.ResourceMetrics", "trace.v1.ResourceSpans")
_SCOPES: Final = ("logs.v1.ScopeLogs", "metrics.v1.ScopeMetrics", "trace.v1.ScopeSpans")
_RECORDS: Final = ("logs.v1.LogRecord", "metrics.v1.Metric", "trace.v1.Span")
_POINTS: Final = (
    "metrics.v1.NumberDataPoint", "metrics.v1.HistogramDataPoint", "metrics.v1.ExponentialHistogramDataPoint",
    "metrics.v1.SummaryDataPoint",
)  # fmt: skip
_QUANTILES: Final = ("metrics.v1.SummaryDataPoint.ValueAtQuantile",)
_MAX_PARTS: Final = 2_000_000  # attributes, events, links, and similar parts of all records
_MAX_VALUES: Final = 2_000_000  # inside arrays and maps, to the extent that they are decoded
_SERVICES: Final[dict[Signal, tuple[ModuleType, str]]] = {
    Signal.LOGS: (logs_service_pb2, "ExportLogsService"),
    Signal.METRICS: (metrics_service_pb2, "ExportMetricsService"),
    Signal.TRACES: (trace_service_pb2, "ExportTraceService"),
}
_PARTS: Final = {
    Signal.LOGS: ("logs", "log_records"),
    Signal.METRICS: ("metrics", "metrics"),
    Signal.TRACES: ("spans", "spans"),
}
_REJECTED: Final = {
    Signal.LOGS: "rejected_log_records",
    Signal.METRICS: "rejected_data_points",
    Signal.TRACES: "rejected_spans",
}
_ID_NAMES: Final = frozenset({"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"})


def decode_request(request: ExportRequest) -> Any:
    """Return the request's message; attributes and similar parts remain bytes for `decode_value` and others."""
    data = _unpack(request)
    if request.encoding is Encoding.JSON:
        data = _encode_json(request.signal, data)
    try:
        if len(data) > _COUNTED_BYTES:
            _check_counts(request.signal, data)
        return _shallow_class(request.signal, _LEFT_AS_BYTES).FromString(data)
    except DecodeError:
        raise malformed() from None


def _check_counts(signal: Signal, data: bytes) -> None:
    """Count a request's parts before parsing each level, so that millions of tiny parts are never parsed."""

    def read(left: Iterable[str]) -> Any:
        return _shallow_class(signal, _LEFT_AS_BYTES | {_PACKAGE + name for name in left}).FromString(data)

    parts, records = _PARTS[signal]

    def scopes(message: Any) -> Iterable[Any]:
        for resource in getattr(message, f"resource_{parts}"):
            yield from getattr(resource, f"scope_{parts}")

    def is_over(counts: Iterable[int], maximum: int = MAX_RECORDS) -> bool:
        total = 0
        return any((total := total + count) > maximum for count in counts)

    if (
        len(getattr(read(_RESOURCES), f"resource_{parts}")) > MAX_RECORDS
        or is_over(len(getattr(one, f"scope_{parts}")) for one in getattr(read(_SCOPES), f"resource_{parts}"))
        or is_over(len(getattr(scope, records)) for scope in scopes(read(_RECORDS)))
    ):
        raise too_many()
    found: Iterable[Any] = (one for scope in scopes(read((*_POINTS, *_QUANTILES))) for one in getattr(scope, records))
    if signal is Signal.METRICS:
        kinds = ((metric, metric.WhichOneof("data")) for metric in found)
        if is_over(len(getattr(metric, kind).data_points) for metric, kind in kinds if kind):
            raise too_many()
        metrics = [metric for scope in scopes(read(_QUANTILES)) for metric in scope.metrics]
        found = (
            point
            for metric in metrics
            if (kind := metric.WhichOneof("data"))
            for point in getattr(metric, kind).data_points
        )
    if is_over(map(_count_parts, found), _MAX_PARTS):
        raise UsageError(
            "The export has too many attributes, events, or links.", remedy="Export fewer records at a time."
        )


def _count_parts(message: Any) -> int:
    return sum(map(len, [getattr(message, name) for name in _list_names(message.__class__)]))


@cache
def _list_names(kind: Any) -> list[str]:
    """Return the list fields of a message type; checking all fields of each message would take longer."""
    message = kind()
    return [field.name for field in message.DESCRIPTOR.fields if hasattr(getattr(message, field.name), "append")]


def encode_answer(request: ExportRequest, *, refused: int, first: str) -> bytes:
    """Return the response to an exporter: empty, or a partial success with the first rejection reason."""
    module, service = _SERVICES[request.signal]
    answer: Any = getattr(module, f"{service}Response")()
    if refused:
        setattr(answer.partial_success, _REJECTED[request.signal], refused)
        answer.partial_success.error_message = f"{refused:,} refused. The first: {first}"
    if request.encoding is Encoding.JSON:
        return json_format.MessageToJson(answer, indent=None).encode()
    return bytes(answer.SerializeToString())


def malformed(where: str = "The body") -> UsageError:
    """Return the error for malformed OTLP."""
    return UsageError(f"{where} is not an OTLP message, or is nested too deeply.", remedy=_CORRECT)


def decode_message(kind: Any, data: bytes) -> Any:
    """Decode a message that was kept as bytes and has no nested messages."""
    try:
        return kind.FromString(data)
    except DecodeError:
        raise malformed("A part of the body") from None


class ValueCount:
    """Counts the values in one export's arrays and maps, because millions of tiny ones would block other requests."""

    def __init__(self) -> None:
        self._left = _MAX_VALUES

    def add(self, values: Sequence[Any]) -> Sequence[Any]:
        """Return the values after counting them, before any are decoded."""
        self._left -= len(values)
        if self._left < 0:
            raise UsageError(
                f"The arrays and maps in the export have more than {_MAX_VALUES:,} values.",
                remedy="Export fewer records at a time.",
            )
        return values


def decode_value(data: bytes, count: ValueCount) -> object:
    """Return an `AnyValue` as a JSON value; bytes are base64-encoded."""
    return plain_value(decode_message(common_pb2.AnyValue, data), count)


def plain_value(value: Any, count: ValueCount) -> object:
    """Return an `AnyValue` as a JSON value, with object members ordered by name."""
    kind = value.WhichOneof("value")
    match kind:
        case "array_value":
            return [plain_value(one, count) for one in count.add(value.array_value.values)]
        case "kvlist_value":
            members = {one.key: plain_value(one.value, count) for one in count.add(value.kvlist_value.values)}
            return dict(sorted(members.items()))
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case "string_value" | "bool_value" | "int_value" | "double_value":
            plain: object = getattr(value, kind)
            return plain
    return None


def plain_attributes(attributes: Iterable[Any], count: ValueCount) -> dict[str, object]:
    """Return `KeyValue` messages as members of a JSON object; the last of any duplicate keys takes precedence."""
    return {one.key: plain_value(one.value, count) for one in attributes}


def value_text(value: object) -> str:
    """Return a value as a string: strings are unchanged, null is an empty string, and other values are compact JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else str(value) if isinstance(value, float) else jsonb.to_json(value)


def _unpack(request: ExportRequest) -> bytes:
    body = request.body
    max_bytes = _MAX_JSON_BYTES if request.encoding is Encoding.JSON else MAX_UNPACKED_BYTES
    if request.is_compressed:
        body = _inflate(body, max_bytes)
    if len(body) > max_bytes:
        raise too_large(max_bytes)
    return body


def _inflate(data: bytes, max_bytes: int) -> bytes:
    """Decompress gzip data (RFC 1952) with a single member."""
    unpacker = zlib.decompressobj(_GZIP)
    try:
        unpacked = unpacker.decompress(data, max_bytes + 1)
    except zlib.error:
        unpacked = b""
    if len(unpacked) > max_bytes:
        raise too_large(max_bytes)
    if not unpacker.eof or unpacker.unused_data:
        raise UsageError(
            "The body is not gzip, or is truncated.", remedy="Compress it with gzip, or don't compress it."
        )
    return unpacked


@cache
def _shallow_class(signal: Signal, left: frozenset[str]) -> Any:
    """Return the message class of a signal's requests, from OTLP's descriptors with some messages kept as bytes."""
    pool = descriptor_pool.DescriptorPool()
    for module in (common_pb2, resource_pb2, logs_pb2, metrics_pb2, trace_pb2, *(one for one, _ in _SERVICES.values())):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        del file.service[:]
        for message in file.message_type:
            _flatten(message, left)
        pool.Add(file)
    module, service = _SERVICES[signal]
    name = getattr(module, f"{service}Request").DESCRIPTOR.full_name
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def _flatten(message: Any, left: frozenset[str]) -> None:
    for field in message.field:
        if field.type_name in left:
            field.type = field.TYPE_BYTES
            field.ClearField("type_name")
        elif field.name in _LEFT_PACKED:
            field.type = field.TYPE_BYTES
            field.ClearField("options")
    for nested in message.nested_type:
        _flatten(nested, left)


def _encode_json(signal: Signal, data: bytes) -> bytes:
    """Convert OTLP/JSON to protobuf. OTLP/JSON is protobuf's JSON format, except that IDs are hexadecimal."""
    module, service = _SERVICES[signal]
    try:
        found = _with_base64_ids(_parse_object(data))
        message = json_format.ParseDict(found, getattr(module, f"{service}Request")(), ignore_unknown_fields=True)
        return bytes(message.SerializeToString())
    except UnicodeDecodeError:
        reason = "it is not UTF-8"
    except JsonError as error:
        reason = str(error)
    except (json_format.ParseError, ValueError, TypeError, AttributeError) as error:
        reason = str(error)[:_MAX_REASON].rstrip(".")
    raise UsageError(f"The body is not OTLP/JSON: {reason}.", remedy=_CORRECT)


def _parse_object(data: bytes) -> dict[str, object]:
    found = decode_strict_json(data.decode(), max_depth=_MAX_JSON_DEPTH)
    if not isinstance(found, dict):
        raise JsonError("it is not an object")
    return found


def _with_base64_ids(value: object) -> Any:
    """Return decoded JSON with IDs as in protobuf's JSON; attributes don't have members with these names."""
    if isinstance(value, list):
        return [_with_base64_ids(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        name: base64.b64encode(bytes.fromhex(member)).decode()
        if name in _ID_NAMES and isinstance(member, str)
        else _with_base64_ids(member)
        for name, member in value.items()
    }
