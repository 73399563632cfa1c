"""Tests of `access.cache`."""

from datetime import timedelta

from micromegas_jupyter.access.cache import ExpiringCache


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
