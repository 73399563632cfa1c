"""The store that forgets."""

from micromegas_jupyter.demo.provider.bounded import BoundedStore
from tests.fakes.clock import FakeClock


def test_a_value_leaves_when_its_time_is_over(clock: FakeClock) -> None:
    store: BoundedStore[int] = BoundedStore(clock=clock, lifetime_seconds=60, max_entries=10)
    store.put("a", 1)

    clock.advance(59)
    before = store.get("a")
    clock.advance(1)

    assert before == 1
    assert store.get("a") is None
    assert len(store) == 0


def test_the_oldest_value_leaves_when_there_is_no_room(clock: FakeClock) -> None:
    store: BoundedStore[int] = BoundedStore(clock=clock, lifetime_seconds=60, max_entries=2)

    for number, name in enumerate(["a", "b", "c"]):
        store.put(name, number)

    assert store.get("a") is None
    assert store.values() == [1, 2]


def test_a_value_put_again_is_young_again(clock: FakeClock) -> None:
    store: BoundedStore[int] = BoundedStore(clock=clock, lifetime_seconds=60, max_entries=2)
    store.put("a", 1)
    store.put("b", 2)
    clock.advance(30)

    store.put("a", 3)
    clock.advance(30)

    assert store.get("b") is None
    assert store.get("a") == 3


def test_a_taken_value_is_gone(clock: FakeClock) -> None:
    store: BoundedStore[int] = BoundedStore(clock=clock, lifetime_seconds=60, max_entries=2)
    store.put("a", 1)

    assert store.take("a") == 1
    assert store.take("a") is None
