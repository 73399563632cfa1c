"""A server's own traces, sent to a real receiver of OTLP over HTTP: spans of calls and phases, and nothing secret."""

from __future__ import annotations

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from micromegas_jupyter.flightsql.commands import statement_ticket
from micromegas_jupyter.server.flight_server import ServerThread
from micromegas_jupyter.server.monitoring import open_tracing
from micromegas_jupyter.server.settings import FlightServerSettings
from tests.fakes.servers import NUMBERS, build_pool
from tests.fakes.validator import FakeValidator
from tests.integration.flight_harness import ALICE, FLIGHT, HEALTH, FlightHarness, ticket_bytes

pytestmark = pytest.mark.integration

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
CHOSEN_TRACE_ID = "1" * 32
CHOSEN_TRACEPARENT = ("traceparent", f"00-{CHOSEN_TRACE_ID}-{PARENT_ID}-01")
TRACEPARENT = ("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01")


class Receiver(ThreadingHTTPServer):
    """Takes traces and keeps them."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.paths: list[str] = []
        self.bodies: list[bytes] = []

    @property
    def resources(self):
        return [each for body in self.bodies for each in ExportTraceServiceRequest.FromString(body).resource_spans]

    @property
    def spans(self):
        return [span for each in self.resources for scope in each.scope_spans for span in scope.spans]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self):
        self.server.paths.append(self.path)
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_parts):
        """Write nothing."""


@pytest.fixture(scope="module")
def received():
    """What a server sent that answered a query, refused two calls and told its health."""
    receiver = Receiver()
    threading.Thread(target=receiver.serve_forever, args=(0.05,), daemon=True).start()
    endpoint = f"http://127.0.0.1:{receiver.server_address[1]}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        tracing = open_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})
    pool, validator = build_pool(), FakeValidator()
    server = ServerThread(pool=pool, validator=validator, settings=FlightServerSettings(port=0), tracing=tracing)
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        flight = FlightHarness(server, pool, validator, channel)
        assert flight.query(NUMBERS, metadata=(*ALICE, TRACEPARENT)).code is grpc.StatusCode.OK
        flight.query("SELECT secretword")
        flight.query(NUMBERS, metadata=(("authorization", "Bearer mallory"), CHOSEN_TRACEPARENT))
        flight.query("SELECT tagret", metadata=(*ALICE, ("traceparent", "no such thing")))
        flight.call(HEALTH, b"", metadata=())
        flight.call(FLIGHT + "DoGet", ticket_bytes(statement_ticket(NUMBERS)), metadata=())
    server.stop(grace_seconds=0)
    tracing.close()
    tracing.close()
    yield receiver
    receiver.shutdown()
    receiver.server_close()


def _attributes(span):
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def _calls(receiver):
    return [span for span in receiver.spans if span.name.startswith("arrow.flight")]


def test_spans_go_to_the_path_of_the_protocol_and_name_the_service(received):
    names = {
        each.value.string_value
        for found in received.resources
        for each in found.resource.attributes
        if each.key == "service.name"
    }

    assert set(received.paths) == {"/v1/traces"}
    assert names == {"micromegas"}


def test_each_call_is_one_span_with_method_status_and_query(received):
    calls = _calls(received)
    ended = sorted(_attributes(call)["rpc.grpc.status_code"] for call in calls)

    assert {call.name for call in calls} == {"arrow.flight.protocol.FlightService/DoGet"}
    assert ended == [0, 3, 3]
    for call in calls:
        found = _attributes(call)
        assert (found["rpc.system"], found["rpc.method"]) == ("grpc", "DoGet")
        assert found["micromegas.query_id"]


def test_a_caller_who_is_refused_makes_no_span(received):
    assert CHOSEN_TRACE_ID not in {span.trace_id.hex() for span in received.spans}


def test_a_call_goes_on_with_the_trace_of_its_caller_and_has_a_child_for_each_phase(received):
    (call,) = [call for call in _calls(received) if call.trace_id.hex() == TRACE_ID]
    children = [span.name for span in received.spans if span.parent_span_id == call.span_id]

    assert call.parent_span_id.hex() == PARENT_ID
    assert children == ["wait", "run"]


def test_no_statement_credential_or_error_text_is_in_a_trace(received):
    sent = b"".join(received.bodies)

    for secret in (b"VALUES", b"secretword", b"tagret", b"alice", b"mallory", b"Traceback", b"exception"):
        assert secret not in sent


OFF: tuple[dict[str, str], ...] = (
    {},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
)
CALLS_WHILE_OFF = f"""
import sys
from micromegas_jupyter.server.monitoring import open_tracing, phase
for variables in {OFF!r}:
    tracing = open_tracing(variables)
    with tracing.call("/arrow.flight.protocol.FlightService/DoGet", "q", ()) as span, phase("plan"):
        span.note_end("INTERNAL", "INT001")
    tracing.close()
assert not [name for name in sys.modules if name.startswith("opentelemetry.sdk")]
"""


def test_without_the_setting_nothing_is_traced_and_nothing_loaded():
    child = subprocess.run([sys.executable, "-c", CALLS_WHILE_OFF], capture_output=True, timeout=100, check=False)

    assert child.returncode == 0, child.stderr
