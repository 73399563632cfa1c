"""`micromegas serve --take-over` beside a running server."""

import http.client
import threading

import pytest
from pyarrow import flight

from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.flightsql.commands import messages, pack_any
from micromegas_jupyter.wiring.take_over import is_take_over_supported
from tests.integration.executors.server_process import wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not is_take_over_supported(), reason="sockets are handed over on Linux"),
]


def _ports(server):
    """Return the options for another server at the same ports."""
    return ["--port", server.uri.rpartition(":")[2], "--http-port", server.ready["http"].rpartition(":")[2]]


def _answers(server):
    with FlightSQLClient(server.uri) as client:
        return client.query("SELECT 1 AS n").n.tolist() == [1]


def test_ports_and_tickets_go_over_and_the_server_is_ready_all_the_while(start):
    running = start()
    ports = _ports(running)
    statuses = []
    stop = threading.Event()

    def ask():
        while not stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", int(ports[3]), timeout=60)
            connection.request("GET", "/ready")
            statuses.append(connection.getresponse().status)
            connection.close()

    with flight.connect(running.uri) as client:
        command = pack_any(messages.CommandStatementQuery(query="SELECT 7 AS n"))
        ticket = client.get_flight_info(flight.FlightDescriptor.for_command(command)).endpoints[0].ticket
        asking = threading.Thread(target=ask)
        asking.start()
        successor = start(*ports, "--take-over")
        assert successor.uri == running.uri
        code = running.wait()
        stop.set()
        asking.join()
        rows = client.do_get(ticket).read_all()

    assert code == 0
    assert set(statuses) == {200}
    assert rows.to_pydict() == {"n": [7]}


def test_without_the_option_the_port_is_taken(start):
    running = start()
    ports = _ports(running)

    refused = start(*ports[:2])

    assert refused.wait() == 2
    assert "the port is taken" in refused.log()
    assert "--take-over" in refused.log()
    assert _answers(running)
    running.kill_front()
    assert start(*ports, "--take-over").uri == running.uri


def test_a_successor_that_is_killed_while_it_starts_changes_nothing(start):
    running = start()
    ports = _ports(running)
    successor = start(*ports, "--take-over")
    wait_until(lambda: "takes this server's sockets over" in running.log(), "it begins")

    successor.kill_front()

    wait_until(lambda: "did not serve; this one continues" in running.log(), "it has failed")
    assert _answers(running)
    assert start(*ports, "--take-over").uri == running.uri
    assert running.wait() == 0


def test_a_free_port_cannot_be_taken_over(start):
    refused = start("--take-over")

    assert refused.wait() == 2
    assert "--take-over" in refused.log()
