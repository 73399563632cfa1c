"""Calls that are held open, that send nothing or too much: they end, and the refusal reaches the client."""

import contextlib
import threading

import grpc
import pyarrow as pa
import pytest

from micromegas_jupyter.errors import ResourcesExhausted
from micromegas_jupyter.flightsql.commands import messages, pack_any
from micromegas_jupyter.flightsql.framing import FlightDataEncoder
from micromegas_jupyter.server import flight_service
from tests.integration.flight_harness import (
    ALICE,
    BOB,
    DEADLINE_SECONDS,
    ENDLESS,
    FLIGHT,
    NUMBERS,
    FlightHarness,
    prepare,
    running_server,
)

pytestmark = pytest.mark.integration


@contextlib.contextmanager
def _stalled_calls(flight, count, metadata):
    """Have calls open whose client reads no further than their first message."""
    stalled = [flight.read(ENDLESS, metadata=metadata) for _ in range(count)]
    for call in stalled:
        next(call)
    try:
        yield
    finally:
        for call in stalled:
            call.cancel()


def test_calls_of_one_caller_over_the_limit_are_refused_and_those_of_others_are_not():
    with running_server(max_calls_per_caller=3) as flight:
        with _stalled_calls(flight, 3, ALICE):
            refused = flight.query(NUMBERS, metadata=ALICE)
            others = flight.query(NUMBERS, metadata=BOB)
        flight.wait_until_quiet()
        afterwards = flight.query(NUMBERS, metadata=ALICE)
        counted = flight.server.metrics.registry.get_sample_value(
            "micromegas_server_limits_reached_total", {"limit": "calls"}
        )

    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert type(refused.error) is ResourcesExhausted
    assert refused.error.what == "You have 3 calls open, the maximum for one caller."
    assert "cancel" in refused.error.remedy
    assert (others.code, afterwards.code) == (grpc.StatusCode.OK, grpc.StatusCode.OK)
    assert counted == 1


def test_where_nobody_says_who_calls_each_connection_counts_by_itself():
    with running_server(is_open=True, max_calls_per_caller=3) as flight, _stalled_calls(flight, 3, ()):
        refused = flight.query(NUMBERS, metadata=())
        with grpc.insecure_channel(
            f"127.0.0.1:{flight.server.port}", options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            others = FlightHarness(flight.server, flight.pool, flight.validator, channel).query(NUMBERS)

    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert others.code is grpc.StatusCode.OK


def test_a_call_whose_message_does_not_come_ends():
    may_end = threading.Event()

    def send_nothing():
        may_end.wait(DEADLINE_SECONDS)
        yield from ()

    with running_server(read_timeout_seconds=0.2) as flight:
        call = flight.channel.stream_stream(FLIGHT + "DoGet")(send_nothing(), metadata=ALICE, timeout=DEADLINE_SECONDS)
        assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        may_end.set()

    assert "did not arrive in time" in (call.details() or "")


def test_a_client_that_sends_its_values_bit_by_bit_for_ever_is_ended():
    rows = pa.record_batch({"0": pa.array([1], pa.int64())})
    encoder = FlightDataEncoder(rows.schema)
    ended = threading.Event()

    with running_server(read_timeout_seconds=0.5) as flight:
        command = messages.CommandPreparedStatementQuery(prepared_statement_handle=prepare(flight, "SELECT ? + 1 AS n"))
        descriptor = messages.FlightDescriptor(type=messages.FlightDescriptor.CMD, cmd=pack_any(command))
        first = messages.FlightData.FromString(encoder.encode_schema())
        first.flight_descriptor.CopyFrom(descriptor)

        def bit_by_bit():
            yield first.SerializeToString()
            while not ended.wait(0.1):
                yield from encoder.encode_batch(rows)

        call = flight.channel.stream_stream(FLIGHT + "DoPut")(bit_by_bit(), metadata=ALICE, timeout=DEADLINE_SECONDS)
        call.add_callback(ended.set)
        with contextlib.suppress(grpc.RpcError):
            list(call)

    assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "did not arrive in time" in (call.details() or "")


COUNT = 100
NOTICE_SECONDS = 0.5  # a refusal that does not wait comes long before


def first_frame():
    """The beginning of rows that this server, which only reads, refuses at once."""
    command = messages.CommandStatementIngest(table="log_entries")
    descriptor = messages.FlightDescriptor(type=messages.FlightDescriptor.CMD, cmd=pack_any(command))
    return messages.FlightData(flight_descriptor=descriptor).SerializeToString()


@pytest.mark.parametrize(
    ("metadata", "code"), [(ALICE, grpc.StatusCode.UNIMPLEMENTED), (BOB, grpc.StatusCode.PERMISSION_DENIED)]
)
def test_a_client_may_send_everything_before_it_is_refused(metadata, code, monkeypatch):
    monkeypatch.setattr(flight_service, "_DRAIN_SECONDS", DEADLINE_SECONDS)  # so long for a busy machine, too
    ended, sent = threading.Event(), []

    def frames():
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


@pytest.mark.parametrize("is_silent", [False, True])
def test_a_client_that_goes_on_and_on_or_says_no_more_is_refused_all_the_same(flight, monkeypatch, is_silent):
    monkeypatch.setattr(flight_service, *(("_DRAIN_SECONDS", 0.1) if is_silent else ("_MAX_DRAINED_BYTES", 10_000)))
    ended = threading.Event()

    def frames():
        yield first_frame()
        while not ended.wait(DEADLINE_SECONDS if is_silent else 0):
            yield messages.FlightData(data_body=b"x" * 1000).SerializeToString()

    call = flight.channel.stream_stream(FLIGHT + "DoPut")(frames(), metadata=ALICE, timeout=DEADLINE_SECONDS)
    call.add_callback(ended.set)

    assert call.code() is grpc.StatusCode.UNIMPLEMENTED
