"""A notebook's session: the sign-in under way, its connections and their renewals."""

from dataclasses import replace
from datetime import UTC, datetime
from threading import Event, Thread

import pytest

from micromegas_jupyter.auth import OidcAuthProvider, StaticTokenAuthProvider
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.errors import (
    InvalidStatement,
    LoginFailed,
    LoginRequired,
    ProviderUnavailable,
    ServerUnavailable,
)
from micromegas_jupyter.notebook.login.connections import Connections, FlowToUse, NotebookServices
from micromegas_jupyter.notebook.login.session import IdentityStatus
from tests.fakes.notebook_world import SETTINGS, FakeIdentity, FakePersonalProvider, FakeServiceProvider, shown

DEVICE = FlowToUse(flow=Flow.DEVICE)
LONG_AGO = datetime(2026, 11, 24, 11, 59, tzinfo=UTC)
DEADLINE_SECONDS = 60
HELD_BACK_SECONDS = 0.2


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (LoginRequired("The session has ended."), IdentityStatus.SIGNED_OUT),
        (ProviderUnavailable("id.example.com did not answer in 10 s."), IdentityStatus.FAILED),
        (ServerUnavailable("lake.example.com does not answer."), IdentityStatus.FAILED),
        (InvalidStatement("No such column."), IdentityStatus.SIGNED_IN),
    ],
)
def test_what_is_shown_follows_from_a_call_that_failed(session, error, status):
    session.signed_in(SETTINGS)

    session.note_failure(SETTINGS, error)

    assert shown(session) is status


def test_a_sign_in_that_fails_is_told_to_the_cell_that_waits_and_then_forgotten(world, session):
    world.stored = None
    attempt = session.sign_in(SETTINGS, FlowToUse(flow=Flow.BROWSER))

    with pytest.raises(LoginFailed):
        session.connection(SETTINGS, on_wait=lambda: attempt.login.fail(LoginFailed("You said no.")))

    assert shown(session) is IdentityStatus.SIGNED_OUT
    assert session.state is not None
    assert session.state.detail == "You said no. Try again here, or run %micromegas_login."
    with pytest.raises(LoginRequired):
        session.connection(SETTINGS)


def test_a_renewal_that_ends_after_the_logout_shows_nothing(world, session):
    session.signed_in(SETTINGS)
    session.logout(SETTINGS)

    world.renewals[0].on_change(None)

    assert shown(session) is IdentityStatus.SIGNED_OUT
    assert not world.renewals[0].is_running


@pytest.fixture
def quick_looks(monkeypatch):
    monkeypatch.setattr("micromegas_jupyter.notebook.login.session.CHECK_SECONDS", 0.01)


def test_only_a_person_with_a_good_token_counts(world, session):
    for world.stored in (None, FakeServiceProvider(), FakePersonalProvider(FakeIdentity(expires_at=LONG_AGO))):
        assert session._stored_elsewhere(SETTINGS) is None


@pytest.mark.usefixtures("quick_looks")
def test_a_sign_in_in_another_program_ends_the_wait_in_this_one(world, session):
    world.stored = None
    attempt = session.sign_in(SETTINGS, FlowToUse(flow=Flow.BROWSER))
    elsewhere = FakePersonalProvider()

    connection = session.connection(SETTINGS, on_wait=lambda: setattr(world, "stored", elsewhere))

    assert connection.provider is elsewhere
    assert attempt.login.is_cancelled
    assert world.was_asked_whoami.wait(DEADLINE_SECONDS)
    assert shown(session) is IdentityStatus.SIGNED_IN


@pytest.mark.usefixtures("quick_looks")
def test_a_stored_sign_in_that_is_this_ones_own_cancels_nothing(world, session, monkeypatch):
    looks, signed_in = [], Event()
    monkeypatch.setattr(session, "_stored_elsewhere", lambda _settings: None)
    world.stored = None

    def look(_settings):
        looks.append(None)
        if len(looks) == 2:  # it is stored shortly before its end is known
            world.logins[0].succeed()
        return FakePersonalProvider()

    attempt = session.sign_in(
        SETTINGS,
        FlowToUse(flow=Flow.DEVICE),
        on_begun=lambda _login: monkeypatch.setattr(session, "_stored_elsewhere", look) is None,
        on_signed_in=signed_in.set,
    )

    assert signed_in.wait(DEADLINE_SECONDS)
    assert not attempt.login.is_cancelled


def test_a_cell_that_waits_continues_when_another_flow_replaces_the_sign_in(world, session):
    world.stored = None
    session.sign_in(SETTINGS, FlowToUse(flow=Flow.BROWSER))
    waits = []

    def show_a_code():
        waits.append(session.state.flow)
        assert session.state.is_awaited
        if len(waits) == 1:
            Thread(target=session.sign_in, args=(SETTINGS, DEVICE)).start()
        else:
            world.logins[1].succeed()

    connection = session.connection(SETTINGS, on_wait=show_a_code)

    assert waits == [Flow.BROWSER, Flow.DEVICE]
    assert connection.provider is not None
    assert shown(session) is IdentityStatus.SIGNED_IN


def test_a_sign_in_that_was_replaced_before_it_was_shown_is_not_shown(world, session, monkeypatch):
    follow, has_replaced = session._follow, Event()

    def replace_first(attempt, reason):
        if attempt.login.flow is Flow.BROWSER:
            Thread(target=lambda: (session.sign_in(SETTINGS, DEVICE), has_replaced.set())).start()
            has_replaced.wait(HELD_BACK_SECONDS)  # ends early only if nothing holds the other sign-in back
        follow(attempt, reason)

    world.stored = None
    monkeypatch.setattr(session, "_follow", replace_first)

    session.sign_in(SETTINGS, FlowToUse(flow=Flow.BROWSER))

    assert has_replaced.wait(DEADLINE_SECONDS)
    assert session.attempt.login is world.logins[1]
    assert session.state.flow is Flow.DEVICE
    assert shown(session) is IdentityStatus.WAITING


def test_a_sign_in_whose_token_has_ended_too_is_over(world, session):
    session.signed_in(SETTINGS)
    world.stored.failure = LoginRequired("The provider ended the session.")

    with pytest.raises(LoginRequired):
        session.renew(SETTINGS)

    assert shown(session) is IdentityStatus.SIGNED_OUT
    assert world.clients[0].is_closed


@pytest.fixture
def connections(world):
    return Connections(world.dependencies(), lambda *_: None)


def test_a_connection_that_two_threads_ask_for_at_once_is_one_and_stays_open_for_both(world, monkeypatch):
    stored_provider = world.stored_provider
    others = []

    def overtaken(settings):
        if not others:
            others.append(raced.put(settings, stored_provider(settings)))
        return stored_provider(settings)

    monkeypatch.setattr(world, "stored_provider", overtaken)
    raced = Connections(world.dependencies(), lambda *_: None)

    mine = raced.get(SETTINGS)

    assert mine is others[0] is raced.current(SETTINGS)
    assert [client.is_closed for client in world.clients] == [False, True]
    assert [renewal.is_running for renewal in world.renewals] == [True, False]


def test_a_connection_that_is_retired_while_the_notebook_closes_loses_its_readers_too(world, connections, monkeypatch):
    provider = connections.get(SETTINGS).provider
    client = world.clients[0]
    client.is_in_use = True
    closes = []

    def close(*, keeps_readers=False):
        closes.append(keeps_readers)
        if keeps_readers:
            connections.close()

    monkeypatch.setattr(client, "close", close)
    connections.put(SETTINGS, provider)

    assert closes == [True, False]


def test_at_most_eight_connections_are_kept(world, connections):
    for index in range(9):
        connections.get(replace(SETTINGS, profile=f"profile-{index}"))

    assert [client.is_closed for client in world.clients] == [True] + [False] * 8
    assert [renewal.is_running for renewal in world.renewals] == [False] + [True] * 8


def test_only_a_persons_sign_in_is_renewed_in_the_background():
    person = OidcAuthProvider("https://id.example.com", "lake-notebooks")

    assert NotebookServices().renewal(person, lambda _: None) is not None
    # A message outside of cells would keep a Hub from culling the server of an idle notebook.
    for other in (StaticTokenAuthProvider("key"), FakePersonalProvider(through="JupyterHub")):
        assert NotebookServices().renewal(other, lambda _: None) is None
