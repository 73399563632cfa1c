"""One worker process as its supervisor sees it: started, heard, asked, ended.

When it is started, left or ended is `supervisor`'s decision.
"""

import enum
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import psutil

from micromegas_jupyter.assembly.spill_directory import make_process_folder, process_folder_variables
from micromegas_jupyter.assembly.workers.failures import rebuild_failure
from micromegas_jupyter.assembly.workers.limits import WORKER_VARIABLES
from micromegas_jupyter.assembly.workers.order import WorkerOrder
from micromegas_jupyter.assembly.workers.peer import Facts, Peer
from micromegas_jupyter.errors import MicromegasError, Unavailable
from micromegas_jupyter.seams import Clock, Variables

PROGRAM: Final = "micromegas_jupyter.assembly.workers.program"
_REAP_SECONDS: Final = 10.0
_SECRET_WORDS: Final = ("API_KEYS", "SECRET", "TOKEN")


class State(enum.Enum):
    """Where a worker is in its life."""

    STARTING = "starting"
    SPARE = "spare"
    READY = "ready"
    LEAVING = "leaving"
    ENDED = "ended"


class WorkerProcess:
    """A worker process; `kill` ends it, and it ends by itself when this process does.

    `state`, `deadline` and `why` belong to the supervisor and are covered by its lock; the thread of this class
    only calls `changed` and `answers`.

    Args:
        order: Its task.
        program: The module that it runs.
        changed: Called after each thing that was heard, and at the end.
        answers: Answers the worker's questions.
        spill_directory: Where its folder for temporary files is, which goes when it has ended; None for the system's.
        clock: Tells when it was heard last.
    """

    def __init__(  # noqa: PLR0913 - who is told what
        self,
        order: WorkerOrder,
        *,
        program: str,
        changed: Callable[["WorkerProcess", Facts], None],
        answers: Callable[["WorkerProcess", Facts], Facts],
        spill_directory: str | None,
        clock: Clock,
    ) -> None:
        self.order = order
        self.state = State.STARTING
        self.started_at = self.heard_at = clock.monotonic()
        self.ready_at: float | None = None
        self.deadline: float | None = None
        self.why: str | None = None
        self.failure: MicromegasError | None = None
        self.facts: Facts = {}
        self._changed = changed
        self._clock = clock
        mine, theirs = socket.socketpair()
        try:
            self._folder = make_process_folder(spill_directory)
        except OSError as error:
            mine.close()
            theirs.close()
            raise Unavailable(f"A worker process could not be given a temporary folder: {error.strerror}.") from None
        try:
            # Its own group: an interrupt at a terminal reaches the supervisor, which then lets its workers finish. No
            # session: Linux shares processors among those first, and only within one do urgent threads come first.
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter with fixed options
                [sys.executable, "-P", "-m", program],
                env=Variables(
                    {**WORKER_VARIABLES, **_without_secrets(os.environ), **process_folder_variables(self._folder)}
                ),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                process_group=0,
                # Its folder counts as one of a living process until both have ended.
                pass_fds=self._folder.locks,
            )
        except OSError as error:
            mine.close()
            self._folder.close()
            raise Unavailable(f"A worker process could not be started: {error.strerror}.") from None
        finally:
            theirs.close()
        self._peer = Peer(mine, hears=self._hear, answers=lambda question: answers(self, question))
        self._thread = threading.Thread(target=self._talk, name=f"worker-{order.number}", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def exit_words(self) -> str:
        """How it ended, for the log."""
        code = self._process.returncode
        if code is None:
            return "not ended"
        if code >= 0:
            return f"exit code {code}"
        with suppress(ValueError):
            return signal.Signals(-code).name
        return f"signal {-code}"

    def tell(self, what: str, **facts: object) -> None:
        """Tell it something; one that is gone is noticed by its reader."""
        with suppress(Unavailable):
            self._peer.tell(what, **facts)

    def ask(self, what: str, *, timeout_seconds: float, **facts: object) -> Facts:
        """Return its answer.

        Raises:
            Unavailable: It does not answer.
            MicromegasError: What it raised.
        """
        return self._peer.ask(what, timeout_seconds=timeout_seconds, **facts)

    def resident_bytes(self) -> int:
        """Return how much memory it has, 0 when that cannot be told."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.Error:
            return 0

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def wait(self, timeout_seconds: float) -> bool:
        """Return whether it ended in time."""
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _talk(self) -> None:
        try:
            self._peer.tell("order", **self.order.to_json())
            self._peer.listen()
        except Unavailable:
            pass
        finally:
            self._peer.finish()
            self._reap()
            self._changed(self, {"is": "ended"})
            self._folder.close()

    def _reap(self) -> None:
        """Wait for the end; a worker that no longer talks is of no use."""
        try:
            self._process.wait(_REAP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _hear(self, facts: Facts) -> None:
        self.heard_at = self._clock.monotonic()
        if facts.get("is") == "failed":
            self.failure = rebuild_failure(facts.get("failure"))
        elif facts.get("is") in {"ready", "beat"}:
            self.facts = {**self.facts, **facts}
        self._changed(self, facts)


def _without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables without keys and secrets: the order brings them, and an environment can be looked at."""
    return {
        name: value
        for name, value in environ.items()
        if not (name.startswith("MICROMEGAS_") and any(word in name for word in _SECRET_WORDS))
    }
