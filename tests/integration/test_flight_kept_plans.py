"""A flight's statement is planned once where nothing has changed, and again where anything has."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import grpc
import pytest

from micromegas_jupyter.flightsql import messages
from tests.fakes.fixed_tables import FixedTables, write_log_entries
from tests.fakes.validator import ALICE as ALICE_CONTEXT
from tests.integration.flight_harness import (
    ALICE,
    BOB,
    FLIGHT,
    FlightHarness,
    descriptor_bytes,
    rows_of,
    running_server,
    ticket_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def flight() -> Iterator[FlightHarness]:
    with running_server() as running:
        yield running


SQL = "SELECT current_user() AS who, is_admin() AS is_admin"


def issue(flight: FlightHarness, sql: str = SQL) -> bytes:
    command = descriptor_bytes(messages.CommandStatementQuery(query=sql))
    answer = flight.call(FLIGHT + "GetFlightInfo", command)
    return ticket_bytes(messages.FlightInfo.FromString(answer.replies[0]).endpoint[0].ticket.ticket)


def test_a_flight_gives_the_same_rows_each_time(flight: FlightHarness) -> None:
    ticket = issue(flight)

    answers = [rows_of(flight.call(FLIGHT + "DoGet", ticket)).to_pydict() for _ in range(3)]

    assert answers == [{"who": ["alice"], "is_admin": [True]}] * 3


def test_other_options_are_planned_anew(flight: FlightHarness) -> None:
    ticket = issue(flight)

    answer = flight.call(FLIGHT + "DoGet", ticket, metadata=(*ALICE, ("limit", "0")))

    assert rows_of(answer).num_rows == 0


def test_other_rights_are_planned_anew(flight: FlightHarness) -> None:
    ticket = issue(flight)
    flight.validator.known["alice"] = replace(ALICE_CONTEXT, is_admin=False)

    answer = flight.call(FLIGHT + "DoGet", ticket)

    assert rows_of(answer).to_pydict() == {"who": ["alice"], "is_admin": [False]}


def test_other_tables_are_planned_anew(tmp_path: Path) -> None:
    tables = FixedTables([write_log_entries(tmp_path, 1)])
    with running_server(tables=tables) as flight:
        ticket = issue(flight, "SELECT count(*) AS n FROM log_entries")
        tables.tables = [write_log_entries(tmp_path, 2)]

        answer = flight.call(FLIGHT + "DoGet", ticket)

    assert rows_of(answer).to_pydict() == {"n": [8]}


def test_somebody_else_gets_nothing_of_it(flight: FlightHarness) -> None:
    ticket = issue(flight)

    answer = flight.call(FLIGHT + "DoGet", ticket, metadata=BOB)

    assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
    assert answer.replies == []
