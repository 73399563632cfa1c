"""Threads on which planning runs."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.engine.pool import PlanningPool
from micromegas_jupyter.errors import ResourcesExhausted

if TYPE_CHECKING:
    from collections.abc import Iterator


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


def test_a_cancelled_wait_never_begins(pool: PlanningPool) -> None:
    release = threading.Event()
    began: list[str] = []
    first = pool.submit(lambda: release.wait(10))
    second = pool.submit(lambda: began.append("second"))

    second.cancel()
    release.set()

    assert first.result(30) is True
    assert pool.submit(lambda: list(began)).result(30) == []


def test_too_many_waiting_functions_are_refused(pool: PlanningPool) -> None:
    release = threading.Event()
    running = threading.Event()

    def wait() -> bool:
        running.set()
        return release.wait(10)

    pool.submit(wait)
    assert running.wait(30)
    waiting = [pool.submit(lambda: None) for _ in range(64)]

    with pytest.raises(ResourcesExhausted, match="Too many"):
        pool.submit(lambda: None)

    release.set()
    assert [future.result(30) for future in waiting] == [None] * 64


def test_a_closed_pool_refuses_and_cancels() -> None:
    pool = PlanningPool(1)
    release = threading.Event()
    running = threading.Event()

    def wait() -> bool:
        running.set()
        return release.wait(10)

    first = pool.submit(wait)
    assert running.wait(30)
    second = pool.submit(lambda: None)

    pool.close()
    pool.close()
    release.set()

    assert first.result(30) is True
    assert second.cancelled()
    with pytest.raises(ResourcesExhausted, match="closed"):
        pool.submit(lambda: None)
