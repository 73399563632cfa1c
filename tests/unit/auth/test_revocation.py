from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.revocation import LOGOUT_SECONDS, LogoutCalls, ProviderCallFailed, Revocation
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.oidc.tokens import TokenSet
from tests.fakes.scripted_provider import DirectCalls, Reply, ScriptedProvider

if TYPE_CHECKING:
    from tests.fakes.clock import FakeClock

TOKENS = TokenSet(access_token=Secret("acc"), refresh_token=Secret("ref"))


@pytest.fixture
def connection(idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock) -> ProviderConnection:
    return ProviderConnection(idp.issuer, "notebook", None, http=calls, clock=clock)


def test_a_provider_that_revokes_no_access_tokens_is_no_problem(
    connection: ProviderConnection, clock: FakeClock
) -> None:
    assert LogoutCalls(clock).revoke(TOKENS, connection) == Revocation(refresh_token_revoked=True)


def test_an_access_token_is_revoked_where_the_provider_does(
    connection: ProviderConnection, idp: ScriptedProvider, clock: FakeClock
) -> None:
    idp.reply_once("/revoke", Reply(text=""))
    idp.reply_once("/revoke", Reply(text=""))

    found = LogoutCalls(clock).revoke(TOKENS, connection)

    assert found == Revocation(refresh_token_revoked=True, access_token_revoked=True)


def test_a_provider_without_revocation_is_said_so(
    connection: ProviderConnection, idp: ScriptedProvider, clock: FakeClock
) -> None:
    idp.metadata_changes["revocation_endpoint"] = None

    found = LogoutCalls(clock).revoke(TOKENS, connection)

    assert found == Revocation(problem="The identity provider has no way to revoke tokens.")


def test_no_call_is_made_when_the_time_is_over(
    connection: ProviderConnection, idp: ScriptedProvider, clock: FakeClock
) -> None:
    calls = LogoutCalls(clock)
    clock.advance(LOGOUT_SECONDS)

    found = calls.revoke(TOKENS, connection)

    assert found == Revocation(problem="There was no time left to ask.", provider_answered=False)
    assert idp.requests == []


def test_a_provider_that_never_answers_is_waited_for_until_the_time_is_over(clock: FakeClock) -> None:
    calls = LogoutCalls(clock)
    clock.advance(LOGOUT_SECONDS - 0.2)
    never = threading.Event()
    started = time.monotonic()

    with pytest.raises(ProviderCallFailed, match="did not answer in time") as caught:
        calls.call("https://id.example.com", never.wait)

    assert not caught.value.provider_answered
    assert time.monotonic() - started < 9
    never.set()


def test_a_provider_that_was_out_of_reach_is_not_called_again(
    connection: ProviderConnection, idp: ScriptedProvider, clock: FakeClock
) -> None:
    calls = LogoutCalls(clock)
    idp.is_down = True
    calls.revoke(TOKENS, connection)
    asked = len(idp.requests)

    calls.revoke(TOKENS, connection)

    assert len(idp.requests) == asked
