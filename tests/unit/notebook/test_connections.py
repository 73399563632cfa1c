from collections.abc import Callable
from dataclasses import replace

import pytest

from micromegas_jupyter.config.client import ClientSettings
from micromegas_jupyter.core.protocols import AuthProvider
from micromegas_jupyter.errors import LoginRequired, MicromegasError, ProviderUnavailable
from micromegas_jupyter.notebook.login.connections import Connection, Connections, Notices
from tests.fakes.notebook_people import FakePersonalProvider, FakeServiceProvider
from tests.fakes.notebook_world import SETTINGS, FakeWorld

Told = list[tuple[ClientSettings, AuthProvider, MicromegasError | None]]


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


def test_a_service_account_needs_no_renewal(world: FakeWorld, connections: Connections) -> None:
    world.stored = FakeServiceProvider()

    connection = connections.get(SETTINGS)
    connections.close()

    assert connection.renewal is None


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


def test_what_a_renewal_does_is_told_with_whom_it_is_about(
    world: FakeWorld, connections: Connections, told: Told
) -> None:
    connections.get(SETTINGS)
    error = ProviderUnavailable("No answer.")

    world.renewals[0].on_change(error)
    world.renewals[0].on_change(None)

    assert told == [(SETTINGS, world.stored, error), (SETTINGS, world.stored, None)]


def test_nobody_signed_in_is_said_with_the_provider_the_server_and_the_remedy_that_fits_here(
    world: FakeWorld, connections: Connections
) -> None:
    world.stored = None

    with pytest.raises(LoginRequired) as required:
        connections.get(SETTINGS)

    assert str(required.value) == (
        "Not signed in at id.example.com (for lake.example.com:50051). "
        "Run %micromegas_login, or set MICROMEGAS_OIDC_CLIENT_SECRET for a service account."
    )


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


def test_whoever_reads_the_newest_notice_has_taken_it() -> None:
    notices = Notices()
    notices.add("first")

    assert notices.newest() == "first"
    assert notices.take_new() == []
    assert Notices().newest() is None
