from __future__ import annotations

import threading

import pytest

from micromegas_jupyter.auth.timely_call import CallTookTooLong, TimelyCalls


def test_an_answer_that_comes_in_time_is_returned() -> None:
    assert TimelyCalls().run(lambda: 7, timeout_seconds=10) == 7


def test_what_the_call_raises_is_raised() -> None:
    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        TimelyCalls().run(fail, timeout_seconds=10)


def test_while_a_call_is_overdue_the_next_fails_at_once_and_is_not_made() -> None:
    calls, release, made = TimelyCalls(), threading.Event(), threading.Event()
    with pytest.raises(CallTookTooLong):
        calls.run(lambda: release.wait(30), timeout_seconds=0.05)

    with pytest.raises(CallTookTooLong):
        calls.run(made.set, timeout_seconds=10)

    assert not made.is_set()
    release.set()


def test_once_an_overdue_call_has_ended_calls_are_made_again() -> None:
    calls, release, ended = TimelyCalls(), threading.Event(), threading.Event()

    def slow() -> None:
        release.wait(30)
        ended.thread = threading.current_thread()  # type: ignore[attr-defined]
        ended.set()

    with pytest.raises(CallTookTooLong):
        calls.run(slow, timeout_seconds=0.05)
    release.set()
    assert ended.wait(30)
    ended.thread.join(60)  # type: ignore[attr-defined]

    assert calls.run(lambda: 7, timeout_seconds=10) == 7
