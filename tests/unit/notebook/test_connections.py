"""The open connections of a notebook, their renewals, and the choice of settings."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from micromegas_jupyter.config.client import ClientSettings
from micromegas_jupyter.core.protocols import AuthProvider
from micromegas_jupyter.errors import LoginRequired, MicromegasError, ProviderUnavailable
from micromegas_jupyter.notebook.login.connections import Connection, Connections, TokenRenewal
from tests.fakes.clock import FakeClock
from tests.fakes.notebook_world import SETTINGS, FakePersonalProvider, FakeWorld

Told = list[tuple[ClientSettings, AuthProvider, MicromegasError | None]]
THREAD = "micromegas-background-renewal"


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
def connections(world: FakeWorld, told: Told) -> Connections:
    return Connections(world.dependencies(), lambda *change: told.append(change))


def test_a_provider_that_takes_the_place_of_another_takes_over_its_renewal(
    world: FakeWorld, connections: Connections
) -> None:
    connections.get(SETTINGS)

    connections.put(SETTINGS, FakePersonalProvider())

    assert [renewal.is_running for renewal in world.renewals] == [False, True]


@pytest.mark.parametrize(
    "end",
    [
        lambda connections: connections.drop(SETTINGS),
        lambda connections: connections.drop_profile(None),
        lambda connections: connections.close(),
    ],
    ids=["drop", "drop_profile", "close"],
)
def test_whatever_ends_a_connection_ends_its_renewal(
    world: FakeWorld, connections: Connections, end: Callable[[Connections], None]
) -> None:
    connections.get(SETTINGS)

    end(connections)

    assert not world.renewals[0].is_running
    assert world.clients[0].is_closed
    assert connections.current(SETTINGS) is None


def test_a_sign_in_that_ends_after_the_close_is_not_kept_fresh(world: FakeWorld, connections: Connections) -> None:
    connections.close()

    connections.put(SETTINGS, FakePersonalProvider())

    assert not world.renewals[0].is_running
    assert world.clients[0].is_closed


def test_a_connection_that_two_threads_ask_for_at_once_is_one_and_stays_open_for_both(
    world: FakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored_provider = world.stored_provider
    others: list[Connection] = []

    def overtaken(settings: ClientSettings) -> AuthProvider | None:
        if not others:
            others.append(raced.put(settings, stored_provider(settings)))
        return stored_provider(settings)

    monkeypatch.setattr(world, "stored_provider", overtaken)
    raced = Connections(world.dependencies(), lambda *_: None)

    mine = raced.get(SETTINGS)

    assert mine is others[0] is raced.current(SETTINGS)
    assert [client.is_closed for client in world.clients] == [False, True]
    assert [renewal.is_running for renewal in world.renewals] == [True, False]


def test_at_most_eight_connections_are_kept(world: FakeWorld, connections: Connections) -> None:
    for index in range(9):
        connections.get(replace(SETTINGS, profile=f"profile-{index}"))

    assert [client.is_closed for client in world.clients] == [True] + [False] * 8
    assert [renewal.is_running for renewal in world.renewals] == [False] + [True] * 8


class RenewableProvider:
    """Renews, or does not, as the test says."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.renews = True
        self.failure: MicromegasError | None = None
        self.due_at: datetime | None = clock.now() + timedelta(seconds=60)

    def get_token(self) -> str:
        if self.failure is not None:
            raise self.failure
        if self.renews and self.due_at is not None and self.due_at <= self.clock.now():
            self.due_at = self.clock.now() + timedelta(seconds=60)
        return "token"

    def renewal_due_at(self) -> datetime | None:
        return self.due_at


@pytest.fixture
def provider(clock: FakeClock) -> RenewableProvider:
    return RenewableProvider(clock)


@pytest.fixture
def changes() -> list[MicromegasError | None]:
    return []


@pytest.fixture
def watched(provider: RenewableProvider, clock: FakeClock, changes: list[MicromegasError | None]) -> TokenRenewal:
    return TokenRenewal(provider, clock=clock, on_change=changes.append)


def look(watched: TokenRenewal) -> None:
    """Do what a background renewal does when it is time."""
    watched.get_token()
    watched.renewal_due_at()


def test_a_renewal_is_told_once(watched: TokenRenewal, clock: FakeClock, changes: list[MicromegasError | None]) -> None:
    clock.advance(60)

    look(watched)
    watched.renewal_due_at()

    assert changes == [None]


def test_a_token_that_serves_on_because_it_cannot_be_renewed_is_told_from_the_second_attempt_on(
    watched: TokenRenewal, provider: RenewableProvider, clock: FakeClock, changes: list[MicromegasError | None]
) -> None:
    provider.renews = False
    clock.advance(60)

    look(watched)
    after_one = list(changes)
    look(watched)
    look(watched)

    assert after_one == []
    assert [type(error) for error in changes] == [ProviderUnavailable, ProviderUnavailable]


def test_a_renewal_runs_from_start_to_stop(
    provider: RenewableProvider, clock: FakeClock, changes: list[MicromegasError | None]
) -> None:
    ended = threading.Event()
    provider.failure = LoginRequired("The sign-in has ended.")
    provider.due_at = None
    renewal = TokenRenewal(provider, clock=clock, on_change=lambda error: (changes.append(error), ended.set()))
    of_others = set(threading.enumerate())

    renewal.start()

    own = [each for each in threading.enumerate() if each not in of_others and each.name == THREAD]
    assert ended.wait(30)
    renewal.stop()
    renewal.stop()
    assert [type(error) for error in changes] == [LoginRequired]
    for thread in own:
        thread.join(60)
    assert [thread.is_alive() for thread in own] == [False]
