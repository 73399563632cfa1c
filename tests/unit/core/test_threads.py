"""Work on another thread gives its result, its error and its context back."""

from __future__ import annotations

import contextvars
import threading

import pytest

from micromegas_jupyter.core.system import run_interruptibly

_cell: contextvars.ContextVar[str] = contextvars.ContextVar("cell")


def test_the_result_comes_back() -> None:
    assert run_interruptibly(lambda: threading.current_thread().name) == "micromegas-call"


def test_the_error_comes_back() -> None:
    def fail() -> None:
        raise KeyError("a")

    with pytest.raises(KeyError):
        run_interruptibly(fail)


def test_the_work_sees_the_callers_context() -> None:
    _cell.set("c1")

    assert run_interruptibly(_cell.get) == "c1"


def test_work_that_takes_longer_than_one_wait_is_waited_for() -> None:
    never = threading.Event()

    assert run_interruptibly(lambda: never.wait(0.3)) is False
