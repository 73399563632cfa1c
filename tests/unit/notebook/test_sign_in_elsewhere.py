"""Tests of `watch_for_sign_in`, and of what a session makes of a sign-in in another program."""

from datetime import UTC, datetime
from threading import Event, Thread

import pytest

from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.errors import TokenStoreError
from micromegas_jupyter.notebook.login.dependencies import FlowToUse
from micromegas_jupyter.notebook.login.pending import stored_meanwhile, watch_for_sign_in
from micromegas_jupyter.notebook.login.session import NotebookSession
from micromegas_jupyter.notebook.login.state import IdentityStatus
from tests.fakes.notebook_people import FakeIdentity, FakePersonalProvider, FakeServiceProvider
from tests.fakes.notebook_world import SETTINGS, FakeLogin, FakeWorld
from tests.unit.notebook.session_cases import shown

LONG_AGO = datetime(2026, 11, 24, 11, 59, tzinfo=UTC)
DEADLINE_SECONDS = 60


@pytest.fixture
def login(world: FakeWorld) -> FakeLogin:
    return FakeLogin(expires_at=world.clock.now())


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    def watch(login, take):
        watch_for_sign_in(login, take, pause_seconds=0.01)

    monkeypatch.setattr("micromegas_jupyter.notebook.login.pending.watch_for_sign_in", watch)


def test_it_looks_until_there_is_something(login: FakeLogin) -> None:
    looks: list[int] = []
    found = Event()

    def take() -> bool:
        looks.append(len(looks))
        if len(looks) == 3:
            found.set()
        return found.is_set()

    watch_for_sign_in(login, take, pause_seconds=0.01)

    assert found.wait(DEADLINE_SECONDS)
    assert looks == [0, 1, 2]


def test_it_does_not_look_once_the_sign_in_has_ended(login: FakeLogin) -> None:
    login.succeed()
    looks: list[int] = []

    watch_for_sign_in(login, lambda: bool(looks.append(1)), pause_seconds=0.0)

    assert looks == []


@pytest.mark.parametrize(
    "stored",
    [
        None,
        FakeServiceProvider(),
        FakePersonalProvider(FakeIdentity(expires_at=LONG_AGO)),
    ],
    ids=["nobody", "a service account", "ended"],
)
def test_only_a_person_with_a_good_token_counts(world: FakeWorld, stored: object) -> None:
    world.stored = stored

    assert stored_meanwhile(world.dependencies(), SETTINGS) is None


def test_a_stored_sign_in_that_cannot_be_read_does_not_count(world: FakeWorld) -> None:
    parts = world.dependencies()

    def unreadable(_settings):
        raise TokenStoreError("The file is damaged.")

    object.__setattr__(parts, "stored_provider", unreadable)

    assert stored_meanwhile(parts, SETTINGS) is None


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


def test_where_somebody_is_signed_in_already_the_new_sign_in_is_waited_for(
    world: FakeWorld, session: NotebookSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched: list[object] = []
    monkeypatch.setattr(
        "micromegas_jupyter.notebook.login.pending.watch_for_sign_in", lambda login, _adopt: watched.append(login)
    )

    session.sign_in.begin(SETTINGS, FlowToUse(flow=Flow.BROWSER))

    assert watched == []
