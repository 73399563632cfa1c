"""Tests of `access.key_source` while the provider does not answer, or is asked too much."""

from __future__ import annotations

import pytest

from micromegas_jupyter.access.jwks import KeyPolicy, KeySource
from micromegas_jupyter.config.access import IssuerSetting
from micromegas_jupyter.errors import Unavailable
from tests.fakes.mint import ISSUER, ec_key, rsa_key
from tests.fakes.provider import FakeProvider
from tests.unit.access.conftest import key_names

SETTING = IssuerSetting(issuer=ISSUER)
JWKS_URL = f"{ISSUER}/keys"


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider(keys=(rsa_key(),))


class TestGate:
    """While there are keys, a provider is asked once in a cool-down at most, whoever wants to know."""

    def test_after_a_failed_refresh_no_unknown_key_is_asked_for(self, source, provider, clock):
        first = source.current()
        provider.go_down()
        clock.advance(3600)
        source.current()
        asked = len(provider.requested)
        clock.advance(29)

        with pytest.raises(Unavailable):
            source.newer_than(first)
        assert len(provider.requested) == asked

    def test_after_a_failed_fetch_for_an_unknown_key_no_refresh_is_tried(self, source, provider, background, clock):
        first = source.current()
        provider.go_down()
        clock.advance(3590)
        with pytest.raises(Unavailable):
            source.newer_than(first)
        asked = len(provider.requested)
        clock.advance(29)

        assert source.current() is first
        assert (len(provider.requested), background.waiting) == (asked, [])

    def test_the_cool_down_is_a_matter_of_policy(self, provider, clock):
        source = KeySource(SETTING, http=provider, clock=clock, policy=KeyPolicy(cool_down_seconds=60))
        second = source.newer_than(source.current())

        clock.advance(59)
        assert source.newer_than(second) is second
        clock.advance(1)
        assert source.newer_than(second) is not second

    def test_an_hour_of_outage_under_a_flood_costs_one_fetch_in_a_cool_down(self, source, provider, background, clock):
        first = source.current()
        clock.advance(3000)
        provider.go_down()
        before = len(provider.requested)
        asked_at: list[int] = []
        for second in range(3600):
            asked = len(provider.requested)
            assert source.current() is first
            background.run()
            with pytest.raises(Unavailable):
                source.newer_than(first)
            asked_at += [second] * (len(provider.requested) - asked)
            clock.advance(1)

        assert asked_at == list(range(0, 3600, 30))
        assert len(provider.requested) - before == 120

    def test_a_flood_at_a_provider_that_answers_costs_one_fetch_in_a_cool_down(self, source, provider, clock):
        source.current()
        for _ in range(300):
            source.newer_than(source.current())
            clock.advance(1)

        assert provider.requested[2:] == [JWKS_URL] * 10


class TestOutage:
    """The last good keys are used while the provider does not answer."""

    def test_the_first_caller_after_the_interval_waits_and_the_others_do_not(self, source, provider, background, clock):
        first = source.current()
        provider.go_down()
        clock.advance(3600)

        for _ in range(10):
            assert source.current() is first

        assert len(provider.requested) == 3
        assert background.waiting == []

    def test_nobody_waits_for_the_next_try(self, source, provider, background, clock):
        first = source.current()
        provider.go_down()
        clock.advance(3600)
        source.current()
        clock.advance(30)

        assert source.current() is first
        assert source.current() is first
        assert (len(provider.requested), len(background.waiting)) == (3, 1)

    def test_nobody_waits_to_learn_of_an_unknown_key_while_another_tries(self, source, provider, background, clock):
        first = source.current()
        provider.go_down()
        clock.advance(3600)
        source.current()
        clock.advance(30)
        source.current()

        with pytest.raises(Unavailable):
            source.newer_than(first)
        assert len(background.waiting) == 1

    def test_somebody_waits_when_the_last_failure_is_long_ago(self, source, provider, clock):
        source.current()
        provider.go_down()
        clock.advance(3600)
        source.current()
        provider.come_back()
        provider.publish(ec_key())
        clock.advance(60)

        assert key_names(source) == ["ec"]

    def test_keys_are_used_up_to_the_limit_and_not_beyond(self, provider, clock):
        policy = KeyPolicy(refresh_interval_seconds=100, stale_limit_seconds=500)
        source = KeySource(SETTING, http=provider, clock=clock, policy=policy)
        first = source.current()
        provider.go_down()
        clock.advance(499)

        assert source.current() is first
        clock.advance(1)
        with pytest.raises(Unavailable):
            source.current()

    def test_fresh_keys_end_it(self, source, provider, background, clock):
        source.current()
        provider.go_down()
        clock.advance(3600)
        source.current()
        provider.come_back()
        provider.publish(ec_key())
        clock.advance(30)
        source.current()

        background.run()

        assert key_names(source) == ["ec"]
