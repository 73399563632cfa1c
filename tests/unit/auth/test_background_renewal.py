"""A token that is renewed in the background, and the thread that does it."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.tokens.manager import BackgroundRenewal
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import InternalError, LoginRequired, MicromegasError, ProviderUnavailable

if TYPE_CHECKING:
    from datetime import datetime

    from tests.fakes.clock import FakeClock

DEADLINE_SECONDS = 60


@pytest.fixture(autouse=True)
def _long_stop_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping waits as long as a busy machine needs; nothing here hangs for ever."""
    monkeypatch.setattr("micromegas_jupyter.auth.tokens.manager.STOP_WAIT_SECONDS", DEADLINE_SECONDS)


class Renewable:
    """A provider whose token is renewed for an hour at a time, unless `failures` come first."""

    def __init__(self, clock: FakeClock, *, due_in_seconds: float | None = 3300) -> None:
        self.clock = clock
        self.due_at = None if due_in_seconds is None else clock.now() + timedelta(seconds=due_in_seconds)
        self.failures: list[BaseException | None] = []
        self.asked_at: list[float] = []
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Event()

    def get_token(self) -> str:
        self.asked_at.append(self.clock.monotonic())
        self.asked.set()
        assert self.gate.wait(DEADLINE_SECONDS), "the test never opened the gate"
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        if self.due_at is not None and self.due_at <= self.clock.now():
            self.due_at = self.clock.now() + timedelta(seconds=3300)
        return "token"

    def renewal_due_at(self) -> datetime | None:
        return self.due_at


class Run:
    """Lets a background renewal work for so many waits, which move the clock."""

    def __init__(self, provider: Renewable, *, count: int) -> None:
        self.seconds: list[float] = []
        self.changes: list[MicromegasError | None] = []
        self.done = threading.Event()
        self._clock, self._count = provider.clock, count
        renewal = BackgroundRenewal(provider, clock=provider.clock, on_change=self.changes.append, wait=self._wait)
        renewal.start()
        assert self.done.wait(DEADLINE_SECONDS)
        renewal.stop()

    def _wait(self, seconds: float) -> bool:
        self.seconds.append(seconds)
        self._clock.advance(seconds)
        if len(self.seconds) == self._count:
            self.done.set()
        return self.done.is_set()


def test_a_token_is_renewed_when_it_is_due_and_not_before(clock):
    provider = Renewable(clock, due_in_seconds=150)
    began = clock.monotonic()

    Run(provider, count=4)

    assert [asked_at - began for asked_at in provider.asked_at] == [150]


def test_failures_are_followed_by_longer_and_longer_pauses_and_each_change_is_told_once(clock):
    provider = Renewable(clock, due_in_seconds=0)
    provider.failures = [*[ProviderUnavailable("down")] * 5, LoginRequired("ended")]

    run = Run(provider, count=7)

    assert run.seconds == [5, 10, 20, 40, 60, 60, 60]
    assert [type(change) for change in run.changes] == [ProviderUnavailable, LoginRequired, type(None)]


def test_a_token_that_is_still_due_afterwards_counts_as_not_renewed(clock):
    provider = Renewable(clock, due_in_seconds=0)
    provider.get_token = lambda: "the old one"  # type: ignore[method-assign]

    run = Run(provider, count=3)

    assert (run.seconds, run.changes) == ([5, 10, 20], [])


def test_a_defect_of_the_provider_does_not_end_the_thread(clock, caplog):
    provider = Renewable(clock, due_in_seconds=0)
    provider.failures = [ZeroDivisionError("secret-token")]

    with caplog.at_level(logging.DEBUG):
        run = Run(provider, count=3)

    assert [type(change) for change in run.changes] == [InternalError, type(None)]
    assert "secret-token" not in caplog.text


def test_stopping_ends_a_waiting_thread_at_once(clock):
    renewal = BackgroundRenewal(Renewable(clock), clock=clock)
    renewal.start()
    began = SYSTEM_CLOCK.monotonic()

    renewal.stop()

    assert not renewal._thread.is_alive()
    assert SYSTEM_CLOCK.monotonic() - began < 9


def test_stopping_waits_for_a_renewal_that_is_on_its_way(clock):
    provider = Renewable(clock, due_in_seconds=0)
    provider.gate.clear()
    renewal = BackgroundRenewal(provider, clock=clock)
    renewal.start()
    assert provider.asked.wait(DEADLINE_SECONDS)
    opener = threading.Timer(0.1, provider.gate.set)
    opener.start()

    renewal.stop()

    assert provider.gate.is_set()
    assert not renewal._thread.is_alive()


def test_the_thread_ends_when_the_provider_is_forgotten(clock):
    provider = Renewable(clock)
    forgotten = weakref.ref(provider)
    renewal = BackgroundRenewal(provider, clock=clock)
    renewal.start()

    del provider
    gc.collect()
    renewal._thread.join(DEADLINE_SECONDS)

    assert forgotten() is None
    assert not renewal._thread.is_alive()
