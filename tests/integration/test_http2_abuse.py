"""Connections that abuse HTTP/2, and clients that take no rows, cost neither the server nor other callers much.

Connections that are idle or old end, and no call that runs on them does.

Source: RFC 9113, sections 5.2 (flow control), 6.5 (SETTINGS), 6.7 (PING), 6.8 (GOAWAY), 6.9 (WINDOW_UPDATE);
CVE-2023-44487 (rapid reset), CVE-2024-27316 (CONTINUATION), CVE-2019-9512 (PING), CVE-2019-9515 (SETTINGS).
"""

import contextlib
import io
import itertools
import resource
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest

from micromegas_jupyter.flightsql.commands import statement_ticket
from micromegas_jupyter.server import flight_server
from tests.fakes import raw_http2 as h2
from tests.integration.flight_harness import BOB, ENDLESS, FLIGHT, HEALTH, NUMBERS, running_server, ticket_bytes

pytestmark = pytest.mark.integration

_INITIAL_WINDOW = 4
_FRAME_BYTES = 16384
_FIRST_WINDOW = 65535
_HEAD_BYTES = 9
ROOM = _FIRST_WINDOW.to_bytes(4, "big")
LAST_STREAM = 1
STALLED_CLIENTS = 100
STALLED_CLIENTS_LONG = 1000
#: Sixteen results of 0.8 MB a batch are under way at once; a leak for each client would be far more.
MAX_GROWTH_BYTES = 300 << 20
#: The first 24 MiB of a message of 31 MiB; all that is sent would be three times as much as may be.
HALF_SENT_MESSAGES = 64
HALF = memoryview(b"\0" + struct.pack(">I", 31 << 20) + bytes(24 << 20))
MAX_HALF_SENT_BYTES = 512 << 20
CHILD = """
import sys
from tests.integration.flight_harness import running_server
with running_server(
    max_concurrent_calls=4000, max_calls_per_caller=4000, read_timeout_seconds=2,
    pool={"max_executors": 8, "max_per_caller": 4},
) as flight:
    print(flight.server.port, flush=True)
    sys.stdin.read()
"""


def _endless_query():
    ticket = h2.grpc_message(ticket_bytes(statement_ticket(ENDLESS)))
    head = h2.frame(h2.HEADERS, h2.END_HEADERS, LAST_STREAM, h2.request_headers(FLIGHT + "DoGet", "alice"))
    return head + h2.frame(h2.DATA, h2.END_STREAM, LAST_STREAM, ticket)


def _rapid_resets():
    fields = h2.request_headers(FLIGHT + "DoGet", "alice")
    for number in range(2000):
        stream = 2 * number + 1
        yield h2.frame(h2.HEADERS, h2.END_HEADERS, stream, fields)
        yield h2.frame(h2.RST_STREAM, 0, stream, h2.CANCEL.to_bytes(4, "big"))


def _pings():
    for number in range(5000):
        yield h2.frame(h2.PING, 0, 0, number.to_bytes(8, "big"))


def _settings():
    for _ in range(5000):
        yield h2.frame(h2.SETTINGS, 0, 0, b"\0\4" + (65535).to_bytes(4, "big"))


def _endless_headers():
    yield h2.frame(h2.HEADERS, 0, 1, h2.request_headers(FLIGHT + "DoGet", "alice"))
    for _ in range(2000):
        yield h2.frame(h2.CONTINUATION, 0, 1, b"\x00\x01x\x7f\x81\x1e" + b"y" * 4000)


def _flood(connection, frames, has_begun):
    # The server may close the connection at any moment, or read no more: both are answers.
    with contextlib.suppress(OSError):
        connection.settimeout(5)
        for number, piece in enumerate(frames):
            connection.sendall(piece)
            if number == 100:
                has_begun.set()
    has_begun.set()


@pytest.mark.parametrize("frames", [_rapid_resets, _pings, _settings, _endless_headers])
def test_a_flood_on_one_connection_leaves_the_others_alone(flight, frames):
    connections = [h2.connect(flight.server.port) for _ in range(4)]
    has_begun = threading.Event()
    floods = [threading.Thread(target=_flood, args=(one, frames(), has_begun)) for one in connections]
    for thread in floods:
        thread.start()
    assert has_begun.wait(60)

    during = flight.query(NUMBERS, metadata=BOB)
    for thread in floods:
        thread.join(60)
    for connection in connections:
        connection.close()
    afterwards = flight.query(NUMBERS, metadata=BOB)

    assert (during.code, afterwards.code) == (grpc.StatusCode.OK, grpc.StatusCode.OK)
    assert flight.server.is_serving


def test_connections_leave_open_files_to_executors(monkeypatch):
    monkeypatch.setattr(flight_server, "max_connections", lambda: 3)
    with running_server() as flight, contextlib.ExitStack() as closing:
        flight.query(NUMBERS)
        for _ in range(2):
            closing.enter_context(contextlib.closing(h2.connect(flight.server.port)))
        more = closing.enter_context(socket.create_connection(("127.0.0.1", flight.server.port), timeout=60))

        assert more.recv(1) == b""
        assert flight.query(NUMBERS).code is grpc.StatusCode.OK


@pytest.fixture(scope="module")
def child():
    """Port and process id of a server of its own, whose memory can be looked at."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield int(process.stdout.readline()), process.pid
        finally:
            process.kill()


def _resident_bytes(process_id):
    pages = int(Path(f"/proc/{process_id}/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def test_clients_that_take_no_rows_cost_bounded_memory_and_others_are_served(child, pytestconfig):
    port, process_id = child
    count = STALLED_CLIENTS_LONG if pytestconfig.getoption("--long") else STALLED_CLIENTS
    before = _resident_bytes(process_id)

    stalled = []
    for _ in range(count):
        stalled.append(h2.connect(port))
        stalled[-1].sendall(_endless_query())
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        read = channel.unary_stream(FLIGHT + "DoGet")
        ticket = ticket_bytes(statement_ticket(NUMBERS))
        answers = [list(read(ticket, metadata=BOB, timeout=60)) for _ in range(20)]
    grown = _resident_bytes(process_id) - before
    for connection in stalled:
        connection.close()

    assert [len(answer) for answer in answers] == [2] * 20
    assert grown < MAX_GROWTH_BYTES


def _half_sender(connection, path, token):
    """Send as much as there is and the server has room for, until it answers; yields when it has to wait."""
    connection.sendall(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.request_headers(path, token)))
    connection.setblocking(False)
    first, sent, room, arrived, out = _FIRST_WINDOW, 0, {0: _FIRST_WINDOW, 1: _FIRST_WINDOW}, b"", b""
    while sent < len(HALF) or out:
        with contextlib.suppress(BlockingIOError):
            if not (received := connection.recv(1 << 16)):
                return
            arrived += received
        while len(arrived) >= _HEAD_BYTES + int.from_bytes(arrived[:3], "big"):
            kind, flags, number, body = h2.read_frame(io.BytesIO(arrived))
            arrived = arrived[_HEAD_BYTES + len(body) :]
            if kind == h2.WINDOW_UPDATE:
                room[number] += int.from_bytes(body, "big")
            elif kind == h2.SETTINGS and not flags & h2.ACK:
                before, first = first, dict(struct.iter_unpack(">HI", body)).get(_INITIAL_WINDOW, first)
                room[1] += first - before
                out += h2.frame(h2.SETTINGS, h2.ACK, 0)
            elif kind == h2.PING and not flags & h2.ACK:
                out += h2.frame(h2.PING, h2.ACK, 0, body)
            elif kind in {h2.HEADERS, h2.RST_STREAM}:
                return
        with contextlib.suppress(BlockingIOError):
            while out or (size := min(*room.values(), _FRAME_BYTES, len(HALF) - sent)) > 0:
                if not out:
                    out = h2.frame(h2.DATA, 0, 1, HALF[sent : sent + size])
                    sent += size
                    room = {number: window - size for number, window in room.items()}
                out = out[connection.send(out) :]
        yield


@pytest.mark.parametrize(("path", "token"), [(FLIGHT + "DoGet", "alice"), (FLIGHT + "DoGet", "nobody"), (HEALTH, "")])
def test_messages_that_many_clients_half_send_take_little_memory(child, path, token):
    port, process_id = child
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        channel.unary_unary(HEALTH)(b"", timeout=60)
    before = peak = _resident_bytes(process_id)

    connections = [h2.connect(port) for _ in range(HALF_SENT_MESSAGES)]
    senders = {connection: _half_sender(connection, path, token) for connection in connections}
    until = time.monotonic() + 60

    while senders and time.monotonic() < until:
        for connection, sender in list(senders.items()):
            is_over = True
            with contextlib.suppress(OSError):  # the server may close the connection at any moment
                is_over = next(sender, senders) is senders
            if is_over:
                del senders[connection]
        peak = max(peak, _resident_bytes(process_id))
        select.select(list(senders), [], [], 0.01)
    for connection in connections:
        connection.close()

    assert peak - before < MAX_HALF_SENT_BYTES


def _until_goodbye(connection, stream):
    """Read until the server takes no more calls, not only warns of that; return how many bytes of rows came before.

    None where it had said goodbye before it heard of the call, as it may on a busy machine.
    """
    received = 0
    while True:
        kind, flags, _, body = h2.read_frame(stream)
        if kind == h2.PING and not flags & h2.ACK:
            connection.sendall(h2.frame(h2.PING, h2.ACK, 0, body))
        elif kind == h2.DATA:
            received += len(body)
        elif kind == h2.GOAWAY and (last := int.from_bytes(body[:4], "big")) <= LAST_STREAM:
            return received if last == LAST_STREAM else None


def test_a_connection_without_calls_ends():
    with (
        running_server(connection_idle_seconds=0.5) as flight,
        h2.connect(flight.server.port) as connection,
        connection.makefile("rb") as stream,
    ):
        connection.settimeout(60)

        with pytest.raises(EOFError):
            all(h2.read_frame(stream) for _ in itertools.count())


def _read_beyond_goodbye(flight):
    """Return how many bytes of rows come over a connection of which half come after the server's goodbye.

    None where the goodbye came before the call.
    """
    with h2.connect(flight.server.port) as connection, connection.makefile("rb") as stream:
        connection.settimeout(60)
        connection.sendall(_endless_query())
        received = _until_goodbye(connection, stream)
        if received is None:
            return None
        connection.sendall(h2.frame(h2.WINDOW_UPDATE, 0, 0, ROOM) + h2.frame(h2.WINDOW_UPDATE, 0, LAST_STREAM, ROOM))
        while received < 2 * _FIRST_WINDOW:
            kind, _, _, body = h2.read_frame(stream)
            received += len(body) if kind == h2.DATA else 0
        assert len(flight.pool.running) == 1
        return received


def test_a_query_goes_on_over_a_connection_that_takes_no_more_calls():
    received = None
    with running_server(connection_idle_seconds=0.5, connection_age_seconds=0.5) as flight:
        while received is None:
            received = _read_beyond_goodbye(flight)

    assert received == 2 * _FIRST_WINDOW
