"""`BackgroundRenewal`: asks for a token whenever it is due, so that nobody has to wait for a renewal."""

import logging
import threading
import weakref
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import InternalError, MicromegasError

# A machine that slept, and a person who signs in or out elsewhere, are noticed within this time.
MAX_WAIT_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 5.0
# How long stopping waits for a renewal that has begun: a program that ends before the provider's answer is stored
# loses the sign-in where refresh tokens are used once.
STOP_WAIT_SECONDS = 3.0

_log = logging.getLogger(__name__)


class RenewableProvider(Protocol):
    """What can be kept fresh."""

    def get_token(self) -> str:
        """Return a token that is valid now, renewing it when that is due."""
        ...

    def renewal_due_at(self) -> datetime | None:
        """Return from when on `get_token` renews; None when there is nothing to renew."""
        ...


class BackgroundRenewal:
    """One thread that keeps one provider's token fresh, from `start` to `stop`.

    It keeps neither the provider nor itself alive: when either is forgotten, the thread ends. After a failure it waits
    five seconds, then twice as long each time, up to a minute.

    Args:
        provider: Whose token is kept fresh.
        clock: Tells the time.
        on_change: Gets an error when renewing begins to fail, and None when it works again; called in the thread.
        wait: Waits for so many seconds or until the renewal is stopped, and says whether it is; for tests.
    """

    def __init__(
        self,
        provider: RenewableProvider,
        *,
        clock: Clock,
        on_change: Callable[[MicromegasError | None], None] | None = None,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        stopped = threading.Event()
        loop = _Loop(
            # When the provider is forgotten, the thread wakes up and ends.
            provider=weakref.ref(provider, lambda _reference: stopped.set()),
            clock=clock,
            on_change=on_change,
            wait=wait or stopped.wait,
        )
        self._thread = threading.Thread(
            target=loop.run, args=(stopped,), name="micromegas-background-renewal", daemon=True
        )
        # Also called at the end of the program, while threads still run.
        self._finish = weakref.finalize(self, _finish, stopped, self._thread)

    def start(self) -> None:
        """Begin; only once."""
        self._thread.start()

    def stop(self) -> None:
        """End: at once while nothing is being renewed, else after the renewal or a few seconds."""
        self._finish()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.stop()


class _Loop:
    """What the thread does. It holds a weak reference to the provider, and none to its owner."""

    def __init__(
        self,
        *,
        provider: Callable[[], RenewableProvider | None],
        clock: Clock,
        on_change: Callable[[MicromegasError | None], None] | None,
        wait: Callable[[float], bool],
    ) -> None:
        self._provider = provider
        self._clock = clock
        self._on_change = on_change
        self._wait = wait
        self._notified: type[MicromegasError] | None = None
        self._pause_seconds = FIRST_PAUSE_SECONDS

    def run(self, stopped: threading.Event) -> None:
        while not stopped.is_set():
            pause_seconds = self._step()
            if pause_seconds is None or self._wait(pause_seconds):
                return

    def _step(self) -> float | None:
        """Renew if that is due, and return the seconds until the next look; None when there is no provider."""
        provider = self._provider()
        if provider is None:
            return None
        try:
            return self._renew_if_due(provider)
        except MicromegasError as error:
            self._notify(error.with_traceback(None))  # whoever keeps it must not keep the provider with it
        except Exception as error:  # noqa: BLE001 - the thread continues whatever happens
            _log.error("A token could not be renewed in the background.", extra={"kind": type(error).__name__})
            self._notify(InternalError("The token could not be renewed.", remedy="The log has more."))
        return self._next_pause()

    def _renew_if_due(self, provider: RenewableProvider) -> float:
        due_at = provider.renewal_due_at()
        if due_at is None or due_at <= self._clock.now():
            provider.get_token()  # without anything to renew it says whether there is a sign-in at all
            due_at = provider.renewal_due_at()
        if due_at is not None and due_at <= self._clock.now():
            return self._next_pause()  # the old token serves on, because it could not be renewed now
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._notify(None)
        if due_at is None:
            return MAX_WAIT_SECONDS
        return min(MAX_WAIT_SECONDS, (due_at - self._clock.now()).total_seconds())

    def _next_pause(self) -> float:
        pause_seconds = self._pause_seconds
        self._pause_seconds = min(MAX_WAIT_SECONDS, 2 * pause_seconds)
        return pause_seconds

    def _notify(self, error: MicromegasError | None) -> None:
        kind = None if error is None else type(error)
        if kind is self._notified or self._on_change is None:
            return
        self._notified = kind
        try:
            self._on_change(error)
        except Exception as failure:  # noqa: BLE001 - a failing listener must not end the thread
            _log.error("The listener of a background renewal failed.", extra={"kind": type(failure).__name__})


def _finish(stopped: threading.Event, thread: threading.Thread) -> None:
    stopped.set()
    if thread.is_alive() and thread is not threading.current_thread():
        thread.join(STOP_WAIT_SECONDS)
