"""A refusal of what a client sends reaches the client, also when there is much to send."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import grpc
import pytest

from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import pack_any
from micromegas_jupyter.server import calls
from tests.integration.flight_harness import ALICE, BOB, DEADLINE_SECONDS, FLIGHT, running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.flight_harness import FlightHarness

pytestmark = pytest.mark.integration

COUNT = 100
NOTICE_SECONDS = 0.5  # a refusal that does not wait comes long before


def first_frame() -> bytes:
    """The beginning of rows that this server, which only reads, refuses at once."""
    command = messages.CommandStatementIngest(table="log_entries")
    descriptor = messages.FlightDescriptor(type=messages.FlightDescriptor.CMD, cmd=pack_any(command))
    data: bytes = messages.FlightData(flight_descriptor=descriptor).SerializeToString()
    return data


@pytest.mark.parametrize(
    ("metadata", "code"), [(ALICE, grpc.StatusCode.UNIMPLEMENTED), (BOB, grpc.StatusCode.PERMISSION_DENIED)]
)
def test_a_client_may_send_everything_before_it_is_refused(
    metadata: tuple[tuple[str, str], ...], code: grpc.StatusCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_DRAIN_SECONDS", DEADLINE_SECONDS)  # so long for a busy machine, too
    ended, sent = threading.Event(), []

    def frames() -> Iterator[bytes]:
        yield first_frame()
        for number in range(COUNT):
            if number or not ended.wait(NOTICE_SECONDS):
                sent.append(number)
                yield messages.FlightData(data_body=b"x" * 1000).SerializeToString()

    with running_server() as flight:
        call = flight.channel.stream_stream(FLIGHT + "DoPut")(frames(), metadata=metadata, timeout=DEADLINE_SECONDS)
        call.add_callback(ended.set)

        assert call.code() is code
    assert sent == list(range(COUNT))


def test_a_client_that_goes_on_and_on_is_refused_all_the_same(
    flight: FlightHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_MAX_DRAINED_BYTES", 10_000)
    ended = threading.Event()

    def frames() -> Iterator[bytes]:
        yield first_frame()
        while not ended.is_set():
            yield messages.FlightData(data_body=b"x" * 1000).SerializeToString()

    call = flight.channel.stream_stream(FLIGHT + "DoPut")(frames(), metadata=ALICE, timeout=DEADLINE_SECONDS)
    call.add_callback(ended.set)

    assert call.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_client_that_sends_no_more_and_says_nothing_is_refused_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_DRAIN_SECONDS", 0.1)
    ended = threading.Event()

    def frames() -> Iterator[bytes]:
        yield first_frame()
        ended.wait(DEADLINE_SECONDS)

    with running_server() as flight:
        call = flight.channel.stream_stream(FLIGHT + "DoPut")(frames(), metadata=ALICE, timeout=DEADLINE_SECONDS)
        call.add_callback(ended.set)

        assert call.code() is grpc.StatusCode.UNIMPLEMENTED
