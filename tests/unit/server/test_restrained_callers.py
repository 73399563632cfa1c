"""Callers who have to wait are refused until their time is over, and nobody else is."""

from __future__ import annotations

import pytest

from micromegas_jupyter.errors import ResourcesExhausted
from micromegas_jupyter.server.restrained_callers import MOST_CALLERS, RestrainedCallers
from tests.fakes.clock import FakeClock

ALICE, BOB = ("https://id.example", "alice"), ("https://id.example", "bob")


def test_a_caller_is_refused_until_the_time_is_over() -> None:
    clock = FakeClock()
    callers = RestrainedCallers(clock)
    callers.restrain(ALICE, 600.0)
    callers.check(BOB)

    with pytest.raises(ResourcesExhausted) as found:
        callers.check(ALICE)

    remedy = "Try again in 10 min, without cross joins, joins that have no equality and huge values."
    assert found.value.remedy == remedy
    assert found.value.retry_after_seconds == 600.0
    assert found.value.limit == "stuck_queries"
    clock.advance(600.0)
    callers.check(ALICE)


def test_only_so_many_callers_are_kept() -> None:
    callers = RestrainedCallers(FakeClock())
    for number in range(MOST_CALLERS + 1):
        callers.restrain(("issuer", str(number)), 600.0)

    callers.check(("issuer", "0"))
    with pytest.raises(ResourcesExhausted):
        callers.check(("issuer", "1"))
