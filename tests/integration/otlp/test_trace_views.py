"""What the views of traces fetch from a real server."""

import numpy as np
import pyarrow as pa
import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from micromegas_jupyter.client.flames import TraceSet, fetch_flame
from micromegas_jupyter.notebook.trace_view import TraceView
from micromegas_jupyter.testing import local_server
from tests.fakes.telemetry_rows import span_rows
from tests.integration.otlp.exporting import NOON, any_value, attributes, export

pytestmark = pytest.mark.integration

TRACE, LINKED = bytes(range(16)), bytes(range(1, 17))
PARENT, CHILD = b"parent-1", b"child--1"


def span(span_id, name, start, duration, **more):
    times = {"start_time_unix_nano": NOON + start, "end_time_unix_nano": NOON + start + duration}
    return Span(trace_id=TRACE, span_id=span_id, name=name, **times, **more)


@pytest.fixture(scope="module")
def client(server):
    failed = Span.Event(name="failed", time_unix_nano=NOON + 17, attributes=attributes({"reason": "no funds"}))
    child = span(
        CHILD, "charge 7", 11, 100, parent_span_id=PARENT, events=[failed],
        attributes=attributes({"card": "VISA", "n": 3}), links=[Span.Link(trace_id=LINKED, span_id=CHILD)],
    )  # fmt: skip
    child.status.code = 2
    child.status.message = "declined"
    server.post("traces", export("traces", span(PARENT, "order", 0, 1_003), child))
    said = LogRecord(
        time_unix_nano=NOON + 20_000, severity_number=17, body=any_value("no funds"), trace_id=TRACE, span_id=CHILD
    )
    server.post("logs", export("logs", said))
    with server.lake.client("alice") as client:
        yield client


def test_a_span_has_its_attributes_events_links_and_logs_to_the_nanosecond(client):
    trace = client.trace(TRACE.hex())
    details, _ = TraceView(trace).reply({"op": "details", "span": 1})

    assert trace.spans["self_time"].to_pylist() == [903, 100]
    sections = dict(details["sections"])
    assert sections["Attributes"][0]["pairs"][:2] == [("card", "VISA"), ("n", "3")]
    assert sections["Events"] == [{"text": "+6 ns failed", "pairs": [("reason", "no funds")]}]
    assert sections["Links"] == [{"trace_id": LINKED.hex()}]
    assert sections["Logs"] == [{"text": "+19.99 µs ERROR no funds", "is_severe": True}]
    facts = dict(sections[""][0]["pairs"])
    assert (facts["status"], facts["duration"]) == ("ERROR: declined", "100 ns")
    assert facts["start"].endswith("12:00:00.000000011Z")


@pytest.mark.parametrize(
    ("text", "found"), [("visa", [1]), ("DECLINED", [1]), ("Order", [0]), ("' OR 1=1 --", []), ("%", [])]
)
def test_names_attributes_and_messages_are_searched(client, text, found):
    assert client.trace(TRACE.hex()).find(text) == found


def test_the_traces_of_a_service_are_merged_and_chosen_by_a_condition(client):
    def query(sql, values):
        return client.query_arrow(sql, params=values)

    flame = fetch_flame(TraceSet("shop", query, "status = 'ERROR' -- failed"), TraceSet("shop", query))

    assert flame.paths["name"].to_pylist() == ["order", "charge <*>"]
    assert flame.paths["total"].to_pylist() == flame.paths["total_before"].to_pylist() == [1_003, 100]


def test_a_parent_that_a_role_hides_is_missing_and_has_no_name():
    with local_server(roles={"guest": {"tables": {"otel_spans": "name <> 'secret'"}}}) as server:
        server.ingest("otel_spans", pa.Table.from_batches([span_rows("root", "secret", "child")]))
        with server.client("bob", roles=["guest"]) as client:
            (trace_id,) = {
                each.hex() for each in client.query_arrow("SELECT trace_id FROM otel_spans")["trace_id"].to_pylist()
            }
            trace = client.trace(trace_id)
    answer, buffers = TraceView(trace).reply({"op": "spans"})

    assert "secret" not in f"{answer}{trace}{trace.to_html()}"
    assert [answer["names"][each] for each in np.frombuffer(buffers[5], "u4")] == ["root", "child"]
    assert np.frombuffer(buffers[7], "u1").tolist() == [2, 4]
    assert "child (parent missing)" in str(trace)
