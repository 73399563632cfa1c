"""Tests of `access.oidc_validator`: how its settings reach the rules, and what is counted and remembered."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.access import OidcValidator, Rejected
from micromegas_jupyter.access.jwks import KeySources
from micromegas_jupyter.access.metrics import AccessMetrics
from micromegas_jupyter.access.oidc import IssuerPolicy
from micromegas_jupyter.access.roles import Rights
from micromegas_jupyter.config.access import IssuerSetting, OidcServerSettings, RoleSetting
from micromegas_jupyter.core.protocols import TableAccess
from micromegas_jupyter.errors import ConfigurationError
from tests.fakes.mint import AUDIENCE, ISSUER, ec_key, mint, rsa_key
from tests.unit.access.conftest import SETTINGS

if TYPE_CHECKING:
    from micromegas_jupyter.config.access import ClaimValue

ALIAS = "id.example.com"
FORGED = rsa_key("elsewhere")


def settings_of(**changes: object) -> OidcServerSettings:
    members: dict[str, object] = {"issuer": ISSUER, "audiences": (AUDIENCE,), "aliases": (ALIAS,), **changes}
    return OidcServerSettings(issuers=(IssuerSetting(**members),))  # type: ignore[arg-type]


def reason_of(validator: OidcValidator, token: str) -> str:
    with pytest.raises(Rejected) as caught:
        validator.validate_token(token)
    return caught.value.reason


def test_a_token_of_an_alias_is_the_configured_issuers(provider, clock):
    validator = OidcValidator(settings_of(admin_groups=("ops",)), [f"{ISSUER}|alice"], http=provider, clock=clock)

    context = validator.validate_token(mint(issuer=ALIAS))

    assert (context.issuer, context.is_admin) == (ISSUER, True)
    assert validator.validate_token(mint(issuer=ALIAS, subject="bob", groups=["ops"])).is_admin is True


@pytest.mark.parametrize(
    "second",
    [
        IssuerSetting(issuer=ISSUER, audiences=("second",)),
        IssuerSetting(issuer=ALIAS, audiences=("second",)),
        IssuerSetting(issuer="https://second.example", aliases=(ALIAS,), audiences=("second",)),
    ],
    ids=["the same issuer", "an alias as issuer", "the same alias"],
)
def test_two_issuers_of_one_name_stop_the_start(second, provider, clock):
    settings = OidcServerSettings(issuers=(*settings_of().issuers, second))

    with pytest.raises(ConfigurationError) as caught:
        OidcValidator(settings, http=provider, clock=clock)

    assert caught.value.key == "MICROMEGAS_OIDC_CONFIG"


class TestWhoMayCome:
    """Callers who are denied, or not listed, although their tokens are good."""

    @pytest.mark.parametrize("issuer", [ISSUER, ALIAS])
    def test_a_denied_caller_is_refused_whichever_name_the_issuer_has(self, issuer, provider, clock):
        validator = OidcValidator(settings_of(), http=provider, clock=clock, denied={(issuer, "alice")})

        assert reason_of(validator, mint()) == "denied"
        assert reason_of(validator, mint(issuer=ALIAS)) == "denied"
        assert validator.validate_token(mint(subject="bob")).subject == "bob"

    def test_the_same_subject_at_another_issuer_is_not_denied(self, provider, clock):
        denied = {("https://second.example", "alice"), ("api_key", "alice")}
        validator = OidcValidator(settings_of(), http=provider, clock=clock, denied=denied)

        assert validator.validate_token(mint()).subject == "alice"

    def test_an_administrator_can_be_denied(self, provider, clock):
        validator = OidcValidator(settings_of(), ["alice"], http=provider, clock=clock, denied={(ISSUER, "alice")})

        assert reason_of(validator, mint()) == "denied"

    def test_the_subject_claim_names_who_is_denied(self, provider, clock):
        validator = OidcValidator(
            settings_of(subject_claim="oid"), http=provider, clock=clock, denied={(ISSUER, "alice")}
        )

        assert reason_of(validator, mint(subject="x", oid="alice")) == "denied"
        assert validator.validate_token(mint(oid="bob")).subject == "bob"

    def test_only_a_verified_token_says_that_somebody_is_denied_or_not_listed(self, provider, clock):
        validator = OidcValidator(
            settings_of(subjects=("alice",)), http=provider, clock=clock, denied={(ISSUER, "alice")}
        )

        for subject in ("alice", "bob"):
            forged = mint(key=FORGED, header={"kid": "rsa"}, subject=subject)
            assert reason_of(validator, forged) == "signature_wrong"
        assert reason_of(validator, mint()) == "denied"
        assert reason_of(validator, mint(subject="bob")) == "subject_not_allowed"


def test_groups_become_roles_and_tables(provider, clock):
    rights = Rights({"reader": RoleSetting(tables={"log_entries": "region = 'eu'"})})
    validator = OidcValidator(settings_of(group_roles={"dev": ("reader",)}), http=provider, clock=clock, rights=rights)

    context = validator.validate_token(mint(groups=["dev"]))

    assert context.roles == ("reader",)
    assert context.table_access == TableAccess(filters={"log_entries": ("region = 'eu'",)})
    assert validator.validate_token(mint()).table_access == TableAccess(filters={})


def test_the_audit_event_of_a_refusal_names_the_subject_by_the_issuers_claim(provider, clock, caplog):
    validator = OidcValidator(settings_of(subject_claim="oid"), http=provider, clock=clock)

    with caplog.at_level(logging.INFO, "micromegas_jupyter.access"):
        reason_of(validator, mint(oid="object-1", audience="other"))

    refused = vars(caplog.records[-1])
    assert (refused["reason"], refused["issuer"], refused["subject"]) == ("audience_mismatch", ISSUER, "object-1")


def test_groups_that_are_left_out_leave_one_event_for_each_look_and_none_for_a_known_token(provider, clock, caplog):
    validator = OidcValidator(settings_of(), http=provider, clock=clock)
    token = mint(hasgroups=True)

    for _ in range(3):
        validator.validate_token(token)

    events = [record for record in caplog.records if record.name == "micromegas_jupyter.access"]
    assert [event.levelname for event in events] == ["WARNING"]


class TestSettingsReachTheKeys:
    """How long keys are believed is the settings' to say."""

    def test_the_cool_down_is_a_setting(self, provider, clock):
        validator = OidcValidator(dataclasses.replace(SETTINGS, jwks_cool_down_seconds=12), http=provider, clock=clock)
        token = mint(key=ec_key("new"))
        assert reason_of(validator, token) == "unknown_key"
        provider.publish(rsa_key(), ec_key("new"))

        clock.advance(11)
        assert reason_of(validator, token) == "unknown_key"
        clock.advance(1)
        assert validator.validate_token(token).subject == "alice"

    def test_the_stale_limit_is_never_below_the_refresh_interval(self, provider, clock):
        settings = dataclasses.replace(SETTINGS, jwks_refresh_interval_seconds=1000, jwks_stale_limit_seconds=500)
        validator = OidcValidator(settings, http=provider, clock=clock)
        validator.validate_token(mint())
        provider.go_down()

        clock.advance(700)

        assert validator.validate_token(mint(expires_in=2000)).subject == "alice"

    def test_validators_that_share_their_keys_fetch_them_once(self, provider, clock):
        sources = KeySources(http=provider, clock=clock)
        first = OidcValidator(SETTINGS, http=provider, clock=clock, sources=sources)
        second = OidcValidator(SETTINGS, http=provider, clock=clock, sources=sources)
        first.validate_token(mint())
        first.close()

        assert second.validate_token(mint(subject="bob")).subject == "bob"
        assert len(provider.requested) == 2


class TestCounting:
    """Each credential that is shown counts once, as known or as looked at."""

    def test_a_token_is_looked_at_once_and_known_from_then_on(self, provider, clock):
        metrics = AccessMetrics()
        validator = OidcValidator(SETTINGS, http=provider, clock=clock, metrics=metrics)
        token = mint()

        assert validator.cached_context(token) is None
        validator.validate_token(token)
        validator.cached_context(token)
        validator.validate_token(token)

        assert (metrics.cache_hits.value(), metrics.cache_misses.value()) == (2, 1)

    def test_a_known_refusal_counts_as_known(self, provider, clock):
        metrics = AccessMetrics()
        validator = OidcValidator(SETTINGS, http=provider, clock=clock, metrics=metrics)

        for _ in range(3):
            reason_of(validator, mint(audience="other", iat=1))

        assert (metrics.cache_hits.value(), metrics.cache_misses.value()) == (2, 1)


class TestRefusalsThatAreNotRemembered:
    """A refusal that may end by itself is looked at each time."""

    def test_a_defect_that_does_not_recur_hurts_once(self, validator, monkeypatch):
        token = mint()
        with monkeypatch.context() as patched:
            patched.setattr(IssuerPolicy, "check_subject", lambda *_arguments: 1 / 0)
            assert reason_of(validator, token) == "internal_error"

        assert validator.validate_token(token).subject == "alice"

    @pytest.mark.parametrize(
        ("changes", "seconds"), [({"nbf": 61}, 1), ({"iat": 61}, 1)], ids=["not yet valid", "issued in the future"]
    )
    def test_time_mends_a_token_that_came_too_early(self, validator, clock, changes, seconds):
        start = int(clock.now().timestamp())
        token = mint(**{name: start + ahead for name, ahead in changes.items()})
        reason_of(validator, token)

        clock.advance(seconds)

        assert validator.validate_token(token).subject == "alice"


def test_required_values_are_compared_with_their_types(provider, clock):
    required: dict[str, tuple[ClaimValue, ...]] = {"level": (1,)}
    validator = OidcValidator(settings_of(required_claims=required), http=provider, clock=clock)

    assert reason_of(validator, mint(level=True)) == "required_claim_mismatch"
    assert validator.validate_token(mint(level=1)).subject == "alice"
