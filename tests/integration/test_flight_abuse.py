"""Clients that die, stall, flood or send too much cost the others nothing."""

import json
import logging
import socket
import threading

import grpc
import pytest

from micromegas_jupyter.errors import ConfigurationError, DeadlineExceeded, ServerUnavailable
from micromegas_jupyter.flightsql.commands import messages
from tests.fakes.servers import open_server
from tests.fakes.waiting import wait_until
from tests.integration.flight_harness import ENDLESS, HEALTH, NUMBERS, WAITING, running_server

pytestmark = pytest.mark.integration


def _health(flight):
    # As a real probe does, and unlike the harness, it sends its message with the call.
    reply = flight.channel.unary_unary(HEALTH)(messages.HealthCheckRequest().SerializeToString(), timeout=60)
    return messages.HealthCheckResponse.FromString(reply).status


def test_a_client_that_stalls_for_too_long_loses_its_query(caplog):
    caplog.set_level(logging.INFO, logger="micromegas_jupyter.audit")
    with running_server(pool={"write_timeout_seconds": 0.2}) as flight:
        call = flight.read(ENDLESS)

        wait_until(lambda: caplog.messages, "an audit line")
        assert json.loads(caplog.messages[0])["error"].startswith("The client did not read the result in time.")
        flight.wait_until_quiet()
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert DeadlineExceeded.code in (caught.value.details() or "")


def test_an_oversized_message_is_refused_and_the_server_lives():
    with running_server(max_receive_bytes=100_000) as flight:
        answer = flight.query("x" * 200_000)

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


def test_clients_that_ask_for_the_health_and_send_nothing_keep_no_probe_waiting_and_are_soon_gone(flight):
    silent = threading.Event()

    def send_nothing():
        silent.wait(60)
        yield from ()

    begun = [flight.begin(HEALTH, send_nothing(), metadata=()) for _ in range(120)]
    # On the same connection these come after all of them.
    meanwhile = [_health(flight) for _ in range(20)]
    codes = {call.code() for call in begun}  # waits for each
    silent.set()

    assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}
    assert meanwhile == [messages.HealthCheckResponse.SERVING] * 20


def test_a_stopping_server_refuses_new_calls_and_says_so_to_health_checks(capfd):
    with running_server() as flight:
        running = flight.read(WAITING)
        next(running)
        stopping = threading.Thread(target=flight.server.stop, args=(60,))
        stopping.start()

        status = _health(flight)
        while status == messages.HealthCheckResponse.SERVING:
            status = _health(flight)
        refused = flight.query(NUMBERS)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", flight.server.port), timeout=60)
        running.cancel()
        stopping.join(60)

        assert status == messages.HealthCheckResponse.NOT_SERVING
        assert refused.code is grpc.StatusCode.UNAVAILABLE
        assert type(refused.error) is ServerUnavailable
        assert not stopping.is_alive()
    assert "Closing acceptor" not in capfd.readouterr().err


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_taken_port_is_a_configuration_error_unless_it_is_shared(is_shared):
    with running_server(is_port_reserved=is_shared) as first:
        again = open_server(is_open=True, port=first.server.port, is_port_reserved=is_shared)

        if is_shared:
            with again as second:
                assert second.port == first.server.port
        else:
            with pytest.raises(ConfigurationError) as caught, again:
                pass
            assert caught.value.key == "port"
