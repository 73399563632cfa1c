from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from micromegas_jupyter.auth.tokens.manager import Session, session_of
from micromegas_jupyter.auth.tokens.refresh import Freshness, draw_delay_share, freshness_of
from micromegas_jupyter.config.client import Bearer
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.core.system import SYSTEM_RANDOMNESS
from micromegas_jupyter.errors import LoginRequired
from micromegas_jupyter.oidc.tokens import TokenSet
from tests.fakes.mint import AUDIENCE, ISSUER, NOW, mint
from tests.fakes.stored_sign_in import FixedRandomness

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
def test_a_token_is_renewed_in_its_last_five_minutes_or_its_last_quarter(
    lifetime_seconds: int, age_seconds: int, expected: Freshness
) -> None:
    end, now = BEGIN + timedelta(seconds=lifetime_seconds), BEGIN + timedelta(seconds=age_seconds)

    assert freshness_of(BEGIN, end, now) is expected


def test_a_token_of_unknown_age_is_renewed_in_its_last_five_minutes() -> None:
    assert freshness_of(None, BEGIN + timedelta(seconds=301), BEGIN) is Freshness.FRESH
    assert freshness_of(None, BEGIN + timedelta(seconds=300), BEGIN) is Freshness.ENDING


def test_a_token_without_a_known_end_is_fresh() -> None:
    assert freshness_of(None, None, BEGIN) is Freshness.FRESH


@pytest.mark.parametrize(
    ("age_seconds", "expected"), [(3359, Freshness.FRESH), (3360, Freshness.ENDING), (3600, Freshness.ENDED)]
)
def test_a_program_may_let_a_part_of_the_last_minutes_pass(age_seconds: int, expected: Freshness) -> None:
    end, now = BEGIN + timedelta(hours=1), BEGIN + timedelta(seconds=age_seconds)

    assert freshness_of(BEGIN, end, now, delay_share=0.2) is expected


def test_the_part_that_passes_is_drawn_and_at_most_a_fifth() -> None:
    drawn = {draw_delay_share(SYSTEM_RANDOMNESS) for _ in range(50)}

    assert len(drawn) == 50
    assert 0 <= min(drawn) < max(drawn) < 0.2


def test_the_same_draw_gives_the_same_part() -> None:
    assert draw_delay_share(FixedRandomness("a")) == pytest.approx(0.158275, abs=1e-6)


def test_each_bearer_has_its_own_token_and_end() -> None:
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


def test_a_renewal_is_due_before_the_end_of_the_token_in_question() -> None:
    tokens = replace(signed_in().tokens, expires_at=NOW + timedelta(hours=2))
    session = session_of(tokens, issuer=ISSUER, client_id=AUDIENCE)

    assert session.due_at(Bearer.ID_TOKEN) == NOW + timedelta(minutes=55)
    assert session.due_at(Bearer.ID_TOKEN, delay_share=0.2) == NOW + timedelta(minutes=56)
    assert session.due_at(Bearer.ACCESS_TOKEN) == NOW + timedelta(minutes=115)


@pytest.mark.parametrize(("renewed_after_seconds", "pause_seconds"), [(3300, 30), (3600, 30), (3660, 60), (7200, 3600)])
def test_an_id_token_that_a_renewal_did_not_replace_is_not_asked_for_at_once(
    renewed_after_seconds: int, pause_seconds: int
) -> None:
    renewed_at = NOW + timedelta(seconds=renewed_after_seconds)
    tokens = replace(signed_in().tokens, obtained_at=renewed_at, expires_at=renewed_at + timedelta(hours=1))
    session = session_of(tokens, issuer=ISSUER, client_id=AUDIENCE)

    assert session.renewable_from(Bearer.ID_TOKEN) == renewed_at + timedelta(seconds=pause_seconds)
    assert session.renewable_from(Bearer.ACCESS_TOKEN) is None


@pytest.mark.parametrize("lifetime_seconds", [2, 4, 300, 3600])
def test_an_id_token_that_came_with_the_access_token_may_be_renewed_at_any_time(lifetime_seconds: int) -> None:
    session = signed_in(lifetime_seconds=lifetime_seconds)

    assert session.renewable_from(Bearer.ID_TOKEN) is None


def test_no_renewal_is_due_for_a_token_that_is_missing_or_has_no_known_end() -> None:
    session = Session(tokens=TokenSet(access_token=Secret("acc")), claims=None)

    assert session.due_at(Bearer.ID_TOKEN) is None
    assert session.due_at(Bearer.ACCESS_TOKEN) is None


def test_a_session_without_an_id_token_has_none_to_give() -> None:
    session = Session(tokens=TokenSet(access_token=Secret("acc")), claims=None)

    assert session.freshness(Bearer.ID_TOKEN, NOW) is Freshness.ENDED
    with pytest.raises(LoginRequired):
        session.token(Bearer.ID_TOKEN)


@pytest.mark.parametrize("token", ["opaque", mint(issuer="https://evil.example"), mint(audience="other")])
def test_a_stored_id_token_of_another_sign_in_is_refused(token: str) -> None:
    with pytest.raises(LoginRequired):
        session_of(TokenSet(access_token=Secret("acc"), id_token=Secret(token)), issuer=ISSUER, client_id=AUDIENCE)
