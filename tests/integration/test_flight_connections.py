"""Connections that are idle or old end, and no call that runs on them does.

Source: RFC 9113, section 6.8 (GOAWAY).
"""

import pytest

from micromegas_jupyter.flightsql.commands import statement_ticket
from tests.fakes.raw_http2 import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    WINDOW_UPDATE,
    connect,
    frame,
    grpc_message,
    read_frame,
    request_headers,
)
from tests.integration.flight_harness import ENDLESS, FLIGHT, running_server, ticket_bytes

pytestmark = pytest.mark.integration

WINDOW_BYTES = 65535
ROOM = WINDOW_BYTES.to_bytes(4, "big")
LAST_STREAM = 1


def _until_goodbye(connection, stream):
    """Read until the server takes no more calls, not only warns of that; return how many bytes of rows came before.

    None where it had said goodbye before it heard of the call, as it may on a busy machine.
    """
    received = 0
    while True:
        kind, flags, _, body = read_frame(stream)
        if kind == PING and not flags & ACK:
            connection.sendall(frame(PING, ACK, 0, body))
        elif kind == DATA:
            received += len(body)
        elif kind == GOAWAY and (last := int.from_bytes(body[:4], "big")) <= LAST_STREAM:
            return received if last == LAST_STREAM else None


def _read_to_the_end(stream):
    while True:
        read_frame(stream)


def test_a_connection_without_calls_ends():
    with (
        running_server(connection_idle_seconds=0.5) as flight,
        connect(flight.server.port) as connection,
        connection.makefile("rb") as stream,
    ):
        connection.settimeout(60)

        with pytest.raises(EOFError):
            _read_to_the_end(stream)


def _read_beyond_goodbye(flight):
    """Return how many bytes of rows come over a connection of which half come after the server's goodbye.

    None where the goodbye came before the call.
    """
    with connect(flight.server.port) as connection, connection.makefile("rb") as stream:
        connection.settimeout(60)
        ticket = ticket_bytes(statement_ticket(ENDLESS))
        connection.sendall(
            frame(HEADERS, END_HEADERS, LAST_STREAM, request_headers(FLIGHT + "DoGet", "alice"))
            + frame(DATA, END_STREAM, LAST_STREAM, grpc_message(ticket))
        )
        received = _until_goodbye(connection, stream)
        if received is None:
            return None
        connection.sendall(frame(WINDOW_UPDATE, 0, 0, ROOM) + frame(WINDOW_UPDATE, 0, LAST_STREAM, ROOM))
        while received < 2 * WINDOW_BYTES:
            kind, _, _, body = read_frame(stream)
            received += len(body) if kind == DATA else 0
        assert len(flight.pool.running) == 1
        return received


def test_a_query_goes_on_over_a_connection_that_takes_no_more_calls():
    received = None
    with running_server(connection_idle_seconds=0.5, connection_age_seconds=0.5) as flight:
        while received is None:
            received = _read_beyond_goodbye(flight)

    assert received == 2 * WINDOW_BYTES
