"""Tests of `access.key_events`, through the source whose keys they tell of."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.access.jwks import KeyEvents, KeyPolicy, KeySource
from micromegas_jupyter.access.metrics import AccessMetrics
from micromegas_jupyter.config.access import IssuerSetting
from micromegas_jupyter.errors import Unavailable
from tests.fakes.mint import ISSUER, ec_key, rsa_key
from tests.fakes.provider import FakeProvider

if TYPE_CHECKING:
    from tests.fakes.background import FakeBackground
    from tests.fakes.clock import FakeClock


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider(keys=(rsa_key(),))


@pytest.fixture
def metrics() -> AccessMetrics:
    return AccessMetrics()


@pytest.fixture
def source(provider: FakeProvider, clock: FakeClock, background: FakeBackground, metrics: AccessMetrics) -> KeySource:
    return KeySource(
        IssuerSetting(issuer=ISSUER),
        http=provider,
        clock=clock,
        policy=KeyPolicy(),
        metrics=metrics,
        start_background=background.start,
    )


@pytest.fixture(autouse=True)
def _all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "micromegas_jupyter.access")


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_changed_keys_leave_an_event_and_the_same_keys_none(source, provider, clock, caplog):
    source.current()
    provider.jwks = {"keys": [ec_key().jwk(), {"kty": "oct"}]}
    clock.advance(3600)
    source.current()
    clock.advance(3600)
    source.current()

    assert told(caplog) == [("INFO", "An issuer's keys changed."), ("INFO", "An issuer's keys changed.")]
    assert [(vars(record)["usable"], vars(record)["ignored"]) for record in caplog.records] == [(1, 0), (1, 1)]
    assert {vars(record)["issuer"] for record in caplog.records} == {ISSUER}


def test_a_set_without_a_usable_key_is_a_warning(source, provider, caplog):
    provider.jwks = {"keys": [{"kty": "oct"}]}
    source.current()

    assert told(caplog) == [("WARNING", "An issuer's keys changed.")]


def test_a_failure_leaves_an_event_with_its_reason(source, provider, caplog):
    provider.go_down()
    with pytest.raises(Unavailable):
        source.current()

    assert told(caplog) == [("WARNING", "An issuer's keys could not be fetched.")]
    assert vars(caplog.records[0])["reason"] == "AVAIL002"
    assert vars(caplog.records[0])["detail"] == "The identity provider id.example.com does not answer."


def test_of_a_defect_only_its_kind_is_told(source, provider, caplog):
    provider.failure = KeyError("/etc/secret")
    with pytest.raises(Unavailable):
        source.current()

    assert (vars(caplog.records[0])["reason"], vars(caplog.records[0])["detail"]) == ("KeyError", None)


def test_going_stale_and_coming_back_leave_one_event_each(source, provider, background, clock, caplog):
    source.current()
    provider.go_down()
    clock.advance(3600)
    for _ in range(100):
        source.current()
        background.run()
        clock.advance(30)
    provider.come_back()
    source.current()
    background.run()
    source.current()

    found = [event for event in told(caplog) if event[1] != "An issuer's keys could not be fetched."]
    assert found == [
        ("INFO", "An issuer's keys changed."),
        ("WARNING", "An issuer does not answer; its last keys are used beyond their refresh interval."),
        ("INFO", "An issuer answers again; its keys are fresh."),
    ]
    ages = [vars(record)["age_seconds"] for record in caplog.records if hasattr(record, "age_seconds")]
    assert ages == [3600, 6600]


def test_going_stale_without_a_failure_after_the_interval_is_told_too(source, provider, background, clock, caplog):
    source.current()
    provider.go_down()
    clock.advance(3590)
    source.current()
    background.run()
    clock.advance(10)

    source.current()

    assert told(caplog)[-1] == (
        "WARNING",
        "An issuer does not answer; its last keys are used beyond their refresh interval.",
    )


def test_keys_that_become_too_old_leave_one_event(source, provider, clock, caplog):
    source.current()
    provider.go_down()
    clock.advance(24 * 3600)
    for _ in range(3):
        with pytest.raises(Unavailable):
            source.current()

    found = [event for event in told(caplog) if event[1] != "An issuer's keys could not be fetched."]
    assert found[1:] == [("WARNING", "An issuer does not answer, and its last keys are too old to be used.")]


def test_fetches_are_counted_and_the_age_is_reported(source, provider, metrics, clock):
    source.current()
    provider.go_down()
    clock.advance(3600)
    source.current()

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"issuer": ISSUER, **labels})

    assert value("micromegas_access_key_fetches_total", outcome="succeeded") == 1
    assert value("micromegas_access_key_fetches_total", outcome="failed") == 1
    assert value("micromegas_access_key_set_age_seconds") == 3600


def test_before_there_are_keys_no_age_is_reported(source, metrics):
    assert metrics.registry.get_sample_value("micromegas_access_key_set_age_seconds", {"issuer": ISSUER}) is None


def test_keys_within_their_interval_leave_no_event_of_age(caplog):
    KeyEvents(ISSUER, policy=KeyPolicy(), metrics=None).record_age(3599)

    assert told(caplog) == []


def test_a_private_address_that_a_public_provider_names_leaves_an_event_that_says_so(source, provider, caplog):
    provider.private_urls = {f"{ISSUER}/keys"}
    with pytest.raises(Unavailable):
        source.current()

    assert vars(caplog.records[0])["detail"] == (
        "The identity provider could not be reached: its address is a private one."
    )
