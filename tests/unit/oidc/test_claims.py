"""Tests of `oidc.jwt`: the checks of ID tokens, and what the token tables of access leave out."""

import hashlib
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import ProviderMisbehaved
from micromegas_jupyter.oidc import jwt
from tests.fakes.mint import (
    AUDIENCE,
    ISSUER,
    NOW,
    NOW_SECONDS,
    ec_key,
    ed25519_key,
    encode,
    encode_json,
    forge,
    mint,
    rsa_key,
)

KEYS = jwt.parse_key_set({"keys": [key.jwk() for key in (rsa_key(), ec_key(), ed25519_key())]})


def verify(token, *, access_token=None):
    return jwt.verify_id_token(
        Secret(token), KEYS, issuer=ISSUER, client_id=AUDIENCE, now=NOW, nonce=Secret("n-1"),
        access_token=access_token and Secret(access_token),
    )  # fmt: skip


def test_a_good_token_gives_its_claims():
    groups = ["analysts", "\x1b[2J", "g" * 300]
    claims = verify(mint(nonce="n-1", name="Alice", email="alice@example.com", azp=AUDIENCE, groups=groups))

    assert claims == jwt.IdTokenClaims(
        issuer=ISSUER, subject="alice", audiences=frozenset({AUDIENCE}), issued_at=NOW,
        expires_at=NOW + timedelta(seconds=300), name="Alice", email="alice@example.com", nonce=Secret("n-1"),
        authorized_party=AUDIENCE, groups=("analysts", "g" * 256),
    )  # fmt: skip


REFUSED = {
    **{
        str(changes): mint(**{"nonce": "n-1", **changes})
        for changes in (
            {"issuer": "https://evil.example"}, {"issuer": ISSUER + "/"}, {"audience": "other"}, {"without": ["aud"]},
            # several audiences without a party and with another one, and a party that is no text
            {"audience": [AUDIENCE, "other"]}, {"audience": [AUDIENCE, "other"], "azp": "other"}, {"azp": 1},
            {"expires_in": -61}, {"without": ["exp"]}, {"exp": "1795521900"}, {"without": ["iat"]},
            {"iat": "1795521600"}, {"iat": NOW_SECONDS + 61}, {"iat": -1e300}, {"without": ["sub"]}, {"subject": ""},
            {"without": ["nonce"]}, {"nonce": "n-2"}, {"nonce": 1}, {"header": {"alg": "HS256"}},
            {"header": {"typ": "at+jwt"}}, {"header": {"crit": ["exp"]}},
        )
    },
    "unsigned": f"{encode_json({'alg': 'none'})}.{mint(nonce='n-1').split('.')[1]}.",
    "unsigned with a signature": forge(
        lambda _header, payload, signature: (encode_json({"alg": "none"}), payload, signature), nonce="n-1"
    ),
    "signature of another token": forge(
        lambda header, payload, _signature: (header, payload, mint(nonce="n-2").split(".")[2]), nonce="n-1"
    ),
    "no token": "opaque",
}  # fmt: skip


@pytest.mark.parametrize("token", REFUSED.values(), ids=REFUSED)
def test_a_token_that_fails_any_check_is_refused_without_being_shown(token):
    with pytest.raises(ProviderMisbehaved) as caught:
        verify(token)

    assert type(caught.value) is ProviderMisbehaved
    assert token not in str(caught.value)


def test_a_wrong_clock_is_named_and_a_key_that_is_not_known_may_be_known_to_newer_keys():
    with pytest.raises(ProviderMisbehaved) as caught:
        verify(mint(nonce="n-1", expires_in=-3600))
    assert "clock" in caught.value.remedy
    with pytest.raises(jwt.UnknownKey):
        verify(mint(nonce="n-1", key=rsa_key("rotated")))


def half_hash(access_token, algorithm):
    digest = hashlib.new(algorithm, access_token).digest()
    return encode(digest[: len(digest) // 2])


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(rsa_key(), "sha256"), (ec_key(), "sha256"), (ed25519_key(), "sha512")],
    ids=["RS", "ES", "Ed"],
)
def test_the_access_token_must_be_the_one_that_the_id_token_names(key, algorithm):
    token = mint(key=key, nonce="n-1", at_hash=half_hash(b"acc", algorithm))

    assert verify(token, access_token="acc").subject == "alice"
    with pytest.raises(ProviderMisbehaved):
        verify(token, access_token="other")


@pytest.mark.parametrize("stated", ["", 1, ["x"], True])
def test_an_access_token_hash_that_is_malformed_is_refused(stated):
    with pytest.raises(ProviderMisbehaved):
        verify(mint(nonce="n-1", at_hash=stated), access_token="acc")


def test_odd_names_are_left_out_and_long_ones_cut():
    claims = verify(mint(nonce="n-1", name="\x1b[31m", preferred_username="a" * 300, email=["x"]))

    assert (claims.name, claims.email) == ("a" * 256, None)


@pytest.mark.parametrize(
    "token",
    [
        mint(issuer="https://evil.example"), mint(audience="other"), mint(without=["exp"]), mint(without=["sub"]),
        "x.y.z",
    ],
    ids=["issuer", "audience", "without exp", "without sub", "malformed"],
)  # fmt: skip
def test_a_stored_token_of_another_sign_in_is_refused(token):
    with pytest.raises(ProviderMisbehaved):
        jwt.read_stored_id_token(Secret(token), issuer=ISSUER, client_id=AUDIENCE)


OLD = jwt.IdTokenClaims(
    issuer=ISSUER, subject="alice", audiences=frozenset({AUDIENCE}),
    issued_at=datetime(2026, 11, 24, 11, 0, tzinfo=UTC), expires_at=NOW, nonce=Secret("n-1"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "is_refused"),
    [
        ({}, False), ({"issued_at": NOW, "nonce": None}, False),
        ({"audiences": frozenset({AUDIENCE, "more"})}, False), ({"subject": "mallory"}, True),
        ({"issuer": "https://evil.example"}, True), ({"audiences": frozenset({"other"})}, True),
        ({"nonce": Secret("n-2")}, True), ({"authorized_party": "other"}, True),
        ({"issued_at": datetime(2026, 11, 24, 10, 59, 59, tzinfo=UTC)}, True),
    ],
)  # fmt: skip
def test_a_refreshed_token_must_continue_its_sign_in(changes, is_refused):
    with pytest.raises(ProviderMisbehaved) if is_refused else nullcontext():
        jwt.check_refreshed_claims(OLD, replace(OLD, **changes))
