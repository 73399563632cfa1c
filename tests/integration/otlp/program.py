"""A program that OpenTelemetry watches: `python -m tests.integration.otlp.program PROTOCOL FLIGHT_URI EXE`.

Where it sends to is in the environment alone. Then it reads its log back with upstream's client, in the same process,
and says how long it took from when it began to log until SQL saw all three signals.
"""

import logging
import sys
import time

from micromegas.auth import StaticTokenAuthProvider
from micromegas.flightsql.client import FlightSQLClient
from opentelemetry import metrics, trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

VISIBLE_SECONDS = 30
SIGNALS = ("log_entries", "measures", "histograms", "otel_spans")

if sys.argv[1] == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
else:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter


def watched():
    """What the program does."""
    counter = metrics.get_meter("shop.meter").create_counter("orders", unit="1")
    histogram = metrics.get_meter("shop.meter").create_histogram("seconds")
    with trace.get_tracer("shop.tracer", "2.0").start_as_current_span("checkout") as span:
        span.set_attribute("cart.size", 3)
        span.add_event("paid", {"amount": 12.5})
        counter.add(2, {"country": "fr"})
        histogram.record(0.5)
        logging.getLogger("shop.orders").warning("order %d is late", 17, extra={"order": 17})


def main():
    loggers, spans = LoggerProvider(), TracerProvider()
    loggers.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    meters = MeterProvider(metric_readers=[PeriodicExportingMetricReader(OTLPMetricExporter())])
    set_logger_provider(loggers)
    trace.set_tracer_provider(spans)
    metrics.set_meter_provider(meters)
    logging.getLogger().addHandler(LoggingHandler(logger_provider=loggers))
    started = time.monotonic()
    watched()
    for provider in (loggers, spans, meters):
        assert provider.force_flush()
    client = FlightSQLClient(sys.argv[2], auth_provider=StaticTokenAuthProvider("alice"))
    counts = " AND ".join(f"(SELECT count(*) FROM {table} WHERE exe = '{sys.argv[3]}') > 0" for table in SIGNALS)
    while not client.query(f"SELECT {counts} AS seen")["seen"][0]:
        assert time.monotonic() - started < VISIBLE_SECONDS
    print(f"{sys.argv[1]}: seen by SQL after {time.monotonic() - started:.2f} s")
    print(client.query("SELECT msg FROM log_entries WHERE target = 'shop.orders'")["msg"].to_list())


if __name__ == "__main__":
    main()
