"""Tests of `NotebookSession.renew`."""

import pytest

from micromegas_jupyter.errors import LoginRequired, ProviderUnavailable
from micromegas_jupyter.notebook.login.session import NotebookSession
from micromegas_jupyter.notebook.login.state import IdentityStatus
from tests.fakes.notebook_people import FakeServiceProvider
from tests.fakes.notebook_world import SETTINGS, FakeWorld
from tests.unit.notebook.session_cases import WITHOUT_SIGN_IN, shown


def test_a_renewed_token_is_another_one(world: FakeWorld, session: NotebookSession) -> None:
    session.signed_in(SETTINGS)

    assert session.renew(SETTINGS)

    assert world.stored.renewal_count == 1
    assert shown(session) is IdentityStatus.SIGNED_IN


def test_a_renewal_that_works_clears_earlier_trouble(session: NotebookSession) -> None:
    session.signed_in(SETTINGS)
    session.note_failure(SETTINGS, ProviderUnavailable("No answer."))

    session.renew(SETTINGS)

    assert shown(session) is IdentityStatus.SIGNED_IN


def test_a_token_that_serves_on_leaves_what_is_shown(world: FakeWorld, session: NotebookSession) -> None:
    session.signed_in(SETTINGS)
    world.stored.renewal_failure = ProviderUnavailable("id.example.com did not answer.")

    with pytest.raises(ProviderUnavailable):
        session.renew(SETTINGS)

    assert shown(session) is IdentityStatus.SIGNED_IN
    assert not world.clients[0].is_closed


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


def test_a_person_who_has_signed_out_elsewhere_is_shown_as_such(world: FakeWorld, session: NotebookSession) -> None:
    session.signed_in(SETTINGS)
    session.close()
    world.stored = None
    fresh = NotebookSession(world.dependencies())
    assert session.state is not None
    fresh.shown.show(SETTINGS, session.state)

    with pytest.raises(LoginRequired):
        fresh.renew(SETTINGS)

    assert shown(fresh) is IdentityStatus.EXPIRED


@pytest.mark.parametrize("settings", [SETTINGS, WITHOUT_SIGN_IN])
def test_there_is_nothing_to_renew_without_a_person(world: FakeWorld, session: NotebookSession, settings) -> None:
    world.stored = FakeServiceProvider()
    session.signed_in(settings)

    assert not session.renew(settings)
