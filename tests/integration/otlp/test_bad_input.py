"""What is wrong with an export gets an answer in OTLP's form, and stores nothing, or all but the records it names."""

import gzip
import json
import logging
import socket
import zlib
from dataclasses import replace

import grpc
import pytest
import requests
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from micromegas_jupyter.core.protocols import WriteAccess
from micromegas_jupyter.errors import ResourcesExhausted, UsageError
from micromegas_jupyter.flightsql.commands import messages
from micromegas_jupyter.otlp import decode
from micromegas_jupyter.otlp.decode import decode_request
from micromegas_jupyter.otlp.exchange import ExportRequest, Signal
from micromegas_jupyter.otlp.mapping import OriginCache, map_request
from micromegas_jupyter.server import exports
from tests.fakes.validator import BOB
from tests.fakes.waiting import wait_until
from tests.integration.otlp.exporting import (
    ANSWERS,
    JSON,
    NOON,
    any_value,
    attributes,
    export,
    properties,
    status_of,
)

pytestmark = pytest.mark.integration

_INVALID, _DENIED, _EXHAUSTED, _UNAVAILABLE, _UNAUTHENTICATED = 3, 7, 8, 14, 16
_METHOD = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
_COLLECTOR = (("authorization", "Bearer collector"),)
_MIB = 1024 * 1024


def _log(service, **fields):
    return export("logs", LogRecord(**{"time_unix_nano": NOON, "body": any_value("kept"), **fields}), service=service)


def _field(number, data):
    size = len(data)
    return bytes([number << 3 | 2, *(size >> bits & 0x7F | 0x80 for bits in (0, 7, 14)), size >> 21]) + data


def _nested(depth):
    """A request with an attribute in so many lists, which no library would write."""
    value = b""
    for _ in range(depth):
        value = _field(5, _field(1, value))
    attribute = _field(1, b"deep") + _field(2, value)
    return _field(1, _field(2, _field(2, _field(6, attribute))))


BAD = {
    "not protobuf": (b"\x0a\xff", {}, 400, _INVALID),
    "cut off": (_log("bad").SerializeToString()[:-3], {}, 400, _INVALID),
    "a body that is no value": (
        _log("bad").SerializeToString().replace(b"\x0a\x04kept", b"\x0a\x09kept"), {}, 400, _INVALID
    ),
    "text that is not UTF-8": (
        _log("bad", severity_text="WARN").SerializeToString().replace(b"WARN", b"W\xffRN"), {}, 400, _INVALID
    ),
    "an attribute that is not UTF-8": (
        _log("bad", attributes=attributes({"k": "abcd"})).SerializeToString().replace(b"abcd", b"ab\xffd"),
        {}, 400, _INVALID,
    ),
    "a body that is not UTF-8": (_log("bad").SerializeToString().replace(b"kept", b"ke\xfft"), {}, 400, _INVALID),
    "nested too deeply": (_nested(60), {}, 400, _INVALID),
    "not gzip": (_log("bad"), {"Content_Encoding": "gzip"}, 400, _INVALID),
    "gzip that is cut off": (
        gzip.compress(_log("bad").SerializeToString())[:-4], {"Content_Encoding": "gzip"}, 400, _INVALID
    ),
    "gzip with more behind it": (
        gzip.compress(_log("bad").SerializeToString()) + b"more", {"Content_Encoding": "gzip"}, 400, _INVALID
    ),
    "another compression": (
        zlib.compress(_log("bad").SerializeToString()), {"Content_Encoding": "deflate"}, 415, _INVALID
    ),
    "another type": (_log("bad"), {"kind": "text/plain"}, 415, _INVALID),
    "no type": (_log("bad"), {"kind": ""}, 415, _INVALID),
    "a bomb of 100 MiB": (gzip.compress(bytes(100 * _MIB)), {"Content_Encoding": "gzip"}, 413, _EXHAUSTED),
    "too many bytes": (bytes(20 * _MIB + 1), {}, 413, _EXHAUSTED),
    "records of too many days": (
        export("logs", *[LogRecord(time_unix_nano=NOON + day * 86400 * 10**9) for day in range(401)], service="bad"),
        {}, 400, _INVALID,
    ),
    "too many records": (
        export("logs", *[LogRecord(time_unix_nano=NOON)] * 100_001, service="bad"), {}, 413, _EXHAUSTED
    ),
    "a request that would take 70 times its size": (
        _field(1, _field(2, b"\x12\x00" * 1_000_000)), {}, 413, _EXHAUSTED
    ),
    "too many resources": (b"".join([_log("bad").SerializeToString()] * 1001), {}, 400, _INVALID),
}  # fmt: skip


TINY = 2_100_000
#: Signal, and the numbers of the fields from a request down to what comes in millions.
MANY = {
    "resources": ("logs", (1,)),
    "scopes": ("traces", (1, 2)),
    "records": ("logs", (1, 2, 2)),
    "attributes": ("logs", (1, 2, 2, 6)),
    "events": ("traces", (1, 2, 2, 11)),
    "points of a sum": ("metrics", (1, 2, 2, 7, 1)),
    "points of a histogram": ("metrics", (1, 2, 2, 9, 1)),
    "exemplars of a histogram": ("metrics", (1, 2, 2, 9, 1, 8)),
    "quantiles of a summary": ("metrics", (1, 2, 2, 11, 1, 6)),
}


@pytest.mark.parametrize("case", MANY)
def test_what_is_tiny_and_comes_in_millions_is_refused_before_it_is_read(case):
    signal, (*path, last) = MANY[case]
    body = bytes([last << 3 | 2, 0]) * TINY
    for number in reversed(path):
        body = _field(number, body)

    with pytest.raises((ResourcesExhausted, UsageError)):
        decode_request(ExportRequest(signal=Signal(signal), body=body))


_LIST, _MAP = any_value([1, [2, 3]]), any_value({"a": 1, "b": {"c": 2}})


def _log_with(*, body=None, attribute=None, scope=None, resource=None):
    request = export("logs", *[LogRecord(time_unix_nano=NOON, body=body)] * 2)
    message = request.resource_logs[0]
    places = (message.resource, message.scope_logs[0].scope, message.scope_logs[0].log_records[0])
    for place, value in zip(places, (resource, scope, attribute), strict=True):
        if value is not None:
            place.attributes.add(key="k", value=value)
    return "logs", request


def _span_with(*, event=None, link=None):
    span = Span(trace_id=bytes(range(16)), span_id=bytes(range(8)), start_time_unix_nano=NOON, end_time_unix_nano=NOON)
    for field, value in ((span.events, event), (span.links, link)):
        if value is not None:
            field.add().attributes.add(key="k", value=value)
    return "traces", export("traces", span)


@pytest.mark.parametrize(
    ("request_of", "place"),
    [
        *((_log_with, place) for place in ("body", "attribute", "scope", "resource")),
        *((_span_with, place) for place in ("event", "link")),
    ],
)
@pytest.mark.parametrize("value", [_LIST, _MAP], ids=["list", "map"])
def test_what_is_inside_of_lists_and_maps_is_counted_before_it_is_decoded(monkeypatch, request_of, place, value):
    signal, found = request_of(**{place: value})
    request = ExportRequest(signal=Signal(signal), body=found.SerializeToString())

    def read():
        origins = OriginCache()
        return map_request(request.signal, decode_request(request), origins=origins, now_ns=NOON, is_trusted=False)

    whole = read()
    monkeypatch.setattr(decode, "_MAX_VALUES", 2)

    assert whole.stored
    with pytest.raises(UsageError, match="have more than 2 values"):
        read()


@pytest.mark.parametrize("shared", [1, 2], ids=["resource", "scope"])
def test_a_resource_or_scope_of_many_attributes_is_refused_before_it_is_read(server, shared):
    large = _field(1, b"\x1a\x00" * TINY)
    body = _field(1, large if shared == 1 else _field(2, large))

    answer = server.post("logs", body)

    assert (answer.status_code, status_of(answer).code) == (400, _INVALID)


@pytest.mark.parametrize("case", BAD)
def test_a_request_that_cannot_be_read_is_refused_as_a_whole(server, case):
    body, changes, status, code = BAD[case]
    before = server.lake.files()

    answer = server.post("logs", body, **changes)

    assert (answer.status_code, status_of(answer).code) == (status, code), answer.content
    assert answer.headers["Content-Type"] == "application/x-protobuf"
    assert "Retry-After" not in answer.headers
    assert status_of(answer).message
    assert server.lake.files() == before


def _json(record):
    return '{"resourceLogs": [{"scopeLogs": [{"logRecords": [' + record + "]}]}]}"


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "3", "{", '{"resourceLogs": 3}', '{"resourceLogs": NaN}', '{"resourceLogs": [], "resourceLogs": []}',
        "[" * 200 + "]" * 200, _json('{"timeUnixNano": "-1"}'), _json('{"timeUnixNano": "184467440737095516160"}'),
        _json('{"traceId": "xy"}'), _json('{"severityText": "\\ud800"}'),
    ],
    ids=lambda text: text[:12] + text[-30:],
)  # fmt: skip
def test_json_that_cannot_be_read_is_refused_in_json(server, text):
    before = server.lake.files()

    answer = server.post("logs", text, kind=JSON)

    assert (answer.status_code, answer.headers["Content-Type"], answer.json()["code"]) == (400, JSON, _INVALID)
    assert "Traceback" not in answer.text
    assert server.lake.files() == before


@pytest.mark.parametrize(
    ("token", "status", "code"), [("bob", 403, _DENIED), ("service", 403, _DENIED), ("nobody", 401, _UNAUTHENTICATED)]
)
def test_who_may_not_send_is_told_so(server, token, status, code):
    answer = server.post("logs", _log("forbidden"), token=token)

    assert (answer.status_code, status_of(answer).code) == (status, code)
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)
    assert server.rows("SELECT 1 FROM log_entries WHERE exe = 'forbidden'") == []


def test_a_right_is_for_the_table_of_a_signal(server):
    access = WriteAccess(ingest=frozenset({"measures"}))
    server.lake.flight.validator.known["pipeline"] = replace(BOB, subject="pipeline", write_access=access)
    metric = Metric(name="allowed")
    metric.gauge.data_points.add(time_unix_nano=NOON, as_int=1)

    allowed = server.post("metrics", export("metrics", metric, service="by-role"), token="pipeline")
    refused = server.post("logs", _log("by-role"), token="pipeline")

    assert (allowed.status_code, refused.status_code) == (200, 403)
    assert [row["name"] for row in server.rows("SELECT name FROM measures WHERE exe = 'by-role'")] == ["allowed"]
    assert len(server.rows("SELECT 1 FROM processes WHERE exe = 'by-role'")) == 1


def test_an_outage_of_the_identity_provider_is_to_be_tried_again(server):
    answer = server.post("logs", _log("outage"), token="outage")

    assert (answer.status_code, status_of(answer).code, answer.headers["Retry-After"]) == (503, _UNAVAILABLE, "2")


@pytest.mark.parametrize("signal", ANSWERS)
@pytest.mark.parametrize("kind", ["application/x-protobuf", JSON])
def test_an_empty_export_is_accepted(server, signal, kind):
    before = server.lake.files()

    answers = [server.post(signal, b"{}" if kind == JSON else b"", kind=kind), server.post(signal, export(signal))]

    assert [(answer.status_code, answer.content) for answer in answers] == [
        (200, b"{}" if kind == JSON else b""), (200, b"")
    ]  # fmt: skip
    assert server.lake.files() == before


REFUSED = {
    "a far time": (LogRecord(time_unix_nano=2**64 - 1), "Its time is after the year 2262."),
    "10,000 attributes": (
        LogRecord(time_unix_nano=NOON, attributes=attributes({str(number): 1 for number in range(10_000)})),
        "It has 10,000 attributes; 1,000 are accepted.",
    ),
    "large attributes": (
        LogRecord(time_unix_nano=NOON, attributes=attributes({"k": "x" * (_MIB + 1)})),
        "Its attributes take more than 1,048,576 bytes.",
    ),
    "a large text": (LogRecord(time_unix_nano=NOON, body=any_value("x" * (_MIB + 1))), "Its text takes more than"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_record_over_a_limit_is_refused_alone(server, case):
    record, reason = REFUSED[case]
    service = f"alone-{case}"
    good = LogRecord(time_unix_nano=NOON, body=any_value("good"))

    answer = server.post("logs", export("logs", good, record, good, record, service=service))

    found = ANSWERS["logs"].FromString(answer.content).partial_success
    assert (answer.status_code, found.rejected_log_records) == (200, 2)
    assert found.error_message.startswith(f"2 refused. The first: Number 2, of the scope 'shop.lib': {reason}")
    assert [row["msg"] for row in server.rows(f"SELECT msg FROM log_entries WHERE exe = '{service}'")] == ["good"] * 2


def test_records_of_a_resource_over_a_limit_are_refused(server):
    resource = {f"k{number}": 1 for number in range(1000)}

    answer = server.post("logs", export("logs", LogRecord(time_unix_nano=NOON), service="large-resource", **resource))

    found = ANSWERS["logs"].FromString(answer.content).partial_success
    assert found.rejected_log_records == 1
    assert "Its resource has 1,001 attributes" in found.error_message
    assert server.rows("SELECT 1 FROM processes WHERE exe = 'large-resource'") == []


def test_spans_without_times_or_ids_are_refused(server):
    spans = [
        Span(name="no ids", start_time_unix_nano=NOON, end_time_unix_nano=NOON),
        Span(name="no end", start_time_unix_nano=NOON, trace_id=bytes(16), span_id=bytes(8)),
    ]

    answer = server.post("traces", export("traces", *spans, service="bad-spans"))

    found = ANSWERS["traces"].FromString(answer.content).partial_success
    assert (found.rejected_spans, found.error_message) == (
        2, "2 refused. The first: Number 1, of the scope 'shop.lib': Its ids are not 16 and 8 bytes."
    )  # fmt: skip
    assert server.rows("SELECT 1 FROM otel_spans WHERE exe = 'bad-spans'") == []


@pytest.mark.parametrize("scope", ["micromegas_jupyter", "flightsql_query_audit"])
def test_nobody_forges_what_the_server_records(server, scope):
    service = f"forged-{scope}"
    request = export("logs", LogRecord(time_unix_nano=NOON), service=service, scope=scope)
    request.MergeFrom(export("logs", LogRecord(time_unix_nano=NOON), service=service, scope="micromegas_jupyter_app"))

    answer = server.post("logs", request)
    trusted = server.post("logs", request, token="alice")

    found = ANSWERS["logs"].FromString(answer.content).partial_success
    assert found.rejected_log_records == 1
    assert "Its target is for what the server itself records." in found.error_message
    assert trusted.content == b""
    targets = server.rows(f"SELECT target FROM log_entries WHERE exe = '{service}' ORDER BY target")
    assert [row["target"] for row in targets] == sorted([scope, "micromegas_jupyter_app", "micromegas_jupyter_app"])


def test_values_that_json_does_not_have_are_kept(server):
    nan = Metric(name="nan")
    nan.gauge.data_points.add(time_unix_nano=NOON, as_double=float("-inf"), attributes=attributes({"x": float("nan")}))

    answer = server.post("metrics", export("metrics", nan, service="not-a-number"))

    assert (answer.status_code, answer.content) == (200, b"")
    (row,) = server.rows("SELECT value, properties FROM measures WHERE exe = 'not-a-number'")
    assert (str(row["value"]), str(properties(row)["x"])) == ("-inf", "nan")


def test_old_and_future_times_are_kept(server):
    records = [LogRecord(time_unix_nano=one) for one in (1, 2**63 - 1)]

    answer = server.post("logs", export("logs", *records, service="far"))

    assert (answer.status_code, answer.content) == (200, b"")
    years = server.rows("SELECT extract(year FROM time) AS year FROM log_entries WHERE exe = 'far' ORDER BY time")
    assert [row["year"] for row in years] == [1970, 2262]


def test_counts_are_in_the_metrics(server):
    before = [server.count(name, signal="logs") for name in ("records", "refused", "bytes")]
    body = export("logs", LogRecord(time_unix_nano=NOON), LogRecord(time_unix_nano=2**64 - 1), service="counted")

    server.post("logs", body)

    after = [server.count(name, signal="logs") for name in ("records", "refused", "bytes")]
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 1, body.ByteSize()]


def test_each_export_of_who_may_send_leaves_one_audit_line(server, caplog):
    caplog.set_level(logging.INFO, "micromegas_jupyter.audit")
    body = export("logs", LogRecord(time_unix_nano=NOON), LogRecord(time_unix_nano=2**64 - 1), service="audited")

    def lines():
        logged = [one.getMessage() for one in caplog.records if one.name == "micromegas_jupyter.audit"]
        return [line for line in map(json.loads, logged) if line.get("action") == "export"]

    answer = server.post("logs", body)
    wait_until(lambda: len(lines()) == 1, "the line of the first export")
    server.post("logs", b"\x0a\xff")
    wait_until(lambda: len(lines()) == 2, "the line of the one that failed")
    server.post("logs", body, token="bob")
    call = server.lake.flight.call(_METHOD, body.SerializeToString(), metadata=_COLLECTOR)
    wait_until(lambda: len(lines()) == 3, "the line of the one over gRPC")

    fields = ("signal", "user", "email", "rows", "refused", "received_bytes", "status", "error_class")
    assert [tuple(line.get(field) for field in fields) for line in lines()] == [
        ("logs", "collector", "service-account", 1, 1, body.ByteSize(), "ok", None),
        ("logs", "collector", "service-account", 0, 0, 2, "error", "user"),
        ("logs", "collector", "service-account", 1, 1, body.ByteSize(), "ok", None),
    ]
    assert answer.headers["x-micromegas-query-id"] == lines()[0]["query_id"]
    assert call.code is grpc.StatusCode.OK


def test_callers_who_only_announce_large_exports_leave_room_for_others_small_ones(server):
    runner = server.lake.flight.server.exports
    announced = [runner.admit(("id", name), 16 * _MIB) for name in ("ann", "ann", "ben")]
    with pytest.raises(ResourcesExhausted):
        runner.admit(("id", "ben"), 16 * _MIB)

    answer = server.post("logs", _log("small"))

    assert answer.status_code == 200
    for admission in announced:
        admission.close()
    assert runner._waiting.bytes == 0


def test_too_much_at_once_is_to_be_sent_again(server, monkeypatch):
    monkeypatch.setattr(exports, "MAX_WAITING_BYTES_PER_CALLER", 10)

    answer = server.post("logs", _log("too-much"))
    call = server.lake.flight.call(_METHOD, _log("too-much").SerializeToString(), metadata=_COLLECTOR)

    assert (answer.status_code, status_of(answer).code, answer.headers["Retry-After"]) == (429, _EXHAUSTED, "1")
    assert (call.code, type(call.error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, ResourcesExhausted)
    details = messages.Status.FromString(call.trailing["grpc-status-details-bin"]).details
    info = messages.RetryInfo.FromString(details[0].value)
    assert (details[0].type_url, info.retry_delay.seconds) == ("type.googleapis.com/google.rpc.RetryInfo", 1)
    assert messages.RetryInfo.FromString(call.trailing["google.rpc.retryinfo-bin"]) == info
    assert call.trailing["grpc-retry-pushback-ms"] == "1000"


def test_a_body_of_unknown_length_is_read_and_bounded(server):
    body = _log("chunked").SerializeToString()
    headers = {"Authorization": "Bearer collector", "Content-Type": "application/x-protobuf"}

    def post(chunks):
        return requests.post(f"{server.url}/v1/logs", data=iter(chunks), headers=headers, timeout=60)

    whole, large = post([body[:7], body[7:]]), post([bytes(_MIB)] * 21)

    assert (whole.status_code, large.status_code, status_of(large).code) == (200, 413, _EXHAUSTED)
    assert [row["msg"] for row in server.rows("SELECT msg FROM log_entries WHERE exe = 'chunked'")] == ["kept"]


def test_a_client_that_leaves_takes_no_place_for_ever(server):
    body = _log("left").SerializeToString()
    head = f"""POST /v1/logs HTTP/1.1
Host: localhost
Authorization: Bearer collector
Content-Type: application/x-protobuf
Content-Length: {len(body)}

""".replace("\n", "\r\n")
    waiting = server.lake.flight.server.exports._waiting
    address = server.url.removeprefix("http://").split(":")
    with socket.create_connection(address) as connection:
        connection.sendall(head.encode() + body[:5])
        wait_until(lambda: waiting.count, "the export is known")
    wait_until(lambda: not waiting.count, "its place is free")
    with socket.create_connection(address) as connection:
        connection.sendall(head.encode() + body)

    wait_until(lambda: server.rows("SELECT 1 FROM log_entries WHERE exe = 'left'"), "what was sent is stored")
    wait_until(lambda: not (waiting.count or waiting.bytes or waiting.bytes_of), "nothing waits")


def test_grpc_has_the_same_answers(server):
    def call(body, token="collector"):
        return server.lake.flight.call(_METHOD, body, metadata=(("authorization", f"Bearer {token}"),))

    good = call(_log("by-grpc").SerializeToString())
    refused = call(export("logs", LogRecord(time_unix_nano=2**64 - 1), service="by-grpc").SerializeToString())
    bad, forbidden, unknown = call(b"\x0a\xff"), call(b"", "bob"), call(b"", "nobody")

    assert (good.code, good.replies) == (grpc.StatusCode.OK, [b""])
    assert ANSWERS["logs"].FromString(refused.replies[0]).partial_success.rejected_log_records == 1
    codes = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)
    assert (bad.code, forbidden.code, unknown.code) == codes
    assert "grpc-status-details-bin" not in bad.trailing
    assert len(server.rows("SELECT 1 FROM log_entries WHERE exe = 'by-grpc'")) == 1


def test_a_bomb_over_grpc_is_refused(server):
    channel = grpc.insecure_channel(
        server.lake.uri.removeprefix("grpc://"), compression=grpc.Compression.Gzip,
        options=[("grpc.max_send_message_length", -1)],
    )  # fmt: skip
    with channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(_METHOD)(bytes(100 * _MIB), metadata=_COLLECTOR, timeout=60)

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
