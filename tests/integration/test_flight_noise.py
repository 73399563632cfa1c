"""Damaged messages on every method, over a real socket: clean statuses come back, and the server goes on answering."""

from __future__ import annotations

import random

import grpc
import pytest

from micromegas_jupyter.errors import InternalError
from micromegas_jupyter.flightsql.commands import messages
from tests.fuzz.damage import damage_bytes
from tests.fuzz.wire_samples import ACTIONS, DESCRIPTORS, FRAMES, TICKETS
from tests.integration.flight_harness import (
    FLIGHT,
    NUMBERS,
    action_bytes,
    descriptor_bytes,
    prepare,
    ticket_bytes,
)

pytestmark = pytest.mark.integration

CASES = 40
CLEAN = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.PERMISSION_DENIED,
}
SAMPLES: dict[str, tuple[bytes, ...]] = {
    "Handshake": (b"", b"\x0a\x00"),
    "ListFlights": (b"", b"\x0a\x01x"),
    "GetFlightInfo": DESCRIPTORS,
    "PollFlightInfo": DESCRIPTORS,
    "GetSchema": DESCRIPTORS,
    "DoGet": tuple(map(ticket_bytes, TICKETS)),
    "DoAction": tuple(action_bytes(name, body) for name, body in ACTIONS.items()),
    "DoExchange": FRAMES,
    "ListActions": (b"",),
    "NoSuchMethod": DESCRIPTORS,
}


@pytest.mark.parametrize("method", SAMPLES)
def test_damaged_messages_get_clean_statuses(flight, method):
    source = random.Random(method)

    for _ in range(CASES):
        answer = flight.call(FLIGHT + method, damage_bytes(source.choice(SAMPLES[method]), source))

        # What is left of the SQL may be another statement of the engine's, or none; the engine's answers are not ours.
        assert answer.code in CLEAN, answer
        assert type(answer.error) is not InternalError
    assert flight.query(NUMBERS).code is grpc.StatusCode.OK


def test_damaged_parameters_get_clean_statuses(flight):
    source = random.Random("DoPut")
    handle = prepare(flight, "SELECT ? AS n")
    opening = messages.FlightData.FromString(FRAMES[0])
    opening.flight_descriptor.ParseFromString(
        descriptor_bytes(messages.CommandPreparedStatementQuery(prepared_statement_handle=handle))
    )
    whole = [opening.SerializeToString(), *FRAMES[1:]]

    for _ in range(CASES):
        frames = list(whole)
        place = source.randrange(len(frames))
        frames[place] = damage_bytes(frames[place], source)

        answer = flight.call(FLIGHT + "DoPut", *frames)

        assert answer.code in CLEAN, answer
        assert type(answer.error) is not InternalError
    assert flight.query(NUMBERS).code is grpc.StatusCode.OK
