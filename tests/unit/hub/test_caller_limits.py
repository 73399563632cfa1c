"""How often the Hub is asked whose a token is."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.hub.hub_api import TokenOwner
from micromegas_jupyter.hub.limits import (
    AUDIT_LOGGER,
    AUDIT_PAUSE_SECONDS,
    BURST_ALL_UNKNOWN,
    BURST_CALLS,
    BURST_UNKNOWN,
    MAX_TRACKED,
    UNKNOWN_SECONDS,
    CallerLimits,
    HubAudit,
    client_address,
)
from micromegas_jupyter.hub.refusals import Refused, refuse

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tests.fakes.clock import FakeClock

HERE = "192.0.2.1"


def without_waiting(call: Coroutine[None, None, TokenOwner]) -> TokenOwner:
    """Return what a coroutine gives that waits for nothing."""
    with pytest.raises(StopIteration) as ended:
        call.send(None)
    owner: TokenOwner = ended.value.value
    return owner


class Asker:
    """Callers of a service whose Hub knows some tokens, each of the person of the same name."""

    def __init__(self, clock: FakeClock, *known: str) -> None:
        self.known = set(known)
        self.asked: list[str] = []
        self.is_down = False
        self._limits = CallerLimits(audit=HubAudit(clock=clock), clock=clock)

    async def _ask_hub(self, token: Secret) -> TokenOwner | None:
        text = token.reveal()
        self.asked.append(text)
        if self.is_down:
            raise refuse("hub_unavailable")
        return TokenOwner(kind="user", name=text, scopes=frozenset()) if text in self.known else None

    def call(self, token: str | None, address: str = HERE) -> str:
        """Return whose the token is, or why it is nobody's."""
        secret = None if token is None else Secret(token)
        try:
            return without_waiting(self._limits.fetch_owner(secret, address=address, fetch=self._ask_hub)).name
        except Refused as refused:
            self.refused = refused
            return refused.error

    def flood(self, count: int, *, addresses: int = 1) -> list[str]:
        """Call with tokens that nobody knows."""
        return [self.call(f"random {number}", f"198.51.100.{number % addresses}") for number in range(count)]


def test_a_flood_of_random_tokens_from_one_address_does_not_reach_the_hub_and_is_told_when_to_come_back(
    clock: FakeClock,
) -> None:
    asker = Asker(clock)

    answers = asker.flood(BURST_UNKNOWN + 50)

    assert answers == ["invalid_token"] * BURST_UNKNOWN + ["slow_down"] * 50
    assert len(asker.asked) == BURST_UNKNOWN
    assert (asker.refused.status, asker.refused.retry_after_seconds) == (429, 1)
    clock.advance(1)
    assert asker.flood(1) == ["invalid_token"]


def test_a_flood_from_many_addresses_is_bounded_too(clock: FakeClock) -> None:
    asker = Asker(clock)

    asker.flood(BURST_ALL_UNKNOWN + 100, addresses=200)

    assert len(asker.asked) == BURST_ALL_UNKNOWN


def test_whoever_was_let_in_before_is_let_in_during_a_flood_from_the_same_address(clock: FakeClock) -> None:
    asker = Asker(clock, "alice", "bob")
    asker.call("alice", "198.51.100.0")

    asker.flood(BURST_UNKNOWN + 1)

    assert asker.call("alice", "198.51.100.0") == "alice"
    assert asker.call("bob", "198.51.100.0") == "slow_down"
    assert asker.call("bob", "198.51.100.7") == "bob"


def test_calls_that_are_let_in_use_nothing_of_their_addresses_share_up(clock: FakeClock) -> None:
    people = [f"person {number}" for number in range(BURST_UNKNOWN * 2)]

    assert list(map(Asker(clock, *people).call, people)) == people


def test_the_hub_is_not_asked_twice_about_a_token_that_it_does_not_know_but_is_after_a_while(clock: FakeClock) -> None:
    asker = Asker(clock)
    assert [asker.call("late") for _each in range(3)] == ["invalid_token"] * 3
    assert asker.asked == ["late"]

    asker.known.add("late")
    clock.advance(UNKNOWN_SECONDS)

    assert asker.call("late") == "late"


def test_a_token_that_the_hub_has_withdrawn_is_worth_nothing_at_once(clock: FakeClock) -> None:
    asker = Asker(clock, "alice")
    asker.call("alice")

    asker.known.clear()

    assert [asker.call("alice") for _each in range(3)] == ["invalid_token"] * 3
    assert asker.asked == ["alice"] * 2


def test_a_person_who_calls_too_often_does_not_reach_the_hub(clock: FakeClock) -> None:
    asker = Asker(clock, "alice")

    answers = [asker.call("alice") for _each in range(BURST_CALLS + 10)]

    assert set(answers[: BURST_CALLS - 1]) == {"alice"}
    assert answers[-1] == "slow_down"
    assert len(asker.asked) <= BURST_CALLS


def test_a_hub_that_does_not_answer_is_no_callers_fault(clock: FakeClock) -> None:
    asker = Asker(clock, "alice")
    asker.is_down = True
    assert {asker.call(f"token {number}") for number in range(BURST_UNKNOWN * 2)} == {"hub_unavailable"}

    asker.is_down = False

    assert asker.call("alice") == "alice"


def test_calls_without_a_token_count_and_the_audit_log_is_told_seldom(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    asker = Asker(clock)
    with caplog.at_level(logging.INFO, logger=AUDIT_LOGGER):
        for _each in range(BURST_UNKNOWN + 5):
            asker.call(None)
        clock.advance(AUDIT_PAUSE_SECONDS)
        for _each in range(BURST_UNKNOWN + 5):
            asker.call(None)

    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == AUDIT_LOGGER]
    assert [(line["event"], line["client_ip"]) for line in lines] == [("calls_turned_away", HERE)] * 2
    assert [line["calls"] for line in lines] == [1, 5]
    assert asker.asked == []


def test_what_is_remembered_is_bounded(clock: FakeClock) -> None:
    asker = Asker(clock, *map(str, range(MAX_TRACKED + 2)))

    for number in range(MAX_TRACKED + 2):
        without_waiting(asker._limits.fetch_owner(Secret(str(number)), address=HERE, fetch=asker._ask_hub))

    assert len(asker._limits._known) == MAX_TRACKED


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("127.0.0.1", ["192.0.2.9"], "192.0.2.9"),
        ("127.0.0.1", ["203.0.113.5, 192.0.2.9"], "192.0.2.9"),
        ("127.0.0.1", ["203.0.113.5", "192.0.2.9"], "192.0.2.9"),
        ("::1", ["2001:db8::9"], "2001:db8::9"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["192.0.2.9, who knows"], "127.0.0.1"),
        ("10.0.0.3", ["192.0.2.9"], "10.0.0.3"),
    ],
    ids=["proxy", "forged before", "two headers", "IPv6", "direct", "no address", "another machine"],
)
def test_only_what_a_proxy_on_this_machine_saw_counts(peer: str, forwarded: list[str], address: str) -> None:
    headers = HTTPHeaders({"Host": "hub"})
    for value in forwarded:
        headers.add("X-Forwarded-For", value)
    request = HTTPServerRequest(start_line=RequestStartLine("POST", "/", "HTTP/1.1"), headers=headers)
    request.remote_ip = peer

    assert client_address(request) == address
