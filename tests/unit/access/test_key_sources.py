"""Tests of `access.key_sources`."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.access import jwks as module
from micromegas_jupyter.access.jwks import KeyPolicy, KeySources
from micromegas_jupyter.access.metrics import AccessMetrics
from micromegas_jupyter.config.access import IssuerSetting
from micromegas_jupyter.errors import ConfigurationError
from tests.fakes.mint import ISSUER, ec_key, rsa_key
from tests.fakes.provider import FakeProvider

if TYPE_CHECKING:
    from tests.fakes.clock import FakeClock

SETTING = IssuerSetting(issuer=ISSUER, audiences=("lake",))
OTHER = IssuerSetting(issuer="https://other.example")
POLICY = KeyPolicy()


class ClosingProvider(FakeProvider):
    """A provider whose way is closed."""

    def __init__(self) -> None:
        super().__init__(keys=(ec_key(),))
        self.closed_count = 0

    def close(self) -> None:
        self.closed_count += 1


class CaProviders:
    """Makes one provider for each file of certificates, and remembers them."""

    def __init__(self) -> None:
        self.made: list[tuple[str, ClosingProvider]] = []

    def __call__(self, ca_file: str) -> ClosingProvider:
        self.made.append((ca_file, ClosingProvider()))
        return self.made[-1][1]

    def closed(self) -> list[tuple[str, int]]:
        return [(ca_file, provider.closed_count) for ca_file, provider in self.made]


@pytest.fixture
def metrics() -> AccessMetrics:
    return AccessMetrics()


@pytest.fixture
def ca_providers() -> CaProviders:
    return CaProviders()


@pytest.fixture
def sources(clock: FakeClock, metrics: AccessMetrics, ca_providers: CaProviders) -> KeySources:
    provider = FakeProvider(keys=(rsa_key(),))
    return KeySources(http=provider, clock=clock, metrics=metrics, http_for_ca=ca_providers)


def with_ca(ca_file: str, issuer: str = ISSUER) -> IssuerSetting:
    return IssuerSetting(issuer=issuer, ca_file=ca_file)


class TestTheSameSource:
    """What is the same gives the same source."""

    def test_the_same_setting_keeps_its_keys(self, sources):
        keys = sources.source_of(SETTING, POLICY).current()

        assert sources.source_of(dataclasses.replace(SETTING), KeyPolicy()).current() is keys

    def test_what_does_not_concern_the_keys_changes_nothing(self, sources):
        changed = dataclasses.replace(SETTING, audiences=("other",), leeway_seconds=0, aliases=("alias",))

        assert sources.source_of(changed, POLICY) is sources.source_of(SETTING, POLICY)

    @pytest.mark.parametrize(
        "member", ["issuer", "tenant", "discovery_url", "jwks_url", "jwks_file", "ca_file", "bearer_token_file"]
    )
    def test_what_concerns_the_keys_gives_another_source(self, sources, member):
        changed = dataclasses.replace(SETTING, **{member: "https://other.example"})

        assert sources.source_of(changed, POLICY) is not sources.source_of(SETTING, POLICY)

    def test_another_policy_gives_another_source(self, sources):
        other = sources.source_of(SETTING, KeyPolicy(cool_down_seconds=10))

        assert other is not sources.source_of(SETTING, POLICY)

    def test_threads_that_ask_at_once_get_one_source(self, sources):
        barrier = threading.Barrier(8)
        found: list[object] = []

        def ask() -> None:
            barrier.wait(30)
            found.append(sources.source_of(SETTING, POLICY))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        assert len(found) == 8
        assert len({id(source) for source in found}) == 1


class TestRetain:
    """A reload says which settings are still there."""

    def test_a_setting_that_stays_keeps_its_source(self, sources):
        before = sources.source_of(SETTING, POLICY)
        sources.source_of(OTHER, POLICY)

        sources.retain([SETTING])

        assert sources.source_of(SETTING, POLICY) is before

    def test_a_setting_that_went_is_forgotten(self, sources):
        before = sources.source_of(OTHER, POLICY)

        sources.retain([SETTING])

        assert sources.source_of(OTHER, POLICY) is not before

    def test_of_two_policies_the_one_that_was_asked_for_last_stays(self, sources):
        strict = KeyPolicy(cool_down_seconds=60)
        old, new = sources.source_of(SETTING, POLICY), sources.source_of(SETTING, strict)

        sources.retain([SETTING])

        assert sources.source_of(SETTING, strict) is new
        assert sources.source_of(SETTING, POLICY) is not old

    def test_the_age_of_forgotten_keys_is_not_reported_any_more(self, sources, metrics):
        sources.source_of(SETTING, POLICY).current()
        jwks_url = f"{ISSUER}/keys"
        sources.source_of(dataclasses.replace(OTHER, jwks_url=jwks_url), POLICY).current()

        sources.retain([SETTING])

        assert reported_age(metrics, ISSUER) == 0
        assert reported_age(metrics, OTHER.issuer) is None

    def test_the_age_of_kept_keys_is_reported_again_after_a_change_that_was_given_up(self, sources, metrics):
        sources.source_of(SETTING, POLICY).current()
        sources.source_of(dataclasses.replace(SETTING, jwks_url="https://other.example/keys"), POLICY)

        sources.retain([SETTING])

        assert reported_age(metrics, ISSUER) == 0


def test_without_metrics_forgetting_works_too(clock):
    sources = KeySources(http=FakeProvider(), clock=clock)
    before = sources.source_of(SETTING, POLICY)

    sources.retain([])

    assert sources.source_of(SETTING, POLICY) is not before


class TestCaFiles:
    """A setting with certificates of its own is fetched in its own way."""

    def test_settings_with_one_file_share_one_way(self, sources, ca_providers):
        keys = sources.source_of(with_ca("a.pem"), POLICY).current()
        sources.source_of(with_ca("a.pem", "https://other.example"), POLICY)
        sources.source_of(with_ca("b.pem"), POLICY)

        assert [ca_file for ca_file, _provider in ca_providers.made] == ["a.pem", "b.pem"]
        assert [key.key_id for key in keys.keys] == ["ec"]

    def test_without_a_file_the_common_way_is_used(self, sources, ca_providers):
        keys = sources.source_of(SETTING, POLICY).current()

        assert ca_providers.made == []
        assert [key.key_id for key in keys.keys] == ["rsa"]

    def test_a_way_that_nobody_needs_is_closed_one_reload_later(self, sources, ca_providers):
        sources.source_of(with_ca("a.pem"), POLICY)
        sources.source_of(with_ca("b.pem"), POLICY)

        sources.retain([with_ca("b.pem")])
        assert ca_providers.closed() == [("a.pem", 0), ("b.pem", 0)]
        sources.retain([with_ca("b.pem")])
        assert ca_providers.closed() == [("a.pem", 1), ("b.pem", 0)]

    def test_closing_closes_all_of_them_once(self, sources, ca_providers):
        sources.source_of(with_ca("a.pem"), POLICY)
        sources.source_of(with_ca("b.pem"), POLICY)
        sources.retain([with_ca("b.pem")])

        sources.close()
        sources.close()

        assert ca_providers.closed() == [("a.pem", 1), ("b.pem", 1)]

    def test_by_default_a_file_that_does_not_exist_is_a_configuration_error(self, clock, tmp_path):
        sources = KeySources(http=FakeProvider(), clock=clock)

        with pytest.raises(ConfigurationError):
            sources.source_of(with_ca(f"{tmp_path}/missing.pem"), POLICY)


class TestBound:
    """However often a configuration changes, the memory does not grow."""

    @pytest.fixture(autouse=True)
    def _low_bound(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_SOURCES", 3)

    def test_the_sources_that_were_asked_for_last_are_kept(self, sources):
        settings = [IssuerSetting(issuer=f"https://{number}.example") for number in range(4)]
        first, second, *_ = [sources.source_of(setting, POLICY) for setting in settings[:3]]
        sources.source_of(settings[0], POLICY)
        sources.source_of(settings[3], POLICY)

        assert sources.source_of(settings[0], POLICY) is first
        assert sources.source_of(settings[1], POLICY) is not second

    def test_ways_that_nobody_needs_are_closed(self, sources, ca_providers):
        for number in range(10):
            sources.source_of(with_ca(f"{number}.pem"), POLICY)

        assert [closed for _ca_file, closed in ca_providers.closed()] == [1] * 4 + [0] * 6

    def test_forgotten_keys_are_not_reported(self, sources, metrics):
        sources.source_of(SETTING, POLICY).current()
        for number in range(3):
            sources.source_of(IssuerSetting(issuer=f"https://{number}.example"), POLICY)

        assert reported_age(metrics, ISSUER) is None


def reported_age(metrics: AccessMetrics, issuer: str) -> float | None:
    return metrics.registry.get_sample_value("micromegas_access_key_set_age_seconds", {"issuer": issuer})
