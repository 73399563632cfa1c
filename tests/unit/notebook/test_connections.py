"""The open connections of a notebook, their renewals, and the choice of settings."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from micromegas_jupyter.config.client import ClientSettings
from micromegas_jupyter.core.protocols import AuthProvider
from micromegas_jupyter.errors import LoginRequired, MicromegasError, ProviderUnavailable
from micromegas_jupyter.notebook.login.connections import Connection, Connections, Notices, SettingsChoice
from micromegas_jupyter.notebook.login.dependencies import TokenRenewal
from tests.fakes.clock import FakeClock
from tests.fakes.notebook_people import FakePersonalProvider
from tests.fakes.notebook_world import SETTINGS, FakeWorld

Told = list[tuple[ClientSettings, AuthProvider, MicromegasError | None]]
NO_OPTIONS: dict[str, str | None] = {"issuer": None, "client_id": None, "scope": None, "audience": None}
THREAD = "micromegas-background-renewal"


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
def connections(world: FakeWorld, told: Told) -> Connections:
    return Connections(world.dependencies(), lambda *change: told.append(change))


def test_a_stored_sign_in_that_a_cell_uses_is_kept_fresh(world: FakeWorld, connections: Connections) -> None:
    connections.get(SETTINGS)
    connections.get(SETTINGS)

    (renewal,) = world.renewals
    assert renewal.provider is world.stored
    assert (renewal.start_count, renewal.stop_count) == (1, 0)


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


def test_a_connection_of_another_profile_stays(world: FakeWorld, connections: Connections) -> None:
    other = replace(SETTINGS, profile="other")
    connections.get(SETTINGS)
    connections.get(other)

    connections.drop_profile("other")

    assert [renewal.is_running for renewal in world.renewals] == [True, False]


def test_a_sign_in_that_ends_after_the_close_is_not_kept_fresh(world: FakeWorld, connections: Connections) -> None:
    connections.close()

    connections.put(SETTINGS, FakePersonalProvider())

    assert not world.renewals[0].is_running
    assert world.clients[0].is_closed


def test_a_connection_that_two_threads_ask_for_at_once_is_one_and_stays_open_for_both(world: FakeWorld) -> None:
    parts = world.dependencies()
    others: list[Connection] = []

    def overtaken(settings: ClientSettings) -> AuthProvider | None:
        if not others:
            others.append(raced.put(settings, parts.stored_provider(settings)))
        return parts.stored_provider(settings)

    raced = Connections(replace(parts, stored_provider=overtaken), lambda *_: None)

    mine = raced.get(SETTINGS)

    assert mine is others[0] is raced.current(SETTINGS)
    assert [client.is_closed for client in world.clients] == [False, True]
    assert [renewal.is_running for renewal in world.renewals] == [True, False]


def test_at_most_eight_connections_are_kept(world: FakeWorld, connections: Connections) -> None:
    for index in range(9):
        connections.get(replace(SETTINGS, profile=f"profile-{index}"))

    assert [client.is_closed for client in world.clients] == [True] + [False] * 8
    assert [renewal.is_running for renewal in world.renewals] == [False] + [True] * 8


def test_a_notice_is_taken_once_and_the_newest_stays() -> None:
    notices = Notices()
    notices.add("first")
    notices.add("second")

    assert notices.take_new() == ["first", "second"]
    assert notices.take_new() == []
    assert notices.newest() == "second"


class Profiles:
    """Reads settings as the real ones are read: variables win over a profile's values."""

    def __init__(self, **profiles: ClientSettings) -> None:
        self.asked: list[tuple[str | None, dict[str, str]]] = []
        self._profiles = profiles

    def load(self, profile: str | None, variables: Mapping[str, str]) -> ClientSettings:
        self.asked.append((profile, dict(variables)))
        settings = self._profiles[profile or "configured"]
        return replace(settings, issuer=variables.get("MICROMEGAS_OIDC_ISSUER", settings.issuer))


def test_a_service_account_is_kept_with_profile_and_options_until_a_person_is_asked_for() -> None:
    choice = SettingsChoice(profile="prod", variables={"MICROMEGAS_OIDC_AUDIENCE": "lake"})

    service = choice.with_options(profile=None, options=NO_OPTIONS, as_service_account=True)
    person = service.with_options(profile=None, options=NO_OPTIONS, as_service_account=False)

    assert service == replace(choice, as_service_account=True)
    assert service.with_options(profile=None, options=NO_OPTIONS) is service
    assert person == choice


def test_a_statement_for_another_profile_uses_that_one_alone() -> None:
    profiles = Profiles(prod=SETTINGS, dev=SETTINGS)
    choice = SettingsChoice(profile="prod", variables={"MICROMEGAS_OIDC_AUDIENCE": "lake"})

    choice.read(profiles.load, profile="dev")
    choice.read(profiles.load, profile="prod")

    assert profiles.asked == [("dev", {}), ("prod", {"MICROMEGAS_OIDC_AUDIENCE": "lake"})]


def test_a_choice_that_was_named_gives_its_settings_and_still_says_who_signs_in() -> None:
    uri = "grpc+tls://lake.example.com:1"
    named = SettingsChoice(uri=uri, settings=ClientSettings(uri=uri))

    def load(*_: object) -> ClientSettings:
        raise AssertionError("nothing is read afresh")

    as_account = named.with_options(profile=None, options={}, as_service_account=True)

    assert named.read(load).as_service_account is False
    assert as_account.read(load).as_service_account is True
    assert as_account.read(load).uri == "grpc+tls://lake.example.com:1"


def test_another_server_keeps_the_options_and_a_profile_drops_both() -> None:
    chosen = SettingsChoice(profile="a", variables={"MICROMEGAS_OIDC_AUDIENCE": "x"}, as_service_account=True)

    elsewhere = chosen.with_server("grpc+tls://b:1", profile=None)

    assert elsewhere == SettingsChoice(
        profile="a", variables={"MICROMEGAS_OIDC_AUDIENCE": "x"}, as_service_account=True, uri="grpc+tls://b:1"
    )
    assert elsewhere.with_server(None, profile="b") == SettingsChoice(profile="b")


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


def test_a_renewal_by_another_program_is_told(
    watched: TokenRenewal, provider: RenewableProvider, changes: list[MicromegasError | None], clock: FakeClock
) -> None:
    provider.due_at = clock.now() + timedelta(seconds=90)

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


def test_a_renewal_that_works_again_is_told(
    watched: TokenRenewal, provider: RenewableProvider, clock: FakeClock, changes: list[MicromegasError | None]
) -> None:
    provider.renews = False
    clock.advance(60)
    look(watched)
    look(watched)
    provider.renews = True

    look(watched)

    assert changes[1:] == [None]


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
