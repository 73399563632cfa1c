"""A notebook's session: its connections, the sign-in under way, and the state that is shown."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import pytest

from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.core.protocols import AuthProvider
from micromegas_jupyter.errors import (
    InvalidStatement,
    LoginFailed,
    LoginRequired,
    MicromegasError,
    ProviderUnavailable,
    ServerUnavailable,
    UnsupportedRequest,
)
from micromegas_jupyter.notebook.login.connections import (
    Connection,
    Connections,
    Dependencies,
    FlowToUse,
    PersonalProvider,
    TokenRenewal,
)
from micromegas_jupyter.notebook.login.session import (
    IdentityStatus,
    NotebookSession,
)
from tests.fakes.clock import FakeClock
from tests.fakes.notebook_people import FakeIdentity, FakePersonalProvider, FakeServiceProvider
from tests.fakes.notebook_world import SETTINGS, WITHOUT_SIGN_IN, FakeWorld, shown

DEVICE = FlowToUse(flow=Flow.DEVICE)
LONG_AGO = datetime(2026, 11, 24, 11, 59, tzinfo=UTC)
DEADLINE_SECONDS = 60


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (LoginRequired("The session has ended."), IdentityStatus.EXPIRED),
        (ProviderUnavailable("id.example.com did not answer in 10 s."), IdentityStatus.RENEWAL_FAILED),
        (ServerUnavailable("lake.example.com does not answer."), IdentityStatus.OFFLINE),
        (InvalidStatement("No such column."), IdentityStatus.SIGNED_IN),
    ],
)
def test_what_is_shown_follows_from_a_call_that_failed(
    session: NotebookSession, error: MicromegasError, status: IdentityStatus
) -> None:
    session.signed_in(SETTINGS)

    session.note_failure(SETTINGS, error)

    assert shown(session) is status


def test_a_call_that_works_again_clears_the_trouble_and_keeps_what_the_server_said(
    world: FakeWorld, session: NotebookSession
) -> None:
    session.fetch_identity(SETTINGS)
    session.note_failure(SETTINGS, ProviderUnavailable("No answer."))

    session.note_success(SETTINGS, world.stored)

    assert session.state is not None
    assert (session.state.status, session.state.detail) == (IdentityStatus.SIGNED_IN, "")
    assert (session.state.is_admin, session.state.server_line) == (True, "connected as alice@example.com, 14 ms")


def test_a_wrappers_client_is_said_to_be_used(world: FakeWorld, session: NotebookSession) -> None:
    world.has_wrapper = True
    world.whoami_failure = UnsupportedRequest("The wrapper's client cannot ask who you are.")

    signed_in, asked = session.signed_in(WITHOUT_SIGN_IN), session.fetch_identity(WITHOUT_SIGN_IN)

    assert signed_in.status is asked.status is IdentityStatus.WRAPPED
    assert asked.server_line == ""
    assert session.logout(WITHOUT_SIGN_IN) == "There is no sign-in to end: the wrapper's client is used."


def test_a_running_sign_in_is_waited_for_and_its_provider_used(world: FakeWorld, session: NotebookSession) -> None:
    world.stored = None
    provider = FakePersonalProvider()
    login = session.sign_in.begin(SETTINGS, FlowToUse(flow=Flow.BROWSER))

    connection = session.connection(SETTINGS, on_wait=lambda _: login.succeed(provider))

    assert connection.provider is provider
    assert len(world.clients) == 1


def test_a_sign_in_that_fails_is_told_to_the_cell_that_waits_and_then_forgotten(
    world: FakeWorld, session: NotebookSession
) -> None:
    world.stored = None
    login = session.sign_in.begin(SETTINGS, FlowToUse(flow=Flow.BROWSER))

    with pytest.raises(LoginFailed):
        session.connection(SETTINGS, on_wait=lambda _: login.fail(LoginFailed("You said no.")))

    assert shown(session) is IdentityStatus.SIGNED_OUT
    assert session.state is not None
    assert session.state.detail == "You said no. Run %micromegas_login to try again."
    with pytest.raises(LoginRequired):
        session.connection(SETTINGS)


def test_a_renewal_that_ends_after_the_logout_shows_nothing(world: FakeWorld, session: NotebookSession) -> None:
    session.signed_in(SETTINGS)
    session.logout(SETTINGS)

    world.renewals[0].on_change(None)

    assert shown(session) is IdentityStatus.SIGNED_OUT
    assert not world.renewals[0].is_running


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("micromegas_jupyter.notebook.login.session.CHECK_SECONDS", 0.01)


@pytest.mark.parametrize(
    "stored",
    [
        None,
        FakeServiceProvider(),
        FakePersonalProvider(FakeIdentity(expires_at=LONG_AGO)),
    ],
    ids=["nobody", "a service account", "ended"],
)
def test_only_a_person_with_a_good_token_counts(world: FakeWorld, session: NotebookSession, stored: object) -> None:
    world.stored = stored

    assert session.sign_in.stored_meanwhile(SETTINGS) is None


@pytest.mark.usefixtures("quick_looks")
def test_a_sign_in_in_another_program_ends_the_wait_in_this_one(world: FakeWorld, session: NotebookSession) -> None:
    world.stored = None
    login = session.sign_in.begin(SETTINGS, FlowToUse(flow=Flow.BROWSER))
    elsewhere = FakePersonalProvider()

    connection = session.connection(SETTINGS, on_wait=lambda _: setattr(world, "stored", elsewhere))

    assert connection.provider is elsewhere
    assert login.is_cancelled
    assert world.was_asked_whoami.wait(DEADLINE_SECONDS)
    assert shown(session) is IdentityStatus.SIGNED_IN


@pytest.mark.usefixtures("quick_looks")
def test_whoever_finishes_the_sign_in_learns_of_no_failure(world: FakeWorld, session: NotebookSession) -> None:
    world.stored = None
    login = session.sign_in.begin(SETTINGS, FlowToUse(flow=Flow.BROWSER))
    elsewhere = FakePersonalProvider()

    def sign_in_elsewhere() -> None:
        if login.waited_for.wait(DEADLINE_SECONDS):
            world.stored = elsewhere

    other_program = Thread(target=sign_in_elsewhere)
    other_program.start()

    session.sign_in.finish(login)
    session.sign_in.finish(login)

    other_program.join(DEADLINE_SECONDS)
    assert session.connection(SETTINGS).provider is elsewhere


def test_a_sign_in_whose_token_has_ended_too_is_over(world: FakeWorld, session: NotebookSession) -> None:
    session.signed_in(SETTINGS)
    world.stored.failure = LoginRequired("The provider ended the session.")

    with pytest.raises(LoginRequired):
        session.renew(SETTINGS)

    assert shown(session) is IdentityStatus.EXPIRED
    assert world.clients[0].is_closed


Told = list[tuple[ClientSettings, AuthProvider, MicromegasError | None]]


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


@pytest.fixture(autouse=True)
def config_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MICROMEGAS_CONFIG_DIR", str(tmp_path))
    return tmp_path


def test_a_terminal_that_nobody_sees_signs_nobody_in() -> None:
    with pytest.raises(LoginRequired):
        Dependencies().choose_flow(SETTINGS, None, None)


def test_a_key_is_not_renewed() -> None:
    assert Dependencies().renewal(StaticTokenAuthProvider("key"), lambda _: None) is None


def test_a_persons_sign_in_is_renewed() -> None:
    from micromegas_jupyter.auth import OidcAuthProvider

    provider = OidcAuthProvider("https://id.example.com", "lake-notebooks")

    renewal: TokenRenewal | None = Dependencies().renewal(provider, lambda _: None)

    assert renewal is not None
    assert isinstance(provider, PersonalProvider)
