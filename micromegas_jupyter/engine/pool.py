"""A few threads with large stacks, on which DataFusion plans.

Planning recurses with the statement and blocks its thread, so it belongs neither on the event loop nor on a thread with
the usual stack. How long a caller waits is the caller's deadline; a plan that never ends keeps its thread, which only
ending the process mends.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, TypeVar

from micromegas_jupyter.errors import ResourcesExhausted
from micromegas_jupyter.seams import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

STACK_BYTES: Final = 64 << 20
_WAITING_PER_THREAD: Final = 64

# `threading.stack_size` is one setting for the process.
_stack_size_lock = threading.Lock()


class PlanningPool:
    """Runs functions on its own daemon threads; safe to use from several loops and threads.

    The threads are daemons, so that a plan that never ends cannot keep the process from exiting.
    """

    def __init__(self, threads: int) -> None:
        self._waiting: queue.Queue[tuple[Future[object], Callable[[], object]] | None] = queue.Queue(
            threads * _WAITING_PER_THREAD
        )
        self._closed = threading.Event()
        # Functions that run although nobody waits for them, and since when; covered by `_abandoned_lock`.
        self._abandoned: dict[Future[Any], float] = {}
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
        future = self.submit(function)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if future.running():
                self._note_abandoned(future)
            raise

    def abandoned_since(self) -> float | None:
        """Return since when, on the monotonic clock, a function runs that nobody waits for; None when none does."""
        with self._abandoned_lock:
            return min(self._abandoned.values(), default=None)

    def _note_abandoned(self, future: Future[_T]) -> None:
        with self._abandoned_lock:
            self._abandoned[future] = SYSTEM_CLOCK.monotonic()
        future.add_done_callback(self._forget_abandoned)
        if self.on_abandoned is not None:
            self.on_abandoned()

    def _forget_abandoned(self, future: Future[_T]) -> None:
        with self._abandoned_lock:
            self._abandoned.pop(future, None)
        if self.on_abandoned_end is not None:
            self.on_abandoned_end()

    def submit(self, function: Callable[[], _T]) -> Future[_T]:
        """Queue `function` and return its future.

        Raises:
            ResourcesExhausted: Too many functions wait already, or the pool is closed.
        """
        future: Future[_T] = Future()
        if self._closed.is_set():
            raise ResourcesExhausted("The engine is closed.", remedy="Start the server again.")
        try:
            self._waiting.put_nowait((future, function))  # type: ignore[arg-type]  # a Future of _T holds an object
        except queue.Full as error:
            raise ResourcesExhausted(
                "Too many statements wait to be planned.", remedy="Try again in a moment.", limit="planning"
            ) from error
        return future

    def close(self) -> None:
        """Let running functions end and cancel the waiting ones; returns at once."""
        self._closed.set()
        while True:
            try:
                waiting = self._waiting.get_nowait()
            except queue.Empty:
                break
            if waiting is not None:
                waiting[0].cancel()
        for _ in self._threads:
            self._waiting.put_nowait(None)

    def _work(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            future, function = waiting
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - a panic is no Exception; the waiting caller gets it
                future.set_exception(error)
            else:
                future.set_result(result)
                # A thread that waits must not keep a query's stream alive.
                del result
            del waiting, future, function
