"""Tickets of GetFlightInfo: who may use them, how their plans are reused, and how a running flight is cancelled."""

import json
import logging
from contextlib import contextmanager
from dataclasses import fields, replace

import grpc
import pytest
from google.protobuf import any_pb2

from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.client.commands import RunningQuery
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import QueryCancelled, UsageError
from micromegas_jupyter.flightsql.commands import issued_ticket, messages, pack_any, prepared_ticket, statement_ticket
from tests.fakes.fixed_tables import FixedTables, write_log_entries
from tests.fakes.validator import ALICE as ALICE_CONTEXT
from tests.integration import flight_harness as harness
from tests.integration.flight_harness import ALICE, BOB, NUMBERS, WAITING, result_of, rows_of, running_server

pytestmark = pytest.mark.integration

CANCELLED, NOT_CANCELLABLE = 1, 3


def _info(flight, sql):
    return flight.info(messages.CommandStatementQuery(query=sql))


def _info_of(ticket):
    return messages.FlightInfo(endpoint=[messages.FlightEndpoint(ticket=messages.Ticket(ticket=ticket))])


def _cancel(flight, info, metadata=ALICE):
    body = messages.CancelFlightInfoRequest(info=info).SerializeToString()
    return flight.act("CancelFlightInfo", body, metadata=metadata)


def _status(answer):
    assert answer.code is grpc.StatusCode.OK, answer.text
    return messages.CancelFlightInfoResult.FromString(result_of(answer)).status


def _begin(flight, ticket):
    """Begin to read; return the call, some of whose rows have come."""
    call = flight.begin("DoGet", [harness.ticket_bytes(ticket)])
    assert len([next(call), next(call)]) == 2
    return call


def _end(call):
    with pytest.raises(grpc.RpcError):
        list(call)
    return call.code(), type(harness.error_of(call))


@pytest.mark.parametrize("kind", ["another caller", "forged", "cut off"])
def test_a_ticket_that_is_not_the_callers_is_refused(flight, kind):
    ticket = _info(flight, NUMBERS).endpoint[0].ticket.ticket
    ticket = {"another caller": ticket, "forged": issued_ticket(bytes(100)), "cut off": issued_ticket(b"")}[kind]
    metadata = BOB if kind == "another caller" else ALICE

    answer = flight.get(ticket, metadata=metadata)

    assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
    assert type(answer.error) is UsageError
    assert answer.error.remedy == "Ask for a new ticket with GetFlightInfo."
    assert _cancel(flight, messages.FlightInfo()).code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_running_flight_is_cancelled_by_its_caller_alone(flight):
    info = _info(flight, WAITING)
    reading = _begin(flight, info.endpoint[0].ticket.ticket)

    by_another = _cancel(flight, info, BOB)
    still_runs = len(flight.pool.running) == 1
    status = _status(_cancel(flight, info))

    assert by_another.code is grpc.StatusCode.INVALID_ARGUMENT
    assert still_runs
    assert status == CANCELLED
    assert not flight.pool.running
    assert _end(reading) == (grpc.StatusCode.ABORTED, QueryCancelled)
    again = _cancel(flight, info)
    assert _status(again) == NOT_CANCELLABLE
    assert "x-micromegas-notice" in again.trailing


@pytest.mark.parametrize("kind", ["statement", "prepared"])
def test_a_flight_by_a_ticket_of_the_client_is_cancelled(flight, kind):
    sql = harness.ENDLESS
    ticket = statement_ticket(sql) if kind == "statement" else prepared_ticket(harness.prepare(flight, sql))
    reading = _begin(flight, ticket)

    by_another = _status(_cancel(flight, _info_of(ticket), BOB))
    status = _status(_cancel(flight, _info_of(ticket)))

    assert (by_another, status) == (NOT_CANCELLABLE, CANCELLED)
    assert _end(reading) == (grpc.StatusCode.ABORTED, QueryCancelled)


def test_the_older_action_cancels_too(flight):
    info = _info(flight, WAITING)
    reading = _begin(flight, info.endpoint[0].ticket.ticket)
    body = pack_any(messages.ActionCancelQueryRequest(info=info.SerializeToString()))

    answer = flight.act("CancelQuery", body)

    envelope = any_pb2.Any.FromString(result_of(answer))
    assert messages.ActionCancelQueryResult.FromString(envelope.value).result == CANCELLED
    assert _end(reading) == (grpc.StatusCode.ABORTED, QueryCancelled)


def test_a_ticket_is_renewed(flight):
    endpoint = _info(flight, NUMBERS).endpoint[0]
    plain = messages.FlightEndpoint(ticket=messages.Ticket(ticket=statement_ticket(NUMBERS)))

    def renew(found):
        body = messages.RenewFlightEndpointRequest(endpoint=found).SerializeToString()
        return messages.FlightEndpoint.FromString(result_of(flight.act("RenewFlightEndpoint", body)))

    renewed, unchanged = renew(endpoint), renew(plain)

    assert renewed.expiration_time.seconds >= endpoint.expiration_time.seconds
    assert flight.get(renewed.ticket.ticket).code is grpc.StatusCode.OK
    assert unchanged == plain


@pytest.mark.parametrize("processors", [1, 2])
def test_first_rows_come_while_the_rest_holds_every_partition(processors):
    # The engine then has neither its main thread nor a worker left that would look for signals.
    with running_server(pool={"processors": processors}) as flight:
        call = flight.read(WAITING)

        rows = harness.decode_rows([next(call), next(call)])

        assert rows.to_pydict() == {"n": [1, 2, 3]}
        call.cancel()
        flight.wait_until_quiet()


def test_a_flight_gives_the_same_rows_until_rights_or_options_are_others():
    who = "SELECT current_user() AS who, is_admin() AS is_admin"
    with running_server() as flight:
        ticket = _info(flight, who).endpoint[0].ticket.ticket

        answers = [rows_of(flight.get(ticket)).to_pydict() for _ in range(3)]
        cut = rows_of(flight.get(ticket, metadata=(*ALICE, ("limit", "0"))))
        others = flight.get(ticket, metadata=BOB)
        flight.validator.known["alice"] = replace(ALICE_CONTEXT, is_admin=False)
        afterwards = rows_of(flight.get(ticket)).to_pydict()

    assert answers == [{"who": ["alice"], "is_admin": [True]}] * 3
    assert cut.num_rows == 0
    assert (others.code, others.replies) == (grpc.StatusCode.INVALID_ARGUMENT, [])
    assert afterwards == {"who": ["alice"], "is_admin": [False]}


def test_other_tables_are_planned_anew(tmp_path):
    tables = FixedTables([write_log_entries(tmp_path, 1)])
    with running_server(tables=tables) as flight:
        info = _info(flight, "SELECT count(*) AS n FROM log_entries")
        tables.tables = [write_log_entries(tmp_path, 2)]

        answer = flight.get(info.endpoint[0].ticket.ticket)

    assert rows_of(answer).to_pydict() == {"n": [8]}


def _ask_for(flight, metadata, **request):
    answer = flight.act("MicromegasQueries", json.dumps(request).encode(), metadata=metadata)
    assert answer.code is grpc.StatusCode.OK, answer.text
    return json.loads(result_of(answer))


def test_what_runs_is_listed_and_cancelled_by_its_id_by_its_caller_alone(flight):
    reading = _begin(flight, _info(flight, WAITING).endpoint[0].ticket.ticket)
    (query,) = _ask_for(flight, ALICE, operation="list")["queries"]
    of_another = _ask_for(flight, BOB, operation="list")["queries"]
    by_another = _ask_for(flight, BOB, operation="cancel", query_id=query["query_id"])
    still_runs = len(flight.pool.running) == 1
    by_caller = _ask_for(flight, ALICE, operation="cancel", query_id=query["query_id"])

    assert (query["sql"], query["is_running"]) == (WAITING, True)
    assert of_another == []
    assert by_another == {"status": "not_cancellable"}
    assert still_runs
    assert by_caller == {"status": "cancelled"}
    assert _end(reading) == (grpc.StatusCode.ABORTED, QueryCancelled)
    assert _ask_for(flight, ALICE, operation="list") == {"queries": []}


@contextmanager
def _client(flight, name):
    with FlightSQLClient(flight.uri, auth_provider=StaticTokenAuthProvider(Secret(name))) as client:
        yield client


def test_running_queries_are_rows_of_sql_and_those_of_others_only_for_administrators(flight):
    own = 'SELECT query_id, "user", email, client_ip, client, entrypoint, is_running, sql FROM running_queries()'
    ids = [
        'SELECT query_id FROM running_queries () WHERE "user" <> current_user() OR is_running',
        "SELECT q.query_id FROM (VALUES ('bob'), ('alice')) AS v(name) JOIN running_queries() q ON q.\"user\" = v.name",
        "WITH q AS (SELECT * FROM running_queries(/* of all */)) SELECT query_id FROM q WHERE seconds >= 0 LIMIT 5",
        "SELECT value AS query_id FROM (VALUES (1)) AS v(n), (SELECT query_id AS value FROM running_queries())",
    ]
    readings = [flight.read(WAITING, metadata=metadata) for metadata in (ALICE, BOB)]
    for reading in readings:
        assert len([next(reading), next(reading)]) == 2
    with _client(flight, "alice") as alice, _client(flight, "bob") as bob:
        found = [client.query_arrow(f"{own} ORDER BY began_at").to_pylist() for client in (alice, bob)]
        called = [client.running_queries() for client in (alice, bob)]
        seen_by_bob = [bob.query_arrow(sql)["query_id"].to_pylist() for sql in ids]
        bound = bob.query_arrow(f"{ids[0]} AND sql = :sql", params={"sql": WAITING})["query_id"].to_pylist()
        planned = rows_of(flight.get(_info(flight, ids[0]).endpoint[0].ticket.ticket))
        columns = bob.query_arrow("SELECT * FROM running_queries() LIMIT 0").schema.names
    for reading in readings:
        reading.cancel()
    flight.wait_until_quiet()

    assert columns == [field.name for field in fields(RunningQuery)]
    for rows, queries in zip(found, called, strict=True):
        assert rows == [{name: getattr(query, name) for name in rows[0]} for query in queries]
    assert [[row["user"] for row in rows] for rows in found] == [["alice", "bob"], ["bob"]]
    assert [*seen_by_bob, bound] == [[called[1][0].query_id]] * 5
    assert planned.num_rows == 2


def test_an_administrator_who_cancels_a_query_is_named_in_its_audit_line(flight, caplog):
    with caplog.at_level(logging.INFO, logger="micromegas_jupyter.audit"):
        reading = flight.read(WAITING, metadata=BOB)
        next(reading)
        (query,) = _ask_for(flight, ALICE, operation="list")["queries"]
        _ask_for(flight, ALICE, operation="cancel", query_id=query["query_id"])
        flight.wait_until_quiet()
    lines = [json.loads(one.getMessage()) for one in caplog.records if one.name == "micromegas_jupyter.audit"]

    (line,) = [one for one in lines if one["query_id"] == query["query_id"]]
    assert (line["user"], line["ended_for"], line["ended_by"]) == ("bob", "cancelled", "alice")


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"\xff", b'{"operation": "stop"}', b'{"operation": "cancel"}', b"[" * 2000]
)
def test_what_is_no_request_about_queries_is_refused(flight, body):
    answer = flight.act("MicromegasQueries", body)

    assert (answer.code, type(answer.error)) == (grpc.StatusCode.INVALID_ARGUMENT, UsageError)
