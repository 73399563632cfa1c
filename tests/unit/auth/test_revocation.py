from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.logout import REVOCATION_SECONDS, Revocation, RevocationCalls
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.core.secrets import Secret
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
    assert RevocationCalls(clock).revoke(TOKENS, connection) == Revocation(revoked=frozenset({"refresh_token"}))


def test_an_access_token_is_revoked_where_the_provider_does(
    connection: ProviderConnection, idp: ScriptedProvider, clock: FakeClock
) -> None:
    idp.reply_once("/revoke", Reply(text=""))
    idp.reply_once("/revoke", Reply(text=""))

    found = RevocationCalls(clock).revoke(TOKENS, connection)

    assert found == Revocation(revoked=frozenset({"refresh_token", "access_token"}))


def test_a_provider_without_revocation_is_said_so(
    connection: ProviderConnection, idp: ScriptedProvider, clock: FakeClock
) -> None:
    idp.metadata_changes["revocation_endpoint"] = None

    found = RevocationCalls(clock).revoke(TOKENS, connection)

    assert found == Revocation(problem="The identity provider has no way to revoke tokens.")


def test_no_call_is_made_when_the_time_is_over(
    connection: ProviderConnection, idp: ScriptedProvider, clock: FakeClock
) -> None:
    calls = RevocationCalls(clock)
    clock.advance(REVOCATION_SECONDS)

    found = calls.revoke(TOKENS, connection)

    assert found == Revocation(problem="There was no time left to ask.", provider_answered=False)
    assert idp.requests == []


def test_a_provider_that_was_out_of_reach_is_not_called_again(
    connection: ProviderConnection, idp: ScriptedProvider, clock: FakeClock
) -> None:
    calls = RevocationCalls(clock)
    idp.is_down = True
    calls.revoke(TOKENS, connection)
    asked = len(idp.requests)

    calls.revoke(TOKENS, connection)

    assert len(idp.requests) == asked
