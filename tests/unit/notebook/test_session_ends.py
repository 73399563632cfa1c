"""Tests of `notebook.session`: signing out, and closing."""

from dataclasses import replace

from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.notebook.login.dependencies import FlowToUse
from micromegas_jupyter.notebook.login.session import NotebookSession
from micromegas_jupyter.notebook.login.state import IdentityStatus
from tests.fakes.notebook_people import FakeServiceProvider
from tests.fakes.notebook_world import SETTINGS, FakeWorld
from tests.unit.notebook.session_cases import WITHOUT_SIGN_IN, shown


def test_logout_ends_the_sign_in_and_the_connection(world: FakeWorld, session: NotebookSession) -> None:
    session.connection(SETTINGS)

    line = session.logout(SETTINGS)

    assert line == "Signed out."
    assert world.logouts == [(SETTINGS, False)]
    assert world.clients[0].is_closed
    assert shown(session) is IdentityStatus.SIGNED_OUT


def test_logout_ends_a_sign_in_that_goes_on(world: FakeWorld, session: NotebookSession) -> None:
    world.stored = None
    login = session.sign_in.begin(SETTINGS, FlowToUse(flow=Flow.BROWSER))

    line = session.logout(SETTINGS)

    assert line == "Nobody was signed in to id.example.com."
    assert login.is_cancelled
    assert shown(session) is IdentityStatus.SIGNED_OUT


def test_logout_says_when_there_is_no_sign_in_to_end(world: FakeWorld, session: NotebookSession) -> None:
    world.stored = FakeServiceProvider()

    assert session.logout(SETTINGS) == "There is no sign-in to end: a key or service account is used."
    assert session.logout(WITHOUT_SIGN_IN) == "There is no sign-in to end: none is configured."


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


def test_logout_ends_the_session_at_the_provider_when_asked(world: FakeWorld, session: NotebookSession) -> None:
    session.logout(SETTINGS, end_session=True)

    assert world.logouts == [(SETTINGS, True)]


def test_logout_removes_what_is_stored_also_when_it_cannot_be_used(world: FakeWorld, session: NotebookSession) -> None:
    world.stored = None

    session.logout(SETTINGS)

    assert world.logouts == [(SETTINGS, False)]
