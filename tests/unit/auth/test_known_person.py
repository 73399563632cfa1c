from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from micromegas_jupyter.auth.identity import Identity, identity_of_session
from micromegas_jupyter.auth.tokens.manager import Session
from micromegas_jupyter.config.client import Bearer
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import LoginRequired
from micromegas_jupyter.oidc.id_token import IdTokenClaims
from micromegas_jupyter.oidc.tokens import TokenSet
from tests.fakes.mint import mint_raw

ISSUER = "https://id.example.com"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
ONE = datetime(2026, 11, 24, 13, tzinfo=UTC)

CLAIMS = IdTokenClaims(
    issuer=ISSUER,
    subject="alice-1",
    audiences=frozenset({"notebook"}),
    issued_at=NOON,
    expires_at=NOON,
    name="Alice Example",
    email="alice@example.com",
    groups=("analysts",),
)


def session_of(
    claims: IdTokenClaims | None, *, access_token: str = "opaque", ends_at: datetime | None = ONE
) -> Session:
    tokens = TokenSet(access_token=Secret(access_token), refresh_token=Secret("r"), expires_at=ends_at)
    return Session(tokens=tokens, claims=claims)


def access_token(**changes: object) -> str:
    claims = {
        "sub": "alice-1",
        "name": "Alice Example",
        "email": "alice@example.com",
        "exp": NOON.timestamp(),
        **changes,
    }
    return mint_raw(json.dumps({name: value for name, value in claims.items() if value is not None}).encode())


def test_the_id_token_says_who_it_is() -> None:
    identity = identity_of_session(session_of(CLAIMS), issuer=ISSUER, bearer=Bearer.ID_TOKEN)

    assert identity == Identity(
        subject="alice-1",
        name="Alice Example",
        email="alice@example.com",
        issuer=ISSUER,
        expires_at=NOON,
        renews=True,
        groups=("analysts",),
    )


def test_where_the_access_token_is_the_bearer_its_end_counts() -> None:
    identity = identity_of_session(session_of(CLAIMS), issuer=ISSUER, bearer=Bearer.ACCESS_TOKEN)

    assert identity.expires_at == ONE


def test_an_access_token_without_a_known_end_leaves_that_of_the_id_token() -> None:
    identity = identity_of_session(session_of(CLAIMS, ends_at=None), issuer=ISSUER, bearer=Bearer.ACCESS_TOKEN)

    assert identity.expires_at == NOON


def test_without_an_id_token_an_access_token_that_can_be_read_says_who_it_is() -> None:
    session = session_of(None, access_token=access_token())

    identity = identity_of_session(session, issuer=ISSUER, bearer=Bearer.ACCESS_TOKEN)

    assert (identity.subject, identity.name, identity.email) == ("alice-1", "Alice Example", "alice@example.com")
    assert (identity.issuer, identity.expires_at, identity.renews) == (ISSUER, ONE, True)


def test_its_own_end_counts_where_the_answer_named_none() -> None:
    session = session_of(None, access_token=access_token(), ends_at=None)

    assert identity_of_session(session, issuer=ISSUER, bearer=Bearer.ACCESS_TOKEN).expires_at == NOON


def test_what_cannot_be_shown_is_left_out() -> None:
    session = session_of(None, access_token=access_token(name="\x1b[2J", email=7, preferred_username="alice"))

    identity = identity_of_session(session, issuer=ISSUER, bearer=Bearer.ACCESS_TOKEN)

    assert (identity.name, identity.email) == ("alice", None)


@pytest.mark.parametrize("token", ["opaque", access_token(sub=None), access_token(sub=7), access_token(sub="\x00")])
def test_tokens_that_say_nothing_about_their_person_are_known_as_such(token: str) -> None:
    with pytest.raises(LoginRequired) as caught:
        identity_of_session(session_of(None, access_token=token), issuer=ISSUER, bearer=Bearer.ACCESS_TOKEN)

    assert "openid" in caught.value.remedy


def test_an_end_that_nobody_names_is_no_identity() -> None:
    session = session_of(None, access_token=access_token(exp=None), ends_at=None)

    with pytest.raises(LoginRequired):
        identity_of_session(session, issuer=ISSUER, bearer=Bearer.ACCESS_TOKEN)
