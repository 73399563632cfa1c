"""Another server of this package as the engine: rows, rights, limits and ends are those of the server before it."""

import json
import logging

import grpc
import pyarrow as pa
import pytest

from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.core.read_only import READ_ONLY_HEADER
from micromegas_jupyter.errors import (
    InvalidStatement,
    QueryCancelled,
    ReadOnlyCall,
    ResourcesExhausted,
    StatementRefused,
    Unavailable,
    UnsupportedRequest,
    UnsupportedStatement,
)
from micromegas_jupyter.flightsql.commands import messages
from micromegas_jupyter.flightsql.parameters import Untyped
from micromegas_jupyter.gateway import tables as gateway_tables
from micromegas_jupyter.server.tails import TAIL_HEADER
from tests.fakes import scripted_engine
from tests.fakes.ports import free_port
from tests.fakes.scripted_engine import ROWS, frames_of
from tests.fakes.waiting import wait_until
from tests.integration import flight_harness as harness
from tests.integration.flight_harness import ALICE, BOB, LARGE, NUMBERS, WAITING, prepare, rows_of
from tests.integration.gateway.conftest import gateway

pytestmark = pytest.mark.integration

COUNT = "SELECT count(*) AS n FROM log_entries"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM log_entries ORDER BY time",
        "SELECT exe, count(*) AS n, min(time) AS first FROM log_entries GROUP BY exe ORDER BY exe",
        "SELECT level, msg FROM log_entries WHERE level > 100",
        "SELECT a.exe, p.process_id FROM log_entries a JOIN processes p ON a.process_id = p.process_id ORDER BY 1, 2",
        "SELECT 7 / 2 AS q, CAST(1.5 AS DECIMAL(10, 2)) AS d, 'ü' AS t, NULL AS nothing",
        LARGE,
    ],
)
def test_rows_and_schemas_are_those_of_the_engine(front, engine, sql):
    info = front.info(messages.CommandStatementQuery(query=sql))

    through = rows_of(front.get(info.endpoint[0].ticket.ticket))
    direct = rows_of(engine.query(sql, metadata=()))

    assert through.equals(direct)
    assert pa.ipc.read_schema(pa.py_buffer(info.schema)).equals(through.schema)
    assert through.equals(rows_of(front.query(sql)))


def test_a_caller_sees_the_rows_and_the_tables_of_their_role(front):
    def visible(metadata):
        answer = front.info(messages.CommandGetTables(include_schema=True), metadata=metadata)
        listed = rows_of(front.get(answer.endpoint[0].ticket.ticket, metadata=metadata))
        sql = "SELECT DISTINCT table_name AS name FROM information_schema.columns ORDER BY name"
        return listed["table_name"].to_pylist(), rows_of(front.query(sql, metadata=metadata))["name"].to_pylist()

    everything, part = (rows_of(front.query(COUNT, metadata=one))["n"][0].as_py() for one in (ALICE, BOB))

    assert (everything, part) == (8, 4)
    assert visible(ALICE) == (["log_entries", "processes"],) * 2
    assert visible(BOB) == (["log_entries"],) * 2
    assert type(front.query("SELECT * FROM processes", metadata=BOB).error) is InvalidStatement


def test_what_fails_on_a_hidden_value_does_not_show_it(front):
    sql = "SELECT CAST(msg AS INT) AS n FROM log_entries"

    shown, hidden = (front.query(sql, metadata=one).error.what for one in (ALICE, BOB))

    assert "Cannot cast string" in shown
    assert "only some of a table" in hidden
    assert "string" not in hidden


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("SELECT * FROM nothing", InvalidStatement),
        ("DROP TABLE log_entries", StatementRefused),
        ("SELECT * FROM log_entries, information_schema.tables", UnsupportedStatement),
        ("SELECT 1; SELECT 2", StatementRefused),
        ("DROP MATERIALIZED VIEW log_counts", UnsupportedRequest),
        ("SELECT retire_partition_by_file('x')", UnsupportedStatement),
        ("SELECT * FROM retire_partitions('log_entries', 'global', '2026-11-24', '2026-11-30')", UnsupportedStatement),
        ("SELECT \"deny_queries\"($$client = 'x'$$, $$y$$)", InvalidStatement),
        (f"SELECT {'(' * 3000}1{')' * 3000}", StatementRefused),
    ],
)
def test_what_is_not_forwarded_is_refused_with_the_reason(front, sql, error):
    planned = front.call("GetFlightInfo", harness.descriptor_bytes(messages.CommandStatementQuery(query=sql)))

    assert [type(planned.error), type(front.query(sql).error)] == [error, error]


def test_a_read_only_call_reads_and_defines_no_view(front):
    metadata = (*ALICE, (READ_ONLY_HEADER, "true"))

    assert rows_of(front.query(COUNT, metadata=metadata))["n"].to_pylist() == [8]
    assert type(front.query("DROP MATERIALIZED VIEW log_counts", metadata=metadata).error) is ReadOnlyCall


def test_nothing_is_followed(front):
    answer = front.query("SELECT msg FROM log_entries", metadata=(*ALICE, (TAIL_HEADER, "now")))

    assert (answer.code, type(answer.error)) == (grpc.StatusCode.UNIMPLEMENTED, UnsupportedRequest)


def test_prepared_statements_take_values(front):
    handle = prepare(front, "SELECT msg FROM log_entries WHERE level = $1 AND exe = $2 ORDER BY msg")
    # Named as arrow-go names them.
    batch = pa.record_batch({"$1": pa.array([4], pa.int64()), "$2": ["web"]})
    command = messages.CommandPreparedStatementQuery(prepared_statement_handle=handle)

    unbound = front.get(front.info(command).endpoint[0].ticket.ticket)
    harness.bind(front, handle, batch)
    rows = rows_of(front.get(front.info(command).endpoint[0].ticket.ticket))

    assert type(unbound.error) is InvalidStatement
    assert rows["msg"].to_pylist() == ["start 0", "start 1"]


def test_values_without_types_take_those_of_the_columns(front):
    sql = "SELECT msg FROM log_entries WHERE level = :level AND exe = $exe AND time > :time ORDER BY msg"
    values = {"level": Untyped("4"), "exe": Untyped("web"), "time": Untyped("2000-01-01T00:00:00+00:00")}
    with FlightSQLClient(front.uri, auth_provider=StaticTokenAuthProvider("alice")) as client:
        rows = client.query_arrow(sql, params=values)

    assert rows["msg"].to_pylist() == ["start 0", "start 1"]


def test_the_servers_limits_hold(engine):
    with gateway(engine.uri, max_rows=2, max_result_bytes=100_000) as front:
        rows, size = front.query(NUMBERS), front.query("SELECT repeat('x', 1000000) AS x")
        within = rows_of(front.query(NUMBERS, metadata=(*ALICE, ("limit", "2"))))

    assert [type(rows.error), type(size.error)] == [ResourcesExhausted] * 2
    assert "limit of 2 rows" in rows.error.what
    assert within.num_rows == 2


def test_what_no_planner_comes_to_an_end_with_does_not_reach_the_engine(engine):
    named = ", ".join(f"c{one + 1} AS (SELECT a.n FROM c{one} AS a, c{one} AS b)" for one in range(40))
    with gateway(engine.uri, worker={"planning_seconds": 1.0}) as front:
        answers = [
            front.query(f"SELECT {'coalesce(' * 24}level{', level)' * 24} AS n FROM log_entries"),
            front.query(f"WITH c0 AS (SELECT 1 AS n), {named} SELECT n FROM c40"),
        ]
        count = rows_of(front.query(COUNT))["n"].to_pylist()

    assert ["more than 1 s" in one.error.what for one in answers] == [True, True]  # of 10 s there
    assert count == [8]


@pytest.mark.parametrize("how", ["cancelled", "left"])
def test_an_ended_statement_ends_at_the_engine(front, engine, how):
    info = front.info(messages.CommandStatementQuery(query=WAITING))
    reading = front.begin("DoGet", [harness.ticket_bytes(info.endpoint[0].ticket.ticket)])
    assert harness.decode_rows([next(reading), next(reading)]).num_rows == 3
    engine.wait_until_running()
    listed = json.loads(harness.result_of(front.act("MicromegasQueries", b'{"operation": "list"}')))
    assert [query["is_running"] for query in listed["queries"]] == [True]

    if how == "left":
        reading.cancel()
    else:
        front.act("CancelFlightInfo", messages.CancelFlightInfoRequest(info=info).SerializeToString())
        with pytest.raises(grpc.RpcError):
            list(reading)
        assert type(harness.error_of(reading)) is QueryCancelled

    engine.wait_until_quiet()
    front.wait_until_quiet()


def test_a_statement_that_takes_too_long_ends(engine):
    with gateway(engine.uri, pool={"statement_timeout_seconds": 1.0}) as front:
        answer = front.query(WAITING)
        engine.wait_until_quiet()

    assert answer.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_client_that_reads_nothing_holds_the_engine_back_and_then_ends(caplog):
    sent = []

    def rows(_context):
        schema, batch = frames_of(pa.record_batch({"n": pa.array(range(200_000), pa.int64())}))
        yield schema
        while True:
            sent.append(len(batch))
            yield batch

    with scripted_engine.running() as engine, caplog.at_level(logging.INFO, "micromegas_jupyter.audit"):
        engine.rows = rows
        with gateway(engine.uri, pool={"write_timeout_seconds": 1.0}) as front:
            reading = front.read("SELECT 1 AS n")
            next(reading)
            assert engine.has_ended.wait(60)
            with pytest.raises(grpc.RpcError):
                list(reading)

    assert sum(sent) < 64 << 20
    assert harness.error_of(reading).what == "The client did not read the result in time."
    audit = [json.loads(one.getMessage()) for one in caplog.records if one.name == "micromegas_jupyter.audit"]
    assert audit[-1]["status"] == "error"
    assert audit[-1]["output_rows"] % 200_000 == 0


def test_statements_run_while_a_slow_engine_lists_its_tables(monkeypatch):
    monkeypatch.setattr(gateway_tables, "_NAMES_SECONDS", 0.05)
    with scripted_engine.running() as engine, gateway(engine.uri) as front:
        first = front.query("SELECT 1 AS n").code
        engine.may_list.clear()
        engine.is_listing.clear()
        assert engine.is_listing.wait(60)
        during = front.query("SELECT 2 AS n").code
        engine.may_list.set()

    assert (first, during) == (grpc.StatusCode.OK, grpc.StatusCode.OK)


def test_a_statement_waits_for_the_first_listing_up_to_the_queue_timeout():
    with scripted_engine.running() as engine:
        engine.may_list.clear()
        with gateway(engine.uri, pool={"queue_timeout_seconds": 0.3}) as front:
            found = front.query("SELECT 1 AS n")
        engine.may_list.set()

    assert (found.code, type(found.error)) == (grpc.StatusCode.UNAVAILABLE, Unavailable)


def test_without_its_engine_a_server_says_so_and_goes_on_when_it_is_back():
    port = free_port()
    with gateway(f"grpc://127.0.0.1:{port}") as front:
        lost = front.query(NUMBERS)
        assert (lost.code, type(lost.error)) == (grpc.StatusCode.UNAVAILABLE, Unavailable)
        assert "administrator" in lost.error.remedy

        def answers():
            return front.query("SELECT 1 AS n").code is grpc.StatusCode.OK

        with scripted_engine.running(port=port) as engine:
            wait_until(answers, "the engine is found")
            assert rows_of(front.query("SELECT 1 AS n")) == pa.Table.from_batches([ROWS])

            def rows(_context):
                yield from frames_of(ROWS)
                engine.server.stop(0)
                engine.has_ended.wait(60)

            engine.rows = rows
            ended = front.query("SELECT 1 AS n")

    assert (ended.code, type(ended.error)) == (grpc.StatusCode.UNAVAILABLE, Unavailable)
    assert len(ended.replies) == 2
