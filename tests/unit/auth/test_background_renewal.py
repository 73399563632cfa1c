"""A token that is renewed in the background, and the thread that does it."""

from __future__ import annotations

import contextlib
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
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from tests.fakes.clock import FakeClock

DEADLINE_SECONDS = 60


@pytest.fixture(autouse=True)
def _long_stop_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping waits as long as a busy machine needs; nothing here hangs for ever."""
    monkeypatch.setattr("micromegas_jupyter.auth.tokens.manager.STOP_WAIT_SECONDS", DEADLINE_SECONDS)


@contextlib.contextmanager
def running(renewal: BackgroundRenewal) -> Iterator[BackgroundRenewal]:
    renewal.start()
    yield renewal
    renewal.stop()


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


class Waiting:
    """Moves the clock in place of waiting, and stops the renewal after so many waits."""

    def __init__(self, clock: FakeClock, *, count: int, also_asleep_seconds: float = 0.0) -> None:
        self.seconds: list[float] = []
        self.done = threading.Event()
        self._clock = clock
        self._count = count
        self._also_asleep_seconds = also_asleep_seconds

    def __call__(self, seconds: float) -> bool:
        self.seconds.append(seconds)
        self._clock.advance(seconds + self._also_asleep_seconds)
        if len(self.seconds) < self._count:
            return False
        self.done.set()
        return True


def run(
    provider: Renewable, waiting: Waiting, on_change: Callable[[MicromegasError | None], None] | None = None
) -> None:
    """Let a background renewal work until its last wait."""
    with running(BackgroundRenewal(provider, clock=provider.clock, on_change=on_change, wait=waiting)):
        assert waiting.done.wait(DEADLINE_SECONDS)


def test_a_token_is_renewed_when_it_is_due_and_not_before(clock):
    provider = Renewable(clock, due_in_seconds=150)
    began = clock.monotonic()

    run(provider, Waiting(clock, count=4))

    assert [asked_at - began for asked_at in provider.asked_at] == [150]


def test_failures_are_followed_by_longer_and_longer_pauses(clock):
    provider = Renewable(clock, due_in_seconds=0)
    provider.failures = [ProviderUnavailable("down")] * 6
    waiting = Waiting(clock, count=7)

    run(provider, waiting)

    assert waiting.seconds == [5, 10, 20, 40, 60, 60, 60]


def test_a_token_that_is_still_due_afterwards_counts_as_not_renewed(clock):
    provider = Renewable(clock, due_in_seconds=0)
    provider.get_token = lambda: "the old one"  # type: ignore[method-assign]
    waiting = Waiting(clock, count=3)
    changes: list[MicromegasError | None] = []

    run(provider, waiting, changes.append)

    assert waiting.seconds == [5, 10, 20]
    assert changes == []


def test_the_listener_is_told_once_that_renewing_fails_and_once_that_it_works_again(clock):
    provider = Renewable(clock, due_in_seconds=0)
    provider.failures = [ProviderUnavailable("down"), ProviderUnavailable("down"), LoginRequired("ended")]
    changes: list[MicromegasError | None] = []

    run(provider, Waiting(clock, count=5), changes.append)

    assert [type(change) for change in changes] == [ProviderUnavailable, LoginRequired, type(None)]


def test_a_defect_of_the_provider_does_not_end_the_thread(clock, caplog):
    provider = Renewable(clock, due_in_seconds=0)
    provider.failures = [ZeroDivisionError("secret-token")]
    changes: list[MicromegasError | None] = []

    with caplog.at_level(logging.DEBUG):
        run(provider, Waiting(clock, count=3), changes.append)

    assert [type(change) for change in changes] == [InternalError, type(None)]
    assert "secret-token" not in caplog.text
    assert "could not be renewed in the background" in caplog.text


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
    with running(BackgroundRenewal(provider, clock=clock)) as renewal:
        del provider
        gc.collect()
        renewal._thread.join(DEADLINE_SECONDS)

        assert forgotten() is None
        assert not renewal._thread.is_alive()
