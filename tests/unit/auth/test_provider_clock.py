"""How far the provider's clock is ahead, by the Date headers of its answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.provider_connection import TimedCalls
from micromegas_jupyter.core.http import HttpAnswer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from micromegas_jupyter.core.secrets import Secret
    from tests.fakes.clock import FakeClock


class DatedCalls:
    """Implements `http.ProviderCalls`: every answer takes `trip_seconds` and is dated halfway, in whole seconds."""

    def __init__(self, clock: FakeClock) -> None:
        self.ahead_seconds = 0.0
        self.trip_seconds = 0.0
        self.status = 200
        self.has_date = True
        self.date: datetime | None = None
        self.sleep_seconds = 0
        self._clock = clock

    def fetch_json(self, url: str) -> HttpAnswer:
        self._clock.advance(self.trip_seconds / 2)
        told = (self._clock.now() + timedelta(seconds=self.ahead_seconds)).replace(microsecond=0)
        self._clock.advance(self.trip_seconds / 2)
        self._clock.sleep_through(self.sleep_seconds)
        return HttpAnswer(status=self.status, body={}, date=self.date or (told if self.has_date else None))

    def post_form(
        self,
        url: str,
        fields: Mapping[str, str | Secret],
        *,
        headers: Mapping[str, str | Secret] | None = None,
        needs_body: bool = True,
    ) -> HttpAnswer:
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
@pytest.mark.parametrize("into_the_second", [0, 0.001, 0.5, 0.999])
def test_a_difference_of_two_seconds_is_none(ahead_seconds, into_the_second, timed, raw, clock):
    clock.advance(into_the_second)
    raw.ahead_seconds = ahead_seconds

    post(timed)

    assert timed.offset_seconds == 0.0


def test_a_slow_answer_does_not_pass_for_a_difference(timed, raw):
    raw.ahead_seconds, raw.trip_seconds = 5, 8

    post(timed)

    assert timed.offset_seconds == 0.0


@pytest.mark.parametrize("ahead_seconds", [90_000, -90_000])
def test_a_difference_of_more_than_a_day_is_not_followed_but_said(ahead_seconds, timed, raw, clock):
    raw.ahead_seconds = ahead_seconds

    post(timed)

    assert timed.offset_seconds == 0.0
    assert timed.now() == clock.now()
    assert timed.measured_offset_seconds == pytest.approx(ahead_seconds, abs=1)


def test_a_document_that_a_cache_may_have_kept_does_not_overrule_the_answer_to_a_post(timed, raw):
    post(timed)

    raw.ahead_seconds = -3000
    fetch(timed)

    assert timed.offset_seconds == 0.0


@pytest.mark.parametrize(("status", "has_date"), [(400, True), (404, True), (200, False)])
def test_failures_and_answers_without_a_date_say_nothing(status, has_date, timed, raw):
    raw.ahead_seconds, raw.status, raw.has_date = 300, status, has_date

    post(timed)

    assert timed.offset_seconds == 0.0


@pytest.mark.parametrize("date", [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)])
def test_the_ends_of_time_are_only_another_difference_that_is_not_followed(date, timed, raw, clock):
    raw.date = date

    post(timed)

    assert timed.now() == clock.now()


@pytest.mark.parametrize("seconds", [7200, -7200])
def test_a_machine_that_slept_during_a_call_measures_nothing(seconds, timed, raw):
    raw.sleep_seconds = seconds

    post(timed)

    assert timed.offset_seconds == 0.0
