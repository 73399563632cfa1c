"""Each field of OTLP, and the column that it goes to."""

import base64
import hashlib
import json
import math
import uuid
from datetime import UTC, datetime

import pytest
from google.protobuf import json_format
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, NumberDataPoint, SummaryDataPoint
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from micromegas_jupyter.core import jsonb
from micromegas_jupyter.telemetry.histograms import OTEL_HISTOGRAM
from tests.integration.otlp.exporting import (
    ANSWERS,
    JSON,
    NOON,
    any_value,
    attributes,
    export,
    properties,
)

pytestmark = pytest.mark.integration

_TIME = datetime.fromtimestamp(NOON / 10**9, UTC)
_TRACE, _SPAN = bytes(range(16)), bytes(range(8))
_PROCESSES = uuid.UUID("80a447b8-fcdd-42a6-a613-f6c8719cd5fe")
_STREAMS = uuid.UUID("fe93bacf-e851-4cf6-8526-05f8454b3488")
# What a resource with all of these has in its process's name, in upstream's order.
_RESOURCE = {
    "host.id": " ID1 ", "host.name": "Box", "process.pid": 42, "process.creation.time": "2026-11-26T08:00:00.5Z",
    "service.namespace": "Demo", "service.instance.id": "i-1", "os.type": "linux", "os.description": "Linux 6",
    "host.cpu.model.name": "Zen", "user.name": "bob", "process.owner": "", "process.user.name": "ada",
    "user.full_name": "Ada King", "telemetry.sdk.name": "opentelemetry", "tags": ["x", 1],
}  # fmt: skip


def _one(server, table, service):
    (row,) = server.rows(f"SELECT * FROM {table} WHERE exe LIKE '%{service}'")
    return row


def _stored(server, signal, request):
    answer = server.post(signal, request)
    assert (answer.status_code, answer.content) == (200, b""), answer.text


def test_a_resource_becomes_a_process_a_stream_and_a_block(server):
    request = export("logs", *[LogRecord(time_unix_nano=NOON + second * 10**9) for second in (2, 1)], service="whole",
                     **_RESOURCE)  # fmt: skip
    _stored(server, "logs", request)

    parts = ["id1", "box", "42", "2026-11-26T08:00:00.5Z", "demo", "whole", "i-1", "", "linux", "", "", "linux 6"]
    parts += [""] * 7 + ["zen"] + [""] * 5 + ["opentelemetry"] + [""] * 5
    process_id = str(uuid.uuid5(_PROCESSES, "\x1f".join(parts)))
    stream_id = str(uuid.uuid5(_STREAMS, f"{process_id}\x1flogs"))
    process = _one(server, "processes", "whole")
    (block,) = server.rows(f"SELECT * FROM blocks WHERE process_id = '{process_id}'")
    (stream,) = server.rows(f"SELECT * FROM streams WHERE process_id = '{process_id}'")
    assert {
        name: process[name]
        for name in ("process_id", "exe", "username", "realname", "computer", "distro", "cpu_brand", "tsc_frequency",
                     "parent_process_id")
    } == {
        "process_id": process_id, "exe": "Demo/whole", "username": "ada", "realname": "Ada King", "computer": "Box",
        "distro": "Linux 6", "cpu_brand": "Zen", "tsc_frequency": 10**9, "parent_process_id": "",
    }  # fmt: skip
    assert process["start_time"].to_pydatetime() == datetime(2026, 11, 26, 8, 0, 0, 500_000, tzinfo=UTC)
    assert process["last_block_end_ticks"] == NOON + 2 * 10**9
    assert properties(process) == {
        f"otel.resource.{name}": value for name, value in
        {**_RESOURCE, "service.name": "whole", "process.pid": "42", "tags": '["x",1]'}.items()
    }  # fmt: skip
    assert (stream["stream_id"], stream["tags"], stream["format"]) == (stream_id, ["log"], "otlp/v1/logs")
    assert (stream["objects_metadata"], properties(stream)) == (b"\x80", {})
    content = request.resource_logs[0].SerializeToString()
    namespace = uuid.UUID("5829a6f7-0577-4c8c-862f-cf4fdab445cc")
    assert {
        name: block[name]
        for name in ("block_id", "stream_id", "begin_ticks", "end_ticks", "nb_objects", "object_offset", "payload_size",
                     "streams.format", "processes.exe")
    } == {
        "block_id": str(uuid.UUID(bytes=hashlib.sha1(namespace.bytes + content).digest()[:16], version=5)),
        "stream_id": stream_id, "begin_ticks": NOON + 10**9, "end_ticks": NOON + 2 * 10**9, "nb_objects": 2,
        "object_offset": 0, "payload_size": len(content), "streams.format": "otlp/v1/logs",
        "processes.exe": "Demo/whole",
    }  # fmt: skip


def test_a_process_that_does_not_say_when_it_started_began_with_its_block(server):
    _stored(server, "logs", export("logs", LogRecord(time_unix_nano=NOON), service="begun"))

    assert _one(server, "processes", "begun")["start_time"].to_pydatetime() == _TIME


def test_all_of_a_log_record_is_kept(server):
    record = LogRecord(
        time_unix_nano=NOON, observed_time_unix_nano=NOON + 5, severity_number=17, severity_text="ERROR",
        body=any_value("it broke"), trace_id=_TRACE, span_id=_SPAN, event_name="broken",
        attributes=attributes({"a": 1, "b": 1.5, "c": True, "d": b"\xff", "e": [1, {"z": 1, "y": None}], "f": "text"}),
    )  # fmt: skip
    request = export("logs", record, service="log")
    scope = request.resource_logs[0].scope_logs[0]
    scope.schema_url = "https://schema.example"
    scope.scope.attributes.extend(attributes({"kind": "lib"}))

    _stored(server, "logs", request)

    row = _one(server, "log_entries", "log")
    assert (row["time"].to_pydatetime(), row["level"], row["msg"], row["target"]) == (_TIME, 2, "it broke", "shop.lib")
    assert properties(row) == {
        "a": 1, "b": 1.5, "c": True, "d": "/w==", "e": [1, {"y": None, "z": 1}], "f": "text",
        "otel.scope.name": "shop.lib", "otel.scope.version": "1.2", "otel.scope.attr.kind": "lib",
        "otel.scope.schema_url": "https://schema.example", "otel.trace_id": _TRACE.hex(), "otel.span_id": _SPAN.hex(),
        "otel.severity_text": "ERROR", "otel.event_name": "broken",
    }  # fmt: skip


def test_integers_are_signed_as_upstream_writes_them(server):
    record = LogRecord(time_unix_nano=NOON, attributes=attributes({"n": 1}))
    _stored(server, "logs", export("logs", record, service="signed", scope=""))

    encoded = _one(server, "log_entries", "signed")["properties"]
    # An object of two: its head, keys' and values' entries, keys, then the integer 1 (0x40) and the text 1.2.
    assert encoded.hex() == (
        "40000002" "10000001" "10000012" "20000002" "10000003" + b"notel.scope.version".hex() + "4001" + b"1.2".hex()
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("", ""), ("x" * 127, "x" * 127), ("ü" * 100, "ü" * 100), (True, "true"), (12, "12"), (1.5, "1.5"),
        (b"\xff", "/w=="), ([1, "a"], '[1,"a"]'), ({"b": 1, "a": {"d": 1, "c": 2}}, '{"a":{"c":2,"d":1},"b":1}'),
        (None, ""),
    ],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_a_body_of_any_kind_becomes_text(server, body, text):
    service = f"body-{uuid.uuid4()}"
    _stored(server, "logs", export("logs", LogRecord(time_unix_nano=NOON, body=any_value(body)), service=service))

    assert _one(server, "log_entries", service)["msg"] == text


def test_severities_become_levels(server):
    records = [
        LogRecord(time_unix_nano=NOON, severity_number=number, body=any_value(str(number)))
        for number in (0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, -1)
    ]
    _stored(server, "logs", export("logs", *records, service="severities"))

    rows = server.rows("SELECT msg, level FROM log_entries WHERE exe = 'severities'")
    assert {int(row["msg"]): row["level"] for row in rows} == {
        0: 4, 1: 6, 4: 6, 5: 5, 8: 5, 9: 4, 12: 4, 13: 3, 16: 3, 17: 2, 20: 2, 21: 1, 24: 1, 25: 4, -1: 4
    }  # fmt: skip


def test_a_log_record_without_a_time_has_that_of_its_observation_or_its_block(server):
    records = [
        LogRecord(body=any_value("none")),
        LogRecord(observed_time_unix_nano=NOON + 10**9, body=any_value("observed")),
        LogRecord(time_unix_nano=NOON, body=any_value("known")),
    ]
    _stored(server, "logs", export("logs", *records, service="timeless"))

    rows = server.rows("SELECT msg, time FROM log_entries WHERE exe = 'timeless'")
    assert {row["msg"]: row["time"].to_pydatetime() for row in rows} == {
        "none": _TIME, "observed": _TIME.replace(second=1), "known": _TIME
    }  # fmt: skip


def test_ids_of_another_length_are_left_out(server):
    record = LogRecord(time_unix_nano=NOON, trace_id=b"short", span_id=b"long" * 4)
    _stored(server, "logs", export("logs", record, service="odd-ids"))

    assert properties(_one(server, "log_entries", "odd-ids")) == {
        "otel.scope.name": "shop.lib", "otel.scope.version": "1.2"
    }  # fmt: skip


def test_of_attributes_with_one_key_the_last_one_counts(server):
    record = LogRecord(time_unix_nano=NOON, attributes=[*attributes({"a": 1}), *attributes({"a": 2})])
    _stored(server, "logs", export("logs", record, service="twice"))

    assert properties(_one(server, "log_entries", "twice"))["a"] == 2


def test_points_of_sums_gauges_and_summaries_are_measures(server):
    point = {"time_unix_nano": NOON, "attributes": attributes({"k": "v"})}
    total, gauge, summary = Metric(name="total", unit="By"), Metric(name="gauge", unit="1"), Metric(name="s", unit="ms")
    total.sum.aggregation_temporality, total.sum.is_monotonic = 1, True
    total.sum.data_points.append(NumberDataPoint(as_int=2**53, **point))
    gauge.gauge.data_points.extend(NumberDataPoint(as_double=value, **point) for value in (1.5, math.nan))
    gauge.gauge.data_points.append(NumberDataPoint(flags=1, **point))  # says that there is no value
    quantiles = [
        SummaryDataPoint.ValueAtQuantile(quantile=quantile, value=value)
        for quantile, value in ((0.0, 1.0), (0.5, 2.0), (1.0, 9.0))
    ]
    summary.summary.data_points.append(SummaryDataPoint(count=3, sum=12.0, quantile_values=quantiles, **point))

    _stored(server, "metrics", export("metrics", total, gauge, summary, service="metrics"))

    rows = server.rows("SELECT * FROM measures WHERE exe = 'metrics' ORDER BY name, value")
    facts = {"otel.metric.kind": "sum", "otel.metric.aggregation_temporality": 1, "otel.metric.is_monotonic": True}
    assert [(row["name"], row["unit"], str(row["value"]), properties(row)) for row in rows] == [
        ("gauge", "1", "1.5", {"k": "v", "otel.metric.kind": "gauge"}),
        ("gauge", "1", "nan", {"k": "v", "otel.metric.kind": "gauge"}),
        ("s_count", "", "3.0", {"k": "v"}),
        ("s_max", "ms", "9.0", {"k": "v"}),
        ("s_min", "ms", "1.0", {"k": "v"}),
        ("s_sum", "ms", "12.0", {"k": "v"}),
        ("total", "By", "9007199254740992.0", {"k": "v", **facts}),
    ]
    assert {(row["target"], row["time"].to_pydatetime()) for row in rows} == {("shop.lib", _TIME)}
    (block,) = server.rows("SELECT nb_objects FROM blocks WHERE \"processes.exe\" = 'metrics'")
    assert block["nb_objects"] == 8  # a summary counts four


def test_points_without_value_or_time_are_rejected(server):
    nothing, timeless = Metric(name="nothing"), Metric(name="timeless")
    nothing.gauge.data_points.add(time_unix_nano=NOON)
    timeless.gauge.data_points.add(as_int=1)
    good = Metric(name="good")
    good.gauge.data_points.add(time_unix_nano=NOON, as_int=1)

    answer = server.post("metrics", export("metrics", nothing, timeless, good, service="refused-points"))

    found = ANSWERS["metrics"].FromString(answer.content).partial_success
    assert (answer.status_code, found.rejected_data_points) == (200, 2)
    assert found.error_message.startswith("2 refused. The first: Number 1, of the scope 'shop.lib': 'nothing': It has")
    assert [row["name"] for row in server.rows("SELECT name FROM measures WHERE exe = 'refused-points'")] == ["good"]


@pytest.mark.parametrize("encoding", ["protobuf", "json"])
def test_histograms_are_stored_as_sent(server, encoding):
    service = f"histograms-{encoding}"
    explicit, exponential, gauge = Metric(name="explicit", unit="ms"), Metric(name="expo"), Metric(name="gauge")
    explicit.histogram.aggregation_temporality = 2
    point = explicit.histogram.data_points.add(
        time_unix_nano=NOON, start_time_unix_nano=NOON - 10**9, count=6, sum=30.5, min=1, max=20,
        bucket_counts=[4, 0, 2], explicit_bounds=[5, 10], attributes=attributes({"k": "v"}),
    )  # fmt: skip
    point.exemplars.add(
        as_double=7.5, time_unix_nano=NOON, trace_id=_TRACE, span_id=_SPAN, filtered_attributes=attributes({"n": 1})
    )
    explicit.histogram.data_points.add(time_unix_nano=NOON + 1, count=9)
    exponential.exponential_histogram.aggregation_temporality = 1
    point = exponential.exponential_histogram.data_points.add(
        time_unix_nano=NOON, count=8, zero_count=2, zero_threshold=0.25, scale=3
    )
    point.positive.offset, point.negative.offset = 2**31 - 4, -(2**31)
    point.positive.bucket_counts.extend([0, 3, 1])
    point.negative.bucket_counts.append(2)
    gauge.gauge.data_points.add(time_unix_nano=NOON, as_int=1)

    request = export("metrics", explicit, exponential, gauge, service=service)
    if encoding == "json":
        body = json_format.MessageToJson(request)
        for one in (_TRACE, _SPAN):  # OTLP's JSON has ids in hexadecimal
            body = body.replace(base64.b64encode(one).decode(), one.hex())
        answer = server.post("metrics", body, kind=JSON)
        assert answer.json() == {}, answer.text
    else:
        _stored(server, "metrics", request)

    rows = server.rows(f"SELECT * FROM histograms WHERE exe = '{service}' ORDER BY name, time")
    nothing = dict.fromkeys(OTEL_HISTOGRAM.names)
    empty = {name: [] for name in ("indices", "counts", "negative_indices", "negative_counts")}
    assert [(row["name"], row["unit"], row["is_cumulative"], row["histogram"]) for row in rows] == [
        ("explicit", "ms", True, nothing | empty | {
            "count": 6, "sum": 30.5, "min": 1.0, "max": 20.0, "bounds": [5.0, 10.0], "indices": [0, 2], "counts": [4, 2]
        }),
        ("explicit", "ms", True, nothing | empty | {"count": 9, "bounds": [], "indices": [0], "counts": [9]}),
        ("expo", "", False, nothing | {
            "count": 8, "scale": 3, "zero_count": 2, "zero_threshold": 0.25,
            "indices": [2**31 - 3, 2**31 - 2], "counts": [3, 1], "negative_indices": [-(2**31)], "negative_counts": [2],
        }),
    ]  # fmt: skip
    assert [row["start_time"] is not None for row in rows] == [True, False, False]
    assert rows[0]["series"] != rows[1]["series"] != rows[2]["series"]
    assert jsonb.decode(rows[0]["exemplars"]) == [
        {"attributes": {"n": 1}, "span_id": _SPAN.hex(), "time": NOON, "trace_id": _TRACE.hex(), "value": 7.5}
    ]
    assert [row["exemplars"] for row in rows[1:]] == [None, None]
    assert properties(rows[0]) == {"k": "v", "otel.metric.kind": "histogram", "otel.metric.aggregation_temporality": 2}
    assert [row["name"] for row in server.rows(f"SELECT name FROM measures WHERE exe = '{service}'")] == ["gauge"]


_POINT = {"time_unix_nano": NOON, "count": 3}


@pytest.mark.parametrize(
    ("kind", "fields", "reason"),
    [
        ("histogram", {"bucket_counts": [1, 2], "explicit_bounds": [1.0, 2.0]}, "one bucket more than bounds"),
        ("histogram", {"explicit_bounds": [1.0]}, "one bucket more than bounds"),
        ("histogram", {"bucket_counts": [1, 1], "explicit_bounds": [1.0]}, "do not add up"),
        ("histogram", {"bucket_counts": [1, 1, 1], "explicit_bounds": [2.0, 1.0]}, "finite and ascend"),
        ("histogram", {"bucket_counts": [1, 1, 1], "explicit_bounds": [2.0, 2.0]}, "finite and ascend"),
        ("histogram", {"bucket_counts": [1, 2], "explicit_bounds": [math.nan]}, "finite and ascend"),
        ("histogram", {"bucket_counts": [2**64 - 1, 4], "explicit_bounds": [1.0]}, "2^53"),
        ("histogram", {"bucket_counts": [3] + [0] * 2000, "explicit_bounds": range(2000)}, "2,000 buckets"),
        ("exponential_histogram", {"zero_count": 2}, "do not add up"),
        ("exponential_histogram", {"zero_count": 3, "scale": 21}, "scale"),
        ("exponential_histogram", {"zero_count": 3, "zero_threshold": -1.0}, "threshold"),
        ("exponential_histogram", {"zero_count": 3, "positive": {"bucket_counts": [0] * 2001}}, "2,000 buckets"),
        ("exponential_histogram", {"positive": {"offset": 2**31 - 1, "bucket_counts": [0, 3]}}, "offset"),
    ],
)
def test_a_histogram_that_contradicts_itself_is_rejected_alone(server, kind, fields, reason):
    bad, good = Metric(name="bad"), Metric(name="good")
    service = f"bad-{kind}-{hashlib.sha256(repr(fields).encode()).hexdigest()[:8]}"
    for metric in (bad, good):
        getattr(metric, kind).aggregation_temporality = 1
    getattr(bad, kind).data_points.add(**(_POINT | fields))
    getattr(good, kind).data_points.add(**(_POINT | ({} if kind == "histogram" else {"zero_count": 3})))

    answer = server.post("metrics", export("metrics", bad, good, service=service))

    found = ANSWERS["metrics"].FromString(answer.content).partial_success
    assert (answer.status_code, found.rejected_data_points) == (200, 1)
    assert found.error_message.startswith("1 refused. The first: Number 1, of the scope 'shop.lib': 'bad': ")
    assert reason in found.error_message
    assert [row["name"] for row in server.rows(f"SELECT name FROM histograms WHERE exe = '{service}'")] == ["good"]


def test_all_of_a_span_is_kept(server):
    span = Span(
        trace_id=_TRACE, span_id=_SPAN, parent_span_id=_SPAN[::-1], name="work", kind=Span.SPAN_KIND_CLIENT,
        start_time_unix_nano=NOON + 1, end_time_unix_nano=NOON + 1501, attributes=attributes({"n": 1}),
    )  # fmt: skip
    span.status.code, span.status.message = 2, "it failed"
    span.events.add(name="retry", time_unix_nano=NOON + 7, attributes=attributes({"try": 2}))
    span.links.add(trace_id=_TRACE, span_id=_SPAN, attributes=attributes({"why": "cause"}))
    bare = Span(
        trace_id=_TRACE, span_id=_SPAN, name="bare", start_time_unix_nano=NOON, end_time_unix_nano=NOON, kind=77
    )

    _stored(server, "traces", export("traces", span, bare, service="spans"))

    row, plain = server.rows("SELECT * FROM otel_spans WHERE exe = 'spans' ORDER BY duration DESC")
    assert {
        name: row[name]
        for name in ("trace_id", "span_id", "parent_span_id", "duration", "name", "kind", "status", "status_message")
    } == {
        "trace_id": _TRACE, "span_id": _SPAN, "parent_span_id": _SPAN[::-1], "duration": 1500, "name": "work",
        "kind": "CLIENT", "status": "ERROR", "status_message": "it failed",
    }  # fmt: skip
    assert (row["start_time"].value, row["end_time"].value) == (NOON + 1, NOON + 1501)
    assert properties(row) == {"n": 1, "otel.scope.name": "shop.lib", "otel.scope.version": "1.2"}
    assert jsonb.decode(row["events"]) == [{"attributes": {"try": 2}, "name": "retry", "time": NOON + 7}]
    assert jsonb.decode(row["links"]) == [
        {"attributes": {"why": "cause"}, "span_id": _SPAN.hex(), "trace_id": _TRACE.hex()}
    ]  # fmt: skip
    assert {name: plain[name] for name in ("parent_span_id", "kind", "status", "status_message", "events")} == {
        "parent_span_id": None, "kind": "UNSPECIFIED", "status": "UNSET", "status_message": None,
        "events": jsonb.encode([]),
    }  # fmt: skip


def test_the_same_in_json_gives_the_same_rows(server):
    document = {"resourceLogs": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "in-json"}}]},
        "scopeLogs": [{"scope": {"name": "js"}, "logRecords": [{
            "timeUnixNano": str(NOON), "severityNumber": 9, "body": {"stringValue": "from a browser"},
            "traceId": _TRACE.hex().upper(), "spanId": _SPAN.hex(), "unknown": [1],
            "attributes": [{"key": "n", "value": {"intValue": "5"}}, {"key": "traceId", "value": {"intValue": 7}}],
        }]}],
    }]}  # fmt: skip

    answer = server.post("logs", json.dumps(document), kind=f"{JSON}; charset=utf-8", prefix="/ingestion/otlp")

    assert (answer.status_code, answer.headers["Content-Type"], answer.json()) == (200, JSON, {})
    row = _one(server, "log_entries", "in-json")
    assert (row["msg"], row["level"], row["time"].to_pydatetime()) == ("from a browser", 4, _TIME)
    assert properties(row) == {
        "n": 5, "traceId": 7, "otel.scope.name": "js", "otel.trace_id": _TRACE.hex(), "otel.span_id": _SPAN.hex()
    }  # fmt: skip


def test_each_resource_of_a_request_is_a_block(server):
    request = export("logs", LogRecord(time_unix_nano=NOON, body=any_value("a")), service="first-of-two")
    request.MergeFrom(
        export("logs", *[LogRecord(time_unix_nano=NOON, body=any_value("b"))] * 2, service="second-of-two")
    )
    request.MergeFrom(export("logs", service="none"))

    _stored(server, "logs", request)

    rows = server.rows(
        "SELECT msg, exe, nb_objects FROM log_entries JOIN blocks USING (block_id) WHERE exe LIKE '%-of-two'"
    )
    found = sorted((row["msg"], row["exe"], row["nb_objects"]) for row in rows)
    assert found == [("a", "first-of-two", 1), *[("b", "second-of-two", 2)] * 2]
    assert server.rows("SELECT 1 FROM processes WHERE exe = 'none'") == []
