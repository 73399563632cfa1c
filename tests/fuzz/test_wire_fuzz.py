"""Damaged messages: only the project's errors come out of decoders, nothing forged goes through, nothing is slow."""

import pytest

from micromegas_jupyter.errors import MicromegasError, UsageError
from micromegas_jupyter.flightsql.commands import (
    IssuedQuery,
    decode_error,
    encode_error,
    messages,
    parse_action_body,
    parse_descriptor,
    parse_ingest_descriptor,
    parse_message,
    parse_plain_body,
    parse_status_text,
    parse_ticket,
)
from micromegas_jupyter.flightsql.framing import ParameterLimits, decode_parameters, read_header
from micromegas_jupyter.server.flight_methods import set_options
from micromegas_jupyter.server.settings import FlightServerSettings
from micromegas_jupyter.server.tickets import PreparedStatements, Signer, Tickets
from tests.fakes.clock import FakeClock
from tests.fuzz.conftest import sizes
from tests.fuzz.damage import damage_bytes
from tests.fuzz.wire_samples import ACTIONS, DESCRIPTORS, FRAMES, TICKETS, VALUES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ALICE = ("https://id.example", "alice")


def _read_descriptor(data):
    descriptor = parse_message(messages.FlightDescriptor, data)
    if parse_ingest_descriptor(descriptor) is not None:
        return None
    return parse_descriptor(descriptor)


def _read_cancel_query(body):
    request = parse_action_body(messages.ActionCancelQueryRequest, body)
    return _read_tickets(parse_message(messages.FlightInfo, request.info))


def _read_tickets(info):
    return [parse_ticket(endpoint.ticket.ticket) for endpoint in info.endpoint]


READERS = {
    "CreatePreparedStatement": lambda body: parse_action_body(messages.ActionCreatePreparedStatementRequest, body),
    "ClosePreparedStatement": lambda body: parse_action_body(messages.ActionClosePreparedStatementRequest, body),
    "CancelQuery": _read_cancel_query,
    "CancelFlightInfo": lambda body: _read_tickets(parse_plain_body(messages.CancelFlightInfoRequest, body).info),
    "SetSessionOptions": lambda body: set_options(parse_plain_body(messages.SetSessionOptionsRequest, body)),
    "RenewFlightEndpoint": lambda body: parse_plain_body(messages.RenewFlightEndpointRequest, body),
}


def _read_action(data):
    action = parse_message(messages.Action, data)
    read = READERS.get(action.type)
    return None if read is None else read(action.body)


def _actions():
    return tuple(messages.Action(type=name, body=body).SerializeToString() for name, body in ACTIONS.items())


@sizes(short=8_000, long=1_000_000)
@pytest.mark.parametrize(
    ("samples", "read"),
    [(TICKETS, parse_ticket), (DESCRIPTORS, _read_descriptor), (_actions(), _read_action)],
    ids=["tickets", "descriptors", "actions"],
)
def test_a_damaged_request_is_read_or_refused(fuzzing, samples, read):
    fuzzing.try_all(lambda random: damage_bytes(random.choice(samples), random), read, MicromegasError)


@sizes(short=8_000, long=500_000)
def test_a_damaged_ticket_of_the_servers_is_no_ticket(fuzzing):
    tickets = Tickets(Signer(lambda: [bytes(32)]), life_seconds=600, clock=FakeClock())
    whole = tickets.issue("SELECT 1", ALICE, (b"values",)).ticket.ticket
    command = parse_ticket(whole)
    assert isinstance(command, IssuedQuery)

    for _ in range(fuzzing.tries):
        sealed = damage_bytes(command.signed, fuzzing.random)
        if sealed == command.signed:
            continue

        with pytest.raises(UsageError):
            fuzzing.attempt(tickets.read, sealed, ALICE)


@sizes(short=8_000, long=500_000)
def test_a_damaged_handle_is_no_handle(fuzzing):
    store = PreparedStatements(Signer(lambda: [bytes(32)]), settings=FlightServerSettings(), clock=FakeClock())
    handle = store.bind(store.add("SELECT ?\n-- prepared x", ALICE), FRAMES, ALICE)

    for _ in range(fuzzing.tries):
        damaged = damage_bytes(handle, fuzzing.random)
        if damaged == handle:
            continue

        with pytest.raises(UsageError):
            fuzzing.attempt(store.get, damaged, ALICE)
        fuzzing.attempt(store.close, damaged, ALICE)
    assert store.get(handle, ALICE)[1] == tuple(FRAMES)


@sizes(short=3_000, long=500_000)
def test_damaged_parameters_are_valid_or_refused(fuzzing):
    def damaged(random):
        frames = list(FRAMES)
        if random.random() < 0.2:
            random.shuffle(frames)
        place = random.randrange(len(frames))
        frames[place] = damage_bytes(frames[place], random)
        return frames

    def read(frames):
        found = decode_parameters(frames, limits=ParameterLimits())
        if found is not None:
            found.validate(full=True)
            assert found.to_pylist() is not None

    fuzzing.try_all(damaged, read, MicromegasError)


@sizes(short=8_000, long=500_000)
def test_a_damaged_header_of_arrow_data_is_read_or_refused(fuzzing):
    headers = [messages.FlightData.FromString(frame).data_header for frame in FRAMES]

    fuzzing.try_all(lambda random: damage_bytes(random.choice(headers), random), read_header, MicromegasError)


@sizes(short=5_000, long=500_000)
def test_damaged_error_details_are_an_error_or_nothing(fuzzing):
    error = UsageError("The ticket has expired.", remedy="Ask again.", query_id="q-1")
    whole, text = encode_error(error), "The ticket has expired. [USE001] (query_id=q-1)"
    for _ in range(fuzzing.tries):
        data = damage_bytes(whole, fuzzing.random)
        words = damage_bytes(text.encode(), fuzzing.random).decode("utf-8", "replace")

        found = fuzzing.attempt(decode_error, data)
        told = fuzzing.attempt(parse_status_text, words)

        assert found is None or isinstance(found, MicromegasError)
        assert told is None or isinstance(told, MicromegasError)


def test_the_samples_are_valid():
    for ticket in TICKETS:
        parse_ticket(ticket)
    for descriptor in DESCRIPTORS:
        _read_descriptor(descriptor)
    for action in _actions():
        _read_action(action)
    assert decode_parameters(FRAMES, limits=ParameterLimits()) == VALUES
