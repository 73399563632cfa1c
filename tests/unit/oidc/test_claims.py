"""Tests of `oidc.claims`."""

from datetime import UTC, datetime

import pytest

from micromegas_jupyter.oidc.claims import (
    check_bearer_use,
    check_claims,
    check_client,
    check_no_audience,
    check_required_claims,
    check_times,
    expiry_of,
    read_subject,
    typed_values,
)
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


def test_an_issue_time_can_be_required():
    claims = {"exp": NOW_SECONDS + 300}

    check_times(claims, NOW_SECONDS, leeway_seconds=60)
    with pytest.raises(TokenProblem, match="issued_at_missing"):
        check_times(claims, NOW_SECONDS, leeway_seconds=60, is_issue_time_required=True)


def test_where_no_audience_is_expected_none_may_be_stated():
    check_no_audience({"client_id": "notebook"})

    for stated in (AUDIENCE, [AUDIENCE], [], None):
        with pytest.raises(TokenProblem, match="audience_mismatch"):
            check_no_audience({"aud": stated})


@pytest.mark.parametrize("name", ["azp", "client_id", "appid", "cid"])
def test_an_application_in_any_of_its_places_is_accepted(name):
    check_client({name: "notebook"}, {"notebook", "job"})


def test_two_places_may_name_two_accepted_applications():
    check_client({"azp": "notebook", "client_id": "job"}, {"notebook", "job"})


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"client": "notebook"},
        {"azp": "other"},
        {"azp": "Notebook"},
        {"azp": ""},
        {"azp": None},
        {"azp": ["notebook"]},
        {"azp": "notebook", "client_id": "other"},
        {"cid": "notebook", "appid": 5},
    ],
    ids=str,
)
def test_every_place_must_name_an_accepted_application(claims):
    with pytest.raises(TokenProblem, match="client_not_allowed"):
        check_client(claims, {"notebook", "job"})


@pytest.mark.parametrize(
    ("stated", "values"),
    [
        ("access", ("access",)),
        ("b", ("a", "b")),
        (["x", "b"], ("a", "b")),
        (["b"], ("b",)),
        (1, (1,)),
        (True, (True,)),
        (False, (True, False)),
        ([5, 1], (1,)),
    ],
)
def test_a_required_claim_may_have_or_hold_one_of_its_values(stated, values):
    check_required_claims({"use": stated}, [("use", typed_values(values))])


@pytest.mark.parametrize(
    ("stated", "values"),
    [
        ("Access", ("access",)),
        (True, (1,)),
        (1, (True,)),
        ("1", (1,)),
        (1, ("1",)),
        (1.0, (1,)),
        (False, (0,)),
        ("true", (True,)),
        (None, ("access",)),
        ([], ("access",)),
        ([["access"]], ("access",)),
        ({"access": 1}, ("access",)),
        (["x", {}], ("access",)),
        ("access", ()),
    ],
)
def test_a_required_claim_with_another_value_or_type_is_refused(stated, values):
    with pytest.raises(TokenProblem, match="required_claim_mismatch"):
        check_required_claims({"use": stated}, [("use", typed_values(values))])


def test_a_required_claim_that_is_absent_is_refused():
    with pytest.raises(TokenProblem, match="required_claim_missing"):
        check_required_claims({"a": "1"}, [("a", typed_values(["1"])), ("b", typed_values(["2"]))])


def test_the_subject_can_stand_in_another_claim():
    assert read_subject({"sub": "pairwise", "oid": "alice"}, "oid") == "alice"

    with pytest.raises(TokenProblem, match="subject_missing"):
        read_subject({"sub": "alice"}, "oid")
    with pytest.raises(TokenProblem, match="subject_malformed"):
        read_subject({"sub": "alice", "oid": "a\nb"}, "oid")


def test_the_expiry_is_an_aware_time():
    assert expiry_of({"exp": NOW_SECONDS}) == datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
