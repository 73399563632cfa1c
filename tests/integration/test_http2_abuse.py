"""Connections that abuse HTTP/2, and clients that take no rows, cost neither the server nor other callers much.

Connections that are idle or old end, and no call that runs on them does.

Source: RFC 9113, sections 5.2 (flow control), 6.5 (SETTINGS), 6.7 (PING), 6.8 (GOAWAY), 6.9 (WINDOW_UPDATE);
CVE-2023-44487 (rapid reset), CVE-2024-27316 (CONTINUATION), CVE-2019-9512 (PING), CVE-2019-9515 (SETTINGS).
"""

import contextlib
import resource
import selectors
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest

from micromegas_jupyter.flightsql.commands import statement_ticket
from tests.fakes.raw_http2 import (
    ACK,
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    connect,
    frame,
    grpc_message,
    read_frame,
    request_headers,
)
from tests.integration.flight_harness import BOB, ENDLESS, FLIGHT, HEALTH, NUMBERS, running_server, ticket_bytes

pytestmark = pytest.mark.integration

_INITIAL_WINDOW = 4
_FRAME_BYTES = 16384
_FIRST_WINDOW = 65535
_HEAD_BYTES = 9
STALLED_CLIENTS = 100
STALLED_CLIENTS_LONG = 1000
#: Sixteen results of 0.8 MB a batch are under way at once; a leak for each client would be far more.
MAX_GROWTH_BYTES = 300 << 20
#: What is announced as 31 MiB each; all of it would be three times as much as may be.
HALF_SENT_MESSAGES = 64
HALF_SENT_BYTES = 24 << 20
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


def _rapid_resets():
    fields = request_headers(FLIGHT + "DoGet", "alice")
    for number in range(2000):
        stream = 2 * number + 1
        yield frame(HEADERS, END_HEADERS, stream, fields)
        yield frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big"))


def _pings():
    for number in range(5000):
        yield frame(PING, 0, 0, number.to_bytes(8, "big"))


def _settings():
    for _ in range(5000):
        yield frame(SETTINGS, 0, 0, b"\0\4" + (65535).to_bytes(4, "big"))


def _endless_headers():
    yield frame(HEADERS, 0, 1, request_headers(FLIGHT + "DoGet", "alice"))
    for _ in range(2000):
        yield frame(CONTINUATION, 0, 1, b"\x00\x01x\x7f\x81\x1e" + b"y" * 4000)


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
    connections = [connect(flight.server.port) for _ in range(4)]
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
    request = frame(HEADERS, END_HEADERS, 1, request_headers(FLIGHT + "DoGet", "alice")) + frame(
        DATA, END_STREAM, 1, grpc_message(ticket_bytes(statement_ticket(ENDLESS)))
    )
    before = _resident_bytes(process_id)

    stalled = []
    for _ in range(count):
        stalled.append(connect(port))
        stalled[-1].sendall(request)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        answers = [
            list(
                channel.unary_stream(FLIGHT + "DoGet")(
                    ticket_bytes(statement_ticket(NUMBERS)), metadata=BOB, timeout=60
                )
            )
            for _ in range(20)
        ]
    grown = _resident_bytes(process_id) - before
    for connection in stalled:
        connection.close()

    assert [len(answer) for answer in answers] == [2] * 20
    assert grown < MAX_GROWTH_BYTES


class HalfSender:
    """One connection with one call; `sent` are the bytes of its message so far."""

    def __init__(self, port, path, token, *, announced, most):
        self.socket = connect(port)
        self.socket.sendall(frame(HEADERS, END_HEADERS, 1, request_headers(path, token)))
        self.socket.setblocking(False)
        self.sent = 0
        self.is_over = False
        self._most = most
        self._head = b"\0" + struct.pack(">I", announced)
        self._first_window = self._stream_window = self._window = _FIRST_WINDOW
        self._in, self._out = b"", b""

    @property
    def wants_more(self):
        return not self.is_over and self.sent < self._most

    @property
    def wants_to_send(self):
        return not self.is_over and (bool(self._out) or self._room() > 0)

    def step(self):
        try:
            self._take(self.socket.recv(1 << 16))
        except (BlockingIOError, InterruptedError):
            pass  # nothing has come
        except OSError:
            self.is_over = True
        while self.wants_to_send:
            if not self._out:
                part = (self._head + bytes(_FRAME_BYTES))[: min(_FRAME_BYTES, self._room())]
                self._head = b""
                self._out = frame(DATA, 0, 1, part)
                self.sent += len(part)
                self._stream_window -= len(part)
                self._window -= len(part)
            try:
                self._out = self._out[self.socket.send(self._out) :]
            except BlockingIOError:
                return
            except OSError:
                self.is_over = True

    def _room(self):
        return min(self._stream_window, self._window, self._most - self.sent)

    def _take(self, data):
        self.is_over = self.is_over or not data
        self._in += data
        while len(self._in) >= _HEAD_BYTES:
            size, kind, flags, stream = struct.unpack(">IBBI", b"\0" + self._in[:_HEAD_BYTES])
            if len(self._in) < _HEAD_BYTES + size:
                return
            body, self._in = self._in[_HEAD_BYTES : _HEAD_BYTES + size], self._in[_HEAD_BYTES + size :]
            self._hear(kind, flags, stream, body)

    def _hear(self, kind, flags, stream, body):
        if kind == WINDOW_UPDATE:
            more = int.from_bytes(body, "big")
            if stream:
                self._stream_window += more
            else:
                self._window += more
        elif kind == SETTINGS and not flags & ACK:
            for place in range(0, len(body), 6):
                name, value = struct.unpack(">HI", body[place : place + 6])
                if name == _INITIAL_WINDOW:
                    self._stream_window += value - self._first_window
                    self._first_window = value
            self._out += frame(SETTINGS, ACK, 0)
        elif kind == PING and not flags & ACK:
            self._out += frame(PING, ACK, 0, body)
        elif kind in {HEADERS, RST_STREAM}:
            self.is_over = True  # the server has answered


def send_halves(senders, *, look, deadline):
    """Let all send until each has sent what it wants to or is refused; `look` is called again and again."""
    with selectors.DefaultSelector() as selector:
        for sender in senders:
            selector.register(sender.socket, selectors.EVENT_READ, sender)
        while any(sender.wants_more for sender in senders) and not deadline():
            for sender in senders:
                if not sender.is_over:
                    sender.step()
                if sender.is_over and sender.socket in selector.get_map():
                    selector.unregister(sender.socket)
            look()
            if not any(sender.wants_to_send for sender in senders):
                selector.select(0.05)


@pytest.mark.parametrize(("path", "token"), [(FLIGHT + "DoGet", "alice"), (FLIGHT + "DoGet", "nobody"), (HEALTH, "")])
def test_messages_that_many_clients_half_send_take_little_memory(child, path, token):
    port, process_id = child
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        channel.unary_unary(HEALTH)(b"", timeout=60)
    before = peak = _resident_bytes(process_id)
    senders = [
        HalfSender(port, path, token, announced=31 << 20, most=HALF_SENT_BYTES) for _ in range(HALF_SENT_MESSAGES)
    ]
    until = time.monotonic() + 60

    def look():
        nonlocal peak
        peak = max(peak, _resident_bytes(process_id))

    send_halves(senders, look=look, deadline=lambda: time.monotonic() > until)
    for sender in senders:
        sender.socket.close()

    assert peak - before < MAX_HALF_SENT_BYTES


ROOM = _FIRST_WINDOW.to_bytes(4, "big")
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
        while received < 2 * _FIRST_WINDOW:
            kind, _, _, body = read_frame(stream)
            received += len(body) if kind == DATA else 0
        assert len(flight.pool.running) == 1
        return received


def test_a_query_goes_on_over_a_connection_that_takes_no_more_calls():
    received = None
    with running_server(connection_idle_seconds=0.5, connection_age_seconds=0.5) as flight:
        while received is None:
            received = _read_beyond_goodbye(flight)

    assert received == 2 * _FIRST_WINDOW
