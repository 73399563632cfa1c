"""An export from the outside: its signal, how it is encoded and where it is sent. Loads nothing that can decode it.

Source: https://opentelemetry.io/docs/specs/otlp/.
"""

import enum
from dataclasses import dataclass, field
from typing import Final

from micromegas_jupyter.errors import ResourcesExhausted

MAX_WIRE_BYTES: Final = 20 * 1024 * 1024
"""Of one export as it is sent, compressed or not: upstream's limit."""
SIZE_LIMIT: Final = "otlp_size"
"""The limit that an error names when the same export can never be accepted."""
MAX_RECORDS: Final = 100_000
"""Of one export: log records, points, spans, and of those that say nothing, too."""
_SMALLER: Final = "Export fewer records at a time (OTEL_BLRP_MAX_EXPORT_BATCH_SIZE, send_batch_max_size)."


class Signal(enum.StrEnum):
    """The signal of an export; the values are those of OTLP's paths."""

    LOGS = "logs"
    METRICS = "metrics"
    TRACES = "traces"

    @property
    def table(self) -> str:
        """The table that its records go to."""
        return _TABLES[self]

    @property
    def method(self) -> str:
        """The gRPC method that exports it."""
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
    """One export as it arrived; `is_trusted` records may have targets of the server's own, which `is_own` ones are."""

    signal: Signal
    body: bytes = field(repr=False)
    encoding: Encoding = Encoding.PROTOBUF
    is_compressed: bool = False  # with gzip
    is_trusted: bool = False
    is_own: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What became of an export: how many records are stored and refused, and the answer for the exporter."""

    stored: int
    refused: int
    answer: bytes = field(repr=False)


def too_large(max_bytes: int) -> ResourcesExhausted:
    """Return the error for an export of more than so many bytes."""
    return ResourcesExhausted(
        f"The export is larger than the {max_bytes // (1024 * 1024)} MiB that this server accepts.",
        remedy=_SMALLER,
        limit="otlp_size",
    )


def too_many() -> ResourcesExhausted:
    """Return the error for an export of more than `MAX_RECORDS`."""
    return ResourcesExhausted(
        f"The export has more than the {MAX_RECORDS:,} records that this server accepts.",
        remedy=_SMALLER,
        limit="otlp_size",
    )
