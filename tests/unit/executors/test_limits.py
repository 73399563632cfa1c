"""One caller gets so many places and no more; whoever has too many statements ended has to wait."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.errors import ResourcesExhausted
from micromegas_jupyter.executors.scheduling import EndedLimit, RunningLimit

if TYPE_CHECKING:
    from tests.fakes.clock import FakeClock

ANN, BOB, CY = ("id", "ann"), ("id", "bob"), ("id", "cy")


def _limit(max_running: int = 3, max_per_caller: int = 2, seconds: float = 60) -> RunningLimit:
    return RunningLimit(max_running=max_running, max_per_caller=max_per_caller, queue_timeout_seconds=seconds)


async def _tick() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_a_caller_waits_for_their_own_place_while_others_pass() -> None:
    async def scenario() -> list[bool]:
        limit = _limit()
        await limit.acquire(ANN)
        await limit.acquire(ANN)
        third = asyncio.create_task(limit.acquire(ANN))
        await _tick()
        await limit.acquire(BOB)
        seen = [third.done()]
        limit.release(BOB)
        await _tick()
        seen.append(third.done())
        limit.release(ANN)
        await third
        return [*seen, third.done()]

    assert asyncio.run(scenario()) == [False, False, True]


def test_places_are_given_in_the_order_of_asking() -> None:
    async def scenario() -> list[str]:
        limit, order = _limit(max_running=1, max_per_caller=1), []

        async def run(caller: tuple[str, str]) -> None:
            await limit.acquire(caller)
            order.append(caller[1])
            limit.release(caller)

        await limit.acquire(ANN)
        tasks = [asyncio.create_task(run(caller)) for caller in (BOB, ANN, CY)]
        await _tick()
        limit.release(ANN)
        await asyncio.gather(*tasks)
        assert (limit.running_count, limit.waiting_count) == (0, 0)
        return order

    assert asyncio.run(scenario()) == ["bob", "ann", "cy"]


def test_a_wait_ends_in_time() -> None:
    async def scenario() -> None:
        limit = _limit(max_running=1, seconds=0.01)
        await limit.acquire(ANN)
        with pytest.raises(ResourcesExhausted) as caught:
            await limit.acquire(BOB)
        assert caught.value.limit == "queue"
        assert (limit.running_count, limit.waiting_count) == (1, 0)

    asyncio.run(scenario())


@pytest.mark.parametrize(("callers", "waiting"), [([ANN] * 100, 8), ([BOB, CY] * 100, 8 + 8)])
def test_so_many_wait_and_the_next_is_refused_at_once(callers: list[tuple[str, str]], waiting: int) -> None:
    async def scenario() -> tuple[int, int]:
        limit = _limit(max_running=2, max_per_caller=1)
        await limit.acquire(ANN)
        await limit.acquire(BOB)
        tasks = [asyncio.create_task(limit.acquire(caller)) for caller in callers]
        await _tick()
        refused = [task for task in tasks if task.done()]
        assert {type(task.exception()) for task in refused} == {ResourcesExhausted}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (limit.running_count, limit.waiting_count) == (2, 0)
        return len(tasks) - len(refused), len(refused)

    assert asyncio.run(scenario()) == (waiting, len(callers) - waiting)


def test_whoever_gives_up_at_the_moment_of_their_turn_gives_it_to_the_next() -> None:
    async def scenario() -> tuple[int, int]:
        limit = _limit(max_running=1)
        await limit.acquire(ANN)
        first, second = (asyncio.create_task(limit.acquire(caller)) for caller in (BOB, CY))
        await _tick()
        limit.release(ANN)  # it is the turn of the first, who has not noticed
        first.cancel()
        await asyncio.wait({first, second})
        assert first.cancelled()
        assert second.exception() is None
        return limit.running_count, limit.waiting_count

    assert asyncio.run(scenario()) == (1, 0)


def test_who_has_too_many_statements_ended_within_a_minute_waits_a_minute(clock: FakeClock) -> None:
    limit = EndedLimit(3, clock=clock)
    for _ in range(2):
        limit.note(ANN)
        clock.advance(20)
    limit.check(ANN)
    limit.note(ANN)

    with pytest.raises(ResourcesExhausted) as caught:
        limit.check(ANN)
    limit.check(BOB)

    assert (caught.value.limit, caught.value.retry_after_seconds) == ("ended_statements", 60)
    clock.advance(59)
    with pytest.raises(ResourcesExhausted):
        limit.check(ANN)
    clock.advance(1)
    limit.check(ANN)


def test_ends_that_are_further_apart_than_a_minute_are_no_reason_to_wait(clock: FakeClock) -> None:
    limit = EndedLimit(3, clock=clock)
    for _ in range(10):
        limit.note(ANN)
        clock.advance(31)

        limit.check(ANN)


def test_without_a_limit_nobody_waits(clock: FakeClock) -> None:
    limit = EndedLimit(0, clock=clock)
    for _ in range(100):
        limit.note(ANN)

    limit.check(ANN)
