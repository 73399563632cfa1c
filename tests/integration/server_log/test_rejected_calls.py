"""While audit lines cannot be written, every call that would leave one is rejected before it does anything."""

import threading

import grpc
import pytest
import requests

from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.core import log_writer
from micromegas_jupyter.core.log_writer import LogWriter
from micromegas_jupyter.flightsql.commands import messages, pack_any, statement_ticket
from micromegas_jupyter.server.http.pages import PATHS
from micromegas_jupyter.wiring.server import ServerStack
from tests.fakes.waiting import DEADLINE_SECONDS
from tests.integration.executors.callers import FLIGHT

pytestmark = pytest.mark.integration


class Stalled:
    """A destination that accepts nothing until the test ends."""

    name, is_durable = "log", False

    def __init__(self):
        self.has_ended = threading.Event()

    def write(self, lines):
        self.has_ended.wait()
        return len(lines)


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(log_writer, "STALL_SECONDS", 0.0)
    destination = Stalled()
    writer = LogWriter(destination)
    writer.put(lambda: "a line", 1)
    settings = ServerSettings(lake=str(tmp_path / "lake"), port=0, disable_auth=True, no_telemetry=True)
    with ServerStack(settings, environ={}, log_writers=(writer,)) as running:
        yield running
    destination.has_ended.set()


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.uri.removeprefix("grpc://")) as opened:
        yield opened


def rejection(channel, method, *requests):
    with pytest.raises(grpc.RpcError) as caught:
        list(channel.stream_stream(method)(iter(requests), timeout=DEADLINE_SECONDS))
    return caught.value.code(), caught.value.details()


def test_calls_that_would_leave_an_audit_line_are_rejected_and_others_work(server, channel, tmp_path):
    query = statement_ticket("SELECT 1")
    command = pack_any(messages.CommandStatementQuery(query="SELECT 1"))
    action = messages.Action(type="MicromegasTables", body=b'{"operation":"create","table":"new","schema":""}')
    calls = {
        "DoGet": messages.Ticket(ticket=query),
        "GetFlightInfo": messages.FlightDescriptor(type=messages.FlightDescriptor.CMD, cmd=command),
        "DoAction": action,
    }

    for method, request in calls.items():
        code, details = rejection(channel, f"{FLIGHT}{method}", request.SerializeToString())
        assert (method, code) == (method, grpc.StatusCode.UNAVAILABLE)
        assert "can't write this call to its audit log: the log hasn't accepted data" in details

    for path, signal in PATHS.items():
        answer = requests.post(
            f"{server.http_url}{path}", b"", headers={"Content-Type": "application/x-protobuf"}, timeout=60
        )
        assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
        assert rejection(channel, signal.method, b"")[0] is grpc.StatusCode.UNAVAILABLE

    assert requests.get(f"{server.http_url}/ready", timeout=60).json()["reason"] == "log"
    assert not (tmp_path / "lake" / "new").exists()

    # Who calls, and what runs, can still be asked.
    who = messages.Action(type="MicromegasWhoAmI").SerializeToString()
    running = messages.Action(type="MicromegasQueries", body=b'{"operation":"list"}').SerializeToString()
    for request in (who, running):
        assert list(channel.stream_stream(f"{FLIGHT}DoAction")(iter([request]), timeout=DEADLINE_SECONDS))
