"""Tests of `oidc.claims`: each rule with what it accepts, and with what it refuses for which reason."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from micromegas_jupyter.core.protocols import TokenKind
from micromegas_jupyter.oidc.claims import (
    MAX_GROUPS,
    check_bearer_use,
    check_claims,
    check_client,
    check_kind,
    check_no_audience,
    check_required_claims,
    check_rfc9068,
    check_times,
    expiry_of,
    kind_of,
    read_groups,
    read_subject,
    typed_values,
)
from micromegas_jupyter.oidc.jws import ParsedToken, TokenProblem
from tests.fakes.mint import AUDIENCE, ISSUER, NOW, NOW_SECONDS

GOOD = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": NOW_SECONDS + 300, "iat": NOW_SECONDS}
REMOVED = object()
APPLICATIONS = {"notebook", "job"}


def check(changes: dict[str, object], **options: float) -> None:
    claims = {name: value for name, value in {**GOOD, **changes}.items() if value is not REMOVED}
    check_claims(claims, issuer=ISSUER, audiences={AUDIENCE, "second"}, now=NOW, **options)


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"aud": "second"}, {"aud": ["other", AUDIENCE]}, {"exp": NOW_SECONDS - 59}, {"exp": NOW_SECONDS + 0.5},
        {"exp": NOW_SECONDS + 10**9}, {"nbf": NOW_SECONDS + 60}, {"nbf": 0}, {"iat": NOW_SECONDS + 60},
        {"iat": REMOVED}, {"sub": "a" * 255}, {"sub": "Zoë|läken/1 2"},
    ],
)  # fmt: skip
def test_claims_within_the_rules_are_accepted(changes):
    check(changes)


REFUSED = {
    ("iss", "issuer_mismatch"): [REMOVED, f"{ISSUER}/", "https://ID.example.com", [ISSUER], None],
    ("aud", "audience_missing"): [REMOVED],
    ("aud", "audience_malformed"): [None, [], [AUDIENCE, 5], {AUDIENCE: 1}],
    ("aud", "audience_mismatch"): ["lak", "Lake", "lake second", "", ["other"]],
    ("exp", "expiry_missing"): [REMOVED],
    ("exp", "expiry_malformed"): [
        None, True, str(NOW_SECONDS + 300), float("nan"), float("inf"), 10**400, 253_402_300_800, [NOW_SECONDS + 300],
    ],
    ("exp", "expired"): [NOW_SECONDS - 60, 0, -1],
    ("nbf", "not_yet_valid"): [NOW_SECONDS + 61],
    ("nbf", "not_before_malformed"): ["now", False, None],
    ("iat", "issued_in_the_future"): [NOW_SECONDS + 61],
    ("iat", "issued_at_malformed"): ["now", True],
    ("sub", "subject_missing"): [REMOVED],
    ("sub", "subject_malformed"): ["", " ", "\u3000 ", 5, None, "a" * 256, "a\nb", "a\u2028b", "a\x00"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [(name, value, reason) for (name, reason), values in REFUSED.items() for value in values],
)
def test_each_claim_outside_the_rules_has_its_reason(name, value, reason):
    with pytest.raises(TokenProblem) as caught:
        check({name: value})

    assert caught.value.reason == reason


def test_without_leeway_each_time_counts_to_the_second():
    check({"exp": NOW_SECONDS + 1, "nbf": NOW_SECONDS}, leeway_seconds=0)

    with pytest.raises(TokenProblem, match="expired"):
        check({"exp": NOW_SECONDS}, leeway_seconds=0)


def test_an_issue_time_can_be_required():
    claims = {"exp": NOW_SECONDS + 300}

    check_times(claims, NOW_SECONDS, leeway_seconds=60)
    with pytest.raises(TokenProblem, match="issued_at_missing"):
        check_times(claims, NOW_SECONDS, leeway_seconds=60, is_issue_time_required=True)


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


def test_where_no_audience_is_expected_none_may_be_stated():
    check_no_audience({"client_id": "notebook"})

    for stated in (AUDIENCE, [AUDIENCE], [], None):
        with pytest.raises(TokenProblem, match="audience_mismatch"):
            check_no_audience({"aud": stated})


@pytest.mark.parametrize(
    "claims",
    [*({name: "notebook"} for name in ("azp", "client_id", "appid", "cid")), {"azp": "notebook", "client_id": "job"}],
)
def test_accepted_applications_may_stand_in_any_of_their_places(claims):
    check_client(claims, APPLICATIONS)


@pytest.mark.parametrize(
    "claims",
    [
        {}, {"client": "notebook"}, {"azp": "other"}, {"azp": "Notebook"}, {"azp": ""}, {"azp": None},
        {"azp": ["notebook"]}, {"azp": "notebook", "client_id": "other"}, {"cid": "notebook", "appid": 5},
    ],
    ids=str,
)  # fmt: skip
def test_every_place_must_name_an_accepted_application(claims):
    with pytest.raises(TokenProblem, match="client_not_allowed"):
        check_client(claims, APPLICATIONS)


@pytest.mark.parametrize(
    ("stated", "values"),
    [
        ("access", ("access",)), ("b", ("a", "b")), (["x", "b"], ("a", "b")), (["b"], ("b",)), (1, (1,)),
        (True, (True,)), (False, (True, False)), ([5, 1], (1,)),
    ],
)  # fmt: skip
def test_a_required_claim_may_have_or_hold_one_of_its_values(stated, values):
    check_required_claims({"use": stated}, [("use", typed_values(values))])


@pytest.mark.parametrize(
    ("stated", "values"),
    [
        ("Access", ("access",)), (True, (1,)), (1, (True,)), ("1", (1,)), (1, ("1",)), (1.0, (1,)), (False, (0,)),
        ("true", (True,)), (None, ("access",)), ([], ("access",)), ([["access"]], ("access",)),
        ({"access": 1}, ("access",)), (["x", {}], ("access",)), ("access", ()),
    ],
)  # fmt: skip
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


@pytest.mark.parametrize(
    ("claims", "groups"),
    [
        ({}, ()),
        ({"groups": ["a", "b", "a", ""]}, ("a", "b")),
        ({"groups": "a"}, ("a",)),
        ({"groups": ["a"], "roles": ["b", "a"]}, ("a", "b")),
        ({"realm_access": {"roles": ["offline_access"]}}, ("offline_access",)),
        ({"cognito:groups": ["team"]}, ("team",)),
        *(({"groups": odd, "realm_access": odd}, ()) for odd in (7, {"a": "b"}, ["a", 7], [["a"]], None)),
    ],
)
def test_groups_come_from_wherever_providers_put_them(claims, groups):
    assert read_groups(claims) == groups


def test_a_path_leads_into_a_claim_and_replaces_the_usual_places_and_groups_are_bounded():
    claims = {"groups": ["not this"], "resource_access": {"lake": {"roles": ["reader"]}}}

    assert read_groups(claims, [("resource_access", "lake", "roles")]) == ("reader",)
    assert len(read_groups({"groups": [f"group{number}" for number in range(1000)]})) == MAX_GROUPS


def token(header: dict[str, object] | None = None, **claims: object) -> ParsedToken:
    return ParsedToken(header={"alg": "RS256", **(header or {})}, claims=claims, signing_input=b"", signature=b"x")


class TestKind:
    """Whether a token is an access token or an ID token, as far as it shows."""

    @pytest.mark.parametrize(
        ("header", "claims", "kind"),
        [
            ({"typ": "at+jwt"}, {}, TokenKind.ACCESS),
            ({"typ": "AT+JWT"}, {}, TokenKind.ACCESS),
            ({"typ": "application/at+jwt"}, {}, TokenKind.ACCESS),
            ({"typ": "at+jwt"}, {"token_use": "id", "nonce": "n", "at_hash": "x"}, TokenKind.ACCESS),
            ({}, {"token_use": "access"}, TokenKind.ACCESS),
            ({}, {"token_use": "id"}, TokenKind.ID),
            ({}, {"token_use": "id", "typ": "Bearer", "scope": "openid"}, TokenKind.ID),
            ({}, {"typ": "Bearer"}, TokenKind.ACCESS),
            ({}, {"typ": "bearer", "at_hash": "x"}, TokenKind.ACCESS),
            ({}, {"typ": "ID"}, TokenKind.ID),
            ({}, {"typ": "id", "scope": "openid"}, TokenKind.ID),
            ({}, {"at_hash": "x"}, TokenKind.ID),
            ({}, {"c_hash": "x", "scp": ["read"]}, TokenKind.ID),
            ({}, {"scope": "openid"}, TokenKind.ACCESS),
            ({}, {"scope": "", "nonce": "n"}, TokenKind.ACCESS),
            ({}, {"scp": ["read"]}, TokenKind.ACCESS),
            ({}, {"nonce": "n"}, TokenKind.ID),
            ({}, {}, None),
            ({"typ": "JWT"}, {"typ": "JWT", "token_use": "session"}, None),
            ({}, {"token_use": 5, "typ": ["ID"]}, None),
            ({"typ": 5}, {}, None),
        ],
    )
    def test_the_first_mark_in_order_says_what_a_token_is(self, header, claims, kind):
        assert kind_of(token(header, **claims)) is kind

    @pytest.mark.parametrize(
        ("claims", "wanted", "reason"),
        [
            *(({}, kind, None) for kind in TokenKind),
            ({"nonce": "n"}, TokenKind.EITHER, None),
            ({"scope": "read"}, TokenKind.EITHER, None),
            ({"nonce": "n"}, TokenKind.ID, None),
            ({"scope": "read"}, TokenKind.ACCESS, None),
            ({"nonce": "n"}, TokenKind.ACCESS, "id_token_as_access_token"),
            ({"scope": "read"}, TokenKind.ID, "access_token_as_id_token"),
        ],
    )
    def test_only_the_other_kind_is_refused(self, claims, wanted, reason):
        found = None
        try:
            check_kind(token(**claims), wanted)
        except TokenProblem as problem:
            found = problem.reason

        assert found == reason

    @pytest.mark.parametrize("kind", ["at+jwt", "At+Jwt", "application/at+jwt"])
    def test_an_access_token_of_rfc_9068_passes(self, kind):
        check_rfc9068(token({"typ": kind}, client_id="notebook", jti="1"))

    @pytest.mark.parametrize(
        ("kind", "claims", "reason"),
        [
            (None, {"client_id": "c", "jti": "1"}, "type_not_at_jwt"),
            ("JWT", {"client_id": "c", "jti": "1"}, "type_not_at_jwt"),
            ("at+jwt", {"jti": "1"}, "client_id_missing"),
            ("at+jwt", {"client_id": "", "jti": "1"}, "client_id_malformed"),
            ("at+jwt", {"client_id": None, "jti": "1"}, "client_id_malformed"),
            ("at+jwt", {"client_id": ["c"], "jti": "1"}, "client_id_malformed"),
            ("at+jwt", {"client_id": "c"}, "token_id_missing"),
            ("at+jwt", {"client_id": "c", "jti": 1}, "token_id_malformed"),
            ("at+jwt", {"client_id": "c", "jti": ""}, "token_id_malformed"),
        ],
    )
    def test_each_deviation_from_rfc_9068_has_its_reason(self, kind, claims, reason):
        with pytest.raises(TokenProblem) as caught:
            check_rfc9068(token({} if kind is None else {"typ": kind}, **claims))

        assert caught.value.reason == reason
