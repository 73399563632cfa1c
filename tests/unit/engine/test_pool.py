"""Threads on which planning runs."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.engine.pool import PlanningPool
from micromegas_jupyter.errors import ResourcesExhausted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def pool() -> Iterator[PlanningPool]:
    pool = PlanningPool(1)
    yield pool
    pool.close()


def test_a_function_runs_on_a_thread_of_the_pool(pool: PlanningPool) -> None:
    name = asyncio.run(pool.run(lambda: threading.current_thread().name))

    assert name == "planning-0"


def test_the_process_keeps_its_own_stack_size(pool: PlanningPool) -> None:
    assert asyncio.run(pool.run(threading.stack_size)) == 0


def test_an_exception_reaches_the_caller(pool: PlanningPool) -> None:
    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        asyncio.run(pool.run(fail))


def test_a_panic_reaches_the_caller_and_the_thread_lives_on(pool: PlanningPool) -> None:
    class PanicException(BaseException):
        pass

    def fail() -> None:
        raise PanicException

    with pytest.raises(PanicException):
        asyncio.run(pool.run(fail))

    assert asyncio.run(pool.run(lambda: 7)) == 7


class Holding:
    """A function that keeps its thread until it is released."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self._has_begun = threading.Event()

    def __call__(self) -> bool:
        self._has_begun.set()
        return self.release.wait(30)

    async def begin(self, pool: PlanningPool) -> asyncio.Task[bool]:
        task = asyncio.create_task(pool.run(self))
        assert await asyncio.to_thread(self._has_begun.wait, 30)
        return task


async def start(pool: PlanningPool, function: Callable[[], object], count: int = 1) -> list[asyncio.Task[object]]:
    """Ask for a function that many times, and let each ask."""
    tasks = [asyncio.create_task(pool.run(function)) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


def test_a_cancelled_wait_never_begins(pool: PlanningPool) -> None:
    async def check() -> None:
        holding, began = Holding(), list[str]()
        first = await holding.begin(pool)
        [second] = await start(pool, lambda: began.append("second"))

        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        assert pool.abandoned_since() is None
        holding.release.set()

        assert await first is True
        assert await pool.run(lambda: list(began)) == []

    asyncio.run(check())


def test_what_runs_although_nobody_waits_is_known_until_it_ends(pool: PlanningPool) -> None:
    async def check() -> None:
        told, has_ended = list[str](), threading.Event()
        pool.on_abandoned, pool.on_abandoned_end = lambda: told.append("abandoned"), has_ended.set
        holding = Holding()
        task = await holding.begin(pool)

        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        assert pool.abandoned_since() is not None
        assert told == ["abandoned"]
        holding.release.set()
        assert await asyncio.to_thread(has_ended.wait, 30)
        assert pool.abandoned_since() is None
        assert await pool.run(lambda: 7) == 7

    asyncio.run(check())


def test_a_function_outlives_the_loop_that_asked_for_it(pool: PlanningPool) -> None:
    async def leave() -> Holding:
        holding = Holding()
        await holding.begin(pool)
        return holding

    asyncio.run(leave()).release.set()

    assert asyncio.run(pool.run(lambda: 7)) == 7


def test_too_many_waiting_functions_are_refused(pool: PlanningPool) -> None:
    async def check() -> None:
        holding = Holding()
        await holding.begin(pool)
        waiting = await start(pool, lambda: None, 64)

        with pytest.raises(ResourcesExhausted, match="Too many"):
            await pool.run(lambda: None)

        holding.release.set()
        assert await asyncio.gather(*waiting) == [None] * 64

    asyncio.run(check())


def test_a_closed_pool_refuses_and_cancels() -> None:
    async def check() -> None:
        pool, holding = PlanningPool(1), Holding()
        first = await holding.begin(pool)
        [second] = await start(pool, lambda: None)

        pool.close()
        pool.close()
        await asyncio.gather(second, return_exceptions=True)
        holding.release.set()

        assert await first is True
        assert second.cancelled()
        assert pool.abandoned_since() is None
        with pytest.raises(ResourcesExhausted, match="closed"):
            await pool.run(lambda: None)

    asyncio.run(check())
