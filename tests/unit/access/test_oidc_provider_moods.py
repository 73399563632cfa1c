"""Tests of `access.oidc_validator` while the provider changes its keys, is down, or answers nonsense."""

from __future__ import annotations

import dataclasses

import pytest

from micromegas_jupyter.access import OidcValidator, Rejected, Unavailable
from micromegas_jupyter.errors import ProviderMisbehaved
from tests.fakes.mint import ISSUER, NOW_SECONDS, ec_key, mint, rsa_key
from tests.unit.access.conftest import SETTINGS

JWKS_URL = f"{ISSUER}/keys"


def reason_of(validator: OidcValidator, token: str) -> str:
    with pytest.raises(Rejected) as caught:
        validator.validate_token(token)
    return caught.value.reason


class TestRotation:
    """The provider changes its keys."""

    def test_a_token_of_a_new_key_is_accepted_at_once(self, validator, provider):
        validator.validate_token(mint())
        provider.publish(ec_key("new"))

        assert validator.validate_token(mint(key=ec_key("new"))).subject == "alice"

    def test_a_token_of_a_new_key_that_nobody_knows_yet_is_accepted_after_the_cool_down(
        self, validator, provider, clock
    ):
        token = mint(key=ec_key("new"))
        assert reason_of(validator, token) == "unknown_key"
        provider.publish(rsa_key(), ec_key("new"))

        clock.advance(29)
        assert reason_of(validator, token) == "unknown_key"
        clock.advance(1)
        assert validator.validate_token(token).subject == "alice"

    def test_a_withdrawn_key_is_dropped_with_the_refresh_interval(self, validator, provider, clock):
        validator.validate_token(mint())
        provider.publish(ec_key())

        clock.advance(3601)

        assert reason_of(validator, mint(expires_in=9000)) == "unknown_key"

    def test_a_withdrawn_key_is_dropped_when_another_unknown_key_brings_the_new_set(self, validator, provider):
        validator.validate_token(mint())
        provider.publish(ec_key("new"))
        validator.validate_token(mint(key=ec_key("new")))

        assert reason_of(validator, mint(subject="bob")) == "unknown_key"

    def test_fifty_unknown_keys_cause_one_more_fetch(self, validator, provider):
        for number in range(50):
            assert reason_of(validator, mint(header={"kid": f"unknown{number}"})) == "unknown_key"

        assert len(provider.requested) == 3


class TestProviderDown:
    """`Rejected` never means that a provider is down, and `Unavailable` never that a token is bad."""

    def test_a_token_is_undecided_while_no_keys_were_ever_had(self, validator, provider):
        provider.go_down()

        with pytest.raises(Unavailable) as caught:
            validator.validate_token(mint())

        assert type(caught.value) is Unavailable
        assert str(caught.value) == (
            "The server cannot check credentials at the moment. Your sign-in is not at fault. Try again in a moment."
        )

    def test_an_undecided_token_is_accepted_when_the_provider_is_back(self, validator, provider, clock):
        provider.go_down()
        with pytest.raises(Unavailable):
            validator.validate_token(mint())
        provider.come_back()
        clock.advance(1)

        assert validator.validate_token(mint()).subject == "alice"

    def test_a_bad_token_is_rejected_even_then(self, validator, provider):
        provider.go_down()

        assert reason_of(validator, mint(audience="other")) == "audience_mismatch"
        assert reason_of(validator, "not a token") == "not_three_segments"

    def test_known_keys_are_used_for_a_day(self, validator, provider, clock):
        validator.validate_token(mint())
        provider.go_down()
        clock.advance(86399)

        assert validator.validate_token(mint(exp=NOW_SECONDS + 90000)).subject == "alice"
        clock.advance(1)
        with pytest.raises(Unavailable):
            validator.validate_token(mint(exp=NOW_SECONDS + 90001))

    def test_the_day_is_a_setting(self, provider, clock):
        settings = dataclasses.replace(SETTINGS, jwks_stale_limit_seconds=4000)
        validator = OidcValidator(settings, http=provider, clock=clock)
        validator.validate_token(mint())
        provider.go_down()
        clock.advance(4000)

        with pytest.raises(Unavailable):
            validator.validate_token(mint(exp=NOW_SECONDS + 90000))

    def test_an_unknown_key_is_undecided(self, validator, provider, clock):
        validator.validate_token(mint())
        provider.go_down()
        token = mint(key=ec_key("new"))

        for _ in range(2):
            with pytest.raises(Unavailable):
                validator.validate_token(token)
            clock.advance(10)

    def test_an_undecided_token_is_not_remembered(self, validator, provider):
        validator.validate_token(mint())
        provider.go_down()
        token = mint(key=ec_key("new"))
        with pytest.raises(Unavailable):
            validator.validate_token(token)

        assert validator.cached_context(token) is None

    @pytest.mark.parametrize(
        "discovery",
        [None, [], {}, {"issuer": ISSUER}, {"issuer": f"{ISSUER}/", "jwks_uri": JWKS_URL}],
        ids=["null", "list", "empty", "no key address", "another issuer"],
    )
    def test_a_provider_that_answers_nonsense_is_undecided(self, validator, provider, discovery):
        provider.discovery = discovery

        with pytest.raises(Unavailable):
            validator.validate_token(mint())

    @pytest.mark.parametrize("jwks", [None, [], {}, {"keys": []}, {"keys": 5}])
    def test_keys_that_are_nonsense_do_not_replace_known_ones(self, validator, provider, clock, jwks):
        validator.validate_token(mint())
        provider.jwks = jwks
        clock.advance(3601)

        assert validator.validate_token(mint(expires_in=9000)).subject == "alice"

    @pytest.mark.parametrize("failure", [ProviderMisbehaved("odd"), KeyError("defect"), OSError("no route")])
    def test_every_failure_on_the_way_is_undecided(self, validator, provider, failure):
        provider.failure = failure

        with pytest.raises(Unavailable):
            validator.validate_token(mint())

    def test_an_error_status_with_json_is_undecided(self, validator, provider):
        provider.status = 404

        with pytest.raises(Unavailable):
            validator.validate_token(mint())


class TestPublishedKeys:
    """What a provider publishes is an answer, even when none of it can be used."""

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
