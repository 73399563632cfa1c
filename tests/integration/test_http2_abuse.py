"""Connections that abuse HTTP/2, and clients that take no rows, cost neither the server nor other callers much.

Source: CVE-2023-44487 (rapid reset), CVE-2024-27316 (CONTINUATION), CVE-2019-9512 (PING), CVE-2019-9515 (SETTINGS).
"""

import contextlib
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest

from micromegas_jupyter.flightsql.commands import statement_ticket
from tests.fakes.raw_http2 import (
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    connect,
    frame,
    grpc_message,
    request_headers,
)
from tests.integration.flight_harness import (
    BOB,
    ENDLESS,
    FLIGHT,
    HEALTH,
    NUMBERS,
    running_server,
    ticket_bytes,
)
from tests.integration.half_sent import HalfSender, send_halves

pytestmark = pytest.mark.integration

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


@pytest.fixture(scope="module")
def flight():
    with running_server() as running:
        yield running


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


def test_half_open_connections_keep_nobody_out(flight):
    connections = [connect(flight.server.port) for _ in range(150)]

    answer = flight.query(NUMBERS, metadata=BOB)

    for connection in connections:
        connection.close()
    assert answer.code is grpc.StatusCode.OK


@pytest.fixture(scope="module")
def child():
    """Port and process id of a server of its own, whose memory can be looked at."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
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
