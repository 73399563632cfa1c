"""A notebook's session: its connections, the sign-in under way, and the state that is shown."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from threading import Thread

import pytest

from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.errors import (
    InvalidStatement,
    LoginFailed,
    LoginRequired,
    MicromegasError,
    ProviderUnavailable,
    ServerUnavailable,
    UnsupportedRequest,
)
from micromegas_jupyter.notebook.login.connections import FlowToUse
from micromegas_jupyter.notebook.login.session import IdentityState, IdentityStatus, NotebookSession
from tests.fakes.notebook_world import (
    SETTINGS,
    WITHOUT_SIGN_IN,
    FakeIdentity,
    FakePersonalProvider,
    FakeServiceProvider,
    FakeWorld,
    shown,
)

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


def test_a_foreign_name_is_written_out_and_cut(world: FakeWorld, session: NotebookSession) -> None:
    world.stored = FakePersonalProvider(FakeIdentity(name="\x1b[2J" + "e" * 500))

    name = session.signed_in(SETTINGS).name

    assert name == "\\x1b[2J" + "e" * 112 + "…"


def test_a_wrappers_client_is_said_to_be_used(world: FakeWorld, session: NotebookSession) -> None:
    world.has_wrapper = True
    world.whoami_failure = UnsupportedRequest("The wrapper's client cannot ask who you are.")

    signed_in, asked = session.signed_in(WITHOUT_SIGN_IN), session.fetch_identity(WITHOUT_SIGN_IN)

    assert signed_in.status is asked.status is IdentityStatus.WRAPPED
    assert asked.server_line == ""
    assert session.logout(WITHOUT_SIGN_IN) == "There is no sign-in to end: the wrapper's client is used."


def test_a_renewal_is_shown_without_a_cell(world: FakeWorld, session: NotebookSession) -> None:
    session.fetch_identity(SETTINGS)
    provider = world.stored
    provider._identity = replace(provider._identity, expires_at=datetime(2026, 11, 24, 16, 42, tzinfo=UTC))

    world.renewals[0].on_change(None)

    assert session.state is not None
    assert session.state.ends_at == datetime(2026, 11, 24, 16, 42, tzinfo=UTC)
    assert session.state.server_line == "connected as alice@example.com, 14 ms"


@pytest.mark.parametrize("ask", [NotebookSession.signed_in, NotebookSession.fetch_identity])
def test_whoever_the_tokens_do_not_name_is_signed_in_all_the_same(
    session: NotebookSession,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[NotebookSession, ClientSettings], IdentityState],
) -> None:
    def unnamed(_self):
        raise LoginRequired("The tokens do not say who is signed in.")

    monkeypatch.setattr(FakePersonalProvider, "identity", unnamed)

    state = ask(session, SETTINGS)

    assert (state.status, state.name) == (IdentityStatus.SIGNED_IN, "")
    assert session.connection(SETTINGS) is session.connection(SETTINGS)


def test_a_running_sign_in_is_waited_for_and_its_provider_used(world: FakeWorld, session: NotebookSession) -> None:
    world.stored = None
    provider = FakePersonalProvider()
    login = session.sign_in.begin(SETTINGS, FlowToUse(flow=Flow.BROWSER))

    connection = session.connection(SETTINGS, on_wait=lambda _: login.succeed(provider))

    assert connection.provider is provider
    assert len(world.clients) == 1


def test_a_sign_in_for_other_settings_is_not_waited_for(world: FakeWorld, session: NotebookSession) -> None:
    login = session.sign_in.begin(replace(SETTINGS, profile="other"), FlowToUse(flow=Flow.BROWSER))

    session.connection(SETTINGS)

    assert not login.waited_for.is_set()


def test_a_second_sign_in_takes_the_place_of_the_first(world: FakeWorld, session: NotebookSession) -> None:
    first = session.sign_in.begin(SETTINGS, FlowToUse(flow=Flow.BROWSER))

    second = session.sign_in.begin(SETTINGS, FlowToUse(flow=Flow.BROWSER))

    assert first.is_cancelled
    assert not second.is_cancelled
    assert shown(session) is IdentityStatus.WAITING


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


def test_what_follows_a_sign_in_follows_one_that_ended_well_and_only_once(session: NotebookSession) -> None:
    followed: list[str] = []
    failing = session.sign_in.begin(
        SETTINGS, FlowToUse(flow=Flow.DEVICE), on_signed_in=lambda: followed.append("failed")
    )
    failing.fail(LoginFailed("You said no."))
    working = session.sign_in.begin(
        SETTINGS, FlowToUse(flow=Flow.DEVICE), on_signed_in=lambda: followed.append("worked")
    )

    working.succeed()
    session.sign_in.finish(working)

    assert followed == ["worked"]


def test_logout_ends_a_sign_in_that_goes_on(world: FakeWorld, session: NotebookSession) -> None:
    world.stored = None
    login = session.sign_in.begin(SETTINGS, FlowToUse(flow=Flow.BROWSER))

    line = session.logout(SETTINGS)

    assert line == "Nobody was signed in to id.example.com."
    assert login.is_cancelled
    assert shown(session) is IdentityStatus.SIGNED_OUT


def test_closing_ends_a_sign_in_and_all_clients(world: FakeWorld, session: NotebookSession) -> None:
    session.connection(SETTINGS)
    login = session.sign_in.begin(replace(SETTINGS, profile="other"), FlowToUse(flow=Flow.BROWSER))

    session.close()

    assert login.is_cancelled
    assert world.clients[0].is_closed


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


def test_a_sign_in_that_the_provider_has_ended_lasts_as_long_as_its_token(
    world: FakeWorld, session: NotebookSession
) -> None:
    session.signed_in(SETTINGS)
    world.stored.renewal_failure = LoginRequired("The provider ended the session.")

    with pytest.raises(LoginRequired):
        session.renew(SETTINGS)

    assert shown(session) is IdentityStatus.SIGNED_IN


def test_a_sign_in_whose_token_has_ended_too_is_over(world: FakeWorld, session: NotebookSession) -> None:
    session.signed_in(SETTINGS)
    world.stored.failure = LoginRequired("The provider ended the session.")

    with pytest.raises(LoginRequired):
        session.renew(SETTINGS)

    assert shown(session) is IdentityStatus.EXPIRED
    assert world.clients[0].is_closed
