"""Waits of one length end in order, with one timer, and a deadline ends what its body waits for."""

from __future__ import annotations

import asyncio

import pytest

from micromegas_jupyter.errors import DeadlineExceeded
from micromegas_jupyter.server.equal_timers import Deadline, EqualTimers


class Told:
    """Takes note of its end."""

    def __init__(self, name: str, told: list[str], all_told: asyncio.Event) -> None:
        self._name = name
        self._told = told
        self._all_told = all_told

    def time_is_over(self) -> None:
        self._told.append(self._name)
        if self._name == "last":
            self._all_told.set()


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("too late")


def test_each_is_told_in_turn_unless_it_was_dropped() -> None:
    async def scenario() -> list[str]:
        timers, told, all_told = EqualTimers(0.01), list[str](), asyncio.Event()
        dropped = Told("dropped", told, all_told)
        for one in (Told("first", told, all_told), dropped, Told("last", told, all_told)):
            timers.start(one)
            await asyncio.sleep(0)
        timers.drop(dropped)
        timers.drop(dropped)
        async with asyncio.timeout(60):
            await all_told.wait()
        assert len(timers) == 0
        return told

    assert asyncio.run(scenario()) == ["first", "last"]


def test_they_work_on_a_new_loop_after_the_one_before_was_closed() -> None:
    timers = EqualTimers(0.01)

    async def leave_one() -> None:
        timers.start(Told("left", [], asyncio.Event()))

    async def scenario() -> None:
        with pytest.raises(DeadlineExceeded), Deadline(timers, _late):
            await asyncio.Event().wait()

    asyncio.run(leave_one())
    asyncio.run(scenario())


def test_a_body_that_ends_in_time_is_left_alone() -> None:
    async def scenario() -> int:
        timers = EqualTimers(60)
        with Deadline(timers, _late):
            await asyncio.sleep(0)
        return len(timers)

    assert asyncio.run(scenario()) == 0


def test_who_cancels_the_task_meanwhile_gets_their_way() -> None:
    async def wait(deadline: Deadline, started: asyncio.Event) -> None:
        with deadline:
            started.set()
            await asyncio.Event().wait()

    async def scenario() -> None:
        deadline, started = Deadline(None, _late), asyncio.Event()
        task = asyncio.create_task(wait(deadline, started))
        await started.wait()
        deadline.time_is_over()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_an_error_of_the_body_is_not_taken_for_the_deadlines() -> None:
    async def scenario() -> None:
        deadline = Deadline(None, _late)
        with deadline:
            deadline.time_is_over()
            raise ValueError("the body's own")

    with pytest.raises(ValueError, match="own"):
        asyncio.run(scenario())


def test_time_that_is_over_after_the_body_ends_nothing() -> None:
    async def scenario() -> None:
        deadline = Deadline(None, _late)
        with deadline:
            pass
        deadline.time_is_over()
        await asyncio.sleep(0)

    asyncio.run(scenario())


def test_a_deadline_needs_a_task() -> None:
    with pytest.raises(RuntimeError), Deadline(None, _late):
        pass
