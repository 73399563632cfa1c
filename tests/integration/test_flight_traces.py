"""A server's own traces, sent to a real receiver of OTLP over HTTP: spans of calls and phases, and nothing secret."""

import subprocess
import sys
from types import SimpleNamespace

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.server.flight_server import ServerThread
from micromegas_jupyter.server.monitoring import open_tracing
from micromegas_jupyter.server.settings import FlightServerSettings
from tests.fakes.loopback_http import LoopbackServer, Reply
from tests.fakes.servers import NUMBERS, build_pool
from tests.fakes.validator import FakeValidator
from tests.integration.flight_harness import ALICE, HEALTH, FlightHarness

pytestmark = pytest.mark.integration

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
CHOSEN_TRACE_ID = "1" * 32
CHOSEN_TRACEPARENT = ("traceparent", f"00-{CHOSEN_TRACE_ID}-{PARENT_ID}-01")
TRACEPARENT = ("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01")


def _resources(received):
    return [each for seen in received for each in ExportTraceServiceRequest.FromString(seen.body).resource_spans]


def _spans(received):
    return [span for each in _resources(received) for scope in each.scope_spans for span in scope.spans]


@pytest.fixture(scope="module")
def received():
    """What a server sent that answered a query, refused two calls and told its health."""
    seen = []
    http = LoopbackServer(SimpleNamespace(now=SYSTEM_CLOCK.now, handle=lambda one: seen.append(one) or Reply(text="")))
    http.start()
    endpoint = http.base
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
        flight.query(NUMBERS, metadata=())
    server.stop(grace_seconds=0)
    tracing.close()
    tracing.close()
    yield seen
    http.stop()


def _attributes(span):
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def _calls(received):
    return [span for span in _spans(received) if span.name.startswith("arrow.flight")]


def test_each_call_is_one_span_with_method_status_and_query(received):
    calls = _calls(received)
    ended = sorted(_attributes(call)["rpc.grpc.status_code"] for call in calls)
    services = {_attributes(found.resource)["service.name"] for found in _resources(received)}

    assert ({seen.path for seen in received}, services) == ({"/v1/traces"}, {"micromegas"})
    assert CHOSEN_TRACE_ID not in {span.trace_id.hex() for span in _spans(received)}  # of a caller who is refused

    assert {call.name for call in calls} == {"arrow.flight.protocol.FlightService/DoGet"}
    assert ended == [0, 3, 3]
    for call in calls:
        found = _attributes(call)
        assert (found["rpc.system"], found["rpc.method"]) == ("grpc", "DoGet")
        assert found["micromegas.query_id"]


def test_a_call_goes_on_with_the_trace_of_its_caller_and_has_a_child_for_each_phase(received):
    (call,) = [call for call in _calls(received) if call.trace_id.hex() == TRACE_ID]
    children = [span.name for span in _spans(received) if span.parent_span_id == call.span_id]

    assert call.parent_span_id.hex() == PARENT_ID
    assert children == ["wait", "run"]


def test_no_statement_credential_or_error_text_is_in_a_trace(received):
    sent = b"".join(seen.body for seen in received)

    for secret in (b"VALUES", b"secretword", b"tagret", b"alice", b"mallory", b"Traceback", b"exception"):
        assert secret not in sent


OFF = (
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
    with tracing.call("/arrow.flight.protocol.FlightService/DoGet", "q", None) as span, phase("plan"):
        span.set_status("INTERNAL", "INT001")
    tracing.close()
assert not [name for name in sys.modules if name.startswith("opentelemetry.sdk")]
"""


def test_without_the_setting_nothing_is_traced_and_nothing_loaded():
    child = subprocess.run([sys.executable, "-c", CALLS_WHILE_OFF], capture_output=True, timeout=100, check=False)

    assert child.returncode == 0, child.stderr
