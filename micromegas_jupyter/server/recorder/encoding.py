"""What the server records as exports of OpenTelemetry, which are stored like those of any program."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from micromegas_jupyter.otlp.exchange import ExportRequest, Signal

MAX_EXPORT_BYTES: Final = 4 * 1024 * 1024
MAX_EXPORT_ROWS: Final = 4000


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


class EncodedRows(NamedTuple):
    """Rows as one export."""

    request: ExportRequest
    row_count: int


_Row = TypeVar("_Row", LogRow, MeasureRow)


class ExportEncoder:
    """Makes exports of rows, all of the resource with these attributes; empty ones are left out."""

    def __init__(self, attributes: Mapping[str, str], *, max_bytes: int = MAX_EXPORT_BYTES) -> None:
        self._resource = Resource()
        _set_attributes(self._resource, {name: value for name, value in attributes.items() if value})
        self._max_bytes = max_bytes

    def encode_log(self, rows: Sequence[LogRow]) -> list[EncodedRows]:
        """Return exports of all rows, none too large if it has more than one."""
        return self._encode(Signal.LOGS, self._build_log, rows)

    def encode_measures(self, rows: Sequence[MeasureRow]) -> list[EncodedRows]:
        """Return exports of all rows, none too large if it has more than one."""
        return self._encode(Signal.METRICS, self._build_measures, rows)

    def _encode(
        self, signal: Signal, build: Callable[[Sequence[_Row]], Any], rows: Sequence[_Row]
    ) -> list[EncodedRows]:
        exports = []
        parts = [rows[start : start + MAX_EXPORT_ROWS] for start in range(0, len(rows), MAX_EXPORT_ROWS)]
        while parts:
            part = parts.pop(0)
            body: bytes = build(part).SerializeToString()
            if len(body) > self._max_bytes and len(part) > 1:
                half = len(part) // 2
                parts[:0] = [part[:half], part[half:]]
            else:
                request = ExportRequest(signal=signal, body=body, is_trusted=True, is_own=True)
                exports.append(EncodedRows(request, len(part)))
        return exports

    def _build_log(self, rows: Sequence[LogRow]) -> ExportLogsServiceRequest:
        request = ExportLogsServiceRequest()
        logs = request.resource_logs.add(resource=self._resource)
        for target, group in itertools.groupby(rows, key=lambda row: row.target):
            records = logs.scope_logs.add(scope=InstrumentationScope(name=target)).log_records
            for row in group:
                severity: Any = 25 - 4 * row.level  # the first of the level's four numbers
                record = records.add(time_unix_nano=row.time_ns, severity_number=severity)
                record.body.string_value = row.msg
                _set_attributes(record, row.properties)
        return request

    def _build_measures(self, rows: Sequence[MeasureRow]) -> ExportMetricsServiceRequest:
        request = ExportMetricsServiceRequest()
        metrics = request.resource_metrics.add(resource=self._resource)
        scopes: dict[str, Any] = {}
        points: dict[tuple[str, str, str], Any] = {}
        for row in rows:
            key = row.target, row.name, row.unit
            if key not in points:
                if row.target not in scopes:
                    scopes[row.target] = metrics.scope_metrics.add(scope=InstrumentationScope(name=row.target))
                points[key] = scopes[row.target].metrics.add(name=row.name, unit=row.unit).gauge.data_points
            _set_attributes(points[key].add(time_unix_nano=row.time_ns, as_double=row.value), row.properties)
        return request


def _set_attributes(message: Any, attributes: Mapping[str, str]) -> None:
    for name, value in attributes.items():
        message.attributes.add(key=name).value.string_value = value
