"""Tests of `settings.access`."""

import pytest

from micromegas_jupyter.config.access import RateLimits, as_rate_limits
from micromegas_jupyter.errors import ConfigurationError


def test_limits_that_are_left_out_have_their_defaults():
    assert as_rate_limits({}, "KEY") == RateLimits(
        calls_per_second=2000.0, burst_calls=10_000, refusals_per_second=500.0, burst_refusals=5000, max_tracked=10_000
    )


def test_every_limit_is_read():
    limits = {
        "calls_per_second": 0.5,
        "burst_calls": 2,
        "refusals_per_second": 3,
        "burst_refusals": 4,
        "max_tracked": 5,
    }

    assert as_rate_limits(limits, "KEY") == RateLimits(
        calls_per_second=0.5, burst_calls=2, refusals_per_second=3.0, burst_refusals=4, max_tracked=5
    )


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (None, "KEY"),
        ([], "KEY"),
        ({"calls": 5}, "KEY"),
        ({"calls_per_second": 0}, "KEY.calls_per_second"),
        ({"calls_per_second": "5"}, "KEY.calls_per_second"),
        ({"refusals_per_second": 1_000_001}, "KEY.refusals_per_second"),
        ({"burst_calls": 0}, "KEY.burst_calls"),
        ({"burst_calls": 1.5}, "KEY.burst_calls"),
        ({"burst_refusals": 1_000_001}, "KEY.burst_refusals"),
        ({"max_tracked": None}, "KEY.max_tracked"),
        ({"max_tracked": 1_000_001}, "KEY.max_tracked"),
    ],
)
def test_a_limit_out_of_range_is_refused_by_its_place(value, key):
    with pytest.raises(ConfigurationError) as caught:
        as_rate_limits(value, "KEY")

    assert caught.value.key == key
