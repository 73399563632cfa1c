"""Tests of `oidc.claims`."""

from datetime import UTC, datetime

import pytest

from micromegas_jupyter.oidc import signature
from micromegas_jupyter.oidc.claims import DEFAULT_ALGORITHMS, check_bearer_use, check_claims, expiry_of
from micromegas_jupyter.oidc.jws import TokenProblem
from tests.fakes.mint import AUDIENCE, ISSUER, NOW, NOW_SECONDS

GOOD = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": NOW_SECONDS + 300, "iat": NOW_SECONDS}
REMOVED = object()


def check(changes: dict[str, object], **options: float) -> None:
    claims = {name: value for name, value in {**GOOD, **changes}.items() if value is not REMOVED}
    check_claims(claims, issuer=ISSUER, audiences={AUDIENCE, "second"}, now=NOW, **options)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"aud": "second"},
        {"aud": ["other", AUDIENCE]},
        {"exp": NOW_SECONDS - 59},
        {"exp": NOW_SECONDS + 0.5},
        {"exp": NOW_SECONDS + 10**9},
        {"nbf": NOW_SECONDS + 60},
        {"nbf": 0},
        {"iat": NOW_SECONDS + 60},
        {"iat": REMOVED},
        {"sub": "a" * 255},
        {"sub": "Zoë|läken/1 2"},
    ],
)
def test_claims_within_the_rules_are_accepted(changes):
    check(changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": REMOVED}, "issuer_mismatch"),
        ({"iss": f"{ISSUER}/"}, "issuer_mismatch"),
        ({"iss": "https://ID.example.com"}, "issuer_mismatch"),
        ({"iss": [ISSUER]}, "issuer_mismatch"),
        ({"iss": None}, "issuer_mismatch"),
        ({"aud": REMOVED}, "audience_missing"),
        ({"aud": None}, "audience_malformed"),
        ({"aud": []}, "audience_malformed"),
        ({"aud": [AUDIENCE, 5]}, "audience_malformed"),
        ({"aud": {AUDIENCE: 1}}, "audience_malformed"),
        ({"aud": "lak"}, "audience_mismatch"),
        ({"aud": "Lake"}, "audience_mismatch"),
        ({"aud": "lake second"}, "audience_mismatch"),
        ({"aud": ""}, "audience_mismatch"),
        ({"aud": ["other"]}, "audience_mismatch"),
        ({"exp": REMOVED}, "expiry_missing"),
        ({"exp": None}, "expiry_malformed"),
        ({"exp": True}, "expiry_malformed"),
        ({"exp": str(NOW_SECONDS + 300)}, "expiry_malformed"),
        ({"exp": float("nan")}, "expiry_malformed"),
        ({"exp": float("inf")}, "expiry_malformed"),
        ({"exp": 10**400}, "expiry_malformed"),
        ({"exp": 253_402_300_800}, "expiry_malformed"),
        ({"exp": [NOW_SECONDS + 300]}, "expiry_malformed"),
        ({"exp": NOW_SECONDS - 60}, "expired"),
        ({"exp": 0}, "expired"),
        ({"exp": -1}, "expired"),
        ({"nbf": NOW_SECONDS + 61}, "not_yet_valid"),
        ({"nbf": "now"}, "not_before_malformed"),
        ({"nbf": False}, "not_before_malformed"),
        ({"nbf": None}, "not_before_malformed"),
        ({"iat": NOW_SECONDS + 61}, "issued_in_the_future"),
        ({"iat": "now"}, "issued_at_malformed"),
        ({"iat": True}, "issued_at_malformed"),
        ({"sub": REMOVED}, "subject_missing"),
        ({"sub": ""}, "subject_malformed"),
        ({"sub": 5}, "subject_malformed"),
        ({"sub": None}, "subject_malformed"),
        ({"sub": "a" * 256}, "subject_malformed"),
        ({"sub": "a\nb"}, "subject_malformed"),
        ({"sub": "a\u2028b"}, "subject_malformed"),
        ({"sub": "a\x00"}, "subject_malformed"),
    ],
)
def test_each_claim_outside_the_rules_has_its_reason(changes, reason):
    with pytest.raises(TokenProblem) as caught:
        check(changes)

    assert caught.value.reason == reason


def test_without_leeway_each_time_counts_to_the_second():
    check({"exp": NOW_SECONDS + 1, "nbf": NOW_SECONDS}, leeway_seconds=0)

    with pytest.raises(TokenProblem, match="expired"):
        check({"exp": NOW_SECONDS}, leeway_seconds=0)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"cnf": {"jkt": "abc"}}, "sender_constrained"),
        ({"cnf": None}, "sender_constrained"),
        ({"events": {}}, "not_a_bearer_token"),
        ({"typ": "Refresh"}, "not_a_bearer_token"),
        ({"typ": "Offline"}, "not_a_bearer_token"),
        ({"token_use": "refresh"}, "not_a_bearer_token"),
    ],
)
def test_tokens_for_other_uses_are_refused(claims, reason):
    with pytest.raises(TokenProblem) as caught:
        check_bearer_use(claims)

    assert caught.value.reason == reason


@pytest.mark.parametrize("claims", [{}, {"typ": "Bearer"}, {"typ": "ID"}, {"typ": 5}, {"token_use": "access"}])
def test_access_and_id_tokens_may_bear_calls(claims):
    check_bearer_use(claims)


def test_the_expiry_is_an_aware_time():
    assert expiry_of({"exp": NOW_SECONDS}) == datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def test_the_default_algorithms_are_those_of_the_signature_module():
    assert DEFAULT_ALGORITHMS is signature.DEFAULT_ALGORITHMS
