"""Prepared statements and their parameters, call by call, seen by a raw gRPC client."""

import grpc
import pyarrow as pa
import pytest

from micromegas_jupyter.errors import ResourcesExhausted, UsageError
from micromegas_jupyter.flightsql.commands import messages, pack_any, prepared_ticket
from micromegas_jupyter.flightsql.framing import FlightDataEncoder
from tests.integration.flight_harness import (
    ALICE,
    BOB,
    FLIGHT,
    NUMBERS,
    action_bytes,
    descriptor_bytes,
    prepare,
    rows_of,
    ticket_bytes,
)

pytestmark = pytest.mark.integration

ECHO = "SELECT ? AS n"


def test_a_prepared_statement_is_its_callers_alone(flight):
    handle = prepare(flight, NUMBERS)

    own = flight.call(FLIGHT + "DoGet", ticket_bytes(prepared_ticket(handle)))
    others = flight.call(FLIGHT + "DoGet", ticket_bytes(prepared_ticket(handle)), metadata=BOB)

    assert own.code is grpc.StatusCode.OK
    assert others.code is grpc.StatusCode.INVALID_ARGUMENT
    assert type(others.error) is UsageError


def test_a_closed_prepared_statement_is_unknown(flight):
    handle = prepare(flight, NUMBERS)
    body = pack_any(messages.ActionClosePreparedStatementRequest(prepared_statement_handle=handle))

    closed = flight.call(FLIGHT + "DoAction", action_bytes("ClosePreparedStatement", body))
    answer = flight.call(FLIGHT + "DoGet", ticket_bytes(prepared_ticket(handle)))

    assert closed.code is grpc.StatusCode.OK
    assert type(answer.error) is UsageError


def _bind(flight, handle, batch):
    """Bind values; return the handle that the server gives for them."""
    encoder = FlightDataEncoder(batch.schema)
    opening = messages.FlightData.FromString(encoder.encode_schema())
    opening.flight_descriptor.ParseFromString(
        descriptor_bytes(messages.CommandPreparedStatementQuery(prepared_statement_handle=handle))
    )
    put = flight.call(FLIGHT + "DoPut", opening.SerializeToString(), *encoder.encode_batch(batch))
    result = messages.PutResult.FromString(put.replies[0]).app_metadata
    return messages.DoPutPreparedStatementResult.FromString(result).prepared_statement_handle


@pytest.mark.parametrize("is_first", [True, False], ids=["first handle", "new handle"])
def test_bound_parameters_are_the_statements_values(flight, is_first):
    handle = prepare(flight, ECHO)
    batch = pa.record_batch({"0": pa.array([41, None], pa.int64())})

    bound = _bind(flight, handle, batch)
    answer = flight.call(FLIGHT + "DoGet", ticket_bytes(prepared_ticket(handle if is_first else bound)))

    assert rows_of(answer)["n"].to_pylist() == [41, None]


@pytest.mark.parametrize("size", [1, 100_000], ids=["few values", "large values"])
def test_a_flight_of_a_prepared_statement_has_its_values(flight, size):
    batch = pa.record_batch({"0": ["x" * size]})
    bound = _bind(flight, prepare(flight, ECHO), batch)

    answer = flight.call(
        FLIGHT + "GetFlightInfo",
        descriptor_bytes(messages.CommandPreparedStatementQuery(prepared_statement_handle=bound)),
    )
    ticket = messages.FlightInfo.FromString(answer.replies[0]).endpoint[0].ticket.ticket
    rows = rows_of(flight.call(FLIGHT + "DoGet", ticket_bytes(ticket)))

    assert rows["n"].to_pylist() == ["x" * size]


def test_a_handle_does_not_grow_with_each_binding(flight):
    handle = prepare(flight, ECHO)
    sizes = []
    for number in range(10):
        handle = _bind(flight, handle, pa.record_batch({"0": pa.array([number], pa.int64())}))
        sizes.append(len(handle))

    assert max(sizes) - min(sizes) < 16
    assert max(sizes) < 1000


def test_headers_act_on_prepared_statements(flight):
    handle = prepare(flight, "SELECT exe, time FROM log_entries ORDER BY time")
    command = messages.CommandPreparedStatementQuery(prepared_statement_handle=handle)
    headers = (
        ("query_range_begin", "2026-11-24T12:10:00Z"),
        ("query_range_end", "2026-11-24T12:50:00Z"),
        ("limit", "2"),
        ("preserve_dictionary", "true"),
    )

    answer = flight.call(FLIGHT + "GetFlightInfo", descriptor_bytes(command), metadata=(*ALICE, *headers))
    rows = rows_of(flight.call(FLIGHT + "DoGet", ticket_bytes(prepared_ticket(handle)), metadata=(*ALICE, *headers)))

    info = messages.FlightInfo.FromString(answer.replies[0])
    assert pa.ipc.read_schema(pa.py_buffer(info.schema)) == rows.schema
    assert rows.schema.field("exe").type == pa.dictionary(pa.int32(), pa.string())
    assert [time.strftime("%H:%M") for time in rows["time"].to_pylist()] == ["12:15", "12:30"]
    refused = flight.call(
        FLIGHT + "DoGet", ticket_bytes(prepared_ticket(handle)), metadata=(*ALICE, ("x-user-id", "bob"))
    )
    assert refused.code is grpc.StatusCode.PERMISSION_DENIED


def test_too_many_parameters_are_refused_while_they_arrive(flight):
    handle = prepare(flight, ECHO)
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


def test_a_flight_outlives_its_prepared_statement(flight):
    handle = prepare(flight, NUMBERS)
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
