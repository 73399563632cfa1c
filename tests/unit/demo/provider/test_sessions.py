"""Sessions of browsers."""

import pytest

from micromegas_jupyter.demo.provider.people import ALICE
from micromegas_jupyter.demo.provider.sessions import BrowserSessions
from micromegas_jupyter.seams import SYSTEM_RANDOMNESS
from tests.fakes.clock import FakeClock


@pytest.fixture
def sessions(clock: FakeClock) -> BrowserSessions:
    return BrowserSessions(clock=clock, randomness=SYSTEM_RANDOMNESS)


def test_signing_in_replaces_the_session(sessions: BrowserSessions, clock: FakeClock) -> None:
    before = sessions.open()

    after = sessions.sign_in(before, ALICE, fresh_for="query")

    assert sessions.find(before.cookie) is None
    assert sessions.find(after.cookie) is after
    assert after.form_token != before.form_token
    assert after.signed_in is not None
    assert after.signed_in.authenticated_at == clock.now()


def test_a_session_ends_after_eight_hours(sessions: BrowserSessions, clock: FakeClock) -> None:
    session = sessions.open()

    clock.advance(8 * 3600)

    assert sessions.find(session.cookie) is None


def test_a_thousand_sessions_are_kept(sessions: BrowserSessions) -> None:
    first = sessions.open()
    others = [sessions.open() for _ in range(1_000)]

    assert sessions.find(first.cookie) is None
    assert sessions.find(others[0].cookie) is others[0]


def test_the_latest_hundred_consents_are_remembered(sessions: BrowserSessions) -> None:
    session = sessions.open()

    for number in range(101):
        session.remember_consent(("client", f"http://127.0.0.1:{number}/callback", "openid"))
    session.remember_consent(("client", "http://127.0.0.1:1/callback", "openid"))

    assert len(session.consents) == 100
    assert ("client", "http://127.0.0.1:0/callback", "openid") not in session.consents
    assert session.consents[-1] == ("client", "http://127.0.0.1:1/callback", "openid")


def test_a_session_shows_no_secret(sessions: BrowserSessions) -> None:
    session = sessions.open()

    assert session.cookie not in repr(session)
    assert session.form_token not in repr(session)
