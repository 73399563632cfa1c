from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.tokens.refresh import RefreshLock
from micromegas_jupyter.errors import ProviderUnavailable

if TYPE_CHECKING:
    from tests.fakes.clock import FakeClock


def fail() -> int:
    raise ProviderUnavailable("down")


def test_a_renewal_gives_its_result(clock: FakeClock) -> None:
    assert RefreshLock[int](clock).run(lambda: 7, is_optional=False) == 7


def test_a_failure_is_raised_and_spaces_the_next_needed_attempt(clock: FakeClock) -> None:
    lock = RefreshLock[int](clock)
    with pytest.raises(ProviderUnavailable):
        lock.run(fail, is_optional=False)

    started = time.monotonic()
    result = lock.run(lambda: 7, is_optional=False)

    assert result == 7
    assert 0.4 < time.monotonic() - started < 30


def test_an_optional_renewal_is_left_out_for_half_a_minute_after_a_failure(clock: FakeClock) -> None:
    lock = RefreshLock[int](clock)
    with pytest.raises(ProviderUnavailable):
        lock.run(fail, is_optional=True)

    at_once = lock.run(lambda: 7, is_optional=True)
    clock.advance(30)
    later = lock.run(lambda: 7, is_optional=True)

    assert (at_once, later) == (None, 7)


def test_an_optional_renewal_does_not_wait_for_another(clock: FakeClock) -> None:
    lock = RefreshLock[int](clock)
    began, go_on = threading.Event(), threading.Event()

    def slow() -> int:
        began.set()
        go_on.wait(60)
        return 7

    thread = threading.Thread(target=lock.run, args=(slow,), kwargs={"is_optional": False})
    thread.start()
    assert began.wait(30)

    assert lock.run(lambda: 8, is_optional=True) is None

    go_on.set()
    thread.join(60)


class CountedLock:
    """A lock that says when so many have asked for it."""

    def __init__(self, expected: int) -> None:
        self._lock = threading.Lock()
        self._asked = threading.Semaphore(0)
        self._expected = expected

    def acquire(self, *, timeout: float) -> bool:
        self._asked.release()
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        self._lock.release()

    def wait_until_all_have_asked(self) -> bool:
        return all(self._asked.acquire(timeout=30) for _ in range(self._expected))


def test_those_who_waited_share_one_failure(clock: FakeClock) -> None:
    lock = RefreshLock[int](clock)
    lock._lock = line = CountedLock(8)  # type: ignore[assignment]
    began, go_on = threading.Event(), threading.Event()
    attempts: list[int] = []
    failures: list[ProviderUnavailable] = []

    def slow() -> int:
        attempts.append(1)
        began.set()
        go_on.wait(60)
        return fail()

    def call() -> None:
        try:
            lock.run(slow, is_optional=False)
        except ProviderUnavailable as error:
            failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(8)]
    threads[0].start()
    assert began.wait(30)
    for thread in threads[1:]:
        thread.start()
    assert line.wait_until_all_have_asked()
    go_on.set()
    for thread in threads:
        thread.join(60)

    assert len(failures) == 8
    assert len(attempts) == 1


def test_the_failure_of_an_earlier_sign_in_leaves_no_renewal_of_a_new_one_out(clock: FakeClock) -> None:
    lock = RefreshLock[int](clock)
    with pytest.raises(ProviderUnavailable):
        lock.run(fail, is_optional=False, subject="first")

    same = lock.run(lambda: 7, is_optional=True, subject="first")
    new = lock.run(lambda: 8, is_optional=True, subject="second")

    assert (same, new) == (None, 8)
