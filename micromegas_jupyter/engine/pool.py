"""A few threads with large stacks, on which DataFusion plans.

Planning recurses with the statement and blocks its thread, so it belongs neither on the event loop nor on a thread with
the usual stack. How long a caller waits is the caller's deadline; a plan that never ends keeps its thread, which only
ending the process mends.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from micromegas_jupyter.engine.owner import QUERY_OWNER, QueryOwner
from micromegas_jupyter.errors import ResourcesExhausted
from micromegas_jupyter.seams import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

STACK_BYTES: Final = 64 << 20
_WAITING_PER_THREAD: Final = 64

# `threading.stack_size` is one setting for the process.
_stack_size_lock = threading.Lock()


class _Job:
    """A function that waits or runs, and who waits for it.

    A future of `concurrent.futures` can do the same; to make one, chain it and settle it costs as much as a small plan.
    """

    __slots__ = ("_claim", "function", "has_ended", "loop", "waiter")

    def __init__(self, function: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.function = function
        self.loop = loop
        self.waiter: asyncio.Future[Any] = loop.create_future()
        self.has_ended = False
        self._claim = [True]

    def claim(self) -> bool:
        """Return True to the first who asks: the thread that runs it, or the caller who drops it."""
        with suppress(IndexError):
            return self._claim.pop()  # of two threads, one finds it
        return False

    def settle(self, result: object, error: BaseException | None) -> None:
        """Tell the waiter, on its loop."""
        if self.waiter.done():
            return
        if error is None:
            self.waiter.set_result(result)
        else:
            self.waiter.set_exception(error)


class PlanningPool:
    """Runs functions on its own daemon threads; safe to use from several loops and threads.

    The threads are daemons, so that a plan that never ends cannot keep the process from exiting.
    """

    def __init__(self, threads: int) -> None:
        self._waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._most_waiting = threads * _WAITING_PER_THREAD
        self._closed = threading.Event()
        # Functions that run although nobody waits for them, since when, and whose; covered by `_abandoned_lock`.
        self._abandoned: dict[_Job, tuple[float, QueryOwner | None]] = {}
        self._abandoned_lock = threading.Lock()
        #: Called when there is one more of them, and when one of them has come to its end.
        self.on_abandoned: Callable[[], None] | None = None
        self.on_abandoned_end: Callable[[], None] | None = None
        self._threads = [
            threading.Thread(target=self._work, name=f"planning-{index}", daemon=True) for index in range(threads)
        ]
        with _stack_size_lock:
            before = threading.stack_size(STACK_BYTES)
            try:
                for thread in self._threads:
                    thread.start()
            finally:
                threading.stack_size(before)

    async def run(self, function: Callable[[], _T]) -> _T:
        """Return what `function` returns; cancelling the wait drops it if it has not begun.

        Raises:
            ResourcesExhausted: Too many functions wait already, or the pool is closed.
        """
        if self._closed.is_set():
            raise ResourcesExhausted("The engine is closed.", remedy="Start the server again.")
        if self._waiting.qsize() >= self._most_waiting:
            raise ResourcesExhausted(
                "Too many statements wait to be planned.", remedy="Try again in a moment.", limit="planning"
            )
        job = _Job(function, asyncio.get_running_loop())
        self._waiting.put(job)
        try:
            found: _T = await job.waiter
        except asyncio.CancelledError:
            if not job.claim():
                self._note_abandoned(job)
            raise
        return found

    def abandoned_since(self) -> float | None:
        """Return since when, on the monotonic clock, a function runs that nobody waits for; None when none does."""
        with self._abandoned_lock:
            return min((since for since, _ in self._abandoned.values()), default=None)

    def abandoned_owner(self) -> QueryOwner | None:
        """Return whose the oldest of these functions is, when that is known."""
        with self._abandoned_lock:
            return min(self._abandoned.values(), key=lambda found: found[0], default=(0.0, None))[1]

    def _note_abandoned(self, job: _Job) -> None:
        with self._abandoned_lock:
            if job.has_ended:
                return
            self._abandoned[job] = (SYSTEM_CLOCK.monotonic(), QUERY_OWNER.get())
        if self.on_abandoned is not None:
            self.on_abandoned()

    def close(self) -> None:
        """Let running functions end and cancel the waiting ones; returns at once."""
        self._closed.set()
        with suppress(queue.Empty):
            while True:
                waiting = self._waiting.get_nowait()
                if waiting is not None and waiting.claim():
                    waiting.has_ended = True
                    _call_in(waiting.loop, waiting.waiter.cancel)
        for _ in self._threads:
            self._waiting.put(None)

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            if job.claim():
                self._run(job)
            # A thread that waits must not keep a query's stream alive.
            del job

    def _run(self, job: _Job) -> None:
        result = error = None
        try:
            result = job.function()
        except BaseException as raised:  # noqa: BLE001 - a panic is no Exception; the waiting caller gets it
            error = raised
        with self._abandoned_lock:
            job.has_ended = True
            was_abandoned = self._abandoned.pop(job, None) is not None
        _call_in(job.loop, job.settle, result, error)
        # The traceback holds this frame, which would hold the error.
        del result, error
        if was_abandoned and self.on_abandoned_end is not None:
            self.on_abandoned_end()


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *arguments: object) -> None:
    """Have a function called on a loop; one that is closed has nobody who waits."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *arguments)
