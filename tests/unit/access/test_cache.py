"""Tests of `access.cache`."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from micromegas_jupyter.access.oidc import ExpiringCache
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from tests.fakes.clock import FakeClock


class JumpingClock(FakeClock):
    """A clock whose wall time somebody sets."""

    def jump(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock()


def test_a_value_lasts_for_the_time_to_live(clock):
    cache: ExpiringCache[str] = ExpiringCache(clock=clock, max_entries=2, ttl_seconds=10)
    cache.put(b"a", "first")

    clock.advance(9)
    assert cache.get(b"a") == "first"
    clock.advance(1)
    assert cache.get(b"a") is None
    assert len(cache) == 0


def test_a_value_ends_earlier_when_told(clock):
    cache: ExpiringCache[str] = ExpiringCache(clock=clock, max_entries=2, ttl_seconds=10)
    cache.put(b"a", "first", ends_at=clock.now() + timedelta(seconds=3))

    clock.advance(2)
    assert cache.get(b"a") == "first"
    clock.advance(1)
    assert cache.get(b"a") is None


def test_the_least_used_value_makes_room(clock):
    cache: ExpiringCache[str] = ExpiringCache(clock=clock, max_entries=2, ttl_seconds=10)
    cache.put(b"a", "first")
    cache.put(b"b", "second")
    cache.get(b"a")

    cache.put(b"c", "third")

    assert [cache.get(key) for key in (b"a", b"b", b"c")] == ["first", None, "third"]


def test_a_value_is_replaced_and_lasts_anew(clock):
    cache: ExpiringCache[str] = ExpiringCache(clock=clock, max_entries=2, ttl_seconds=10)
    cache.put(b"a", "first")
    clock.advance(9)

    cache.put(b"a", "second")
    clock.advance(9)

    assert cache.get(b"a") == "second"
    assert len(cache) == 1


def test_a_wall_clock_that_jumps_ahead_ends_a_value_at_its_end(clock):
    cache: ExpiringCache[str] = ExpiringCache(clock=clock, max_entries=2, ttl_seconds=300)
    cache.put(b"a", "first", ends_at=clock.now() + timedelta(seconds=60))

    clock.jump(60)

    assert cache.get(b"a") is None


def test_a_wall_clock_that_is_set_back_does_not_lengthen_the_time_to_live(clock):
    cache: ExpiringCache[str] = ExpiringCache(clock=clock, max_entries=2, ttl_seconds=300)
    cache.put(b"a", "first", ends_at=clock.now() + timedelta(seconds=3600))

    clock.jump(-7200)
    clock.advance(299)
    assert cache.get(b"a") == "first"
    clock.advance(1)
    assert cache.get(b"a") is None


def test_everything_is_forgotten_at_once(clock):
    cache: ExpiringCache[str] = ExpiringCache(clock=clock, max_entries=2, ttl_seconds=10)
    cache.put(b"a", "first")

    cache.clear()

    assert (cache.get(b"a"), len(cache)) == (None, 0)


def test_a_cache_with_room_for_none_remembers_nothing(clock):
    cache: ExpiringCache[str] = ExpiringCache(clock=clock, max_entries=0, ttl_seconds=10)

    cache.put(b"a", "first")

    assert cache.get(b"a") is None


def test_a_value_that_is_always_used_outlives_a_hundred_others(clock):
    cache: ExpiringCache[str] = ExpiringCache(clock=clock, max_entries=4, ttl_seconds=10)
    cache.put(b"used", "kept")

    for number in range(100):
        assert cache.get(b"used") == "kept"
        cache.put(str(number).encode(), "new")

    assert len(cache) == 4


def test_when_all_values_are_used_there_is_still_room_for_a_new_one(clock):
    cache: ExpiringCache[int] = ExpiringCache(clock=clock, max_entries=100, ttl_seconds=10)
    for number in range(100):
        cache.put(str(number).encode(), number)
    for number in range(100):
        cache.get(str(number).encode())

    cache.put(b"new", 100)

    assert (cache.get(b"new"), len(cache)) == (100, 100)


def test_an_entry_that_was_replaced_meanwhile_is_not_forgotten_with_the_old_one(clock):
    cache: ExpiringCache[str] = ExpiringCache(clock=clock, max_entries=2, ttl_seconds=10)
    cache.put(b"a", "first")
    clock.advance(10)
    cache.put(b"a", "second")

    assert cache.get(b"a") == "second"


def test_many_threads_never_see_more_than_there_is_room_for():
    cache: ExpiringCache[int] = ExpiringCache(clock=SYSTEM_CLOCK, max_entries=50, ttl_seconds=60)
    start = threading.Barrier(8)

    def use(seed: int) -> list[bool]:
        start.wait(60)
        found = []
        for number in range(2000):
            key = (seed * 7 + number) % 200
            known = cache.get(str(key).encode())
            found.append(known in {None, key} and len(cache) <= 50)
            cache.put(str(key).encode(), key)
        return found

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(use, range(8)))

    assert all(all(answer) for answer in answers)


def test_an_entry_that_arrives_while_the_old_one_is_found_to_have_ended_stays(clock):
    cache: ExpiringCache[str] = ExpiringCache(clock=clock, max_entries=2, ttl_seconds=10)
    cache.put(b"a", "first")
    clock.advance(10)
    now = clock.now

    def replace_then_tell():
        cache.put(b"a", "second")
        return now()

    cache._now = replace_then_tell

    assert cache.get(b"a") is None
    cache._now = now
    assert cache.get(b"a") == "second"
