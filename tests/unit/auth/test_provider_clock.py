"""How far the provider's clock is ahead, by the Date headers of its answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.provider_connection import TimedCalls
from micromegas_jupyter.core.http import HttpAnswer

if TYPE_CHECKING:
    from tests.fakes.clock import FakeClock


class DatedCalls:
    """Implements `http.ProviderCalls`: every answer takes `trip_seconds` and is dated halfway, in whole seconds."""

    ahead_seconds = trip_seconds = sleep_seconds = 0.0
    status = 200
    has_date = True
    date: datetime | None = None

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock

    def fetch_json(self, _url: str) -> HttpAnswer:
        self._clock.advance(self.trip_seconds / 2)
        told = (self._clock.now() + timedelta(seconds=self.ahead_seconds)).replace(microsecond=0)
        self._clock.advance(self.trip_seconds / 2)
        self._clock.sleep_through(self.sleep_seconds)
        return HttpAnswer(status=self.status, body={}, date=self.date or (told if self.has_date else None))

    def post_form(self, url: str, _fields: object, **_options: object) -> HttpAnswer:
        return self.fetch_json(url)


@pytest.fixture
def raw(clock: FakeClock) -> DatedCalls:
    return DatedCalls(clock)


@pytest.fixture
def timed(raw: DatedCalls, clock: FakeClock) -> TimedCalls:
    return TimedCalls(raw, clock)


def post(timed: TimedCalls) -> None:
    timed.post_form("https://id.example.com/token", {})


def fetch(timed: TimedCalls) -> None:
    timed.fetch_json("https://id.example.com/keys")


@pytest.mark.parametrize("ahead_seconds", [300, -300, 86_000, -86_000])
@pytest.mark.parametrize("call", [fetch, post])
def test_a_difference_is_measured_to_about_a_second(call, ahead_seconds, timed, raw, clock):
    raw.ahead_seconds = ahead_seconds

    call(timed)

    assert timed.offset_seconds == pytest.approx(ahead_seconds, abs=1)
    assert timed.now() == clock.now() + timedelta(seconds=timed.offset_seconds)


@pytest.mark.parametrize("ahead_seconds", [0, 1.5, -1.5, 2, -2])
@pytest.mark.parametrize("into_the_second", [0, 0.5, 0.999])
def test_a_difference_of_two_seconds_is_none(ahead_seconds, into_the_second, timed, raw, clock):
    clock.advance(into_the_second)
    raw.ahead_seconds = ahead_seconds

    post(timed)

    assert timed.offset_seconds == 0.0


@pytest.mark.parametrize("ahead_seconds", [90_000, -90_000])
def test_a_difference_of_more_than_a_day_is_not_followed_but_known(ahead_seconds, timed, raw, clock):
    raw.ahead_seconds = ahead_seconds

    post(timed)

    assert timed.now() == clock.now()
    assert timed.measured_offset_seconds == pytest.approx(ahead_seconds, abs=1)


def test_a_document_that_a_cache_may_have_kept_does_not_overrule_the_answer_to_a_post(timed, raw):
    raw.ahead_seconds = 3000
    fetch(timed)
    raw.ahead_seconds = 0
    post(timed)
    raw.ahead_seconds = -3000
    fetch(timed)

    assert timed.measured_offset_seconds == 0.0


@pytest.mark.parametrize(
    "changes",
    [
        {"ahead_seconds": 300, "status": 400},
        {"ahead_seconds": 300, "has_date": False},
        {"ahead_seconds": 5, "trip_seconds": 8},
        {"sleep_seconds": 7200},
        {"sleep_seconds": -7200},
        {"date": datetime(1, 1, 1, tzinfo=UTC)},
        {"date": datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)},
    ],
    ids=["a failure", "no date", "a slow answer", "slept", "set back", "the first year", "the last year"],
)
def test_what_says_nothing_about_the_clocks_is_not_followed(changes, timed, raw):
    for name, value in changes.items():
        setattr(raw, name, value)

    post(timed)

    assert timed.offset_seconds == 0.0
