"""Defines the metadata of an export: its signal, encoding, and destination. Imports nothing that can decode it.

Source: https://opentelemetry.io/docs/specs/otlp/.
"""

import enum
from dataclasses import dataclass, field
from typing import Final

from micromegas_jupyter.errors import ResourcesExhausted

MAX_WIRE_BYTES: Final = 20 * 1024 * 1024
"""Size of an export as sent, compressed or not: upstream's limit."""
SIZE_LIMIT: Final = "otlp_size"
"""The limit named in the error if the same export can never be accepted."""
MAX_RECORDS: Final = 100_000
"""Log records, points, and spans per export, including empty ones."""
_SMALLER: Final = "Export fewer records at a time (OTEL_BLRP_MAX_EXPORT_BATCH_SIZE, send_batch_max_size)."


class Signal(enum.StrEnum):
    """The signal of an export; the values are those of OTLP's paths."""

    LOGS = "logs"
    METRICS = "metrics"
    TRACES = "traces"

    @property
    def table(self) -> str:
        """The table for the signal's records."""
        return _TABLES[self]

    @property
    def method(self) -> str:
        """The path of the gRPC method that exports the signal."""
        package, service = _SERVICES[self]
        return f"/opentelemetry.proto.collector.{package}.v1.{service}/Export"


_TABLES: Final = {Signal.LOGS: "log_entries", Signal.METRICS: "measures", Signal.TRACES: "otel_spans"}
_SERVICES: Final = {
    Signal.LOGS: ("logs", "LogsService"),
    Signal.METRICS: ("metrics", "MetricsService"),
    Signal.TRACES: ("trace", "TraceService"),
}


class Encoding(enum.StrEnum):
    """The encoding of requests and responses; the values are content types."""

    PROTOBUF = "application/x-protobuf"
    JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """A received export; records may use the server's own targets if it `is_trusted`, and do if it `is_own`."""

    signal: Signal
    body: bytes = field(repr=False)
    encoding: Encoding = Encoding.PROTOBUF
    is_compressed: bool = False  # with gzip
    is_trusted: bool = False
    is_own: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """The result of an export: the number of stored and rejected records, and the response to the exporter."""

    stored: int
    refused: int
    answer: bytes = field(repr=False)


def too_large(max_bytes: int) -> ResourcesExhausted:
    """Return the error for an export that is larger than this many bytes."""
    return ResourcesExhausted(
        f"The export is larger than the {max_bytes // (1024 * 1024)} MiB that this server accepts.",
        remedy=_SMALLER,
        limit="otlp_size",
    )


def too_many() -> ResourcesExhausted:
    """Return the error for an export that contains more than `MAX_RECORDS` records."""
    return ResourcesExhausted(
        f"The export has more than the {MAX_RECORDS:,} records that this server accepts.",
        remedy=_SMALLER,
        limit="otlp_size",
    )
