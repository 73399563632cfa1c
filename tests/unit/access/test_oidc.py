"""Tests of `access.oidc`: an issuer's rules in order, who its claims say a caller is, the caches, many callers."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.access import AuthContext, AuthType, OidcValidator, Rejected, TokenValidator, Unavailable
from micromegas_jupyter.access import oidc as module
from micromegas_jupyter.access.jwks import KeyCaches
from micromegas_jupyter.access.metrics import AccessMetrics
from micromegas_jupyter.access.oidc import ExpiringCache, Issuer
from micromegas_jupyter.access.roles import Roles, parse_admin_rules
from micromegas_jupyter.config.access import RoleSetting
from micromegas_jupyter.config.issuers import IssuerSetting, OidcServerSettings
from micromegas_jupyter.core.protocols import TableAccess, TokenKind
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.oidc.claims import MAX_GROUPS
from micromegas_jupyter.oidc.jws import ParsedToken, TokenProblem, parse_token
from tests.fakes.clock import FakeClock
from tests.fakes.mint import AUDIENCE, ISSUER, NOW, NOW_SECONDS, ec_key, mint, rsa_key
from tests.fakes.provider import FakeProvider
from tests.unit.access.conftest import SETTINGS

if TYPE_CHECKING:
    from micromegas_jupyter.core.protocols import ClaimValue

ALIAS = "id.example.com"
SECOND = "https://second.example"
FORGED = rsa_key("elsewhere")


def settings_of(**changes: object) -> OidcServerSettings:
    members: dict[str, object] = {"issuer": ISSUER, "audiences": (AUDIENCE,), "aliases": (ALIAS,), **changes}
    return OidcServerSettings(issuers=(IssuerSetting(**members),))  # type: ignore[arg-type]


def issuer_of(setting: IssuerSetting, *admins: str, roles: Roles | None = None) -> Issuer:
    rules = parse_admin_rules(admins, issuers=(setting,))
    return Issuer(setting, keys=None, admins=rules, roles=roles or Roles())  # type: ignore[arg-type]


def reason_of(validator: OidcValidator, token: str) -> str:
    with pytest.raises(Rejected) as caught:
        validator.validate_token(token)
    return caught.value.reason


class TestRules:
    """Single rules are in the token tables; here is what holds across them."""

    STRICT = IssuerSetting(
        issuer=ISSUER,
        audiences=(AUDIENCE,),
        aliases=(ALIAS, ISSUER),
        algorithms=frozenset({"RS256"}),
        required_claims=MappingProxyType({"use": ("lake",)}),
        client_ids=("notebook",),
        subjects=("alice",),
        tenant="tenant-1",
        token_kind=TokenKind.ACCESS,
        is_rfc9068=True,
    )
    GOOD = MappingProxyType(
        {
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
    )
    # What each rule, in the order in which they are applied, does not like.
    BREAKS = MappingProxyType(
        {
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
    )

    def check(self, changes: dict[str, object]) -> str:
        header = {"alg": changes.get("alg", "RS256"), "typ": changes.get("typ", "at+jwt")}
        claims = {**self.GOOD, **{name: value for name, value in changes.items() if name not in header}}
        stated = {name: value for name, value in claims.items() if value is not None}
        token = ParsedToken(header=header, claims=stated, signing_input=b"", signature=b"x")
        return issuer_of(self.STRICT).check_unverified(token, NOW_SECONDS)

    @pytest.mark.parametrize("first", range(len(BREAKS)))
    def test_of_all_rules_that_are_broken_the_first_in_order_is_the_reason(self, first):
        changes: dict[str, object] = {}
        for broken in list(self.BREAKS.values())[first:]:
            changes |= broken

        with pytest.raises(TokenProblem) as caught:
            self.check(changes)

        assert caught.value.reason == list(self.BREAKS)[first]

    def test_who_may_come_is_not_asked_before_the_signature(self):
        issuer = issuer_of(self.STRICT)

        assert (self.check({}), self.check({"sub": "bob"})) == ("alice", "bob")
        issuer.check_subject("alice")
        with pytest.raises(TokenProblem, match="subject_not_allowed"):
            issuer.check_subject("bob")
        issuer_of(IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,))).check_subject("anybody")

    def test_an_alias_that_is_the_issuer_itself_counts_once(self):
        assert issuer_of(self.STRICT).names == (ISSUER, ALIAS)

    @pytest.mark.parametrize(
        "members",
        [
            {},
            {"client_ids": ("notebook",)},
            {"required_claims": {"token_use": ("access",)}},
            {"client_ids": ("notebook",), "required_claims": {"use": ("access",)}},
        ],
        ids=["nothing", "applications only", "use only", "another claim"],
    )
    def test_an_issuer_whose_tokens_nothing_binds_to_this_server_stops_the_start(self, members):
        with pytest.raises(ConfigurationError) as caught:
            issuer_of(IssuerSetting(issuer=ISSUER, **members))

        assert caught.value.key == "MICROMEGAS_OIDC_CONFIG"
        assert repr(ISSUER) in str(caught.value)

    @pytest.mark.parametrize(
        "second",
        [
            IssuerSetting(issuer=ISSUER, audiences=("second",)),
            IssuerSetting(issuer=ALIAS, audiences=("second",)),
            IssuerSetting(issuer=SECOND, aliases=(ALIAS,), audiences=("second",)),
        ],
        ids=["the same issuer", "an alias as issuer", "the same alias"],
    )
    def test_two_issuers_of_one_name_stop_the_start(self, second, provider, clock):
        settings = OidcServerSettings(issuers=(*settings_of().issuers, second))

        with pytest.raises(ConfigurationError) as caught:
            OidcValidator(settings, http=provider, clock=clock)

        assert caught.value.key == "MICROMEGAS_OIDC_CONFIG"

    def test_a_bare_administrator_with_several_issuers_stops_the_start(self, clock, provider):
        second = IssuerSetting(issuer=SECOND, audiences=(AUDIENCE,))
        settings = OidcServerSettings(issuers=(*settings_of().issuers, second))

        with pytest.raises(ConfigurationError, match="'root'") as caught:
            OidcValidator(settings, ["root"], http=provider, clock=clock)

        assert caught.value.key == "MICROMEGAS_ADMINS"


BARE = IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,))


def context_of(
    *admins: str, setting: IssuerSetting = BARE, granted: Roles | None = None, **claims: object
) -> AuthContext:
    issuer = issuer_of(setting, *admins, roles=granted)
    return issuer.context_of({"sub": "alice", "exp": NOW_SECONDS, **claims}, subject="alice")


def issuer_with(**members: object) -> IssuerSetting:
    return dataclasses.replace(BARE, **members)  # type: ignore[arg-type]


class TestIdentity:
    """From verified claims to who the caller is; rights follow from verified ones only."""

    EMAIL_CLAIMS = (
        "verified_primary_email",
        "email",
        "https://micromegas.io/email",
        "preferred_username",
        "upn",
        "unique_name",
    )

    def test_a_bare_token_gives_subject_issuer_and_expiry(self):
        context = context_of()

        assert (context.subject, context.issuer, context.expires_at) == ("alice", ISSUER, NOW)
        assert (context.email, context.name, context.groups, context.client_id) == (None, None, (), None)
        assert (context.is_admin, context.may_delegate, context.email_verified) == (False, False, False)

    @pytest.mark.parametrize("position", range(6))
    def test_the_shown_address_is_the_first_that_is_there(self, position):
        claims = {name: f"{number}@example.com" for number, name in enumerate(self.EMAIL_CLAIMS) if number >= position}

        assert context_of(**claims).email == f"{position}@example.com"

    @pytest.mark.parametrize("odd", ["", None, 5, True, [], [5], {}])
    def test_an_odd_address_is_passed_over_and_of_a_list_the_first_is_shown(self, odd):
        assert context_of(email=odd, upn="a@example.com").email == "a@example.com"
        assert context_of(verified_primary_email=["a@example.com", "b@example.com"]).email == "a@example.com"

    @pytest.mark.parametrize("stated", [None, False, "true", "True", 1, [True], {}])
    def test_only_json_true_verifies_an_address(self, stated):
        context = context_of("a@example.com", email="a@example.com", email_verified=stated)

        assert (context.email_verified, context.is_admin) == (False, False)

    def test_a_verified_address_makes_an_administrator(self):
        context = context_of("a@example.com", email="a@example.com", email_verified=True)

        assert (context.email_verified, context.is_admin) == (True, True)

    @pytest.mark.parametrize("name", ["preferred_username", "upn", "unique_name", "verified_primary_email", "name"])
    def test_no_other_claim_makes_an_administrator(self, name):
        context = context_of("a@example.com", email_verified=True, **{name: "a@example.com"})

        assert (context.email_verified, context.is_admin) == (False, False)

    def test_an_address_in_a_list_or_beside_a_verified_one_is_shown_and_not_verified(self):
        listed = context_of("a@example.com", email=["a@example.com"], email_verified=True)
        beside = context_of(verified_primary_email="b@example.com", email="a@example.com", email_verified=True)

        assert (listed.email, listed.email_verified, listed.is_admin) == ("a@example.com", False, False)
        assert (beside.email, beside.email_verified) == ("b@example.com", False)

    @pytest.mark.parametrize("name", ["azp", "client_id", "appid", "cid"])
    def test_the_application_has_four_names(self, name):
        assert context_of(**{name: "notebook"}).client_id == "notebook"

    def test_control_characters_in_display_claims_are_kept_as_text(self):
        context = context_of(email="a\r\n@example.com", name="A\x1b[31m\u2028Zoë")

        assert (context.email, context.name) == ("a\r\n@example.com", "A\x1b[31m\u2028Zoë")


REPLACED = issuer_with(group_claims=(("resource_access", "lake", "roles"), ("https://lake.example.com/roles",)))


class TestGroups:
    """Where an issuer's groups are, and what follows from them."""

    GRANTED = Roles(
        {"reader": RoleSetting(tables={"log_entries": None}), "eu": RoleSetting(tables={"*": "region = 'eu'"})}, ["eu"]
    )
    SETTING = issuer_with(group_roles={"dev": ("reader", "gone"), "ops": ("reader",)}, admin_groups=("ops",))

    @pytest.mark.parametrize(
        ("setting", "claims", "groups"),
        [
            (
                BARE,
                {
                    "groups": ["ops", "dev"],
                    "roles": ["dev", "writer"],
                    "realm_access": {"roles": ["offline_access"]},
                    "cognito:groups": ["eu"],
                },
                ("ops", "dev", "writer", "offline_access", "eu"),
            ),
            (BARE, {"groups": "ops", "roles": "dev writer"}, ("ops", "dev writer")),
            *((BARE, {"groups": odd, "realm_access": {"roles": odd}, "roles": ["dev"]}, ("dev",))
              for odd in (None, "", 5, True, ["ops", 5], {"ops": 1}, [["ops"]])),
            *((BARE, {"realm_access": odd}, ()) for odd in (None, [], "roles")),
            (
                REPLACED,
                {"resource_access": {"lake": {"roles": ["a"]}}, "https://lake.example.com/roles": "b"},
                ("a", "b"),
            ),
            *((REPLACED, {"resource_access": odd}, ())
              for odd in (None, "lake", ["lake"], {"lake": None}, {"lake": "roles"}, {"lake": []}, 5)),
            (issuer_with(group_claims=(("a.b",),)), {"a": {"b": ["no"]}}, ()),
            (issuer_with(group_claims=()), {"groups": ["ops"], "roles": ["dev"]}, ()),
        ],
    )  # fmt: skip
    def test_where_they_are(self, setting, claims, groups):
        assert context_of(setting=setting, **claims).groups == groups

    def test_they_are_bounded_and_one_beyond_the_bound_gives_nothing(self):
        context = context_of(setting=self.SETTING, groups=[f"group{number}" for number in range(MAX_GROUPS)] + ["ops"])

        assert (len(context.groups), context.is_admin) == (MAX_GROUPS, False)

    @pytest.mark.parametrize(
        ("claims", "is_admin", "roles", "filters"),
        [
            ({"groups": ["dev", "other"]}, False, ("reader", "eu"), {"*": ("region = 'eu'",), "log_entries": ()}),
            ({}, False, ("eu",), {"*": ("region = 'eu'",)}),
            ({"roles": ["reader"]}, False, ("eu",), {"*": ("region = 'eu'",)}),
            ({"groups": ["ops"]}, True, ("reader", "eu"), None),
        ],
        ids=["groups give roles", "default roles only", "a role of the token itself", "an administrators' group"],
    )
    def test_groups_give_roles_and_roles_give_tables(self, claims, is_admin, roles, filters):
        context = context_of(setting=self.SETTING, granted=self.GRANTED, **claims)

        assert (context.is_admin, context.roles) == (is_admin, roles)
        assert context.table_access == (None if filters is None else TableAccess(filters=filters))

    def test_without_configured_roles_everything_is_readable(self):
        context = context_of(setting=self.SETTING, groups=["dev"])

        assert (context.roles, context.table_access) == ((), None)

    @pytest.mark.parametrize(
        "overage",
        [
            {"_claim_names": {"groups": "src1"}},
            {"_claim_names": {"roles": "src1"}},
            {"_claim_names": {"cognito:groups": "src1"}},
            {"hasgroups": True},
            {"hasgroups": "true"},
        ],
        ids=str,
    )
    def test_where_groups_are_left_out_no_rights_follow_and_one_event_says_so(self, overage, caplog):
        claims = {"roles": ["ops"], "groups": ["ops"], **overage}
        context = context_of(setting=self.SETTING, granted=Roles({"reader": RoleSetting()}), **claims)

        assert (context.groups, context.roles, context.is_admin) == ((), (), False)
        assert context.table_access == TableAccess(filters={})
        assert [(record.getMessage(), vars(record)["subject"]) for record in caplog.records] == [
            ("A token leaves out its bearer's groups, so no rights follow from groups.", "alice")
        ]
        assert context_of("alice", setting=self.SETTING, **claims).is_admin is True

    @pytest.mark.parametrize(
        ("members", "claims"),
        [
            ({}, {"_claim_names": {"address": "src1"}}),
            ({}, {"_claim_names": ["groups"]}),
            ({}, {"_claim_names": {}}),
            ({}, {"hasgroups": False}),
            ({"group_claims": (("roles",),)}, {"_claim_names": {"groups": "src1"}}),
            ({"group_claims": (("roles",),)}, {"hasgroups": True}),
        ],
        ids=str,
    )
    def test_another_claim_that_is_left_out_changes_nothing(self, members, claims, caplog):
        setting = dataclasses.replace(self.SETTING, **members)

        assert context_of(setting=setting, roles=["ops"], **claims).is_admin is True
        assert caplog.records == []


class TestTokens:
    """What comes of tokens."""

    def test_a_good_token_gives_its_bearer(self, validator):
        token = mint(email="alice@example.com", email_verified=True, name="Alice", groups=["ops"], azp="notebook")

        assert isinstance(validator, TokenValidator)
        assert validator.validate_token(token) == AuthContext(
            subject="alice",
            issuer=ISSUER,
            auth_type=AuthType.OIDC,
            email="alice@example.com",
            expires_at=datetime(2026, 11, 24, 12, 5, tzinfo=UTC),
            is_admin=False,
            name="Alice",
            email_verified=True,
            may_delegate=False,
            groups=("ops",),
            client_id="notebook",
        )
        assert validator.validate_token(mint(subject="root")).is_admin is True
        validator.close()

    def test_keys_are_fetched_once_for_many_tokens(self, validator, provider):
        for number in range(5):
            validator.validate_token(mint(subject=f"user{number}"))

        assert provider.requested == [f"{ISSUER}/.well-known/openid-configuration", f"{ISSUER}/keys"]

    def test_a_token_that_is_wrong_before_its_key_causes_no_request(self, validator, provider):
        assert reason_of(validator, mint(issuer="https://evil.example")) == "issuer_unknown"
        for token in (mint(audience="other"), mint(expires_in=-100), mint(header={"alg": "none"}), "x"):
            with pytest.raises(Rejected):
                validator.validate_token(token)

        assert provider.requested == []

    def test_an_issuers_keys_do_not_verify_another_issuers_token(self, clock):
        class TwoProviders:
            def __init__(self) -> None:
                self.first, self.second = FakeProvider(keys=(rsa_key(),)), FakeProvider(SECOND, keys=(ec_key(),))

            def fetch_json(self, url: str, **_options: object) -> object:
                return (self.first if url.startswith(ISSUER) else self.second).fetch_json(url)

        issuers = (BARE, IssuerSetting(issuer=SECOND, audiences=("second-lake",)))
        validator = OidcValidator(OidcServerSettings(issuers=issuers), http=TwoProviders(), clock=clock)  # type: ignore[arg-type]

        second = validator.validate_token(mint(key=ec_key(), issuer=SECOND, audience="second-lake"))

        assert second.issuer == SECOND
        assert reason_of(validator, mint(issuer=SECOND, audience="second-lake")) == "unknown_key"
        assert reason_of(validator, mint(key=ec_key(), issuer=SECOND)) == "audience_mismatch"

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

    def test_the_subject_claim_names_who_is_denied(self, provider, clock, caplog):
        settings, denied = settings_of(subject_claim="oid"), {(ISSUER, "alice")}
        validator = OidcValidator(settings, http=provider, clock=clock, denied=denied)

        with caplog.at_level(logging.INFO, "micromegas_jupyter.access"):
            assert reason_of(validator, mint(subject="x", oid="alice")) == "denied"

        refused = vars(caplog.records[-1])
        assert (refused["reason"], refused["issuer"], refused["subject"]) == ("denied", ISSUER, "alice")
        assert validator.validate_token(mint(oid="bob")).subject == "bob"

    def test_only_a_verified_token_says_that_somebody_is_denied_or_not_listed(self, provider, clock):
        settings, denied = settings_of(subjects=("alice",)), {(ISSUER, "alice")}
        validator = OidcValidator(settings, http=provider, clock=clock, denied=denied)

        for subject in ("alice", "bob"):
            forged = mint(key=FORGED, header={"kid": "rsa"}, subject=subject)
            assert reason_of(validator, forged) == "signature_wrong"
        assert reason_of(validator, mint()) == "denied"
        assert reason_of(validator, mint(subject="bob")) == "subject_not_allowed"

    def test_required_values_are_compared_with_their_types(self, provider, clock):
        required: dict[str, tuple[ClaimValue, ...]] = {"level": (1,)}
        validator = OidcValidator(settings_of(required_claims=required), http=provider, clock=clock)

        assert reason_of(validator, mint(level=True)) == "required_claim_mismatch"
        assert validator.validate_token(mint(level=1)).subject == "alice"

    def test_a_defect_is_a_refusal_that_hurts_once_and_leaves_an_event_without_the_token(
        self, validator, monkeypatch, caplog
    ):
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

    def test_validators_that_share_their_keys_fetch_them_once(self, provider, clock):
        caches = KeyCaches(http=provider, clock=clock)
        first = OidcValidator(SETTINGS, http=provider, clock=clock, caches=caches)
        second = OidcValidator(SETTINGS, http=provider, clock=clock, caches=caches)
        first.validate_token(mint())
        first.close()

        assert second.validate_token(mint(subject="bob")).subject == "bob"
        assert len(provider.requested) == 2


class JumpingClock(FakeClock):
    """A clock whose wall time somebody sets."""

    def jump(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)


class TestExpiringCache:
    """What is remembered ends by time and by little use."""

    @pytest.fixture
    def clock(self) -> JumpingClock:
        return JumpingClock()

    @pytest.fixture
    def cache(self, clock: JumpingClock) -> ExpiringCache[str]:
        return ExpiringCache(clock=clock, max_entries=2, ttl_seconds=10)

    def test_a_value_lasts_for_the_time_to_live_and_a_new_one_lasts_anew(self, cache, clock):
        cache.put(b"a", "first")
        clock.advance(9)
        assert cache.get(b"a") == "first"
        cache.put(b"a", "second")
        clock.advance(9)
        assert cache.get(b"a") == "second"
        clock.advance(1)
        assert (cache.get(b"a"), len(cache)) == (None, 0)

    def test_a_value_ends_at_its_own_end_by_the_wall_clock(self, cache, clock):
        cache.put(b"a", "first", ends_at=clock.now() + timedelta(seconds=3))
        cache.put(b"b", "second", ends_at=clock.now() + timedelta(seconds=60))

        clock.advance(2)
        assert cache.get(b"a") == "first"
        clock.advance(1)
        assert cache.get(b"a") is None
        clock.jump(60)
        assert cache.get(b"b") is None

    def test_a_wall_clock_that_is_set_back_does_not_lengthen_the_time_to_live(self, cache, clock):
        cache.put(b"a", "first", ends_at=clock.now() + timedelta(seconds=3600))

        clock.jump(-7200)
        clock.advance(9)
        assert cache.get(b"a") == "first"
        clock.advance(1)
        assert cache.get(b"a") is None

    def test_the_least_recently_used_value_makes_room(self, cache):
        cache.put(b"a", "first")
        cache.put(b"b", "second")
        cache.get(b"a")

        cache.put(b"c", "third")

        assert [cache.get(key) for key in (b"a", b"b", b"c")] == ["first", None, "third"]

    def test_a_cache_with_room_for_none_remembers_nothing(self, clock):
        cache: ExpiringCache[str] = ExpiringCache(clock=clock, max_entries=0, ttl_seconds=10)

        cache.put(b"a", "first")

        assert cache.get(b"a") is None

    def test_an_entry_that_arrives_while_the_old_one_is_found_to_have_ended_stays(self, cache, clock, monkeypatch):
        cache.put(b"a", "first")
        clock.advance(10)
        monotonic = clock.monotonic

        def replace_then_tell() -> float:
            monkeypatch.setattr(cache, "_monotonic", monotonic)
            cache.put(b"a", "second")
            return monotonic()

        monkeypatch.setattr(cache, "_monotonic", replace_then_tell)

        assert cache.get(b"a") is None
        assert cache.get(b"a") == "second"

    def test_many_threads_never_see_more_than_there_is_room_for(self):
        cache: ExpiringCache[int] = ExpiringCache(clock=SYSTEM_CLOCK, max_entries=50, ttl_seconds=60)
        start = threading.Barrier(8)

        def use(seed: int) -> list[bool]:
            start.wait(60)
            found = []
            for number in range(2000):
                key = (seed * 7 + number) % 200
                known = cache.get(str(key).encode())
                found.append(known in {None, key} and len(cache) <= 50)
                cache.put(str(key).encode(), key)
            return found

        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(use, range(8)))

        assert all(all(answer) for answer in answers)


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

    @pytest.mark.parametrize(("expires_in", "seconds"), [(100, 100), (3000, 300)])
    def test_a_token_is_forgotten_when_it_ends_and_after_five_minutes(self, validator, clock, expires_in, seconds):
        token = mint(expires_in=expires_in)
        validator.validate_token(token)

        clock.advance(seconds - 1)
        assert validator.cached_context(token) is not None
        clock.advance(1)
        assert validator.cached_context(token) is None

    def test_a_token_in_its_leeway_is_accepted_never_remembered_and_then_ends(self, validator, clock):
        token = mint(expires_in=-30)

        assert validator.validate_token(token).subject == "alice"
        assert validator.cached_context(token) is None
        clock.advance(31)
        assert reason_of(validator, token) == "expired"

    def test_the_cache_holds_only_as_many_tokens_as_set(self, provider, clock):
        settings = OidcServerSettings(issuers=(BARE,), token_cache_size=2)
        validator = OidcValidator(settings, http=provider, clock=clock)
        tokens = [mint(subject=f"user{number}") for number in range(3)]

        for token in tokens:
            validator.validate_token(token)

        assert [validator.cached_context(token) is not None for token in tokens] == [False, True, True]

    @pytest.mark.parametrize("token", ["", "x" * 20000, "\ud800", 5, None], ids=["empty", "huge", "half", "5", "None"])
    def test_no_text_makes_the_cache_raise(self, validator, token):
        assert validator.cached_context(token) is None

    def test_a_refusal_is_remembered_for_ten_seconds_and_is_never_a_context(self, validator, clock, monkeypatch):
        token = mint(audience="other")
        looked_at: list[str] = []

        def look_at(text: str) -> ParsedToken:
            looked_at.append(text)
            return parse_token(text)

        monkeypatch.setattr(module, "parse_token", look_at)
        for seconds in (0, 9, 1):
            clock.advance(seconds)
            assert reason_of(validator, token) == "audience_mismatch"

        assert looked_at == [token, token]
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

        assert validator.cached_context(token) is None
        validator.validate_token(token)
        validator.cached_context(token)
        validator.validate_token(token)
        assert (metrics.cache_hits.value(), metrics.cache_misses.value()) == (2, 1)
        for _ in range(3):
            reason_of(validator, refused)
        assert (metrics.cache_hits.value(), metrics.cache_misses.value()) == (4, 2)


class TestProvider:
    """The provider changes its keys, is down, or publishes nonsense."""

    def test_a_token_of_a_new_key_that_nobody_knows_yet_is_accepted_after_the_cool_down(self, provider, clock):
        validator = OidcValidator(dataclasses.replace(SETTINGS, jwks_cool_down_seconds=12), http=provider, clock=clock)
        token = mint(key=ec_key("new"))
        assert reason_of(validator, token) == "unknown_key"
        provider.publish(rsa_key(), ec_key("new"))

        clock.advance(11)
        assert reason_of(validator, token) == "unknown_key"
        clock.advance(1)
        assert validator.validate_token(token).subject == "alice"

    def test_a_withdrawn_key_is_dropped_when_another_unknown_key_brings_the_new_set(self, validator, provider):
        validator.validate_token(mint())
        provider.publish(ec_key("new"))
        validator.validate_token(mint(key=ec_key("new")))

        assert reason_of(validator, mint(subject="bob")) == "unknown_key"

    def test_fifty_unknown_keys_cause_one_more_fetch(self, validator, provider):
        for number in range(50):
            assert reason_of(validator, mint(header={"kid": f"unknown{number}"})) == "unknown_key"

        assert len(provider.requested) == 3

    def test_an_undecided_token_is_accepted_when_the_provider_is_back(self, validator, provider, clock):
        provider.go_down()
        with pytest.raises(Unavailable):
            validator.validate_token(mint())
        provider.come_back()
        clock.advance(1)

        assert validator.validate_token(mint()).subject == "alice"

    def test_known_keys_are_used_for_a_day(self, validator, provider, clock):
        validator.validate_token(mint())
        provider.go_down()
        clock.advance(86399)

        assert validator.validate_token(mint(exp=NOW_SECONDS + 90000)).subject == "alice"
        clock.advance(1)
        with pytest.raises(Unavailable):
            validator.validate_token(mint(exp=NOW_SECONDS + 90001))

    def test_an_undecided_token_is_not_remembered(self, validator, provider):
        validator.validate_token(mint())
        provider.go_down()
        token = mint(key=ec_key("new"))
        with pytest.raises(Unavailable):
            validator.validate_token(token)

        assert validator.cached_context(token) is None

    @pytest.mark.parametrize("jwks", [None, [], {}, {"keys": []}, {"keys": 5}])
    def test_keys_that_are_nonsense_do_not_replace_known_ones(self, validator, provider, clock, jwks):
        validator.validate_token(mint())
        provider.jwks = jwks
        clock.advance(3601)

        assert validator.validate_token(mint(expires_in=9000)).subject == "alice"

    def test_tokens_are_rejected_while_all_published_keys_are_unusable(self, validator, provider):
        provider.jwks = {"keys": [{"kty": "oct", "k": "AAAA"}, rsa_key().jwk(e="AAAA")]}

        assert reason_of(validator, mint()) == "unknown_key"

    def test_one_weak_key_does_not_cost_the_others(self, validator, provider):
        provider.jwks = {"keys": [rsa_key("weak", bits=1024).jwk(), rsa_key().jwk()]}

        assert reason_of(validator, mint(key=rsa_key("weak", bits=1024))) == "unknown_key"
        assert validator.validate_token(mint()).subject == "alice"

    def test_a_flood_in_an_outage_costs_one_fetch_in_a_cool_down_and_no_known_token(self, validator, provider, clock):
        known = mint(expires_in=7200)
        validator.validate_token(known)
        provider.go_down()
        asked = len(provider.requested)
        for number in range(300):
            with pytest.raises(Unavailable):
                validator.validate_token(mint(header={"kid": f"unknown{number}"}))
            assert validator.validate_token(known).subject == "alice"
            clock.advance(1)

        assert len(provider.requested) - asked == 10


class TestManyCallers:
    """Callers at once share one fetch, and nobody who is known waits for it."""

    @pytest.mark.parametrize("is_rotated", [False, True], ids=["no keys yet", "an unknown key"])
    def test_sixty_four_callers_share_one_fetch(self, clock, provider, is_rotated):
        validator = OidcValidator(SETTINGS, http=provider, clock=clock)
        key = ec_key("new") if is_rotated else rsa_key()
        if is_rotated:
            validator.validate_token(mint())
            provider.publish(key)
        start = threading.Barrier(64)
        subjects: list[str] = []

        def call(number: int) -> None:
            token = mint(key=key, subject=f"user{number}")
            start.wait(60)
            subjects.append(validator.validate_token(token).subject)

        threads = [threading.Thread(target=call, args=(number,)) for number in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        assert sorted(subjects) == sorted(f"user{number}" for number in range(64))
        assert len(provider.requested) == (3 if is_rotated else 2)

    def test_a_cached_token_is_answered_while_a_fetch_is_under_way(self, provider, clock):
        validator = OidcValidator(SETTINGS, http=provider, clock=clock)
        known = mint()
        validator.validate_token(known)
        provider.arrived.clear()
        provider.gate.clear()
        waiting = threading.Thread(target=lambda: reason_of(validator, mint(header={"kid": "unknown"})))
        waiting.start()
        assert provider.arrived.wait(30)

        context = validator.validate_token(known)
        provider.gate.set()
        waiting.join(60)

        assert context.subject == "alice"
