"""One caller cannot hold many calls open, and none without sending anything."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import grpc
import pyarrow as pa
import pytest

from micromegas_jupyter.errors import ResourcesExhausted
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import pack_any
from micromegas_jupyter.flightsql.framing import FlightDataEncoder
from tests.integration.flight_harness import (
    ALICE,
    BOB,
    DEADLINE_SECONDS,
    FLIGHT,
    NUMBERS,
    Answer,
    FlightHarness,
    prepare,
    running_server,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.integration


@contextlib.contextmanager
def _silent_calls(flight: FlightHarness, count: int, metadata: Sequence[tuple[str, str]]) -> Iterator[list[grpc.Call]]:
    may_end = threading.Event()

    def send_nothing() -> Iterator[bytes]:
        may_end.wait(DEADLINE_SECONDS)
        yield from ()

    start = flight.channel.stream_stream(FLIGHT + "DoGet")
    calls = [start(send_nothing(), metadata=metadata, timeout=DEADLINE_SECONDS) for _ in range(count)]
    try:
        yield calls
    finally:
        may_end.set()
        for call in calls:
            call.cancel()


def _refused(flight: FlightHarness, metadata: tuple[tuple[str, str], ...]) -> Answer:
    """Query until that is refused, for calls are not in the order in which their callers get known."""
    answer = flight.query(NUMBERS, metadata=metadata)
    while answer.code is grpc.StatusCode.OK:
        answer = flight.query(NUMBERS, metadata=metadata)
    return answer


def test_calls_of_one_caller_over_the_limit_are_refused_and_those_of_others_are_not() -> None:
    with running_server(max_calls_per_caller=3) as flight:
        with _silent_calls(flight, 3, ALICE):
            refused = _refused(flight, ALICE)
            others = flight.query(NUMBERS, metadata=BOB)
        afterwards = flight.query(NUMBERS, metadata=ALICE)
        while afterwards.code is not grpc.StatusCode.OK:  # until the server has heard of the end of the others
            afterwards = flight.query(NUMBERS, metadata=ALICE)
        counted = flight.server.metrics.registry.get_sample_value(
            "micromegas_server_limits_reached_total", {"limit": "calls"}
        )

    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert type(refused.error) is ResourcesExhausted
    assert refused.error.what == "You have 3 calls open, as many as one caller may."
    assert "cancel" in refused.error.remedy
    assert others.code is grpc.StatusCode.OK
    assert counted is not None
    assert counted >= 1


def test_where_nobody_says_who_calls_each_connection_counts_by_itself() -> None:
    with running_server(is_open=True, max_calls_per_caller=3) as flight, _silent_calls(flight, 3, ()):
        refused = _refused(flight, ())
        with grpc.insecure_channel(
            f"127.0.0.1:{flight.server.port}", options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            others = FlightHarness(flight.server, flight.pool, flight.validator, channel).query(NUMBERS)

    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert others.code is grpc.StatusCode.OK


def test_a_call_whose_message_does_not_come_ends() -> None:
    with running_server(read_timeout_seconds=0.2) as flight, _silent_calls(flight, 1, ALICE) as (call,):
        assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "did not come in time" in (call.details() or "")


def test_a_client_that_sends_its_values_bit_by_bit_for_ever_is_ended() -> None:
    rows = pa.record_batch({"0": pa.array([1], pa.int64())})
    encoder = FlightDataEncoder(rows.schema)
    ended = threading.Event()

    with running_server(read_timeout_seconds=0.5) as flight:
        command = messages.CommandPreparedStatementQuery(prepared_statement_handle=prepare(flight, "SELECT ? + 1 AS n"))
        descriptor = messages.FlightDescriptor(type=messages.FlightDescriptor.CMD, cmd=pack_any(command))
        first = messages.FlightData.FromString(encoder.encode_schema())
        first.flight_descriptor.CopyFrom(descriptor)

        def bit_by_bit() -> Iterator[bytes]:
            yield first.SerializeToString()
            while not ended.wait(0.1):
                yield from encoder.encode_batch(rows)

        call = flight.channel.stream_stream(FLIGHT + "DoPut")(bit_by_bit(), metadata=ALICE, timeout=DEADLINE_SECONDS)
        call.add_callback(ended.set)
        with contextlib.suppress(grpc.RpcError):
            list(call)

    assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "did not come in time" in (call.details() or "")
