"""Clients that die, stall, flood or send too much cost the others nothing."""

from __future__ import annotations

import json
import logging
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import psutil
import pytest

from micromegas_jupyter.errors import ConfigurationError, DeadlineExceeded, ServerUnavailable
from micromegas_jupyter.flightsql.commands import messages, statement_ticket
from micromegas_jupyter.server.flight_server import ServerThread
from micromegas_jupyter.server.settings import FlightServerSettings
from tests.fakes.servers import build_pool
from tests.integration.flight_harness import (
    ALICE,
    BOB,
    ENDLESS,
    FLIGHT,
    HEALTH,
    LARGE,
    NUMBERS,
    WAITING,
    decode_rows,
    running_server,
    ticket_bytes,
)

pytestmark = pytest.mark.integration

ENDLESS_READER = """
import sys
from pyarrow import flight
from micromegas_jupyter.flightsql.commands import statement_ticket
options = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer alice")])
client = flight.connect(sys.argv[1])
for chunk in client.do_get(flight.Ticket(statement_ticket(sys.argv[2])), options):
    print("reading", flush=True)
"""


def _health(flight):
    # As a real probe does, and unlike the harness, it sends its message with the call.
    reply = flight.channel.unary_unary(HEALTH)(messages.HealthCheckRequest().SerializeToString(), timeout=60)
    return messages.HealthCheckResponse.FromString(reply).status


class LineCatcher(logging.Handler):
    """Keeps audit lines and tells when the first has come."""

    def __init__(self):
        super().__init__()
        self.lines: list[str] = []
        self.has_line = threading.Event()

    def emit(self, record):
        self.lines.append(record.getMessage())
        self.has_line.set()


@pytest.fixture
def audit(monkeypatch):
    catcher = LineCatcher()
    logger = logging.getLogger("micromegas_jupyter.audit")
    monkeypatch.setattr(logger, "handlers", [catcher])
    logger.setLevel(logging.INFO)
    return catcher


@pytest.mark.parametrize("sql", [ENDLESS, WAITING], ids=["sends", "computes"])
def test_killing_a_client_ends_its_statement(sql, audit):
    with running_server() as flight:
        client = subprocess.Popen([sys.executable, "-c", ENDLESS_READER, flight.uri, sql], stdout=subprocess.PIPE)
        assert client.stdout is not None
        with client.stdout:
            assert client.stdout.readline() == b"reading\n"
            client.send_signal(signal.SIGKILL)

            flight.wait_until_quiet()

        client.wait(60)
        assert audit.has_line.wait(30)
        assert [json.loads(line)["status"] for line in audit.lines] == ["incomplete"]


def test_a_callers_deadline_ends_their_statement():
    with running_server() as flight:
        call = flight.read(WAITING, timeout=1.0)

        with pytest.raises(grpc.RpcError) as caught:
            list(call)

        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        flight.wait_until_quiet()


def test_clients_that_stall_do_not_hold_up_others():
    with running_server() as flight:
        stalled = [flight.read(ENDLESS) for _ in range(6)]
        for call in stalled:
            next(call)

        with grpc.insecure_channel(f"127.0.0.1:{flight.server.port}") as channel:
            reply = channel.unary_stream(FLIGHT + "DoGet")(
                ticket_bytes(statement_ticket(NUMBERS)), metadata=BOB, timeout=60
            )
            assert len(list(reply)) == 2

        for call in stalled:
            call.cancel()


def test_a_client_that_stalls_for_too_long_loses_its_query(audit):
    with running_server(pool={"write_timeout_seconds": 0.2}) as flight:
        call = flight.read(ENDLESS)

        assert audit.has_line.wait(30)
        flight.wait_until_quiet()

        assert json.loads(audit.lines[0])["error"].startswith("The client did not read the result in time.")
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert DeadlineExceeded.code in (caught.value.details() or "")


def test_an_oversized_message_is_refused_and_the_server_lives():
    with running_server(max_receive_bytes=100_000) as flight:
        answer = flight.call(FLIGHT + "DoGet", ticket_bytes(statement_ticket("x" * 200_000)))

        assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert flight.query(NUMBERS).code is grpc.StatusCode.OK


def test_a_long_token_fits_and_a_longer_one_is_refused():
    with running_server() as flight:
        flight.validator.cached["g" * 48_000] = flight.validator.validate_token("alice")

        fits = flight.query(NUMBERS, metadata=(("authorization", "Bearer " + "g" * 48_000),))
        too_long = flight.query(NUMBERS, metadata=(("authorization", "Bearer " + "g" * 200_000),))

        assert fits.code is grpc.StatusCode.OK
        assert too_long.code is not grpc.StatusCode.OK
        assert flight.query(NUMBERS).code is grpc.StatusCode.OK


def test_garbage_on_the_port_and_half_open_connections_cost_others_nothing():
    with running_server() as flight:
        sockets = [socket.create_connection(("127.0.0.1", flight.server.port), timeout=30) for _ in range(100)]
        for number, connection in enumerate(sockets):
            if number % 2:
                connection.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)

        assert flight.query(NUMBERS).code is grpc.StatusCode.OK

        for connection in sockets:
            connection.close()


def test_many_callers_are_served_at_once():
    with running_server() as flight, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: flight.query(NUMBERS, metadata=(ALICE, BOB)[number % 2]), range(200)))

    assert {answer.code for answer in answers} == {grpc.StatusCode.OK}


def test_stopping_lets_a_running_query_end():
    with running_server() as flight:
        call = flight.read(LARGE)
        first = next(call)
        stopping = threading.Thread(target=flight.server.stop, args=(60,))
        stopping.start()

        rest = list(call)

        stopping.join(60)
        assert not stopping.is_alive()
        assert decode_rows([first, *rest]).num_rows == 1_000_000


def test_stopping_cancels_what_does_not_end():
    with running_server() as flight:
        call = flight.read(WAITING)
        next(call)

        flight.server.stop(grace_seconds=0.1)

        assert not flight.pool.running
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert ServerUnavailable.code in (caught.value.details() or "")


def test_clients_that_ask_for_the_health_and_send_nothing_keep_no_probe_waiting_and_are_soon_gone(
    flight,
):
    silent = threading.Event()

    def send_nothing():
        silent.wait(60)
        yield from ()

    begun = [flight.channel.stream_stream(HEALTH)(send_nothing(), timeout=60) for _ in range(120)]
    # On the same connection these come after all of them.
    meanwhile = [_health(flight) for _ in range(20)]
    codes = {call.code() for call in begun}  # waits for each
    silent.set()

    assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}
    assert meanwhile == [messages.HealthCheckResponse.SERVING] * 20


def test_a_stopping_server_refuses_new_calls_and_says_so_to_health_checks():
    with running_server() as flight:
        running = flight.read(WAITING)
        next(running)
        stopping = threading.Thread(target=flight.server.stop, args=(60,))
        stopping.start()

        status = _health(flight)
        while status == messages.HealthCheckResponse.SERVING:
            status = _health(flight)
        refused = flight.query(NUMBERS)
        running.cancel()
        stopping.join(60)

        assert status == messages.HealthCheckResponse.NOT_SERVING
        assert refused.code is grpc.StatusCode.UNAVAILABLE
        assert type(refused.error) is ServerUnavailable
        assert not stopping.is_alive()


def test_a_taken_port_is_a_configuration_error():
    with running_server() as flight:
        second = ServerThread(pool=build_pool(), validator=None, settings=FlightServerSettings(port=flight.server.port))

        with pytest.raises(ConfigurationError) as caught:
            second.start()
        second.stop()

    assert caught.value.key == "port"


def test_two_servers_share_a_port_on_request():
    with running_server(is_port_reserved=True) as first:
        second = ServerThread(
            pool=build_pool(),
            validator=None,
            settings=FlightServerSettings(port=first.server.port, is_port_reserved=True),
        )
        second.start()

        assert second.port == first.server.port
        second.stop()


def test_a_server_that_was_never_started_leaves_no_process():
    pool = build_pool(lasts=False)
    children = psutil.Process().children()
    server = ServerThread(pool=pool, validator=None, settings=FlightServerSettings(port=0))

    server.stop()
    server.stop()

    (zygote,) = [child for child in children if not child.is_running()]
    assert not zygote.is_running()
