"""Tickets of GetFlightInfo: who may use them, how their plans are reused, and how a running flight is cancelled."""

from dataclasses import replace

import grpc
import pytest
from google.protobuf import any_pb2

from micromegas_jupyter.errors import QueryCancelled, UsageError
from micromegas_jupyter.flightsql.commands import (
    ERROR_DETAILS_KEY,
    decode_error,
    issued_ticket,
    messages,
    pack_any,
    prepared_ticket,
    statement_ticket,
)
from tests.fakes.fixed_tables import FixedTables, write_log_entries
from tests.fakes.validator import ALICE as ALICE_CONTEXT
from tests.integration.flight_harness import (
    ALICE,
    BOB,
    ENDLESS,
    FLIGHT,
    NUMBERS,
    WAITING,
    action_bytes,
    decode_rows,
    descriptor_bytes,
    prepare,
    rows_of,
    running_server,
    ticket_bytes,
)

pytestmark = pytest.mark.integration

CANCELLED, NOT_CANCELLABLE = 1, 3


def _info(flight, sql, metadata=ALICE):
    command = messages.CommandStatementQuery(query=sql)
    answer = flight.call(FLIGHT + "GetFlightInfo", descriptor_bytes(command), metadata=metadata)
    return messages.FlightInfo.FromString(answer.replies[0])


def _info_of(ticket):
    return messages.FlightInfo(endpoint=[messages.FlightEndpoint(ticket=messages.Ticket(ticket=ticket))])


def _cancel(flight, info, metadata=ALICE):
    body = messages.CancelFlightInfoRequest(info=info).SerializeToString()
    return flight.call(FLIGHT + "DoAction", action_bytes("CancelFlightInfo", body), metadata=metadata)


def _status(answer):
    assert answer.code is grpc.StatusCode.OK, answer.text
    return messages.CancelFlightInfoResult.FromString(messages.Result.FromString(answer.replies[0]).body).status


def _begin(flight, ticket):
    """Begin to read; return the call, some of whose rows have come."""
    call = flight.channel.unary_stream(FLIGHT + "DoGet")(ticket_bytes(ticket), metadata=ALICE, timeout=60)
    assert len([next(call), next(call)]) == 2
    return call


def _end(call):
    with pytest.raises(grpc.RpcError):
        list(call)
    details = dict(call.trailing_metadata() or ()).get(ERROR_DETAILS_KEY)
    return call.code(), type(decode_error(details)) if isinstance(details, bytes) else None


@pytest.mark.parametrize("kind", ["another caller", "forged", "cut off"])
def test_a_ticket_that_is_not_the_callers_is_refused(flight, kind):
    ticket = _info(flight, NUMBERS).endpoint[0].ticket.ticket
    ticket = {"another caller": ticket, "forged": issued_ticket(bytes(100)), "cut off": issued_ticket(b"")}[kind]
    metadata = BOB if kind == "another caller" else ALICE

    answer = flight.call(FLIGHT + "DoGet", ticket_bytes(ticket), metadata=metadata)

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
    assert _status(_cancel(flight, info)) == NOT_CANCELLABLE


@pytest.mark.parametrize("kind", ["statement", "prepared"])
def test_a_flight_by_a_ticket_of_the_client_is_cancelled(flight, kind):
    ticket = statement_ticket(ENDLESS) if kind == "statement" else prepared_ticket(prepare(flight, ENDLESS))
    reading = _begin(flight, ticket)

    by_another = _status(_cancel(flight, _info_of(ticket), BOB))
    status = _status(_cancel(flight, _info_of(ticket)))

    assert (by_another, status) == (NOT_CANCELLABLE, CANCELLED)
    assert _end(reading) == (grpc.StatusCode.ABORTED, QueryCancelled)


def test_the_older_action_cancels_too(flight):
    info = _info(flight, WAITING)
    reading = _begin(flight, info.endpoint[0].ticket.ticket)
    body = pack_any(messages.ActionCancelQueryRequest(info=info.SerializeToString()))

    answer = flight.call(FLIGHT + "DoAction", action_bytes("CancelQuery", body))

    envelope = any_pb2.Any.FromString(messages.Result.FromString(answer.replies[0]).body)
    assert messages.ActionCancelQueryResult.FromString(envelope.value).result == CANCELLED
    assert _end(reading) == (grpc.StatusCode.ABORTED, QueryCancelled)


def test_a_ticket_is_renewed(flight):
    endpoint = _info(flight, NUMBERS).endpoint[0]
    plain = messages.FlightEndpoint(ticket=messages.Ticket(ticket=statement_ticket(NUMBERS)))

    def renew(found):
        body = messages.RenewFlightEndpointRequest(endpoint=found).SerializeToString()
        answer = flight.call(FLIGHT + "DoAction", action_bytes("RenewFlightEndpoint", body))
        return messages.FlightEndpoint.FromString(messages.Result.FromString(answer.replies[0]).body)

    renewed, unchanged = renew(endpoint), renew(plain)

    assert renewed.expiration_time.seconds >= endpoint.expiration_time.seconds
    assert flight.call(FLIGHT + "DoGet", ticket_bytes(renewed.ticket.ticket)).code is grpc.StatusCode.OK
    assert unchanged == plain


@pytest.mark.parametrize("processors", [1, 2])
def test_first_rows_come_while_the_rest_holds_every_partition(processors):
    # The engine then has neither its main thread nor a worker left that would look for signals.
    with running_server(pool={"processors": processors}) as flight:
        call = flight.read(WAITING)

        rows = decode_rows([next(call), next(call)])

        assert rows.to_pydict() == {"n": [1, 2, 3]}
        call.cancel()
        flight.wait_until_quiet()


def test_a_flight_gives_the_same_rows_until_rights_or_options_are_others():
    who = "SELECT current_user() AS who, is_admin() AS is_admin"
    with running_server() as flight:
        ticket = ticket_bytes(_info(flight, who).endpoint[0].ticket.ticket)

        answers = [rows_of(flight.call(FLIGHT + "DoGet", ticket)).to_pydict() for _ in range(3)]
        cut = rows_of(flight.call(FLIGHT + "DoGet", ticket, metadata=(*ALICE, ("limit", "0"))))
        others = flight.call(FLIGHT + "DoGet", ticket, metadata=BOB)
        flight.validator.known["alice"] = replace(ALICE_CONTEXT, is_admin=False)
        afterwards = rows_of(flight.call(FLIGHT + "DoGet", ticket)).to_pydict()

    assert answers == [{"who": ["alice"], "is_admin": [True]}] * 3
    assert cut.num_rows == 0
    assert (others.code, others.replies) == (grpc.StatusCode.INVALID_ARGUMENT, [])
    assert afterwards == {"who": ["alice"], "is_admin": [False]}


def test_other_tables_are_planned_anew(tmp_path):
    tables = FixedTables([write_log_entries(tmp_path, 1)])
    with running_server(tables=tables) as flight:
        info = _info(flight, "SELECT count(*) AS n FROM log_entries")
        tables.tables = [write_log_entries(tmp_path, 2)]

        answer = flight.call(FLIGHT + "DoGet", ticket_bytes(info.endpoint[0].ticket.ticket))

    assert rows_of(answer).to_pydict() == {"n": [8]}
