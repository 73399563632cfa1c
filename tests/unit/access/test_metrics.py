"""Tests of `access.metrics`: numbers that add up, in bounded memory."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from prometheus_client import generate_latest

from micromegas_jupyter.access.audit import AccessMetrics, Tally


@pytest.fixture
def metrics() -> AccessMetrics:
    return AccessMetrics()


def _value(metrics: AccessMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"micromegas_access_{name}", labels)


def test_a_tally_counts_and_looking_changes_nothing():
    tally = Tally()
    assert [tally.value(), tally.value()] == [0, 0]

    for _ in range(3):
        tally.add()

    assert [tally.value(), tally.value()] == [3, 3]


def test_a_tally_counts_what_many_threads_add_while_others_look():
    tally = Tally()
    start = threading.Barrier(8)

    def add(number: int) -> None:
        start.wait(60)
        for _ in range(5000):
            tally.add()
            if number == 0:
                tally.value()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add, range(8)))

    assert tally.value() == 40_000


def test_decisions_are_counted_by_outcome_and_reason(metrics):
    metrics.count_decision("accepted", "", 0.001)
    for _ in range(2):
        metrics.count_decision("refused", "expired", 0.001)
    metrics.count_decision("undecided", "keys_unavailable", 0.001)

    assert _value(metrics, "decisions_total", outcome="accepted", reason="") == 1
    assert _value(metrics, "decisions_total", outcome="refused", reason="expired") == 2
    assert _value(metrics, "decisions_total", outcome="undecided", reason="keys_unavailable") == 1


def test_latency_is_a_histogram(metrics):
    for seconds in (0.00004, 0.002, 20.0):
        metrics.count_decision("accepted", "", seconds)

    assert _value(metrics, "decision_seconds_count") == 3
    assert _value(metrics, "decision_seconds_sum") == pytest.approx(20.00204)
    assert _value(metrics, "decision_seconds_bucket", le="5e-05") == 1
    assert _value(metrics, "decision_seconds_bucket", le="10.0") == 2


def test_cache_hits_and_misses_are_told(metrics):
    metrics.cache_hits.add()
    metrics.cache_hits.add()
    metrics.cache_misses.add()

    assert (_value(metrics, "cache_hits_total"), _value(metrics, "cache_misses_total")) == (2, 1)


def test_key_fetches_are_counted_by_issuer_and_outcome(metrics):
    metrics.count_key_fetch("https://id.example", succeeded=True)
    metrics.count_key_fetch("https://id.example", succeeded=False)
    metrics.count_key_fetch("https://id.example", succeeded=False)

    assert _value(metrics, "key_fetches_total", issuer="https://id.example", outcome="succeeded") == 1
    assert _value(metrics, "key_fetches_total", issuer="https://id.example", outcome="failed") == 2


def test_rate_limited_calls_are_counted(metrics):
    metrics.count_rate_limited("identity")

    assert _value(metrics, "rate_limited_total", by="identity") == 1


def test_the_age_of_keys_is_read_when_somebody_asks_until_it_is_forgotten(metrics):
    ages = [10.0]
    metrics.watch_keys({"https://id.example": lambda: ages[0], "https://new.example": lambda: None})
    ages[0] = 20.0

    assert _value(metrics, "key_set_age_seconds", issuer="https://id.example") == 20
    assert _value(metrics, "key_set_age_seconds", issuer="https://new.example") is None
    metrics.watch_keys({})
    assert _value(metrics, "key_set_age_seconds", issuer="https://id.example") is None


def test_reasons_of_foreign_validators_do_not_fill_the_memory(metrics):
    for number in range(1000):
        metrics.count_decision("refused", f"reason-{number}", 0.001)

    assert _value(metrics, "decisions_total", outcome="refused", reason="other") == 1000 - (256 - 4)
    assert generate_latest(metrics.registry).count(b"micromegas_access_decisions_total{") == 257


def test_a_reason_that_was_there_early_is_still_counted_by_name(metrics):
    for number in range(1000):
        metrics.count_decision("refused", f"reason-{number}", 0.001)

    metrics.count_decision("refused", "reason-3", 0.001)

    assert _value(metrics, "decisions_total", outcome="refused", reason="reason-3") == 2


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        ("refused", "internal_error"),
        ("refused", "signature_wrong"),
        ("refused", "algorithm_not_allowed"),
        ("undecided", "keys_unavailable"),
    ],
)
def test_what_alerts_ask_for_is_there_before_it_happens(metrics, outcome, reason):
    assert _value(metrics, "decisions_total", outcome=outcome, reason=reason) == 0

    metrics.count_decision(outcome, reason, 0.001)

    assert _value(metrics, "decisions_total", outcome=outcome, reason=reason) == 1


def test_expected_fetches_are_there_before_they_happen_and_stay_counted(metrics):
    metrics.expect_key_fetches("https://id.example")
    metrics.count_key_fetch("https://id.example", succeeded=False)
    metrics.expect_key_fetches("https://id.example")

    assert _value(metrics, "key_fetches_total", issuer="https://id.example", outcome="succeeded") == 0
    assert _value(metrics, "key_fetches_total", issuer="https://id.example", outcome="failed") == 1


def test_reloads_are_reported_by_outcome_once_a_configuration_is_in_force(metrics):
    assert _value(metrics, "reloads_total", outcome="failed") is None
    metrics.note_in_force(datetime(2026, 11, 24, 12, 0, tzinfo=UTC))

    metrics.count_reload("refused")

    assert [_value(metrics, "reloads_total", outcome=name) for name in ("in_force", "refused", "failed")] == [0, 1, 0]
    assert _value(metrics, "configuration_in_force_timestamp_seconds") == 1_795_521_600


def test_issuers_do_not_fill_the_memory(metrics):
    for number in range(1000):
        metrics.count_key_fetch(f"https://id-{number}.example", succeeded=True)

    assert _value(metrics, "key_fetches_total", issuer="other", outcome="succeeded") == 1000 - 256


def test_everything_is_text_in_the_prometheus_format(metrics):
    metrics.count_decision("accepted", "", 0.001)

    text = generate_latest(metrics.registry).decode()

    assert "# TYPE micromegas_access_decisions_total counter" in text
    assert 'micromegas_access_decisions_total{outcome="accepted",reason=""} 1.0' in text
    assert "# TYPE micromegas_access_cache_hits_total counter" in text
    assert "# TYPE micromegas_access_key_set_age_seconds gauge" in text


def test_two_servers_in_one_process_have_numbers_of_their_own(metrics):
    metrics.count_rate_limited("identity")

    assert _value(AccessMetrics(), "rate_limited_total", by="identity") is None
