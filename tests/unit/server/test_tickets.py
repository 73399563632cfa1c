"""Tickets are for the caller who got them, for a while, and for nothing else."""

from typing import Any

import pytest

from micromegas_jupyter.core.system import SYSTEM_RANDOMNESS
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.flightsql.commands import IssuedQuery, parse_ticket
from micromegas_jupyter.server.tickets import Signer, Tickets
from tests.fakes.clock import FakeClock

ALICE = ("https://id.example", "alice")
BOB = ("https://id.example", "bob")
KEY = bytes(range(32))


def _tickets(clock: FakeClock, key: bytes = KEY) -> Tickets:
    return Tickets(Signer(key), life_seconds=600, clock=clock, randomness=SYSTEM_RANDOMNESS)


def _sealed(endpoint: Any) -> bytes:
    command = parse_ticket(endpoint.ticket.ticket)
    assert isinstance(command, IssuedQuery)
    return command.signed


def test_a_ticket_is_read_by_another_process_with_the_same_key(clock: FakeClock) -> None:
    sealed = _sealed(_tickets(clock).issue("SELECT 'é'", ALICE))

    assert _tickets(clock).read(sealed, ALICE).sql == "SELECT 'é'"


def test_another_callers_ticket_is_refused(clock: FakeClock) -> None:
    tickets = _tickets(clock)
    sealed = _sealed(tickets.issue("SELECT 1", ALICE))

    with pytest.raises(UsageError, match="not issued to you"):
        tickets.read(sealed, BOB)
    with pytest.raises(UsageError):
        tickets.renew(sealed, BOB)


@pytest.mark.parametrize("other", [("https://id.example" + "a", "lice"), ("", "https://id.examplealice")])
def test_issuer_and_subject_are_not_run_together(clock: FakeClock, other: tuple[str, str]) -> None:
    sealed = _sealed(_tickets(clock).issue("SELECT 1", ALICE))

    with pytest.raises(UsageError):
        _tickets(clock).read(sealed, other)


def test_a_ticket_of_another_key_is_refused(clock: FakeClock) -> None:
    sealed = _sealed(_tickets(clock, bytes(32)).issue("SELECT 1", ALICE))

    with pytest.raises(UsageError, match="restarted"):
        _tickets(clock).read(sealed, ALICE)


def test_a_ticket_with_any_bit_changed_is_refused(clock: FakeClock) -> None:
    tickets = _tickets(clock)
    sealed = _sealed(tickets.issue("SELECT 1", ALICE))

    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(UsageError):
            tickets.read(bytes(changed), ALICE)
        with pytest.raises(UsageError):
            tickets.read(sealed[:position], ALICE)


def test_a_ticket_expires_and_can_be_renewed_before(clock: FakeClock) -> None:
    tickets = _tickets(clock)
    first = tickets.issue("SELECT 1", ALICE)
    clock.advance(599)
    renewed = tickets.renew(_sealed(first), ALICE)
    clock.advance(2)

    assert tickets.read(_sealed(renewed), ALICE).id == tickets.read(_sealed(first), ALICE, accepts_expired=True).id
    assert renewed.expiration_time.seconds - first.expiration_time.seconds == 599
    with pytest.raises(UsageError, match="has expired"):
        tickets.read(_sealed(first), ALICE)
    with pytest.raises(UsageError, match="has expired"):
        tickets.renew(_sealed(first), ALICE)


def test_an_endpoint_tells_when_its_ticket_expires(clock: FakeClock) -> None:
    endpoint = _tickets(clock).issue("SELECT 1", ALICE)

    assert endpoint.expiration_time.seconds == clock.now().timestamp() + 600


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Signer(b"short")


def test_a_ticket_does_not_show_its_statement(clock: FakeClock) -> None:
    tickets = _tickets(clock)
    ticket = tickets.issue("SELECT 'secret'", ALICE)

    assert "secret" not in repr(tickets.read(_sealed(ticket), ALICE))
