from __future__ import annotations

import pickle
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.tokens.refresh import Freshness
from micromegas_jupyter.auth.tokens.service import (
    ServiceToken,
    ServiceTokenCache,
    checked_token,
    clock_offset,
    jwt_service_token,
    opaque_service_token,
)
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import LoginFailed, MicromegasError, ProviderMisbehaved, ProviderUnavailable
from tests.fakes.mint import NOW, mint
from tests.fakes.tracebacks import traceback_with_variables

if TYPE_CHECKING:
    from tests.fakes.clock import FakeClock


class Fetches:
    """Gives a new token each time, or the failure that is set."""

    def __init__(self, clock: FakeClock, lifetime_seconds: float | None = 3600) -> None:
        self.clock = clock
        self.lifetime_seconds = lifetime_seconds
        self.failure: Exception | None = None
        self.everyone_calls: threading.Barrier | None = None
        self.count = 0

    def __call__(self) -> ServiceToken:
        self.count += 1
        if self.everyone_calls is not None:
            self.everyone_calls.wait(60)
        if self.failure is not None:
            raise self.failure
        now = self.clock.now()
        ends = None if self.lifetime_seconds is None else now + timedelta(seconds=self.lifetime_seconds)
        return ServiceToken(text=Secret(f"token-{self.count}"), obtained_at=now, expires_at=ends)


@pytest.fixture
def fetches(clock: FakeClock) -> Fetches:
    return Fetches(clock)


@pytest.fixture
def kept(fetches: Fetches, clock: FakeClock) -> ServiceTokenCache:
    return ServiceTokenCache(fetches, clock=clock)


def test_a_token_is_kept_until_five_minutes_before_its_end(kept: ServiceTokenCache, clock: FakeClock) -> None:
    first = kept.get_token()
    clock.advance(3299)
    still = kept.get_token()
    clock.advance(1)

    assert (first, still, kept.get_token()) == ("token-1", "token-1", "token-2")


def test_a_short_lived_token_is_kept_for_three_quarters_of_its_life(
    kept: ServiceTokenCache, fetches: Fetches, clock: FakeClock
) -> None:
    fetches.lifetime_seconds = 60
    kept.get_token()
    clock.advance(44)
    still = kept.get_token()
    clock.advance(1)

    assert (still, kept.get_token()) == ("token-1", "token-2")


@pytest.mark.parametrize(("lifetime_seconds", "kept_seconds"), [(None, 225), (10 * 86400, 86100)])
def test_a_token_of_unknown_or_endless_life_is_kept_for_a_bounded_time(
    kept: ServiceTokenCache, fetches: Fetches, clock: FakeClock, lifetime_seconds: float | None, kept_seconds: float
) -> None:
    fetches.lifetime_seconds = lifetime_seconds
    kept.get_token()
    clock.advance(kept_seconds - 1)
    still = kept.get_token()
    clock.advance(1)

    assert (still, kept.get_token()) == ("token-1", "token-2")


@pytest.mark.parametrize(
    "failure", [ProviderUnavailable("down"), ProviderMisbehaved("odd"), LoginFailed("no"), MicromegasError("else")]
)
def test_a_valid_token_serves_on_whatever_makes_a_fetch_fail(
    kept: ServiceTokenCache, fetches: Fetches, clock: FakeClock, failure: Exception
) -> None:
    kept.get_token()
    fetches.failure = failure
    clock.advance(3400)

    assert kept.get_token() == "token-1"
    assert fetches.count == 2


def test_an_ended_token_is_never_given_when_a_fetch_fails(
    kept: ServiceTokenCache, fetches: Fetches, clock: FakeClock
) -> None:
    kept.get_token()
    fetches.failure = ProviderUnavailable("down")
    clock.advance(3600)

    with pytest.raises(ProviderUnavailable):
        kept.get_token()


def test_failed_fetches_are_spaced_while_the_token_is_valid(
    kept: ServiceTokenCache, fetches: Fetches, clock: FakeClock
) -> None:
    kept.get_token()
    fetches.failure = ProviderUnavailable("down")
    clock.advance(3400)

    for _ in range(50):
        kept.get_token()

    assert fetches.count == 2


def test_the_next_token_is_due_when_the_kept_one_begins_to_end(kept: ServiceTokenCache, clock: FakeClock) -> None:
    before = kept.renewal_due_at()
    kept.get_token()

    due_at = kept.renewal_due_at()

    assert before is None
    assert due_at == clock.now() + timedelta(seconds=3300)
    clock.advance(3299)
    assert kept.get_token() == "token-1"
    clock.advance(1)
    assert kept.get_token() == "token-2"


@pytest.mark.parametrize(("lifetime_seconds", "due_seconds"), [(60, 45), (None, 225), (10 * 86400, 86100)])
def test_short_unknown_and_endless_lives_are_due_as_they_are_kept(
    kept: ServiceTokenCache, fetches: Fetches, clock: FakeClock, lifetime_seconds: float | None, due_seconds: float
) -> None:
    fetches.lifetime_seconds = lifetime_seconds

    kept.get_token()

    assert kept.renewal_due_at() == clock.now() + timedelta(seconds=due_seconds)


def test_nothing_is_due_after_a_refusal(kept: ServiceTokenCache) -> None:
    kept.invalidate(kept.get_token())

    assert kept.renewal_due_at() is None


def test_a_refused_token_is_fetched_anew(kept: ServiceTokenCache) -> None:
    first = kept.get_token()

    kept.invalidate(first)

    assert kept.get_token() == "token-2"


def test_a_late_refusal_of_an_older_token_leaves_the_newer_one(kept: ServiceTokenCache, fetches: Fetches) -> None:
    first = kept.get_token()
    kept.invalidate(first)
    second = kept.get_token()

    kept.invalidate(first)

    assert kept.get_token() == second
    assert fetches.count == 2


def test_a_server_that_refuses_everything_costs_a_token_each_ten_seconds_at_most(
    kept: ServiceTokenCache, fetches: Fetches, clock: FakeClock
) -> None:
    for _ in range(20):
        kept.invalidate(kept.get_token())
        clock.advance(0.1)
    within_two_seconds = fetches.count
    clock.advance(10)
    kept.invalidate(kept.get_token())

    assert within_two_seconds == 2
    assert kept.get_token() == "token-3"


def test_a_refusal_before_any_token_is_harmless(kept: ServiceTokenCache) -> None:
    kept.invalidate("anything")

    assert kept.get_token() == "token-1"


def test_a_token_that_ends_before_it_comes_is_a_matter_of_clocks(kept: ServiceTokenCache, fetches: Fetches) -> None:
    fetches.lifetime_seconds = -1

    with pytest.raises(LoginFailed) as caught:
        kept.get_token()

    assert "clock" in caught.value.remedy


def test_threads_that_need_a_token_at_once_fetch_one(kept: ServiceTokenCache, fetches: Fetches) -> None:
    fetches.everyone_calls = threading.Barrier(16)
    found: list[str] = []

    def call_while_another_fetches() -> None:
        barrier = fetches.everyone_calls
        assert barrier is not None
        barrier.wait(30)
        found.append(kept.get_token())

    first = threading.Thread(target=lambda: found.append(kept.get_token()))
    others = [threading.Thread(target=call_while_another_fetches) for _ in range(15)]
    for thread in (first, *others):
        thread.start()
    for thread in (first, *others):
        thread.join(60)

    assert found == ["token-1"] * 16
    assert fetches.count == 1


def test_no_token_can_be_pickled_or_seen(kept: ServiceTokenCache) -> None:
    kept.get_token()

    with pytest.raises(TypeError):
        pickle.dumps(kept)
    assert "token-1" not in repr(ServiceToken(text=Secret("token-1"), obtained_at=NOW))


def test_the_end_of_a_jwt_is_its_own() -> None:
    token = jwt_service_token(Secret(mint(expires_in=900)), audience="lake", now=NOW, source="Somebody")

    assert token.expires_at == NOW + timedelta(seconds=900)
    assert token.freshness(NOW) is Freshness.FRESH


def test_the_end_of_a_jwt_is_told_by_the_clock_of_its_giver() -> None:
    ahead = NOW + timedelta(minutes=20)

    token = jwt_service_token(Secret(mint(expires_in=3600)), audience="lake", now=NOW, source="Somebody", date=ahead)

    assert token.expires_at == NOW + timedelta(minutes=40)


@pytest.mark.parametrize("audience", ["lake", ["other", "lake"]])
def test_a_jwt_for_the_audience_that_was_asked_for_is_accepted(audience: object) -> None:
    assert jwt_service_token(Secret(mint(audience=audience)), audience="lake", now=NOW, source="Somebody")


@pytest.mark.parametrize("audience", ["lakeside", "", ["other"], None, 7, {"lake": 1}])
def test_a_jwt_for_another_audience_is_refused(audience: object) -> None:
    with pytest.raises(ProviderMisbehaved, match="Somebody gave a token for a different audience"):
        jwt_service_token(Secret(mint(audience=audience)), audience="lake", now=NOW, source="Somebody")


@pytest.mark.parametrize("token", ["opaque", "a.b.c", mint(without=["exp"]), mint(exp="soon")])
def test_a_token_that_is_no_jwt_or_never_ends_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(ProviderMisbehaved) as caught:
        jwt_service_token(Secret(token), audience=None, now=NOW, source="Somebody")

    assert token not in str(caught.value)


def test_the_life_of_an_opaque_token_is_what_its_giver_says() -> None:
    ends = NOW + timedelta(seconds=60)

    assert opaque_service_token(Secret(mint(expires_in=900)), now=NOW, expires_at=ends).expires_at == ends


def test_without_a_word_from_its_giver_a_jwt_says_its_own_end() -> None:
    token = opaque_service_token(Secret(mint(expires_in=900)), now=NOW, expires_at=None)

    assert token.expires_at == NOW + timedelta(seconds=900)


def test_an_opaque_token_without_a_word_has_no_known_end() -> None:
    assert opaque_service_token(Secret("opaque"), now=NOW, expires_at=None).expires_at is None


@pytest.mark.parametrize("value", ["s3same token", "s3same\n", ["s3same"]])
def test_a_refusal_shows_nothing_of_the_value_not_even_with_all_variables(value: object) -> None:
    with pytest.raises(ProviderMisbehaved) as caught:
        checked_token(value, source="Somebody")

    shown = traceback_with_variables(caught.value)
    assert "source = 'Somebody'" in shown
    assert "s3same" not in shown


@pytest.mark.parametrize("value", [None, "", 7, "a b", "a\nb", "tökén", "x" * 70_000, ["a"]])
def test_a_value_that_is_no_token_is_refused(value: object) -> None:
    with pytest.raises(ProviderMisbehaved, match="Somebody gave no usable token"):
        checked_token(value, source="Somebody")


@pytest.mark.parametrize(("seconds", "expected"), [(1, 0), (-2, 0), (3, 3), (-600, -600), (90_000, 0)])
def test_a_difference_of_clocks_counts_within_reason(seconds: int, expected: int) -> None:
    assert clock_offset(NOW + timedelta(seconds=seconds), NOW) == timedelta(seconds=expected)


def test_without_a_date_there_is_no_difference_of_clocks() -> None:
    assert clock_offset(None, NOW) == timedelta()
