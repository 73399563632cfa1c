"""Tests of `access.oidc`: an issuer's rules in order, who its claims say a caller is, the caches, many callers."""

import dataclasses
import hashlib
import logging
from datetime import UTC, datetime
from unittest.mock import Mock, call

import pytest

from micromegas_jupyter.access import AuthContext, AuthType, OidcValidator, Rejected, TokenValidator
from micromegas_jupyter.access import oidc as module
from micromegas_jupyter.access.audit import AccessMetrics
from micromegas_jupyter.access.oidc import AdminRules, Issuer, parse_admin_rules
from micromegas_jupyter.access.validator import Roles
from micromegas_jupyter.config.access import RoleSetting
from micromegas_jupyter.config.issuers import IssuerSetting, OidcServerSettings
from micromegas_jupyter.core.protocols import TableAccess, TokenKind
from micromegas_jupyter.errors import ConfigurationError, Unavailable
from micromegas_jupyter.oidc.jwt import MAX_GROUPS, ParsedToken, TokenProblem, parse_token
from tests.fakes.mint import AUDIENCE, ISSUER, NOW_SECONDS, ec_key, mint, rsa_key
from tests.fakes.provider import FakeProvider
from tests.fakes.validator import is_accepted
from tests.unit.access.conftest import SETTINGS, reason_of

ALIAS = "id.example.com"
SECOND = "https://second.example"
FORGED = rsa_key("elsewhere")
BARE = IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,))


def settings_of(**changes):
    members = {"issuer": ISSUER, "audiences": (AUDIENCE,), "aliases": (ALIAS,), **changes}
    return OidcServerSettings(issuers=(IssuerSetting(**members),))


def issuer_of(setting, *admins, roles=None):
    rules = parse_admin_rules(admins, issuers=(setting,))
    return Issuer(setting, keys=None, admins=rules, roles=roles or Roles())


STRICT = IssuerSetting(
    issuer=ISSUER, audiences=(AUDIENCE,), aliases=(ALIAS, ISSUER), algorithms=frozenset({"RS256"}),
    required_claims={"use": ("lake",)}, client_ids=("notebook",), subjects=("alice",), tenant="tenant-1",
    token_kind=TokenKind.ACCESS, is_rfc9068=True,
)  # fmt: skip
GOOD = {
    "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": NOW_SECONDS + 300, "iat": NOW_SECONDS, "jti": "1",
    "tid": "tenant-1", "use": "lake", "client_id": "notebook",
}  # fmt: skip
# What each rule, in the order in which they are applied, does not like.
BREAKS = {
    "algorithm_not_allowed": {"alg": "RS512"}, "audience_mismatch": {"aud": "other"},
    "expired": {"exp": NOW_SECONDS - 61}, "not_yet_valid": {"nbf": NOW_SECONDS + 61},
    "issued_in_the_future": {"iat": NOW_SECONDS + 61}, "sender_constrained": {"cnf": {}},
    "not_a_bearer_token": {"events": {}}, "id_token_as_access_token": {"typ": "JWT", "nonce": "n"},
    "token_id_missing": {"jti": None}, "tenant_mismatch": {"tid": "tenant-2"},
    "required_claim_mismatch": {"use": "other"}, "client_not_allowed": {"client_id": "other"},
    "subject_malformed": {"sub": ""},
}  # fmt: skip


class TestRules:
    """Single rules are in the token tables; here is what holds across them."""

    def check(self, changes):
        header = {"alg": changes.get("alg", "RS256"), "typ": changes.get("typ", "at+jwt")}
        claims = {**GOOD, **{name: value for name, value in changes.items() if name not in header}}
        stated = {name: value for name, value in claims.items() if value is not None}
        token = ParsedToken(header=header, claims=stated, signing_input=b"", signature=b"x")
        return issuer_of(STRICT).check_unverified(token, NOW_SECONDS)

    @pytest.mark.parametrize("first", range(len(BREAKS)))
    def test_of_all_rules_that_are_broken_the_first_in_order_is_the_reason(self, first):
        broken = {name: value for changes in list(BREAKS.values())[first:] for name, value in changes.items()}

        with pytest.raises(TokenProblem) as caught:
            self.check(broken)

        assert caught.value.reason == list(BREAKS)[first]

    @pytest.mark.parametrize(
        "members",
        [
            {}, {"client_ids": ("notebook",)}, {"required_claims": {"token_use": ("access",)}},
            {"client_ids": ("notebook",), "required_claims": {"use": ("access",)}},
        ],
    )  # fmt: skip
    def test_an_issuer_whose_tokens_nothing_binds_to_this_server_stops_the_start(self, members):
        with pytest.raises(ConfigurationError, match=repr(ISSUER)) as caught:
            issuer_of(IssuerSetting(issuer=ISSUER, **members))

        assert caught.value.key == "MICROMEGAS_OIDC_CONFIG"

    @pytest.mark.parametrize(
        "members", [{"issuer": ISSUER}, {"issuer": ALIAS}, {"issuer": SECOND, "aliases": (ALIAS,)}]
    )
    def test_two_issuers_of_one_name_stop_the_start(self, members, provider, clock):
        second = IssuerSetting(audiences=("second",), **members)

        with pytest.raises(ConfigurationError) as caught:
            OidcValidator(OidcServerSettings(issuers=(*settings_of().issuers, second)), http=provider, clock=clock)

        assert caught.value.key == "MICROMEGAS_OIDC_CONFIG"


def context_of(*admins, setting=BARE, granted=None, **claims):
    issuer = issuer_of(setting, *admins, roles=granted)
    return issuer.context_of({"sub": "alice", "exp": NOW_SECONDS, **claims}, subject="alice")


class TestIdentity:
    """From verified claims to who the caller is; rights follow from verified ones only."""

    @pytest.mark.parametrize("position", range(6))
    def test_the_shown_address_is_the_first_that_is_there(self, position):
        standard = ("preferred_username", "upn", "unique_name")
        names = ("verified_primary_email", "email", "https://micromegas.io/email", *standard)
        claims = {name: f"{number}@example.com" for number, name in enumerate(names) if number >= position}

        assert context_of(**claims).email == f"{position}@example.com"

    @pytest.mark.parametrize("odd", ["", None, 5, True, [], [5], {}])
    def test_an_odd_address_is_passed_over(self, odd):
        assert context_of(email=odd, upn="a@example.com").email == "a@example.com"

    def test_an_address_in_a_list_or_beside_a_verified_one_is_shown_and_not_verified(self):
        listed = context_of("a@example.com", email=["a@example.com", "b@example.com"], email_verified=True)
        beside = context_of(verified_primary_email="b@example.com", email="a@example.com", email_verified=True)

        assert (listed.email, listed.email_verified, listed.is_admin) == ("a@example.com", False, False)
        assert (beside.email, beside.email_verified) == ("b@example.com", False)


REPLACED = dataclasses.replace(
    BARE, group_claims=(("resource_access", "lake", "roles"), ("https://lake.example.com/roles",))
)
GRANTED = Roles(
    {"reader": RoleSetting(tables={"log_entries": None}), "eu": RoleSetting(tables={"*": "region = 'eu'"})}, ["eu"]
)
GROUPED = dataclasses.replace(BARE, group_roles={"dev": ("reader", "gone"), "ops": ("reader",)}, admin_groups=("ops",))


class TestGroups:
    """Where an issuer's groups are, and what follows from them."""

    @pytest.mark.parametrize(
        ("setting", "claims", "groups"),
        [
            (
                BARE,
                {"groups": ["ops", "dev"], "roles": ["dev", "writer"], "realm_access": {"roles": ["offline_access"]},
                 "cognito:groups": ["eu"]},
                ("ops", "dev", "writer", "offline_access", "eu"),
            ),
            (BARE, {"groups": "ops", "roles": "dev writer"}, ("ops", "dev writer")),
            *((BARE, {"groups": odd, "realm_access": {"roles": odd}, "roles": ["dev"]}, ("dev",))
              for odd in (None, "", 5, True, ["ops", 5], {"ops": 1}, [["ops"]])),
            *((BARE, {"realm_access": odd}, ()) for odd in (None, [], "roles")),
            (
                REPLACED,
                {"groups": ["c"], "resource_access": {"lake": {"roles": ["a"]}}, "https://lake.example.com/roles": "b"},
                ("a", "b"),
            ),
            *((REPLACED, {"resource_access": odd}, ())
              for odd in (None, "lake", ["lake"], {"lake": None}, {"lake": "roles"}, {"lake": []}, 5)),
            (dataclasses.replace(BARE, group_claims=(("a.b",),)), {"a": {"b": ["no"]}}, ()),
            (BARE, {"groups": [*map(str, range(MAX_GROUPS + 1))]}, tuple(map(str, range(MAX_GROUPS)))),
            (dataclasses.replace(BARE, group_claims=()), {"groups": ["ops"], "roles": ["dev"]}, ()),
        ],
    )  # fmt: skip
    def test_where_they_are(self, setting, claims, groups):
        assert context_of(setting=setting, **claims).groups == groups

    @pytest.mark.parametrize(
        ("claims", "is_admin", "roles", "filters"),
        [
            ({"groups": ["dev", "other"]}, False, ("reader", "eu"), {"*": ("region = 'eu'",), "log_entries": ()}),
            ({}, False, ("eu",), {"*": ("region = 'eu'",)}),
            ({"roles": ["reader"]}, False, ("eu",), {"*": ("region = 'eu'",)}),
            ({"groups": ["ops"]}, True, ("reader", "eu"), None),
        ],
    )
    def test_groups_give_roles_and_roles_give_tables(self, claims, is_admin, roles, filters):
        context = context_of(setting=GROUPED, granted=GRANTED, **claims)

        assert (context.is_admin, context.roles) == (is_admin, roles)
        assert context.table_access == (None if filters is None else TableAccess(filters=filters))

    @pytest.mark.parametrize(
        "overage",
        [
            {"_claim_names": {"groups": "src1"}}, {"_claim_names": {"roles": "src1"}},
            {"_claim_names": {"cognito:groups": "src1"}}, {"_claim_names": {"realm_access": "src1"}},
            {"hasgroups": True}, {"hasgroups": "true"},
        ],
        ids=str,
    )  # fmt: skip
    def test_where_groups_are_left_out_no_rights_follow_and_one_event_says_so(self, overage, caplog):
        claims = {"roles": ["ops"], "groups": ["ops"], **overage}
        context = context_of(setting=GROUPED, granted=Roles({"reader": RoleSetting()}), **claims)

        assert (context.groups, context.roles, context.is_admin) == ((), (), False)
        assert context.table_access == TableAccess(filters={})
        assert [(record.getMessage(), vars(record)["subject"]) for record in caplog.records] == [
            ("A token leaves out its bearer's groups, so no rights follow from groups.", "alice")
        ]
        assert context_of("alice", setting=GROUPED, **claims).is_admin is True

    def test_a_path_below_a_claim_that_holds_names_is_reported(self, caplog):
        both = dataclasses.replace(GROUPED, group_claims=(("groups", "sub"), ("roles", "lake")))

        assert context_of(setting=both, groups=["ops"], roles={"lake": ["ops"]}).is_admin is True
        assert [vars(record)["claim"] for record in caplog.records] == ["groups"]

    @pytest.mark.parametrize(
        ("setting", "claims"),
        [
            *((GROUPED, {"_claim_names": names}) for names in ({"address": "src1"}, ["groups"], {})),
            (GROUPED, {"hasgroups": False}),
            *((dataclasses.replace(GROUPED, group_claims=(("roles",),)), claims)
              for claims in ({"_claim_names": {"groups": "src1"}}, {"hasgroups": True})),
        ],
    )  # fmt: skip
    def test_another_claim_that_is_left_out_changes_nothing(self, setting, claims, caplog):
        assert context_of(setting=setting, roles=["ops"], **claims).is_admin is True
        assert caplog.records == []


class TestTokens:
    """What comes of tokens."""

    def test_a_good_token_gives_its_bearer(self, validator):
        token = mint(email="alice@example.com", email_verified=True, name="Alice", groups=["ops"], azp="notebook")

        assert isinstance(validator, TokenValidator)
        assert validator.validate_token(token) == AuthContext(
            subject="alice", issuer=ISSUER, auth_type=AuthType.OIDC, email="alice@example.com", email_verified=True,
            expires_at=datetime(2026, 11, 24, 12, 5, tzinfo=UTC), is_admin=False, name="Alice", may_delegate=False,
            groups=("ops",), client_id="notebook",
        )  # fmt: skip
        assert validator.validate_token(mint(subject="root")).is_admin is True
        validator.close()

    def test_a_token_that_is_wrong_before_its_key_causes_no_request(self, validator, provider):
        assert reason_of(validator, mint(issuer="https://evil.example")) == "issuer_unknown"
        for token in (mint(audience="other"), mint(expires_in=-100), mint(header={"alg": "none"}), "x"):
            with pytest.raises(Rejected):
                validator.validate_token(token)

        assert provider.requested == []

    def test_an_issuers_keys_do_not_verify_another_issuers_token(self, clock):
        http = FakeProvider(keys=(rsa_key(),))
        other = FakeProvider(SECOND, keys=(ec_key(),))
        http.elsewhere = {f"{SECOND}/.well-known/openid-configuration": other.discovery, f"{SECOND}/keys": other.jwks}
        issuers = (BARE, IssuerSetting(issuer=SECOND, audiences=("second-lake",)))
        validator = OidcValidator(OidcServerSettings(issuers=issuers), http=http, clock=clock)

        second = validator.validate_token(mint(key=ec_key(), issuer=SECOND, audience="second-lake"))

        assert second.issuer == SECOND
        assert reason_of(validator, mint(issuer=SECOND, audience="second-lake")) == "unknown_key"
        assert reason_of(validator, mint(key=ec_key(), issuer=SECOND)) == "audience_mismatch"

    def test_after_a_rotation_a_valid_token_is_never_rejected_because_others_have_unknown_keys(self, provider, clock):
        validator = OidcValidator(settings_of(), http=provider, clock=clock)
        validator.validate_token(mint())
        assert reason_of(validator, mint(key=rsa_key("forged"))) == "unknown_key"
        provider.publish(rsa_key("new"))
        valid = mint(key=rsa_key("new"))

        for _ in range(3):
            with pytest.raises(Unavailable):
                validator.validate_token(valid)
            clock.advance(9)
        clock.advance(3)

        assert validator.validate_token(valid).subject == "alice"

    def test_one_token_with_an_unknown_key_gets_one_result_for_a_cool_down(self, provider, clock):
        validator = OidcValidator(settings_of(), http=provider, clock=clock)
        token = mint(key=rsa_key("forged"))

        assert [reason_of(validator, token) for _ in range(3)] == ["unknown_key"] * 3
        assert len(provider.requested) == 3

    def test_a_token_of_an_alias_is_the_configured_issuers(self, provider, clock):
        validator = OidcValidator(settings_of(admin_groups=("ops",)), [f"{ISSUER}|alice"], http=provider, clock=clock)

        context = validator.validate_token(mint(issuer=ALIAS))

        assert (context.issuer, context.is_admin) == (ISSUER, True)
        assert validator.validate_token(mint(issuer=ALIAS, subject="bob", groups=["ops"])).is_admin is True

    @pytest.mark.parametrize("issuer", [ISSUER, ALIAS])
    def test_a_denied_caller_is_refused_whichever_name_the_issuer_has(self, issuer, provider, clock):
        denied = {(issuer, "alice"), (SECOND, "bob"), ("api_key", "bob")}
        validator = OidcValidator(settings_of(), ["alice"], http=provider, clock=clock, denied=denied)

        assert reason_of(validator, mint()) == reason_of(validator, mint(issuer=ALIAS)) == "denied"
        assert validator.validate_token(mint(subject="bob")).subject == "bob"

    def test_only_a_verified_token_says_that_somebody_is_denied_or_not_listed(self, provider, clock):
        settings, denied = settings_of(subjects=("alice",)), {(ISSUER, "alice")}
        validator = OidcValidator(settings, http=provider, clock=clock, denied=denied)

        for subject in ("alice", "bob"):
            forged = mint(key=FORGED, header={"kid": "rsa"}, subject=subject)
            assert reason_of(validator, forged) == "signature_wrong"
        assert reason_of(validator, mint()) == "denied"
        assert reason_of(validator, mint(subject="bob")) == "subject_not_allowed"

    def test_a_defect_is_a_refusal_that_hurts_once_and_shows_no_token(self, validator, monkeypatch, caplog):
        token = mint()
        with monkeypatch.context() as patched, caplog.at_level(logging.INFO, "micromegas_jupyter.access"):
            patched.setattr(Issuer, "check_unverified", lambda *_arguments: 1 / 0)
            assert reason_of(validator, token) == "internal_error"

        failed = next(record for record in caplog.records if record.levelno == logging.ERROR)
        assert (failed.getMessage(), vars(failed)["kind"]) == ("A validator failed.", "ZeroDivisionError")
        assert not any(token in str(vars(record)) for record in caplog.records)
        assert validator.validate_token(token).subject == "alice"

    def test_the_stale_limit_is_never_below_the_refresh_interval(self, provider, clock):
        settings = dataclasses.replace(SETTINGS, jwks_refresh_interval_seconds=1000, jwks_stale_limit_seconds=500)
        validator = OidcValidator(settings, http=provider, clock=clock)
        validator.validate_token(mint())
        provider.go_down()

        clock.advance(700)

        assert validator.validate_token(mint(expires_in=2000)).subject == "alice"


class TestTokenCache:
    """Which decisions are remembered, and for how long."""

    def test_an_accepted_token_is_known_without_io_by_its_digest(self, validator, provider):
        token = mint()
        assert validator.cached_context(token) is None
        context = validator.validate_token(token)
        provider.go_down()

        assert validator.cached_context(token) is context
        assert validator.validate_token(token) is context
        assert validator.cached_by_digest(hashlib.sha256(token.encode()).digest()) is context
        assert validator.cached_context(token[:-1] + ("A" if token[-1] != "A" else "B")) is None

    @pytest.mark.parametrize(("expires_in", "jump", "seconds"), [(100, 0, 100), (3000, 0, 300), (3000, -7200, 300)])
    def test_a_token_is_forgotten_at_its_end_or_after_minutes(self, validator, clock, expires_in, jump, seconds):
        token = mint(expires_in=expires_in)
        validator.validate_token(token)

        clock.sleep_through(jump)
        clock.advance(seconds - 1)
        assert validator.cached_context(token) is not None
        clock.advance(1)
        assert validator.cached_context(token) is None

    def test_a_token_that_has_ended_is_not_remembered_in_its_leeway(self, validator, clock):
        token = mint(expires_in=30)
        validator.validate_token(token)
        clock.sleep_through(60)

        assert validator.cached_context(token) is None
        assert validator.validate_token(token).subject == "alice"
        assert validator.cached_context(token) is None
        clock.advance(31)
        assert reason_of(validator, token) == "expired"

    @pytest.mark.parametrize(("size", "expected"), [(0, [False] * 3), (2, [True, False, True])])
    def test_the_least_recently_used_token_makes_room(self, provider, clock, size, expected):
        settings = OidcServerSettings(issuers=(BARE,), token_cache_size=size)
        validator = OidcValidator(settings, http=provider, clock=clock)
        first, second, third = (mint(subject=f"user{number}") for number in range(3))
        for token in (first, second):
            validator.validate_token(token)
        validator.cached_context(first)
        validator.validate_token(third)

        assert [validator.cached_context(token) is not None for token in (first, second, third)] == expected

    def test_a_refusal_is_remembered_for_ten_seconds_and_is_never_a_context(self, validator, clock, monkeypatch):
        token = mint(audience="other")
        look_at = Mock(side_effect=parse_token)
        monkeypatch.setattr(module, "parse_token", look_at)
        for seconds, count in ((0, 1), (9.9, 1), (0.1, 2)):
            clock.advance(seconds)
            assert reason_of(validator, token) == "audience_mismatch"
            assert look_at.mock_calls == [call(token)] * count

        assert validator.cached_context(token) is None

    @pytest.mark.parametrize("claim", ["nbf", "iat"])
    def test_time_at_once_mends_a_token_that_came_too_early(self, validator, clock, claim):
        token = mint(**{claim: NOW_SECONDS + 61})
        assert reason_of(validator, token) in {"not_yet_valid", "issued_in_the_future"}

        clock.advance(1)

        assert validator.validate_token(token).subject == "alice"

    def test_each_credential_counts_once_as_known_or_as_looked_at(self, provider, clock):
        metrics = AccessMetrics()
        validator = OidcValidator(SETTINGS, http=provider, clock=clock, metrics=metrics)
        token, refused = mint(), mint(audience="other", iat=1)

        def counts():
            names = (f"micromegas_access_cache_{kind}_total" for kind in ("hits", "misses"))
            return tuple(metrics.registry.get_sample_value(name) for name in names)

        assert validator.cached_context(token) is None
        validator.validate_token(token)
        validator.cached_context(token)
        validator.validate_token(token)
        assert counts() == (2, 1)
        for _ in range(3):
            reason_of(validator, refused)
        assert counts() == (4, 2)


FIRST = "https://id.example.com"
MAIL = "root@example.com"
ONE = (IssuerSetting(issuer=FIRST, aliases=("id.example.com",)),)
TWO = (IssuerSetting(issuer=FIRST), IssuerSetting(issuer=SECOND))


def trusting(first, second=None):
    trust = {FIRST: first, SECOND: second}
    return tuple(IssuerSetting(issuer=issuer, is_trusted_for_email=trusted) for issuer, trusted in trust.items())


class TestAdmins:
    """Each entry is bound to an issuer; an address counts only where that issuer verified it."""

    @pytest.mark.parametrize(
        ("entry", "issuers", "subjects", "emails"),
        [
            ("root", ONE, {(FIRST, "root")}, set()), (f"{SECOND}|root", TWO, {(SECOND, "root")}, set()),
            ("auth0|507f1f77", ONE, {(FIRST, "auth0|507f1f77")}, set()),
            (f"{FIRST}|auth0|99", ONE, {(FIRST, "auth0|99")}, set()),
            ("id.example.com|123", ONE, {(FIRST, "123")}, set()), (MAIL, ONE, set(), {(FIRST, MAIL)}),
            (f"{FIRST}|{MAIL}", ONE, set(), {(FIRST, MAIL)}), (f"{SECOND}|{MAIL}", TWO, set(), {(SECOND, MAIL)}),
            (f"auth0|{MAIL}", ONE, set(), {(FIRST, f"auth0|{MAIL}")}), (MAIL, trusting(True), set(), {(FIRST, MAIL)}),
            (MAIL, trusting(True, False), set(), {(FIRST, MAIL)}),
            (MAIL, trusting(True, True), set(), {(FIRST, MAIL), (SECOND, MAIL)}),
            (f"{FIRST}|subject:{MAIL}", ONE, {(FIRST, MAIL)}, set()),
            *(
                (f"{FIRST}|{subject}", ONE, {(FIRST, subject)}, set())
                for subject in (f"google-apps|{MAIL}", "subject:7", "subject:a|b@c.example", "a@b@c", "@", "urn:x:a@b")
            ),
        ],
    )  # fmt: skip
    def test_what_an_entry_means(self, entry, issuers, subjects, emails, caplog):
        rules = parse_admin_rules([entry], issuers=issuers)

        assert rules == AdminRules(subjects=frozenset(subjects), emails=frozenset(emails))
        assert caplog.records == []

    @pytest.mark.parametrize(
        ("entry", "issuers", "proposed"),
        [
            (MAIL, TWO, [f"{FIRST}|{MAIL}", f"{SECOND}|{MAIL}"]),
            (MAIL, trusting(False, None), [f"{SECOND}|{MAIL}"]),
            (f"{FIRST}|{MAIL}", trusting(False), []),
        ],
    )
    def test_an_address_that_no_issuer_is_trusted_for_names_nobody_and_a_warning_proposes_what_does(
        self, entry, issuers, proposed, caplog
    ):
        with caplog.at_level(logging.WARNING, "micromegas_jupyter.access"):
            rules = parse_admin_rules([entry], issuers=issuers)

        assert rules == AdminRules()
        (warning,) = [vars(record) for record in caplog.records]
        assert warning["subject"] == entry
        assert [word.strip(",") for word in warning["remedy"].split() if MAIL in word] == proposed
        for each in proposed:
            assert parse_admin_rules([each], issuers=issuers).emails

    @pytest.mark.parametrize(
        ("entry", "issuers"),
        [
            ("root", TWO), ("auth0|5", TWO), ("https://other.example|root", ONE),
            ("https://id.example.com/|root", ONE), ("https://id.example.com|", ONE), ("root", ()),
            ("root", tuple(IssuerSetting(issuer=f"https://login.example/{name}", tenant=name) for name in "ab")),
        ],
    )  # fmt: skip
    def test_an_entry_that_fits_no_issuer_stops_the_start_and_is_named(self, entry, issuers):
        with pytest.raises(ConfigurationError, match=r"FILE\.admins") as caught:
            parse_admin_rules([entry], issuers=issuers, key="FILE.admins")

        assert repr(entry) in str(caught.value)
        assert caught.value.key == "FILE.admins"

    def test_issuer_and_name_must_both_be_the_same(self):
        rules = parse_admin_rules(["root", MAIL], issuers=ONE)

        assert rules.is_admin(issuer=FIRST, subject="root")
        assert rules.is_admin(issuer=FIRST, subject="x", verified_email=MAIL)
        assert not rules.is_admin(issuer=FIRST, subject="Root")
        assert not rules.is_admin(issuer=SECOND, subject="root", verified_email=MAIL)
        assert not rules.is_admin(issuer=FIRST, subject=MAIL, verified_email=None)
        assert not rules.is_admin(issuer=FIRST, subject="x", verified_email=MAIL.upper())

    def test_a_member_of_an_administrators_group_administers_at_that_issuer_only(self):
        issuers = (IssuerSetting(issuer=FIRST, admin_groups=("ops", "leads")), IssuerSetting(issuer=SECOND))

        rules = parse_admin_rules([], issuers=issuers)

        assert rules.is_admin(issuer=FIRST, subject="x", groups=("dev", "leads"))
        assert not rules.is_admin(issuer=FIRST, subject="x", groups=("dev", "Leads"))
        assert not rules.is_admin(issuer=FIRST, subject="leads", groups=())
        assert not rules.is_admin(issuer=SECOND, subject="x", groups=("leads",))


LONG_SECONDS = 7 * 24 * 3600


@pytest.mark.parametrize(
    ("is_down", "last_second"),
    [
        (False, 3599),  # one refresh interval
        (True, 3600),  # an outage is over: two cool-downs
        (True, 86399),  # the provider went down before: the stale limit
    ],
)
def test_a_withdrawn_key_is_out_within_the_life_of_a_remembered_token(provider, clock, is_down, last_second):
    validator = OidcValidator(SETTINGS, http=provider, clock=clock)
    validator.validate_token(mint(expires_in=LONG_SECONDS))
    provider.publish(ec_key())
    if is_down:
        provider.go_down()
    clock.advance(last_second)
    token = mint(expires_in=LONG_SECONDS, subject="bob")

    was_accepted = is_accepted(validator, token)
    provider.come_back()
    clock.advance(301)

    assert was_accepted is True
    assert is_accepted(validator, token) is False
