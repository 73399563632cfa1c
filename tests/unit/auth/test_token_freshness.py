"""When a token is due, by which clock, and who renews it when many want to."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from micromegas_jupyter.auth.tokens.manager import Freshness, RefreshLock, Session, freshness_of, session_of
from micromegas_jupyter.config.client import Bearer
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import LoginRequired, ProviderUnavailable
from micromegas_jupyter.oidc.tokens import TokenSet
from tests.fakes.mint import AUDIENCE, ISSUER, NOW, mint

BEGIN = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("lifetime_seconds", "age_seconds", "expected"),
    [
        (3600, 0, Freshness.FRESH),
        (3600, 3299, Freshness.FRESH),
        (3600, 3300, Freshness.ENDING),
        (3600, 3599, Freshness.ENDING),
        (3600, 3600, Freshness.ENDED),
        (300, 224, Freshness.FRESH),
        (300, 225, Freshness.ENDING),
        (8, 5, Freshness.FRESH),
        (8, 6, Freshness.ENDING),
    ],
)
def test_a_token_is_renewed_in_its_last_five_minutes_or_its_last_quarter(lifetime_seconds, age_seconds, expected):
    end, now = BEGIN + timedelta(seconds=lifetime_seconds), BEGIN + timedelta(seconds=age_seconds)

    assert freshness_of(BEGIN, end, now) is expected


def test_each_bearer_has_its_own_token_and_end():
    tokens = TokenSet(
        access_token=Secret("acc"),
        id_token=Secret(mint(expires_in=300)),
        obtained_at=NOW,
        expires_at=NOW + timedelta(hours=1),
    )
    session = session_of(tokens, issuer=ISSUER, client_id=AUDIENCE)
    later = NOW + timedelta(seconds=300)

    assert session.freshness(Bearer.ID_TOKEN, later) is Freshness.ENDED
    assert session.freshness(Bearer.ACCESS_TOKEN, later) is Freshness.FRESH
    assert session.token(Bearer.ACCESS_TOKEN).reveal() == "acc"


def signed_in(*, lifetime_seconds: int = 3600) -> Session:
    tokens = TokenSet(
        access_token=Secret("acc"),
        id_token=Secret(mint(expires_in=lifetime_seconds)),
        obtained_at=NOW,
        expires_at=NOW + timedelta(seconds=lifetime_seconds),
    )
    return session_of(tokens, issuer=ISSUER, client_id=AUDIENCE)


@pytest.mark.parametrize(("renewed_after_seconds", "pause_seconds"), [(3300, 30), (3600, 30), (3660, 60), (7200, 3600)])
def test_an_id_token_that_a_renewal_did_not_replace_is_not_asked_for_at_once(renewed_after_seconds, pause_seconds):
    renewed_at = NOW + timedelta(seconds=renewed_after_seconds)
    tokens = replace(signed_in().tokens, obtained_at=renewed_at, expires_at=renewed_at + timedelta(hours=1))
    session = session_of(tokens, issuer=ISSUER, client_id=AUDIENCE)

    assert session.renewable_from(Bearer.ID_TOKEN) == renewed_at + timedelta(seconds=pause_seconds)
    assert session.renewable_from(Bearer.ACCESS_TOKEN) is None


@pytest.mark.parametrize("lifetime_seconds", [2, 4, 300, 3600])
def test_an_id_token_that_came_with_the_access_token_may_be_renewed_at_any_time(lifetime_seconds):
    session = signed_in(lifetime_seconds=lifetime_seconds)

    assert session.renewable_from(Bearer.ID_TOKEN) is None


@pytest.mark.parametrize("token", ["opaque", mint(issuer="https://evil.example"), mint(audience="other")])
def test_a_stored_id_token_of_another_sign_in_is_refused(token):
    with pytest.raises(LoginRequired):
        session_of(TokenSet(access_token=Secret("acc"), id_token=Secret(token)), issuer=ISSUER, client_id=AUDIENCE)


def fail() -> int:
    raise ProviderUnavailable("down")


def test_a_failure_is_raised_and_spaces_the_next_needed_attempt(clock):
    lock = RefreshLock[int](clock)
    with pytest.raises(ProviderUnavailable):
        lock.run(fail, is_optional=False)

    started = time.monotonic()
    result = lock.run(lambda: 7, is_optional=False)

    assert result == 7
    assert 0.4 < time.monotonic() - started < 30


def test_an_optional_renewal_is_left_out_for_half_a_minute_after_a_failure(clock):
    lock = RefreshLock[int](clock)
    with pytest.raises(ProviderUnavailable):
        lock.run(fail, is_optional=True)

    at_once = lock.run(lambda: 7, is_optional=True)
    clock.advance(30)
    later = lock.run(lambda: 7, is_optional=True)

    assert (at_once, later) == (None, 7)


def test_an_optional_renewal_does_not_wait_for_another(clock):
    lock = RefreshLock[int](clock)
    began, go_on = threading.Event(), threading.Event()

    def slow() -> int:
        began.set()
        go_on.wait(60)
        return 7

    thread = threading.Thread(target=lock.run, args=(slow,), kwargs={"is_optional": False})
    thread.start()
    assert began.wait(30)

    assert lock.run(lambda: 8, is_optional=True) is None

    go_on.set()
    thread.join(60)
