from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from micromegas_jupyter.auth.session import Bearer, Freshness, Session, freshness_of, session_from_storage
from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.errors import LoginRequired
from micromegas_jupyter.oidc.token import TokenSet
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


def test_each_bearer_has_its_own_token_and_end() -> None:
    tokens = TokenSet(
        access_token=Secret("acc"),
        id_token=Secret(mint(expires_in=300)),
        obtained_at=NOW,
        expires_at=NOW + timedelta(hours=1),
    )
    session = session_from_storage(tokens, issuer=ISSUER, client_id=AUDIENCE)
    later = NOW + timedelta(seconds=300)

    assert session.freshness(Bearer.ID_TOKEN, later) is Freshness.ENDED
    assert session.freshness(Bearer.ACCESS_TOKEN, later) is Freshness.FRESH
    assert session.token(Bearer.ACCESS_TOKEN).reveal() == "acc"


def test_a_session_without_an_id_token_has_none_to_give() -> None:
    session = Session(tokens=TokenSet(access_token=Secret("acc")), claims=None)

    assert session.freshness(Bearer.ID_TOKEN, NOW) is Freshness.ENDED
    with pytest.raises(LoginRequired):
        session.token(Bearer.ID_TOKEN)


@pytest.mark.parametrize("token", ["opaque", mint(issuer="https://evil.example"), mint(audience="other")])
def test_a_stored_id_token_of_another_sign_in_is_refused(token: str) -> None:
    with pytest.raises(LoginRequired):
        session_from_storage(
            TokenSet(access_token=Secret("acc"), id_token=Secret(token)), issuer=ISSUER, client_id=AUDIENCE
        )
