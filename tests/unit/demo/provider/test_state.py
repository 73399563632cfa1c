"""What may be used once, and what ends with what."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from micromegas_jupyter.demo.provider.people import ALICE, SignedIn
from micromegas_jupyter.demo.provider.records import AuthorizationCode, Grant
from micromegas_jupyter.demo.provider.state import ProviderState
from tests.fakes.clock import FakeClock


@pytest.fixture
def state(clock: FakeClock) -> ProviderState:
    return ProviderState(clock=clock, token_lifetime_seconds=600, refresh_lifetime_seconds=86_400)


@pytest.fixture
def grant(clock: FakeClock) -> Grant:
    signed_in = SignedIn(person=ALICE, authenticated_at=clock.now())
    return Grant(client_id="app", signed_in=signed_in, scope="openid", audience="lake")


def _code(grant: Grant) -> AuthorizationCode:
    return AuthorizationCode(grant=grant, redirect_uri="http://127.0.0.1/callback", code_challenge="c", nonce=None)


def test_another_application_does_not_get_the_code_and_does_not_use_it_up(state: ProviderState, grant: Grant) -> None:
    state.save_code("code", _code(grant))

    assert state.take_code("code", client_id="other") is None
    assert state.take_code("code", client_id="app") is not None


def test_of_many_threads_one_gets_the_code_and_the_grant_ends(state: ProviderState, grant: Grant) -> None:
    state.save_code("code", _code(grant))
    barrier = threading.Barrier(8)

    def take(_: int) -> bool:
        barrier.wait(30)
        return state.take_code("code", client_id="app") is not None

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(take, range(8)))

    assert results.count(True) == 1
    assert grant.revoked


def test_of_many_threads_one_uses_the_refresh_token(state: ProviderState, grant: Grant) -> None:
    state.save_refresh("token", grant)
    token = state.find_refresh("token")
    assert token is not None
    barrier = threading.Barrier(8)

    def use(_: int) -> bool:
        barrier.wait(30)
        return state.use_refresh(token)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(use, range(8)))

    assert results.count(True) == 1
    assert grant.revoked
    assert state.counters().refresh_reuses == 7


def test_a_code_that_was_used_is_noticed_for_ten_minutes(state: ProviderState, grant: Grant, clock: FakeClock) -> None:
    state.save_code("code", _code(grant))
    state.take_code("code", client_id="app")
    clock.advance(599)

    state.take_code("code", client_id="app")

    assert grant.revoked
