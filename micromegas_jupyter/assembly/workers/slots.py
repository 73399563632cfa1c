"""One worker's place: who fills it, who leaves it, when a new one may be started after failures; and how all are."""

from dataclasses import dataclass, field
from typing import ClassVar, Final

from micromegas_jupyter.assembly.workers.process import State, WorkerProcess

_FIRST_DELAY_SECONDS: Final = 0.5
_LONGEST_DELAY_SECONDS: Final = 30.0
_LIVED_SECONDS: Final = 3.0


@dataclass(slots=True, kw_only=True)
class Slot:
    """A worker's place; belongs to a supervisor and is covered by its lock.

    Attributes:
        number: Which place, from 1.
        current: Who fills it; may still be starting.
        leaving: Who has been replaced and not ended yet.
        failures: How many ended in a row without having lived for a while.
        start_at: When the next one may be started, on the supervisor's clock.
    """

    LOOP_FAILURES: ClassVar[int] = 3

    number: int
    current: WorkerProcess | None = None
    leaving: list[WorkerProcess] = field(default_factory=list)
    failures: int = 0
    start_at: float = 0.0

    @property
    def is_ready(self) -> bool:
        """Whether its worker answers calls."""
        return self.current is not None and self.current.state is State.READY

    def note_ready(self, worker: WorkerProcess, now: float) -> None:
        """Forget failures once a worker has lived for a while."""
        if self.failures and worker.ready_at is not None and now - worker.ready_at > _LIVED_SECONDS:
            self.failures = 0

    def note_end(self, now: float, *, lived_seconds: float) -> None:
        """Decide when the next one may be started: at once after a life, later and later after failures."""
        if lived_seconds > _LIVED_SECONDS:
            self.failures, self.start_at = 0, now
        else:
            self.note_failure(now)

    def note_failure(self, now: float) -> None:
        """Count a failure; the first is followed by a start at once."""
        self.failures += 1
        delay = _FIRST_DELAY_SECONDS * 2 ** (min(self.failures, 10) - 2) if self.failures > 1 else 0.0
        self.start_at = now + min(delay, _LONGEST_DELAY_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersState:
    """How the workers are.

    Attributes:
        workers: How many there should be.
        ready: How many of them answer.
        is_stopping: Whether they are being ended for good.
        failures: How often the one that fails most has failed in a row.
        spares: How many more wait to take the place of one that has to be ended.
    """

    workers: int
    ready: int
    spares: int
    is_stopping: bool
    failures: int
