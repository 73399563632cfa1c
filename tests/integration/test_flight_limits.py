"""Over a limit, a caller gets a status that says which one and what to do; calls that are held open end, too."""

import contextlib
import threading
from unittest.mock import Mock

import grpc
import pyarrow as pa
import pytest

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.errors import DeadlineExceeded, ResourcesExhausted
from micromegas_jupyter.flightsql.commands import messages, pack_any
from micromegas_jupyter.flightsql.framing import FlightDataEncoder
from micromegas_jupyter.server import flight_service
from tests.fakes.fixed_tables import FixedTables
from tests.fakes.waiting import wait_until
from tests.integration import flight_harness as harness
from tests.integration.flight_harness import ALICE, BOB, DEADLINE_SECONDS, NUMBERS, WAITING, rows_of, running_server

pytestmark = pytest.mark.integration


def _check_alive(flight):
    # No query: on a busy machine it could be over the small limits of these tests.
    assert flight.call("ListActions", b"").code is grpc.StatusCode.OK


def test_a_query_over_its_time_ends_with_its_id_and_stops_its_executor():
    with running_server(pool={"statement_timeout_seconds": 0.5}) as flight:
        answer = flight.query(WAITING)

        assert answer.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert type(answer.error) is DeadlineExceeded
        assert answer.error.query_id == answer.initial["x-micromegas-query-id"]
        assert "limit of 0.5 s" in answer.text
        flight.wait_until_quiet()
        _check_alive(flight)


class HangingTables:
    def __init__(self):
        self.hangs = False
        self.storage_answers = threading.Event()

    def snapshot(self, sql=None):
        if self.hangs:
            self.storage_answers.wait(DEADLINE_SECONDS)
        return []


def test_storage_that_hangs_ends_statements_that_read_it_in_time_and_no_others():
    tables = HangingTables()
    with running_server(tables=tables, pool={"statement_timeout_seconds": 1.0, "max_ended_per_caller": 1}) as flight:
        before = flight.query(NUMBERS)
        tables.hangs = True
        reading = flight.query("SELECT * FROM anything")
        others = flight.query("SELECT 1 AS n")
        ended = flight.metric("statements_ended_total", cause="deadline")
        tables.hangs = False
        tables.storage_answers.set()
        afterwards = flight.query(NUMBERS)

    assert reading.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert {answer.code for answer in (before, others, afterwards)} == {grpc.StatusCode.OK}
    assert ended == 0


def test_many_wide_tables_are_listed():
    wide = pa.schema([pa.field(f"{number:0120}", pa.int64()) for number in range(500)])
    tables = FixedTables([TableSnapshot(name=f"t{number}", schema=wide, files=()) for number in range(100)])
    with running_server(tables=tables) as flight:
        listed = rows_of(flight.get(pack_any(messages.CommandGetTables(include_schema=True))))

    assert len(listed) == 100
    assert pa.ipc.read_schema(listed["table_schema"][0].as_buffer()).names == wide.names


def test_a_statement_that_is_too_long_is_refused_before_it_costs_others_time(monkeypatch):
    tables = FixedTables()
    monkeypatch.setattr(tables, "snapshot", Mock(return_value=[]))
    with running_server(tables=tables) as flight:
        flight.query(NUMBERS)
        listings = tables.snapshot.call_count
        answer = flight.query(f"SELECT * FROM anything -- {'x' * 131_072}")

        assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "longer than the 131072 bytes" in answer.text
        assert tables.snapshot.call_count == listings


def test_rows_come_up_to_the_limit():
    with running_server(max_rows=2) as flight:
        answer = flight.query(NUMBERS)

        assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert type(answer.error) is ResourcesExhausted
        assert "limit of 2 rows" in answer.text
        assert "LIMIT" in answer.error.remedy
        assert len(answer.replies) == 2  # schema and two rows
        _check_alive(flight)


def test_a_result_over_its_size_ends():
    with running_server(max_result_bytes=3 << 20) as flight:
        answer = flight.query(harness.LARGE)

        assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "limit of 3 MiB" in answer.text
        assert sum(map(len, answer.replies)) < 4 << 20
        _check_alive(flight)


TERMS = " OR ".join(f"value = {number} AND -value < {number}" for number in range(2000))
UNION = " UNION ALL ".join(["SELECT 1 AS n"] * 5000)


@pytest.mark.parametrize(
    ("method", "sql"),
    [
        ("GetFlightInfo", UNION),
        ("DoGet", UNION),
        ("DoGet", f"SELECT value FROM generate_series(1, 10) WHERE {TERMS}"),
    ],
    ids=["planning alone", "planning", "optimizing"],
)
def test_planning_takes_so_much_processor_time_and_no_more(method, sql):
    with running_server(worker={"planning_seconds": 0.25}) as flight:
        if method == "DoGet":
            answer = flight.query(sql)
        else:
            answer = flight.call(method, harness.descriptor_bytes(messages.CommandStatementQuery(query=sql)))

        assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "more than 0.25 s of CPU time" in answer.text
        assert flight.metric("limits_reached_total", limit="planning") == 1
        assert flight.metric("statements_ended_total", cause="planning") == 1
        flight.wait_until_quiet()
        _check_alive(flight)


def test_calls_and_queries_are_counted_as_they_end():
    with running_server(max_rows=2) as flight:
        flight.query("SELECT 1 AS n WHERE false")
        flight.query(NUMBERS)
        flight.query("SELECT nothing_of_the_kind")
        flight.query(harness.HUGE)
        flight.call("NoSuchMethod", b"")
        flight.wait_until_quiet()

        assert flight.metric("queries_total", status="ok", error="") == 1
        assert flight.metric("queries_total", status="error", error="SQL004") == 2
        assert flight.metric("queries_total", status="error", error="SQL001") == 1
        assert flight.metric("calls_total", method="DoGet", status="RESOURCE_EXHAUSTED") == 2
        assert flight.metric("calls_total", method="other", status="UNIMPLEMENTED") == 1
        assert [flight.metric("limits_reached_total", limit=limit) for limit in ("rows", "memory")] == [1, 1]
        assert flight.metric("statements_ended_total", cause="memory") == 1
        assert (flight.metric("rows_sent_total"), flight.metric("query_seconds_count")) == (2, 4)
        assert flight.metric("bytes_sent_total") > 0
        assert flight.metric("query_cpu_seconds_total") > 0
        assert (flight.metric("queries_running"), flight.metric("queries_waiting")) == (0, 0)
        assert flight.metric("executors", state="busy") == 0
        assert flight.metric("executors", state="idle") == flight.pool.idle_count


def test_queries_of_one_caller_over_the_limit_wait_and_those_of_others_do_not():
    with running_server(pool={"max_per_caller": 1, "queue_timeout_seconds": 0.2}) as flight:
        running = flight.read(WAITING)
        flight.wait_until_running()

        refused = flight.query(NUMBERS)
        others = flight.query(NUMBERS, metadata=BOB)
        running.cancel()
        flight.wait_until_quiet()
        afterwards = flight.query(NUMBERS)

        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert type(refused.error) is ResourcesExhausted
        assert flight.metric("limits_reached_total", limit="queue") == 1
        assert (others.code, afterwards.code) == (grpc.StatusCode.OK, grpc.StatusCode.OK)


def test_who_has_too_many_statements_ended_has_to_wait_and_others_do_not():
    with running_server(pool={"max_ended_per_caller": 2}) as flight:
        ended = [flight.query(harness.HUGE) for _ in range(2)]
        refused = flight.query(NUMBERS)
        others = flight.query(NUMBERS, metadata=BOB)

        assert {type(answer.error) for answer in (*ended, refused)} == {ResourcesExhausted}
        assert flight.metric("limits_reached_total", limit="ended_statements") == 1
        assert 0 < int(refused.trailing["grpc-retry-pushback-ms"]) <= 60_000
        assert others.code is grpc.StatusCode.OK


def test_what_a_caller_cancels_or_leaves_is_not_held_against_them():
    with running_server(pool={"max_ended_per_caller": 1}) as flight:
        for _ in range(3):
            call = flight.read(WAITING)
            flight.wait_until_running()
            call.cancel()
            flight.wait_until_quiet()

        assert flight.query(NUMBERS).code is grpc.StatusCode.OK
        assert flight.metric("statements_ended_total", cause="disconnected") == 3


@contextlib.contextmanager
def _stalled_calls(flight, count, metadata):
    """Have calls open whose client reads no further than their first message."""
    stalled = [flight.read(harness.ENDLESS, metadata=metadata) for _ in range(count)]
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
        counted = flight.metric("limits_reached_total", limit="calls")

    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert type(refused.error) is ResourcesExhausted
    assert refused.error.what == "You have 3 calls open, the maximum for one caller."
    assert "cancel" in refused.error.remedy
    assert (others.code, afterwards.code) == (grpc.StatusCode.OK, grpc.StatusCode.OK)
    assert counted == 1


def test_large_rows_that_their_clients_do_not_take_are_few_and_others_get_theirs():
    sql = f"SELECT repeat('x', {5 << 20}) AS x FROM generate_series(1, 4)"
    with running_server() as flight:
        frames = flight.pool.large_frames
        stalled = [flight.read(sql) for _ in range(3)]
        wait_until(lambda: (frames.running_count, frames.waiting_count) == (2, 1), "two are held, and one waits")
        address, limit = f"127.0.0.1:{flight.server.port}", [("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(address, options=limit) as channel:
            others = harness.FlightHarness(flight.server, flight.pool, flight.validator, channel).query(
                sql, metadata=BOB
            )
        for call in stalled:
            call.cancel()
        flight.wait_until_quiet()

        assert (others.code, len(others.replies)) == (grpc.StatusCode.OK, 5)
        assert (frames.running_count, frames.waiting_count) == (0, 0)


def test_callers_with_open_calls_leave_some_to_others():
    may_end = threading.Event()

    def send_nothing():
        may_end.wait(DEADLINE_SECONDS)
        yield from ()

    with running_server(max_concurrent_calls=8, max_calls_per_caller=8) as flight:
        held = [flight.begin("DoPut", send_nothing()) for _ in range(7)]
        wait_until(lambda: flight.metric("calls_open") == 7, "the calls are open")
        refused = flight.call("ListActions", b"")
        others = flight.call("ListActions", b"", metadata=BOB)
        may_end.set()
        for call in held:
            call.cancel()

    assert (refused.code, others.code) == (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OK)


def test_where_nobody_says_who_calls_each_connection_counts_by_itself():
    with running_server(is_open=True, max_calls_per_caller=3) as flight, _stalled_calls(flight, 3, ()):
        refused = flight.query(NUMBERS, metadata=())
        with grpc.insecure_channel(
            f"127.0.0.1:{flight.server.port}", options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            others = harness.FlightHarness(flight.server, flight.pool, flight.validator, channel).query(NUMBERS)

    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert others.code is grpc.StatusCode.OK


def test_a_call_whose_message_does_not_come_ends():
    may_end = threading.Event()

    def send_nothing():
        may_end.wait(DEADLINE_SECONDS)
        yield from ()

    with running_server(read_timeout_seconds=0.2) as flight:
        call = flight.begin("DoGet", send_nothing())
        assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        may_end.set()

    assert "did not arrive in time" in (call.details() or "")


def test_who_says_nothing_keeps_nobody_from_being_heard(monkeypatch):
    monkeypatch.setattr(flight_service, "_MAX_READERS", 2)
    monkeypatch.setattr(flight_service, "_SILENT_SECONDS", 0.2)
    may_end = threading.Event()

    def send_nothing():
        may_end.wait(DEADLINE_SECONDS)
        yield from ()

    with running_server(read_timeout_seconds=DEADLINE_SECONDS) as flight:
        silent = [flight.begin("DoGet", send_nothing()) for _ in range(2)]
        wait_until(lambda: flight.metric("calls_open") == len(silent), "the silent calls are open")
        answers = [flight.query(NUMBERS, metadata=BOB) for _ in range(2)]
        ended = flight.metric("limits_reached_total", limit="silent_client")
        may_end.set()
        for call in silent:
            call.cancel()

    assert [answer.code for answer in answers] == [grpc.StatusCode.OK] * 2
    assert ended == 1


def test_a_client_that_sends_its_values_bit_by_bit_for_ever_is_ended():
    rows = pa.record_batch({"0": pa.array([1], pa.int64())})
    encoder = FlightDataEncoder(rows.schema)
    ended = threading.Event()

    with running_server(read_timeout_seconds=0.5) as flight:
        handle = harness.prepare(flight, "SELECT ? + 1 AS n")
        command = messages.CommandPreparedStatementQuery(prepared_statement_handle=handle)

        def bit_by_bit():
            yield harness.opening_frame(command, encoder.encode_schema())
            while not ended.wait(0.1):
                yield from encoder.encode_batch(rows)

        call = flight.begin("DoPut", bit_by_bit())
        call.add_callback(ended.set)
        with contextlib.suppress(grpc.RpcError):
            list(call)

    assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "did not arrive in time" in (call.details() or "")


COUNT = 100
NOTICE_SECONDS = 0.5  # a refusal that does not wait comes long before


# The beginning of rows that this server, which only reads, refuses at once; and of how they go on.
FIRST_FRAME = harness.opening_frame(messages.CommandStatementIngest(table="log_entries"))
FRAME = messages.FlightData(data_body=b"x" * 1000).SerializeToString()


@pytest.mark.parametrize(
    ("metadata", "code"), [(ALICE, grpc.StatusCode.UNIMPLEMENTED), (BOB, grpc.StatusCode.PERMISSION_DENIED)]
)
def test_a_client_may_send_everything_before_it_is_refused(metadata, code, monkeypatch):
    monkeypatch.setattr(flight_service, "_DRAIN_SECONDS", DEADLINE_SECONDS)  # so long for a busy machine, too
    ended, sent = threading.Event(), []

    def frames():
        yield FIRST_FRAME
        for number in range(COUNT):
            if number or not ended.wait(NOTICE_SECONDS):
                sent.append(number)
                yield FRAME

    with running_server() as flight:
        call = flight.begin("DoPut", frames(), metadata=metadata)
        call.add_callback(ended.set)

        assert call.code() is code
    assert sent == list(range(COUNT))


@pytest.mark.parametrize("is_silent", [False, True])
def test_a_client_that_goes_on_and_on_or_says_no_more_is_refused_all_the_same(flight, monkeypatch, is_silent):
    monkeypatch.setattr(flight_service, *(("_DRAIN_SECONDS", 0.1) if is_silent else ("_MAX_DRAINED_BYTES", 10_000)))
    ended = threading.Event()

    def frames():
        yield FIRST_FRAME
        while not ended.wait(DEADLINE_SECONDS if is_silent else 0):
            yield FRAME

    call = flight.begin("DoPut", frames())
    call.add_callback(ended.set)

    assert call.code() is grpc.StatusCode.UNIMPLEMENTED
