"""Tests of `access.rate_limit`: how often, how long to wait, and how much memory."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from micromegas_jupyter.access.audit import AccessMetrics, TokenBuckets
from micromegas_jupyter.access.validator import CallLimits
from micromegas_jupyter.config.access import RateLimits
from micromegas_jupyter.errors import ResourcesExhausted

LIMITS = RateLimits(calls_per_second=2, burst_calls=3, refusals_per_second=1, burst_refusals=2, max_tracked=5)
CALLER = ("https://id.example", "alice")


def _buckets(clock, **changes) -> TokenBuckets[str]:
    return TokenBuckets(**{"per_second": 2.0, "burst": 3, "max_tracked": 5, "clock": clock, **changes})


def _taken(buckets: TokenBuckets[str], count: int, key: str = "a") -> list[float]:
    return [buckets.take(key) for _ in range(count)]


class TestBuckets:
    """Token buckets in bounded memory."""

    def test_a_full_bucket_gives_its_burst_and_tokens_come_back_at_the_rate(self, clock):
        buckets = _buckets(clock)
        assert _taken(buckets, 100) == [0, 0, 0] + [0.5] * 97  # asking makes it no emptier

        clock.advance(1)
        assert _taken(buckets, 3) == [0, 0, 0.5]
        clock.advance(3600)
        assert _taken(buckets, 4) == [0, 0, 0, 0.5]
        assert buckets.take("b") == 0

    def test_a_released_token_can_be_taken_again_and_never_makes_more_than_a_full_bucket(self, clock):
        buckets = _buckets(clock, burst=2)
        _taken(buckets, 2)
        for _ in range(5):
            buckets.release("a")

        assert len(buckets) == 0  # a full one needs no memory
        assert _taken(buckets, 3) == [0, 0, 0.5]

    def test_memory_is_bounded_and_the_least_recently_used_is_forgotten(self, clock):
        buckets = _buckets(clock, burst=1)
        for key in "abcdea":
            buckets.take(key)

        buckets.take("f")

        assert len(buckets) == 5
        assert [buckets.take(key) > 0 for key in "afb"] == [True, True, False]

    def test_threads_together_get_no_more_than_the_burst(self, clock):
        buckets = _buckets(clock, burst=500)
        start = threading.Barrier(8)

        def take(_number: int) -> int:
            start.wait(60)
            return sum(buckets.take("a") == 0 for _ in range(200))

        with ThreadPoolExecutor(8) as threads:
            assert sum(threads.map(take, range(8))) == 500


class TestCallLimits:
    """The limits of one server."""

    @pytest.fixture
    def limits(self, clock) -> CallLimits:
        return CallLimits(LIMITS, clock=clock)

    def test_an_identity_that_calls_too_often_learns_when_to_come_back(self, limits):
        for _ in range(3):
            limits.count_call(*CALLER)

        with pytest.raises(ResourcesExhausted) as caught:
            limits.count_call(*CALLER)

        assert caught.value.retry_after_seconds == 0.5
        assert "0.5 seconds" in str(caught.value)
        limits.count_call("https://other.example", "alice")

    def test_an_address_is_turned_away_after_too_many_refusals(self, limits, clock):
        for _ in range(2):
            limits.count_refusal("192.0.2.1")

        with pytest.raises(ResourcesExhausted) as caught:
            limits.count_refusal("192.0.2.1")
        clock.advance(1)
        limits.count_refusal("192.0.2.1")

        assert caught.value.retry_after_seconds == 1

    def test_accepted_credentials_do_not_count_and_of_undecided_ones_a_quarter(self, limits, clock):
        for _ in range(100):
            limits.count_refusal("192.0.2.2")
            limits.forgive_refusal("192.0.2.2")
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
    def test_who_can_be_the_same_host_shares_a_bucket(self, limits, first, second, is_shared):
        for _ in range(2):
            limits.count_refusal(first)

        was_shared = False
        try:
            limits.count_refusal(second)
        except ResourcesExhausted:
            was_shared = True

        assert was_shared is is_shared

    def test_calls_that_are_turned_away_are_counted(self, clock):
        metrics = AccessMetrics()
        limits = CallLimits(LIMITS, clock=clock, metrics=metrics)
        refused = 0
        for count in (*[lambda: limits.count_call(*CALLER)] * 5, *[lambda: limits.count_refusal("192.0.2.1")] * 3):
            try:
                count()
            except ResourcesExhausted:
                refused += 1

        found = metrics.registry.get_sample_value
        assert refused == 3
        assert found("micromegas_access_rate_limited_total", {"by": "identity"}) == 2
        assert found("micromegas_access_rate_limited_total", {"by": "address"}) == 1

    def test_the_wait_is_rounded_up_to_milliseconds(self, clock):
        limits = CallLimits(RateLimits(calls_per_second=3, burst_calls=1), clock=clock)
        limits.count_call(*CALLER)

        with pytest.raises(ResourcesExhausted) as caught:
            limits.count_call(*CALLER)

        assert caught.value.retry_after_seconds == 0.334

    def test_changed_limits_count_from_the_next_call_and_equal_ones_forget_nothing(self, clock):
        limits = [RateLimits(calls_per_second=1.0, burst_calls=1)]
        calls = CallLimits(lambda: limits[-1], clock=clock)
        calls.count_call(*CALLER)

        limits.append(RateLimits(calls_per_second=1.0, burst_calls=1))
        with pytest.raises(ResourcesExhausted):
            calls.count_call(*CALLER)
        limits.append(RateLimits(calls_per_second=1.0, burst_calls=2))

        calls.count_call(*CALLER)
