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


def test_bound_parameters_reach_the_engine(flight: FlightHarness) -> None:
    handle = prepare(flight, "echo ?")
    batch = pa.record_batch({"0": pa.array([41], pa.int64())})
    encoder = FlightDataEncoder(batch.schema)
    opening = messages.FlightData.FromString(encoder.encode_schema())
    opening.flight_descriptor.ParseFromString(
        descriptor_bytes(messages.CommandPreparedStatementQuery(prepared_statement_handle=handle))
    )

    put = flight.call(FLIGHT + "DoPut", opening.SerializeToString(), *encoder.encode_batch(batch))
    flight.call(FLIGHT + "DoGet", ticket_bytes(prepared_ticket(handle)))

    result = messages.PutResult.FromString(put.replies[0]).app_metadata
    assert messages.DoPutPreparedStatementResult.FromString(result).prepared_statement_handle == handle
    assert flight.engine.requests[-1].parameters == batch


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


def test_flight_info_of_a_prepared_statement_names_it(flight: FlightHarness) -> None:
    handle = prepare(flight, "words")

    answer = flight.call(
        FLIGHT + "GetFlightInfo",
        descriptor_bytes(messages.CommandPreparedStatementQuery(prepared_statement_handle=handle)),
    )

    info = messages.FlightInfo.FromString(answer.replies[0])
    assert info.endpoint[0].ticket.ticket == prepared_ticket(handle)
