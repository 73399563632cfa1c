"""Tests of `access.rate_limit`: how often, how long to wait, and how much memory."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from micromegas_jupyter.access.metrics import AccessMetrics
from micromegas_jupyter.access.rate_limit import CallLimits, TokenBuckets
from micromegas_jupyter.config.access import RateLimits
from micromegas_jupyter.errors import ResourcesExhausted

LIMITS = RateLimits(calls_per_second=2, burst_calls=3, refusals_per_second=1, burst_refusals=2, max_tracked=5)


def _buckets(clock, **changes) -> TokenBuckets[str]:
    return TokenBuckets(**{"per_second": 2.0, "burst": 3, "max_tracked": 5, "clock": clock, **changes})


@pytest.fixture
def limits(clock) -> CallLimits:
    return CallLimits(LIMITS, clock=clock)


def test_a_full_bucket_gives_its_burst_and_then_nothing(clock):
    buckets = _buckets(clock)

    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]


def test_tokens_come_back_at_the_rate(clock):
    buckets = _buckets(clock)
    for _ in range(3):
        buckets.take("a")

    clock.advance(1)

    assert [buckets.take("a") for _ in range(3)] == [0, 0, 0.5]


def test_an_empty_bucket_does_not_get_emptier_by_asking(clock):
    buckets = _buckets(clock)
    for _ in range(100):
        buckets.take("a")

    clock.advance(0.5)

    assert buckets.take("a") == 0


def test_a_bucket_never_holds_more_than_its_burst(clock):
    buckets = _buckets(clock)
    buckets.take("a")
    clock.advance(3600)

    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]


def test_buckets_are_independent(clock):
    buckets = _buckets(clock)
    for _ in range(4):
        buckets.take("a")

    assert buckets.take("b") == 0


def test_a_token_can_be_given_back(clock):
    buckets = _buckets(clock, burst=1)
    buckets.take("a")

    buckets.release("a")

    assert [buckets.take("a"), buckets.take("a")] == [0, 0.5]


def test_giving_back_never_makes_more_than_a_full_bucket(clock):
    buckets = _buckets(clock, burst=2)

    for _ in range(5):
        buckets.release("a")

    assert [buckets.take("a") for _ in range(3)] == [0, 0, 0.5]


def test_a_full_bucket_needs_no_memory(clock):
    buckets = _buckets(clock)
    buckets.take("a")

    buckets.release("a")

    assert len(buckets) == 0


def test_memory_is_bounded_and_the_least_recently_used_is_forgotten(clock):
    buckets = _buckets(clock, burst=1)
    for key in ("a", "b", "c", "d", "e"):
        buckets.take(key)
    buckets.take("a")

    buckets.take("f")

    assert len(buckets) == 5
    assert [buckets.take(key) > 0 for key in ("a", "f", "b")] == [True, True, False]


def test_threads_together_get_no_more_than_the_burst(clock):
    buckets = _buckets(clock, burst=500)
    start = threading.Barrier(8)

    def take(_number: int) -> int:
        start.wait(60)
        return sum(buckets.take("a") == 0 for _ in range(200))

    with ThreadPoolExecutor(8) as threads:
        taken = sum(threads.map(take, range(8)))

    assert taken == 500


def test_an_identity_that_calls_too_often_learns_when_to_come_back(limits):
    for _ in range(3):
        limits.count_call("https://id.example", "alice")

    with pytest.raises(ResourcesExhausted) as caught:
        limits.count_call("https://id.example", "alice")

    assert caught.value.retry_after_seconds == 0.5
    assert str(caught.value) == "You call this server too often. Try again in 0.5 seconds."


def test_the_same_subject_of_another_issuer_is_another_identity(limits):
    for _ in range(3):
        limits.count_call("https://id.example", "alice")

    limits.count_call("https://other.example", "alice")


def test_an_address_is_turned_away_after_too_many_refusals(limits, clock):
    for _ in range(2):
        limits.count_refusal("192.0.2.1")

    with pytest.raises(ResourcesExhausted) as caught:
        limits.count_refusal("192.0.2.1")
    limits.count_refusal("192.0.2.2")
    clock.advance(1)
    limits.count_refusal("192.0.2.1")

    assert caught.value.retry_after_seconds == 1


def test_credentials_that_were_accepted_do_not_count(limits):
    for _ in range(100):
        limits.count_refusal("192.0.2.1")
        limits.forgive_refusal("192.0.2.1")


def test_of_credentials_that_were_not_decided_a_quarter_counts(limits, clock):
    for _ in range(5):
        limits.count_refusal("192.0.2.1")
        limits.forgive_refusal("192.0.2.1", is_accepted=False)

    with pytest.raises(ResourcesExhausted):
        limits.count_refusal("192.0.2.1")
    clock.advance(0.25)
    limits.count_refusal("192.0.2.1")


@pytest.mark.parametrize(
    ("first", "second", "is_shared"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:0db8:0:0:8000::", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("unknown", "unknown", True),
        ("not:an:address", "not:an:address", True),
    ],
)
def test_who_can_be_the_same_host_shares_a_bucket(limits, first, second, is_shared):
    for _ in range(2):
        limits.count_refusal(first)

    try:
        limits.count_refusal(second)
        was_shared = False
    except ResourcesExhausted:
        was_shared = True

    assert was_shared is is_shared


def test_calls_that_are_turned_away_are_counted(clock):
    metrics = AccessMetrics()
    limits = CallLimits(LIMITS, clock=clock, metrics=metrics)

    for _ in range(5):
        try:
            limits.count_call("https://id.example", "alice")
        except ResourcesExhausted:
            continue
    for _ in range(2):
        limits.count_refusal("192.0.2.1")
    with pytest.raises(ResourcesExhausted):
        limits.count_refusal("192.0.2.1")

    found = metrics.registry.get_sample_value
    assert found("micromegas_access_rate_limited_total", {"by": "identity"}) == 2
    assert found("micromegas_access_rate_limited_total", {"by": "address"}) == 1


def test_the_wait_is_rounded_up_to_milliseconds(clock):
    limits = CallLimits(RateLimits(calls_per_second=3, burst_calls=1), clock=clock)
    limits.count_call("i", "s")

    with pytest.raises(ResourcesExhausted) as caught:
        limits.count_call("i", "s")

    assert caught.value.retry_after_seconds == 0.334


def test_changed_limits_count_from_the_next_call_and_equal_ones_forget_nothing(clock):
    limits = [RateLimits(calls_per_second=1.0, burst_calls=1)]
    calls = CallLimits(lambda: limits[-1], clock=clock)
    calls.count_call("i", "s")

    limits.append(RateLimits(calls_per_second=1.0, burst_calls=1))
    with pytest.raises(ResourcesExhausted):
        calls.count_call("i", "s")
    limits.append(RateLimits(calls_per_second=1.0, burst_calls=2))

    calls.count_call("i", "s")
