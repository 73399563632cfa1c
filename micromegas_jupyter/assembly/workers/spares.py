"""The worker that waits: started, not listening, and ready to take over at once when another one has to be ended.

When that is so is `supervisor`'s decision.
"""

from collections.abc import Callable
from typing import Final

from micromegas_jupyter.assembly.workers.process import State, WorkerProcess
from micromegas_jupyter.assembly.workers.slots import Slot

#: A server that has just started is busy with other things, and seldom needs it so soon.
FIRST_SECONDS: Final = 5.0


class SparePlace:
    """The place of the worker that waits; belongs to a supervisor and is covered by its lock.

    Args:
        is_kept: Whether there is always one; otherwise one is started when `ask_for` says so.
        start: Starts one; None when that fails.
        silent_seconds: How long it may say nothing before it is ended.
    """

    def __init__(self, *, is_kept: bool, start: Callable[[], WorkerProcess | None], silent_seconds: float) -> None:
        self._is_kept = is_kept
        self._start = start
        self._silent_seconds = silent_seconds
        self._slot = Slot(number=0)

    @property
    def worker(self) -> WorkerProcess | None:
        """Who waits, or is being started to."""
        return self._slot.current

    @property
    def is_waiting(self) -> bool:
        """Whether one could take over at once."""
        return self._slot.current is not None and self._slot.current.state is State.SPARE

    def begin(self, now: float) -> None:
        """Note that the workers answer."""
        self._slot.start_at = now + FIRST_SECONDS

    def ask_for(self) -> None:
        """Start one, if there is none."""
        if self._slot.current is None:
            self._slot.current = self._start()

    def take(self) -> WorkerProcess | None:
        """Return who waits, for another place; None when nobody does."""
        worker, self._slot.current = self._slot.current, None
        return None if worker is None or worker.state is State.ENDED else worker

    def discard(self) -> None:
        """End who waits or is being started; the next one starts from what holds then."""
        worker = self.take()
        if worker is not None:
            worker.kill()

    def look(self, now: float, *, is_calm: bool) -> None:
        """Bury one that ended, end one that is silent, and start one where one is kept and missing.

        Args:
            now: The time, on the supervisor's clock.
            is_calm: Whether all other workers answer; those come first.
        """
        worker = self._slot.current
        if worker is None:
            if self._is_kept and is_calm and now >= self._slot.start_at:
                self._slot.current = self._start()
                if self._slot.current is None:
                    self._slot.note_failure(now)
        elif worker.state is State.ENDED:
            self._slot.current = None
            self._slot.note_failure(now)
        elif worker.state is State.SPARE:
            self._slot.failures = 0
            if now - worker.heard_at > self._silent_seconds:
                worker.kill()
