"""Work on another thread, so that the caller's thread stays free for Ctrl-C while the Flight library blocks."""

import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Final, TypeVar

# Some platforms deliver Ctrl-C only between two waits.
WAIT_SLICE_SECONDS: Final = 0.2

T = TypeVar("T")


def start_thread(target: Callable[[], None], *, name: str) -> threading.Thread:
    """Start a daemon thread in a copy of the caller's context (ipykernel finds the cell that prints by it)."""
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(target,), name=name, daemon=True)
    thread.start()
    return thread


def run_interruptibly(work: Callable[[], T]) -> T:
    """Run `work` on another thread and return its result; Ctrl-C leaves at once and lets it end by itself.

    `work` must end by a deadline of its own.
    """
    # Ctrl-C ends the wait of a `SimpleQueue` only with its time.
    outcome: queue.Queue[tuple[T, None] | tuple[None, BaseException]] = queue.Queue()

    def run() -> None:
        try:
            outcome.put((work(), None))
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread
            outcome.put((None, error))

    start_thread(run, name="micromegas-call")
    while True:
        try:
            result, error = outcome.get(timeout=WAIT_SLICE_SECONDS)
        except queue.Empty:
            continue
        if error is not None:
            raise error
        return result  # type: ignore[return-value] # the pair holds a result whenever it holds no error
