"""Damaged exports of OpenTelemetry: rows of the tables, or a refusal, and never anything else."""

import gzip
import json

import pytest
from google.protobuf import json_format
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.otlp.decode import decode_request, encode_answer
from micromegas_jupyter.otlp.exchange import Encoding, ExportRequest, Signal
from micromegas_jupyter.otlp.mapping import OriginCache, block_rows, map_request
from tests.fuzz.conftest import sizes
from tests.fuzz.damage import damage_json, damage_places, encode_any_json
from tests.integration.otlp.exporting import NOON, any_value, attributes, export

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

_VALUES = {"a": 1, "b": 1.5, "c": True, "d": b"\xff", "e": [1, {"z": 1, "y": None}], "f": "text"}


def _samples():
    log = LogRecord(
        time_unix_nano=NOON, severity_number=9, severity_text="INFO", body=any_value(_VALUES), trace_id=bytes(16),
        span_id=bytes(8), event_name="e", attributes=attributes(_VALUES),
    )  # fmt: skip
    kinds = ("sum", "gauge", "summary", "histogram", "exponential_histogram")
    metrics = [Metric(name=kind, unit="1") for kind in kinds]
    for metric in metrics:
        point = getattr(metric, metric.name).data_points.add(time_unix_nano=NOON, attributes=attributes(_VALUES))
        if metric.name in {"sum", "gauge"}:
            point.as_int = 1
        elif metric.name != "summary":
            getattr(metric, metric.name).aggregation_temporality = 2
            point.count = 3
            point.exemplars.add(as_double=1.5, trace_id=bytes(16), filtered_attributes=attributes(_VALUES))
    explicit, exponential = metrics[3].histogram.data_points[0], metrics[4].exponential_histogram.data_points[0]
    explicit.bucket_counts.extend([1, 2])
    explicit.explicit_bounds.append(0.5)
    exponential.positive.bucket_counts.extend([1, 1])
    exponential.negative.bucket_counts.append(1)
    exponential.negative.offset = -7
    span = Span(
        trace_id=bytes(16), span_id=bytes(8), name="s", start_time_unix_nano=NOON, end_time_unix_nano=NOON + 1,
        attributes=attributes(_VALUES),
    )  # fmt: skip
    span.events.add(name="e", attributes=attributes(_VALUES))
    span.links.add(trace_id=bytes(16), attributes=attributes(_VALUES))
    resource = {"process.pid": 1, "process.creation.time": "2026-11-26T08:00:00Z"}
    return {
        Signal.LOGS: export("logs", log, LogRecord(time_unix_nano=NOON, body=any_value("x")), **resource),
        Signal.METRICS: export("metrics", *metrics, **resource),
        Signal.TRACES: export("traces", span, **resource),
    }


def _take(request):
    mapped = map_request(request.signal, decode_request(request), origins=OriginCache(), now_ns=NOON, is_trusted=False)
    for rows in mapped.records.values():
        rows.validate(full=True)
    block_rows(mapped.blocks, now_ns=NOON).validate(full=True)
    encode_answer(request, refused=mapped.refusals.count, first=mapped.refusals.reason)


@sizes(short=6_000, long=300_000)
def test_damaged_exports_are_taken_or_refused(fuzzing):
    samples = {signal: message.SerializeToString() for signal, message in _samples().items()}
    for signal, body in samples.items():
        _take(ExportRequest(signal=signal, body=body))

    def damage(random):
        signal, is_compressed = random.choice(tuple(samples)), random.random() < 0.1
        body = damage_places(samples[signal], random)
        if is_compressed:
            body = damage_places(gzip.compress(body), random)
        return ExportRequest(signal=signal, body=body, is_compressed=is_compressed)

    taken = fuzzing.try_all(damage, _take, MicromegasError)

    assert 0 < taken < fuzzing.tries


@sizes(short=3_000, long=100_000)
def test_damaged_json_is_taken_or_refused(fuzzing):
    samples = {signal: json.loads(json_format.MessageToJson(message)) for signal, message in _samples().items()}

    def damage(random):
        signal = random.choice(tuple(samples))
        body = encode_any_json(damage_json(samples[signal], random, chance=0.05))
        return ExportRequest(signal=signal, body=body, encoding=Encoding.JSON)

    taken = fuzzing.try_all(damage, _take, MicromegasError)

    assert 0 < taken < fuzzing.tries
