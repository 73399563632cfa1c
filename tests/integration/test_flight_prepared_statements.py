"""Prepared statements and their parameters, call by call, seen by a raw gRPC client."""

from __future__ import annotations

import grpc
import pyarrow as pa
import pytest

from micromegas_jupyter.errors import ResourcesExhausted, UsageError
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import pack_any, prepared_ticket
from micromegas_jupyter.flightsql.framing import FlightDataEncoder
from tests.integration.flight_harness import (
    ALICE,
    BOB,
    FLIGHT,
    FlightHarness,
    action_bytes,
    descriptor_bytes,
    prepare,
    ticket_bytes,
)

pytestmark = pytest.mark.integration


def test_a_prepared_statement_is_its_callers_alone(flight: FlightHarness) -> None:
    handle = prepare(flight, "numbers")

    own = flight.call(FLIGHT + "DoGet", ticket_bytes(prepared_ticket(handle)))
    others = flight.call(FLIGHT + "DoGet", ticket_bytes(prepared_ticket(handle)), metadata=BOB)

    assert own.code is grpc.StatusCode.OK
    assert others.code is grpc.StatusCode.INVALID_ARGUMENT
    assert type(others.error) is UsageError


def test_a_closed_prepared_statement_is_unknown(flight: FlightHarness) -> None:
    handle = prepare(flight, "numbers")
    body = pack_any(messages.ActionClosePreparedStatementRequest(prepared_statement_handle=handle))

    closed = flight.call(FLIGHT + "DoAction", action_bytes("ClosePreparedStatement", body))
    answer = flight.call(FLIGHT + "DoGet", ticket_bytes(prepared_ticket(handle)))

    assert closed.code is grpc.StatusCode.OK
    assert type(answer.error) is UsageError


def _bind(flight: FlightHarness, handle: bytes, batch: pa.RecordBatch) -> bytes:
    """Bind values; return the handle that the server gives for them."""
    encoder = FlightDataEncoder(batch.schema)
    opening = messages.FlightData.FromString(encoder.encode_schema())
    opening.flight_descriptor.ParseFromString(
        descriptor_bytes(messages.CommandPreparedStatementQuery(prepared_statement_handle=handle))
    )
    put = flight.call(FLIGHT + "DoPut", opening.SerializeToString(), *encoder.encode_batch(batch))
    result = messages.PutResult.FromString(put.replies[0]).app_metadata
    bound: bytes = messages.DoPutPreparedStatementResult.FromString(result).prepared_statement_handle
    return bound


@pytest.mark.parametrize("is_first", [True, False], ids=["first handle", "new handle"])
def test_bound_parameters_reach_the_engine(flight: FlightHarness, is_first: bool) -> None:
    handle = prepare(flight, "echo ?")
    batch = pa.record_batch({"0": pa.array([41], pa.int64())})

    bound = _bind(flight, handle, batch)
    flight.call(FLIGHT + "DoGet", ticket_bytes(prepared_ticket(handle if is_first else bound)))

    assert flight.engine.requests[-1].sql == "echo ?"
    assert flight.engine.requests[-1].parameters == batch


@pytest.mark.parametrize("size", [1, 100_000], ids=["few values", "large values"])
def test_a_flight_of_a_prepared_statement_has_its_values(flight: FlightHarness, size: int) -> None:
    batch = pa.record_batch({"0": [bytes(size)]})
    bound = _bind(flight, prepare(flight, "echo ?"), batch)

    answer = flight.call(
        FLIGHT + "GetFlightInfo",
        descriptor_bytes(messages.CommandPreparedStatementQuery(prepared_statement_handle=bound)),
    )
    ticket = messages.FlightInfo.FromString(answer.replies[0]).endpoint[0].ticket.ticket
    flight.call(FLIGHT + "DoGet", ticket_bytes(ticket))

    assert flight.engine.requests[-1].parameters == batch


def test_headers_act_on_prepared_statements(flight: FlightHarness) -> None:
    handle = prepare(flight, "words")
    command = messages.CommandPreparedStatementQuery(prepared_statement_handle=handle)
    headers = (
        ("query_range_begin", "2026-01-01T00:00:00Z"),
        ("query_range_end", "2026-01-02T00:00:00Z"),
        ("limit", "7"),
        ("preserve_dictionary", "true"),
    )

    for method, request in (
        ("GetFlightInfo", descriptor_bytes(command)),
        ("DoGet", ticket_bytes(prepared_ticket(handle))),
    ):
        flight.call(FLIGHT + method, request, metadata=(*ALICE, *headers))

        asked = flight.engine.requests[-1]
        assert asked.time_range is not None
        assert (asked.row_limit, asked.preserve_dictionary) == (7, True)
    refused = flight.call(
        FLIGHT + "DoGet", ticket_bytes(prepared_ticket(handle)), metadata=(*ALICE, ("x-user-id", "bob"))
    )
    assert refused.code is grpc.StatusCode.PERMISSION_DENIED


def test_too_many_parameters_are_refused_while_they_arrive(flight: FlightHarness) -> None:
    handle = prepare(flight, "echo ?")
    descriptor = messages.FlightDescriptor.FromString(
        descriptor_bytes(messages.CommandPreparedStatementQuery(prepared_statement_handle=handle))
    )
    frames = [
        messages.FlightData(flight_descriptor=descriptor).SerializeToString(),
        *[messages.FlightData(app_metadata=bytes(1024 * 1024)).SerializeToString()] * 8,
    ]

    answer = flight.call(FLIGHT + "DoPut", *frames)

    assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert type(answer.error) is ResourcesExhausted


def test_a_flight_outlives_its_prepared_statement(flight: FlightHarness) -> None:
    handle = prepare(flight, "numbers")
    answer = flight.call(
        FLIGHT + "GetFlightInfo",
        descriptor_bytes(messages.CommandPreparedStatementQuery(prepared_statement_handle=handle)),
    )
    body = pack_any(messages.ActionClosePreparedStatementRequest(prepared_statement_handle=handle))
    flight.call(FLIGHT + "DoAction", action_bytes("ClosePreparedStatement", body))

    info = messages.FlightInfo.FromString(answer.replies[0])
    rows = flight.call(FLIGHT + "DoGet", ticket_bytes(info.endpoint[0].ticket.ticket))

    assert rows.code is grpc.StatusCode.OK
    assert len(rows.replies) == 2
