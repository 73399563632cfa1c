"""Readiness is asked for once at a time, remembered for a second, and never waited for beyond its deadline."""

from __future__ import annotations

import asyncio
import threading

from micromegas_jupyter.server.http_endpoint import NotReady, ReadinessProbe
from tests.fakes.clock import FakeClock

RELEASE_SECONDS = 30.0


class Question:
    """Answers what it is told to, and counts how often it is asked."""

    def __init__(self, *answers: NotReady | None) -> None:
        self.answers = list(answers)
        self.count = 0

    def __call__(self) -> NotReady | None:
        self.count += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_that_the_server_is_ready_is_remembered_for_a_second() -> None:
    clock, question = FakeClock(), Question(None)

    async def ask_three_times() -> list[NotReady | None]:
        probe = ReadinessProbe(question, clock=clock)
        first, second = await probe.check(), await probe.check()
        clock.advance(1.5)
        return [first, second, await probe.check()]

    assert asyncio.run(ask_three_times()) == [None, None, None]
    assert question.count == 2


def test_that_the_server_is_not_ready_is_never_remembered() -> None:
    question = Question(NotReady.STORAGE, None)

    async def ask_twice() -> list[NotReady | None]:
        probe = ReadinessProbe(question, clock=FakeClock())
        return [await probe.check(), await probe.check()]

    assert asyncio.run(ask_twice()) == [NotReady.STORAGE, None]


def test_storage_that_hangs_is_asked_once_and_waited_for_two_seconds() -> None:
    release = threading.Event()
    count = 0

    def hang() -> NotReady | None:
        nonlocal count
        count += 1
        release.wait(RELEASE_SECONDS)
        return None

    async def ask_at_once() -> list[NotReady | None]:
        probe = ReadinessProbe(hang, clock=FakeClock())
        waiting = await asyncio.gather(*(probe.check() for _ in range(50)))
        release.set()
        return [*waiting, await probe.check()]

    answers = asyncio.run(ask_at_once())

    assert set(answers[:50]) == {NotReady.TIMEOUT}
    assert answers[50] is None
    assert count == 1
