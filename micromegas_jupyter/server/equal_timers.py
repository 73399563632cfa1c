"""Many waits of one length, with one timer of the event loop for all of them, and deadlines that use it.

Nearly every wait of a call ends long before its time. A timer for each is set and cancelled for nothing, several times
in each call; here a wait is put into a table and taken out again.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self


class Timed(Protocol):
    """Something that is told when its time is over."""

    def time_is_over(self) -> None:
        """Take note of it; called on the event loop."""
        ...


class EqualTimers:
    """Tells each of many things when its time is over. Belongs to one event loop at a time.

    Args:
        seconds: How much time each has.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._running: dict[Timed, float] = {}  # whose time is over first comes first, as all have the same
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._running)

    def start(self, what: Timed) -> None:
        """Let the time of something begin, that is not in here."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._timer = loop, None  # the loop before is closed, and its timer with it
        ends_at = loop.time() + self._seconds
        self._running[what] = ends_at
        if self._timer is None:
            self._timer = loop.call_at(ends_at, self._end_what_is_due)

    def drop(self, what: Timed) -> None:
        """Have nothing happen when the time of something is over, if it is not over yet."""
        self._running.pop(what, None)

    def _end_what_is_due(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        while self._running:
            first, ends_at = next(iter(self._running.items()))
            if ends_at > loop.time():
                self._timer = loop.call_at(ends_at, self._end_what_is_due)
                return
            del self._running[first]
            first.time_is_over()


class Deadline:
    """Cancels what the body of a `with` waits for when its time is over, as `asyncio.timeout` does.

    Args:
        timers: Say when its time is over; None when only somebody else does, by `time_is_over`.
        error: Makes what is raised then in place of the cancellation.
    """

    __slots__ = ("_cancelling", "_error", "_is_over", "_task", "_timers")

    def __init__(self, timers: EqualTimers | None, error: Callable[[], Exception]) -> None:
        self._timers = timers
        self._error = error
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._is_over = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline needs a task that it can cancel")
        self._task, self._cancelling = task, task.cancelling()
        if self._timers is not None:
            self._timers.start(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if self._timers is not None:
            self._timers.drop(self)
        # Who else cancelled the task wants it to end, whatever is over here.
        if self._is_over and task is not None and task.uncancel() <= self._cancelling and _is_cancellation(kind):
            raise self._error() from None

    def time_is_over(self) -> None:
        """End the body, if it still runs."""
        if self._task is not None and not self._is_over:
            self._is_over = True
            self._task.cancel()


def _is_cancellation(kind: type[BaseException] | None) -> bool:
    return kind is not None and issubclass(kind, asyncio.CancelledError)
