"""A flight's statement is planned once where nothing has changed, and again where anything has."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import grpc
import pytest

from micromegas_jupyter.flightsql import messages
from tests.fakes.validator import ALICE as ALICE_CONTEXT
from tests.integration.flight_harness import (
    ALICE,
    BOB,
    FLIGHT,
    FlightHarness,
    descriptor_bytes,
    running_server,
    ticket_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.flight_harness import Metadata


@pytest.fixture
def flight() -> Iterator[FlightHarness]:
    with running_server() as running:
        yield running


def issue(flight: FlightHarness, metadata: Metadata = ALICE) -> bytes:
    command = descriptor_bytes(messages.CommandStatementQuery(query="numbers"))
    answer = flight.call(FLIGHT + "GetFlightInfo", command, metadata=metadata)
    return ticket_bytes(messages.FlightInfo.FromString(answer.replies[0]).endpoint[0].ticket.ticket)


def test_the_rows_of_a_flight_come_of_the_plan_that_told_its_schema(flight: FlightHarness) -> None:
    ticket = issue(flight)

    first = flight.call(FLIGHT + "DoGet", ticket)
    planned = len(flight.engine.requests)
    second = flight.call(FLIGHT + "DoGet", ticket)

    assert (first.code, second.replies) == (grpc.StatusCode.OK, first.replies)
    assert planned == 1
    assert len(flight.engine.requests) == 2


def test_other_options_are_planned_anew(flight: FlightHarness) -> None:
    ticket = issue(flight)

    flight.call(FLIGHT + "DoGet", ticket, metadata=(*ALICE, ("limit", "2")))

    assert [request.row_limit for request in flight.engine.requests] == [None, 2]


def test_other_rights_are_planned_anew(flight: FlightHarness) -> None:
    ticket = issue(flight)
    flight.validator.known["alice"] = replace(ALICE_CONTEXT, is_admin=False)

    flight.call(FLIGHT + "DoGet", ticket)

    assert [caller.is_admin for caller in flight.engine.callers] == [True, False]


def test_somebody_else_gets_nothing_of_it(flight: FlightHarness) -> None:
    ticket = issue(flight)

    answer = flight.call(FLIGHT + "DoGet", ticket, metadata=BOB)

    assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
    assert answer.replies == []
