"""Tests of `access.issuer_policy`; single rules are in the token tables, here is what holds across them."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from micromegas_jupyter.access.oidc import IssuerPolicy
from micromegas_jupyter.config.access import IssuerSetting, TokenKind
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.oidc.jws import ParsedToken, TokenProblem
from tests.fakes.mint import AUDIENCE, ISSUER, NOW_SECONDS

STRICT = IssuerSetting(
    issuer=ISSUER,
    audiences=(AUDIENCE,),
    aliases=("id.example.com", ISSUER),
    algorithms=frozenset({"RS256"}),
    required_claims=MappingProxyType({"use": ("lake",)}),
    client_ids=("notebook",),
    subjects=("alice",),
    tenant="tenant-1",
    token_kind=TokenKind.ACCESS,
    is_rfc9068=True,
)
GOOD: dict[str, object] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "alice",
    "exp": NOW_SECONDS + 300,
    "iat": NOW_SECONDS,
    "jti": "1",
    "tid": "tenant-1",
    "use": "lake",
    "client_id": "notebook",
}
# What each rule, in the order in which they are applied, does not like.
BREAKS: dict[str, dict[str, object]] = {
    "algorithm_not_allowed": {"alg": "RS512"},
    "audience_mismatch": {"aud": "other"},
    "expired": {"exp": NOW_SECONDS - 61},
    "not_yet_valid": {"nbf": NOW_SECONDS + 61},
    "issued_in_the_future": {"iat": NOW_SECONDS + 61},
    "sender_constrained": {"cnf": {}},
    "not_a_bearer_token": {"events": {}},
    "id_token_as_access_token": {"typ": "JWT", "nonce": "n"},
    "token_id_missing": {"jti": None},
    "tenant_mismatch": {"tid": "tenant-2"},
    "required_claim_mismatch": {"use": "other"},
    "client_not_allowed": {"client_id": "other"},
    "subject_malformed": {"sub": ""},
}


def token(changes: dict[str, object]) -> ParsedToken:
    header = {"alg": changes.get("alg", "RS256"), "typ": changes.get("typ", "at+jwt")}
    claims = {**GOOD, **{name: value for name, value in changes.items() if name not in header}}
    return ParsedToken(
        header=header,
        claims={name: value for name, value in claims.items() if value is not None},
        signing_input=b"",
        signature=b"x",
    )


def test_a_token_that_keeps_all_rules_gives_its_subject():
    assert IssuerPolicy(STRICT).check_unverified(token({}), NOW_SECONDS) == "alice"


@pytest.mark.parametrize("first", range(len(BREAKS)))
def test_of_all_rules_that_are_broken_the_first_in_order_is_the_reason(first):
    changes: dict[str, object] = {}
    for broken in list(BREAKS.values())[first:]:
        changes |= broken

    with pytest.raises(TokenProblem) as caught:
        IssuerPolicy(STRICT).check_unverified(token(changes), NOW_SECONDS)

    assert caught.value.reason == list(BREAKS)[first]


def test_who_may_come_is_not_asked_before_the_signature():
    policy = IssuerPolicy(STRICT)

    assert policy.check_unverified(token({"sub": "bob"}), NOW_SECONDS) == "bob"
    policy.check_subject("alice")
    with pytest.raises(TokenProblem, match="subject_not_allowed"):
        policy.check_subject("bob")


def test_without_a_list_every_subject_may_come():
    IssuerPolicy(IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,))).check_subject("anybody")


def test_an_alias_that_is_the_issuer_itself_counts_once():
    assert IssuerPolicy(STRICT).names == (ISSUER, "id.example.com")


@pytest.mark.parametrize(
    "setting",
    [
        IssuerSetting(issuer=ISSUER),
        IssuerSetting(issuer=ISSUER, client_ids=("notebook",)),
        IssuerSetting(issuer=ISSUER, required_claims=MappingProxyType({"token_use": ("access",)})),
        IssuerSetting(issuer=ISSUER, client_ids=("notebook",), required_claims=MappingProxyType({"use": ("access",)})),
    ],
    ids=["nothing", "applications only", "use only", "another claim"],
)
def test_an_issuer_whose_tokens_nothing_binds_to_this_server_stops_the_start(setting):
    with pytest.raises(ConfigurationError) as caught:
        IssuerPolicy(setting)

    assert caught.value.key == "MICROMEGAS_OIDC_CONFIG"
    assert repr(ISSUER) in str(caught.value)
