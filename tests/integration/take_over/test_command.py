"""`micromegas serve --take-over` beside a running server."""

import http.client
import threading

import pytest
from pyarrow import flight

from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.flightsql.commands import messages, pack_any
from micromegas_jupyter.wiring.take_over import is_take_over_supported
from tests.integration.take_over.conftest import END_SECONDS

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not is_take_over_supported(), reason="sockets are handed over on Linux"),
]


def _ports(server):
    """Return the server's address, and the options for another one at the same ports."""
    ready = server.ready()
    uri = str(ready["uri"])
    return uri, ["--port", uri.rpartition(":")[2], "--http-port", str(ready["http"]).rpartition(":")[2]]


def test_ports_and_tickets_go_over_and_the_server_is_ready_all_the_while(servers):
    running = servers.start("--port", "0")
    uri, ports = _ports(running)
    statuses = []
    stop = threading.Event()

    def ask():
        while not stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", int(ports[3]), timeout=END_SECONDS)
            connection.request("GET", "/ready")
            statuses.append(connection.getresponse().status)
            connection.close()

    with flight.connect(uri) as client:
        command = pack_any(messages.CommandStatementQuery(query="SELECT 7 AS n"))
        ticket = client.get_flight_info(flight.FlightDescriptor.for_command(command)).endpoints[0].ticket
        asking = threading.Thread(target=ask)
        asking.start()
        successor = servers.start(*ports, "--take-over")
        ready = successor.ready()
        code = running.process.wait(END_SECONDS)
        stop.set()
        asking.join()
        rows = client.do_get(ticket).read_all()

    assert ready["uri"] == uri
    assert code == 0
    assert set(statuses) == {200}
    assert rows.to_pydict() == {"n": [7]}


def test_without_the_option_the_port_is_taken(servers):
    uri, ports = _ports(servers.start("--port", "0"))

    refused = servers.start(*ports[:2], keeps_log=True)

    assert "the port is taken" in "".join(refused.log())
    assert refused.process.wait(END_SECONDS) == 2
    with FlightSQLClient(uri) as client:
        assert client.query("SELECT 1 AS n").n.tolist() == [1]


def test_with_the_option_and_no_server_it_starts(servers):
    first = servers.start("--port", "0")
    uri, ports = _ports(first)
    first.process.kill()
    first.process.wait()

    assert servers.start(*ports, "--take-over").ready()["uri"] == uri


def test_a_successor_that_is_killed_while_it_starts_changes_nothing(servers):
    running = servers.start("--port", "0", keeps_log=True)
    uri, ports = _ports(running)
    log = running.log()
    successor = servers.start(*ports, "--take-over")
    assert any("takes this server's sockets over" in line for line in log)

    successor.process.kill()

    assert any("did not serve; this one continues" in line for line in log)
    with FlightSQLClient(uri) as client:
        assert client.query("SELECT 1 AS n").n.tolist() == [1]
    assert servers.start(*ports, "--take-over").ready()["uri"] == uri
    assert running.process.wait(END_SECONDS) == 0


def test_a_free_port_cannot_be_taken_over(servers):
    refused = servers.start("--port", "0", "--take-over", keeps_log=True)

    assert "--take-over" in "".join(refused.log())
    assert refused.process.wait(END_SECONDS) == 2
