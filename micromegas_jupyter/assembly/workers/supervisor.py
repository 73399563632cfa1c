"""Keeps a number of worker processes running on one port: starts them, watches them, replaces those that fail.

What a worker serves is in its order. Supervision never waits for a worker without a deadline.
"""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from micromegas_jupyter.assembly.workers.asking import ask_workers
from micromegas_jupyter.assembly.workers.blame import Blame, describe_queries, read_queries
from micromegas_jupyter.assembly.workers.limits import MemoryLimits
from micromegas_jupyter.assembly.workers.order import WorkerOrder
from micromegas_jupyter.assembly.workers.peer import Facts
from micromegas_jupyter.assembly.workers.process import PROGRAM, State, WorkerProcess
from micromegas_jupyter.assembly.workers.restraint import Restraint
from micromegas_jupyter.assembly.workers.slots import Slot, WorkersState
from micromegas_jupyter.assembly.workers.spares import SparePlace
from micromegas_jupyter.errors import InternalError, MicromegasError
from micromegas_jupyter.seams import SYSTEM_CLOCK, Clock

START_SECONDS: Final = 120.0
_TICK_SECONDS: Final = 0.25
# A worker says every second that its event loop turns; a loaded machine may make it late, seldom that late.
_SILENT_SECONDS: Final = 15.0
_LATE_TICK_SECONDS: Final = 3.0
_STUCK_GOODBYE_SECONDS: Final = 0.7
_MEMORY_GOODBYE_SECONDS: Final = 3.0
_AFTER_DRAIN_SECONDS: Final = 8.0
ASK_SECONDS: Final = 5.0
_MOST_LAST_COUNTS: Final = 64

_LOG: Final = logging.getLogger("micromegas_jupyter.supervisor")


class Supervisor:
    """Supervises workers from `start` to `stop`; use it once.

    `_lock` covers slots, workers' states and the counts; it is free while a worker is waited for.

    Args:
        order: The workers' task; each gets it with its own number.
        workers: How many.
        limits: One worker's memory.
        keeps_spare: Whether one more waits, ready to take over.
        max_stuck: How many queries of one caller may end their worker in ten minutes; 0 for any number.
        spill_directory: Where the workers' folders for temporary files are; None for the system's.
        program: The module that a worker runs.
        clock: Measures silence and waits.
    """

    def __init__(  # noqa: PLR0913 - what a server is told to be
        self,
        order: WorkerOrder,
        *,
        workers: int,
        limits: MemoryLimits,
        keeps_spare: bool = False,
        max_stuck: int = 0,
        spill_directory: str | None = None,
        program: str = PROGRAM,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._order = order
        self._limits = limits
        self._spill_directory = spill_directory
        self._program = program
        self._clock = clock
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._slots = [Slot(number=number) for number in range(1, workers + 1)]
        self._spare = SparePlace(
            is_kept=keeps_spare, start=lambda: self._spawned(0, is_spare=True), silent_seconds=_SILENT_SECONDS
        )
        self._blame = Blame(Restraint(max_stuck), workers=self._ready_workers, clock=clock)
        self._is_stopping = False
        self._watching: threading.Thread | None = None
        self._last_counts: deque[tuple[int, int, str]] = deque(maxlen=_MOST_LAST_COUNTS)
        self.replaced: dict[str, int] = {}

    def spawn(self) -> None:
        """Start the workers; `start` waits for them."""
        with self._lock:
            for slot in self._slots:
                slot.current = self._new_worker(slot.number)

    def start(self) -> None:
        """Wait until all workers answer, then watch them.

        Raises:
            MicromegasError: What kept a worker from starting.
        """
        if all(slot.current is None for slot in self._slots):
            self.spawn()
        deadline = self._clock.monotonic() + START_SECONDS
        with self._lock:
            while not all(slot.is_ready for slot in self._slots):
                for slot in self._slots:
                    if slot.current is not None and slot.current.state is State.ENDED:
                        raise slot.current.failure or InternalError(
                            f"A worker process ended before it was ready ({slot.current.exit_words}).",
                            remedy="Look at the server's log.",
                        )
                if not self._changed.wait(max(0.0, deadline - self._clock.monotonic())):
                    raise InternalError("The worker processes did not start in time.", remedy="Start the server again.")
            self._spare.begin(self._clock.monotonic())
        self._watching = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._watching.start()

    def stop(self, drain_seconds: float) -> None:
        """Let running calls end within `drain_seconds`, then end everything; safe to call twice."""
        with self._lock:
            self._is_stopping = True
            self._changed.notify_all()
            workers = self._all_workers()
        for worker in workers:
            if worker.state in {State.READY, State.LEAVING}:
                worker.tell("retire", seconds=drain_seconds, why="")
            else:
                worker.kill()  # it has no calls yet
        deadline = self._clock.monotonic() + drain_seconds + _AFTER_DRAIN_SECONDS
        for worker in workers:
            if not worker.wait(max(0.0, deadline - self._clock.monotonic())):
                worker.kill()
                worker.wait(_AFTER_DRAIN_SECONDS)
        if self._watching is not None:
            self._watching.join(_AFTER_DRAIN_SECONDS)

    def kill(self) -> None:
        """End all workers at once; takes no lock, so that a signal handler may call it."""
        self._is_stopping = True
        for worker in self._all_workers():
            worker.kill()

    def state(self) -> WorkersState:
        """Tell how the workers are; returns at once."""
        with self._lock:
            return WorkersState(
                workers=len(self._slots),
                ready=sum(slot.is_ready for slot in self._slots),
                spares=int(self._spare.is_waiting),
                is_stopping=self._is_stopping,
                failures=max(slot.failures for slot in self._slots),
            )

    def pids(self) -> dict[int, int]:
        """Return the process ids of the workers that answer, by number."""
        with self._lock:
            return {slot.number: slot.current.pid for slot in self._slots if slot.current and slot.is_ready}

    def facts(self) -> Facts:
        """Return what the first worker said when it was ready."""
        with self._lock:
            current = self._slots[0].current
            return {} if current is None else dict(current.facts)

    def take_last_counts(self) -> list[tuple[int, int, str]]:
        """Return what workers told when they left: number, process id, and their metrics; each once."""
        with self._lock:
            found = list(self._last_counts)
            self._last_counts.clear()
            return found

    def ask_all(
        self,
        what: str,
        facts: Facts | None = None,
        *,
        timeout_seconds: float = ASK_SECONDS,
        but: WorkerProcess | None = None,
        leaving: bool = False,
    ) -> list[tuple[int, Facts | MicromegasError]]:
        """Ask all workers that answer calls, at once; return each one's answer, or what it raised, by number.

        Those that are being replaced and end their last calls are asked only when `leaving` says so.
        """
        with self._lock:
            asked = self._ready_workers()
            if leaving:
                asked += [worker for slot in self._slots for worker in slot.leaving if worker.state is State.LEAVING]
            asked = [worker for worker in asked if worker is not but]
            if what == "reload":
                self._spare.discard()  # it knows what was configured when it started
        return ask_workers(asked, what, facts or {}, timeout_seconds=timeout_seconds)

    def _ready_workers(self) -> list[WorkerProcess]:
        return [slot.current for slot in self._slots if slot.current and slot.is_ready]

    def _all_workers(self) -> list[WorkerProcess]:
        found = [worker for slot in self._slots for worker in (slot.current, *slot.leaving) if worker is not None]
        return found if self._spare.worker is None else [*found, self._spare.worker]

    def _new_worker(self, number: int, *, is_spare: bool = False) -> WorkerProcess:
        return WorkerProcess(
            replace(self._order, number=number, is_spare=is_spare),
            program=self._program,
            changed=self._hear,
            answers=self._answer,
            spill_directory=self._spill_directory,
            clock=self._clock,
        )

    def _answer(self, worker: WorkerProcess, question: Facts) -> Facts:
        """Pass a worker's question on to the others and gather what they say."""
        facts = {name: value for name, value in question.items() if name not in {"is", "what", "number"}}
        what = str(question.get("what"))
        # A query that is to be cancelled may be one of the last calls of a worker that is being replaced.
        answers = self.ask_all(what, facts, but=worker, leaving=what == "cancel")
        found = [answer for _, answer in answers if isinstance(answer, dict)]
        return {"answers": found, "missing": len(answers) - len(found)}

    # What a worker says; each runs on that worker's thread.

    def _hear(self, worker: WorkerProcess, facts: Facts) -> None:
        with self._lock:
            match facts.get("is"):
                case "prepared":
                    worker.state = State.SPARE
                case "ready":
                    worker.state, worker.ready_at = State.READY, self._clock.monotonic()
                    self._blame.tell(worker)
                case "suspect" if not self._is_stopping:
                    self._spare.ask_for()
                case "counts":
                    self._last_counts.append((worker.order.number, worker.pid, str(facts.get("text"))))
                case "stuck":
                    self._leave_stuck(worker, facts)
                case "queries":
                    self._hear_queries(worker, read_queries(facts))
                case "ended":
                    worker.state = State.ENDED
            self._changed.notify_all()

    def _leave_stuck(self, worker: WorkerProcess, facts: Facts) -> None:
        queries = read_queries(facts)
        why, about = str(facts.get("why")), describe_queries(queries)
        self._leave(worker, why, reason="stuck", seconds=_STUCK_GOODBYE_SECONDS, about=about)
        self._blame.note(queries)

    def _hear_queries(self, worker: WorkerProcess, queries: Sequence[Facts]) -> None:
        extra = {**_who(worker), **describe_queries(queries)}
        _LOG.warning("These queries ran in a worker process whose memory passed its limit.", extra=extra)
        self._blame.note(queries)

    def _spawned(self, number: int, *, is_spare: bool = False) -> WorkerProcess | None:
        try:
            return self._new_worker(number, is_spare=is_spare)
        except MicromegasError as error:
            _LOG.error("A worker process could not be started.", extra={"kind": error.code})
            return None

    # The watch; with the lock held.

    def _watch(self) -> None:
        looked_at = self._clock.monotonic()
        with self._lock:
            while not self._is_stopping:
                now = self._clock.monotonic()
                if now - looked_at > _LATE_TICK_SECONDS:
                    # This process stood still, perhaps with the whole machine: what the workers said is not read yet.
                    for worker in self._all_workers():
                        worker.heard_at = now
                looked_at = now
                self._look(now)
                self._changed.wait(_TICK_SECONDS)

    def _look(self, now: float) -> None:
        self._spare.look(now, is_calm=all(slot.is_ready for slot in self._slots))
        for slot in self._slots:
            slot.leaving = [worker for worker in slot.leaving if not self._is_gone(worker, now)]
            worker = slot.current
            if worker is None:
                if now >= slot.start_at:
                    self._fill(slot)
            elif worker.state is State.ENDED:
                self._bury(slot, worker, now)
            elif worker.state is State.READY:
                slot.note_ready(worker, now)
                self._look_at_ready(worker, now)
            elif now - worker.started_at > START_SECONDS:
                worker.why = worker.why or "did not start in time"
                worker.kill()

    def _look_at_ready(self, worker: WorkerProcess, now: float) -> None:
        if now - worker.heard_at > _SILENT_SECONDS:
            self._count("silent")
            _LOG.warning("A worker process does not answer and is ended.", extra=_who(worker))
            worker.why = "did not answer"
            worker.kill()
        elif (resident := worker.resident_bytes()) > self._limits.watched:
            why = f"its memory passed {self._limits.watched >> 20} MiB ({resident >> 20} MiB)"
            worker.tell("tell_queries")
            self._leave(worker, why, reason="memory", seconds=_MEMORY_GOODBYE_SECONDS)

    def _leave(
        self, worker: WorkerProcess, why: str, *, reason: str, seconds: float, about: Facts | None = None
    ) -> None:
        """Have another worker take the place of one that still runs, which says goodbye to its calls and ends."""
        slot = self._slots[worker.order.number - 1]
        if worker.state is State.LEAVING or slot.current is not worker or self._is_stopping:
            return
        _LOG.warning("A worker process is replaced.", extra={**_who(worker), "why": why, **(about or {})})
        self._count(reason)
        worker.state, worker.why = State.LEAVING, why
        worker.deadline = self._clock.monotonic() + seconds
        slot.leaving.append(worker)
        self._fill(slot)
        worker.tell("retire", seconds=seconds / 2, why=why)

    def _fill(self, slot: Slot) -> None:
        spare = self._spare.take()
        if spare is not None:
            spare.order, spare.started_at = replace(spare.order, number=slot.number), self._clock.monotonic()
            spare.tell("listen", number=slot.number)
        slot.current = spare or self._spawned(slot.number)
        if slot.current is None:
            slot.note_failure(self._clock.monotonic())

    def _bury(self, slot: Slot, worker: WorkerProcess, now: float) -> None:
        slot.current = None
        lived_seconds = 0.0 if worker.ready_at is None else now - worker.ready_at
        if worker.why is None:
            self._count("ended")
        slot.note_end(now, lived_seconds=lived_seconds)
        extra = {**_who(worker), "end": worker.exit_words, "starts_in_seconds": round(slot.start_at - now, 1)}
        if worker.failure is not None:
            extra["failure"] = f"{worker.failure.what} {worker.failure.remedy}".strip()
        _LOG.warning("A worker process ended and is replaced.", extra=extra)
        if slot.failures == slot.LOOP_FAILURES:
            _LOG.error("A worker process ends again and again; it is tried again less often.", extra=_who(worker))
        if now >= slot.start_at:
            self._fill(slot)

    def _is_gone(self, worker: WorkerProcess, now: float) -> bool:
        if worker.state is State.ENDED:
            return True
        if worker.deadline is not None and now > worker.deadline:
            worker.kill()
        return False

    def _count(self, reason: str) -> None:
        self.replaced[reason] = self.replaced.get(reason, 0) + 1


def _who(worker: WorkerProcess) -> dict[str, object]:
    return {"worker": worker.order.number, "worker_pid": worker.pid}
