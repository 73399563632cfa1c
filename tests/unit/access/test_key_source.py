"""Tests of `access.key_source`."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.access import jwks as module
from micromegas_jupyter.access.jwks import KeyPolicy, KeySource
from micromegas_jupyter.config.access import IssuerSetting
from micromegas_jupyter.errors import Unavailable
from tests.fakes.mint import ISSUER, ec_key, rsa_key
from tests.fakes.provider import FakeProvider
from tests.unit.access.conftest import key_names

if TYPE_CHECKING:
    from collections.abc import Callable


SETTING = IssuerSetting(issuer=ISSUER)
DISCOVERY_URL = f"{ISSUER}/.well-known/openid-configuration"
JWKS_URL = f"{ISSUER}/keys"


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider(keys=(rsa_key(),))


def test_keys_are_fetched_through_the_discovery_document(source, provider):
    assert key_names(source) == ["rsa"]
    assert provider.requested == [DISCOVERY_URL, JWKS_URL]


def test_making_a_source_asks_nobody(source, provider, background):
    assert (provider.requested, background.waiting, source.age_seconds()) == ([], [], None)


def test_fresh_keys_are_used_without_asking(source, provider, background, clock):
    first = source.current()
    clock.advance(2879)

    assert source.current() is first
    assert len(provider.requested) == 2
    assert background.waiting == []


def test_keys_are_fetched_anew_after_the_interval_from_where_the_provider_says_then(source, provider, clock):
    source.current()
    provider.publish(ec_key())
    clock.advance(3600)

    assert key_names(source) == ["ec"]
    assert provider.requested[2:] == [DISCOVERY_URL, JWKS_URL]


def test_a_newer_set_is_fetched_from_the_known_address(source, provider):
    first = source.current()
    provider.publish(ec_key())

    newer = source.newer_than(first)

    assert [key.key_id for key in newer.keys] == ["ec"]
    assert provider.requested[2:] == [JWKS_URL]


def test_a_set_that_another_caller_brought_is_newer_without_a_fetch(source, provider):
    first = source.current()
    second = source.newer_than(first)

    assert source.newer_than(first) is second
    assert len(provider.requested) == 3


def test_within_the_cool_down_no_newer_set_is_asked_for(source, provider, clock):
    second = source.newer_than(source.current())
    clock.advance(29)

    assert source.newer_than(second) is second
    clock.advance(1)
    assert source.newer_than(second) is not second
    assert len(provider.requested) == 4


def test_a_failed_fetch_counts_for_the_cool_down(source, provider, clock):
    first = source.current()
    provider.go_down()
    with pytest.raises(Unavailable):
        source.newer_than(first)
    asked = len(provider.requested)
    clock.advance(29)

    with pytest.raises(Unavailable):
        source.newer_than(first)
    assert len(provider.requested) == asked


def test_a_failed_fetch_leaves_fresh_keys_in_use(source, provider):
    first = source.current()
    provider.go_down()
    with pytest.raises(Unavailable):
        source.newer_than(first)

    assert source.current() is first


def test_after_a_failure_the_address_is_asked_for_again(source, provider, clock):
    first = source.current()
    provider.go_down()
    with pytest.raises(Unavailable):
        source.newer_than(first)
    provider.come_back()
    clock.advance(30)

    source.newer_than(first)

    assert provider.requested[-2:] == [DISCOVERY_URL, JWKS_URL]


def test_a_newer_set_is_not_kept_from_a_moved_address_for_longer_than_the_interval(source, provider, clock):
    keys = source.current()
    for _ in range(120):
        clock.advance(30)
        keys = source.newer_than(keys)

    assert provider.requested.count(DISCOVERY_URL) == 2


def test_a_provider_that_never_answered_is_asked_less_and_less_often(source, provider, clock):
    provider.go_down()
    asked_at: list[int] = []
    for second in range(120):
        before = len(provider.requested)
        with pytest.raises(Unavailable):
            source.current()
        if len(provider.requested) > before:
            asked_at.append(second)
        clock.advance(1)

    assert asked_at == [0, 1, 2, 4, 9, 19, 49, 79, 109]


def test_callers_without_any_keys_wait_for_the_one_fetch_and_share_its_failure(source, provider, monkeypatch):
    waiting = threading.Event()

    class WatchedFuture(Future):
        def result(self, timeout=None):
            waiting.set()
            return super().result(timeout)

    monkeypatch.setattr(module, "Future", WatchedFuture)
    provider.go_down()
    provider.gate.clear()
    failures: list[Unavailable] = []

    def call() -> None:
        with pytest.raises(Unavailable) as caught:
            source.current()
        failures.append(caught.value)

    threads = [threading.Thread(target=call) for _ in range(2)]
    threads[0].start()
    assert provider.arrived.wait(30)
    threads[1].start()
    assert waiting.wait(30)
    provider.gate.set()
    for thread in threads:
        thread.join(60)

    assert provider.requested == [DISCOVERY_URL]
    assert len(failures) == 2
    assert failures[0] is not failures[1]


def test_a_thousand_callers_without_any_keys_share_one_fetch(source, provider):
    barrier = threading.Barrier(1000)
    found: list[object] = []

    def call() -> None:
        barrier.wait(60)
        found.append(source.current())

    threads = [threading.Thread(target=call) for _ in range(1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert found == [source.current()] * 1000
    assert provider.requested == [DISCOVERY_URL, JWKS_URL]


def test_nobody_waits_for_ever_for_somebody_elses_newer_set(source, provider, monkeypatch):
    monkeypatch.setattr(module, "_JOIN_SECONDS", 0.01)
    first = source.current()
    provider.arrived.clear()
    provider.gate.clear()
    fetching = threading.Thread(target=source.newer_than, args=(first,))
    fetching.start()
    assert provider.arrived.wait(30)

    with pytest.raises(Unavailable):
        source.newer_than(first)
    provider.gate.set()
    fetching.join(60)

    assert source.newer_than(first) is not first
    assert len(provider.requested) == 3


def test_nobody_waits_for_ever_for_somebody_elses_fetch(source, provider, monkeypatch):
    monkeypatch.setattr(module, "_JOIN_SECONDS", 0.01)
    provider.gate.clear()
    fetching = threading.Thread(target=source.current)
    fetching.start()
    assert provider.arrived.wait(30)

    with pytest.raises(Unavailable):
        source.current()
    provider.gate.set()
    fetching.join(60)
    assert key_names(source) == ["rsa"]


def test_an_interrupted_fetch_does_not_block_later_ones(source, provider):
    provider.failure = KeyboardInterrupt()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        source.current()
    provider.come_back()

    assert key_names(source) == ["rsa"]


def test_the_error_names_the_issuer_and_says_to_try_again(source, provider):
    provider.go_down()

    with pytest.raises(Unavailable) as caught:
        source.current()

    assert str(caught.value) == (
        "The keys of https://id.example.com cannot be fetched at the moment. Try again in a moment."
    )


class TestRefreshAhead:
    """Keys that are still good are renewed while nobody waits."""

    def test_the_first_caller_after_four_fifths_of_the_interval_starts_one_fetch(
        self, source, provider, background, clock
    ):
        first = source.current()
        clock.advance(2880)

        found = [source.current() for _ in range(3)]

        assert found == [first] * 3
        assert len(background.waiting) == 1
        assert len(provider.requested) == 2

    def test_the_keys_that_it_brings_are_used_from_then_on(self, source, provider, background, clock):
        source.current()
        provider.publish(ec_key())
        clock.advance(2880)
        source.current()

        background.run()

        assert key_names(source) == ["ec"]
        assert provider.requested[2:] == [DISCOVERY_URL, JWKS_URL]

    def test_a_failure_is_followed_by_a_cool_down(self, source, provider, background, clock):
        first = source.current()
        provider.go_down()
        clock.advance(2880)
        source.current()
        background.run()

        clock.advance(29)
        assert source.current() is first
        assert background.waiting == []
        clock.advance(1)
        assert source.current() is first
        assert len(background.waiting) == 1

    def test_whoever_needs_an_unknown_key_meanwhile_shares_the_fetch(self, source, provider, background, clock):
        first = source.current()
        clock.advance(2880)
        source.current()
        sharing = threading.Thread(target=source.newer_than, args=(first,))
        sharing.start()

        background.run()
        sharing.join(60)

        assert provider.requested[2:] == [DISCOVERY_URL, JWKS_URL]

    def test_without_a_thread_for_it_the_keys_stay_in_use_and_the_next_try_waits(self, provider, clock):
        def have_no_thread(_work: Callable[[], None]) -> None:
            raise RuntimeError("can't start new thread")

        source = KeySource(SETTING, http=provider, clock=clock, policy=KeyPolicy(), start_background=have_no_thread)
        first = source.current()
        clock.advance(2880)

        assert source.current() is first
        assert source.current() is first
        with pytest.raises(Unavailable):
            source.newer_than(first)

    def test_by_default_a_thread_carries_it_out(self, provider, clock):
        source = KeySource(SETTING, http=provider, clock=clock, policy=KeyPolicy())
        first = source.current()
        provider.arrived.clear()
        provider.publish(ec_key())
        clock.advance(2880)

        assert source.current() is first
        assert provider.arrived.wait(30)
        newer = source.newer_than(first)

        assert [key.key_id for key in newer.keys] == ["ec"]
