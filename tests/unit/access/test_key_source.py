"""Tests of `access.key_source`."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.access import key_source as module
from micromegas_jupyter.access.key_source import KeyPolicy, KeySource
from micromegas_jupyter.errors import Unavailable
from tests.fakes.mint import ISSUER, ec_key, rsa_key
from tests.fakes.provider import FakeProvider

if TYPE_CHECKING:
    from tests.fakes.clock import FakeClock

DISCOVERY_URL = f"{ISSUER}/.well-known/openid-configuration"
JWKS_URL = f"{ISSUER}/keys"


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider(keys=(rsa_key(),))


@pytest.fixture
def source(provider: FakeProvider, clock: FakeClock) -> KeySource:
    return KeySource(ISSUER, http=provider, clock=clock, policy=KeyPolicy())


def key_names(source: KeySource) -> list[str | None]:
    return [key.key_id for key in source.current().keys]


def test_keys_are_fetched_through_the_discovery_document(source, provider):
    assert key_names(source) == ["rsa"]
    assert provider.requested == [DISCOVERY_URL, JWKS_URL]


def test_fresh_keys_are_used_without_asking(source, provider, clock):
    first = source.current()
    clock.advance(3599)

    assert source.current() is first
    assert len(provider.requested) == 2


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


def test_a_provider_that_is_down_is_asked_less_and_less_often(source, provider, clock):
    provider.go_down()
    asked_at: list[int] = []
    for second in range(60):
        before = len(provider.requested)
        with pytest.raises(Unavailable):
            source.current()
        if len(provider.requested) > before:
            asked_at.append(second)
        clock.advance(1)

    assert asked_at == [0, 1, 2, 4, 9, 19, 29, 39, 49, 59]


def test_old_keys_are_used_while_the_provider_is_down_and_it_is_asked_now_and_then(source, provider, clock):
    first = source.current()
    provider.go_down()
    clock.advance(3600)

    for _ in range(10):
        assert source.current() is first
    # Two failures in a row, then a pause.
    assert len(provider.requested) == 4


def test_in_an_outage_callers_do_not_wait_for_the_one_who_tries_again(source, provider, clock):
    first = source.current()
    provider.go_down()
    clock.advance(3600)
    source.current()
    provider.arrived.clear()
    provider.gate.clear()
    trying = threading.Thread(target=source.current)
    trying.start()
    assert provider.arrived.wait(10)

    found = source.current()
    provider.gate.set()
    trying.join(10)

    assert found is first


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
    assert provider.arrived.wait(10)
    threads[1].start()
    assert waiting.wait(10)
    provider.gate.set()
    for thread in threads:
        thread.join(10)

    assert provider.requested == [DISCOVERY_URL]
    assert len(failures) == 2
    assert failures[0] is not failures[1]


def test_nobody_waits_for_ever_for_somebody_elses_newer_set(source, provider, monkeypatch):
    monkeypatch.setattr(module, "_JOIN_SECONDS", 0.01)
    first = source.current()
    provider.arrived.clear()
    provider.gate.clear()
    fetching = threading.Thread(target=source.newer_than, args=(first,))
    fetching.start()
    assert provider.arrived.wait(10)

    with pytest.raises(Unavailable):
        source.newer_than(first)
    provider.gate.set()
    fetching.join(10)

    assert source.newer_than(first) is not first
    assert len(provider.requested) == 3


def test_nobody_waits_for_ever_for_somebody_elses_fetch(source, provider, monkeypatch):
    monkeypatch.setattr(module, "_JOIN_SECONDS", 0.01)
    provider.gate.clear()
    fetching = threading.Thread(target=source.current)
    fetching.start()
    assert provider.arrived.wait(10)

    with pytest.raises(Unavailable):
        source.current()
    provider.gate.set()
    fetching.join(10)
    assert key_names(source) == ["rsa"]


def test_an_interrupted_fetch_does_not_block_later_ones(source, provider):
    provider.failure = KeyboardInterrupt()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        source.current()
    provider.come_back()

    assert key_names(source) == ["rsa"]


def test_changes_and_failures_leave_events(source, provider, clock, caplog):
    with caplog.at_level(logging.INFO, "micromegas_jupyter.access"):
        source.current()
        provider.jwks = {"keys": [ec_key().jwk(), {"kty": "oct"}]}
        clock.advance(3600)
        source.current()
        clock.advance(3600)
        source.current()
        provider.go_down()
        clock.advance(3600)
        source.current()

    events = [(record.levelname, record.getMessage(), vars(record).get("reason")) for record in caplog.records]
    assert events == [
        ("INFO", "An issuer's keys changed.", None),
        ("INFO", "An issuer's keys changed.", None),
        ("WARNING", "An issuer's keys could not be fetched.", "AVAIL002"),
    ]
    assert [vars(record).get("ignored") for record in caplog.records] == [0, 1, None]
    assert {vars(record)["issuer"] for record in caplog.records} == {ISSUER}


def test_the_error_names_the_issuer_and_says_to_try_again(source, provider):
    provider.go_down()

    with pytest.raises(Unavailable) as caught:
        source.current()

    assert str(caught.value) == (
        "The keys of https://id.example.com cannot be fetched at the moment. Try again in a moment."
    )
