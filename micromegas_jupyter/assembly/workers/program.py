"""The program of a worker: told what to serve, it serves until it is told to leave or its supervisor is gone.

What is served is built in `served`; the supervisor's half is `process`.
"""

import logging
import os
import signal
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.assembly.workers.failures import describe_failure
from micromegas_jupyter.assembly.workers.limits import limit_own_memory
from micromegas_jupyter.assembly.workers.named_records import name_records
from micromegas_jupyter.assembly.workers.order import WorkerOrder
from micromegas_jupyter.assembly.workers.others_answers import OthersAnswers, read_answers
from micromegas_jupyter.assembly.workers.peer import Facts, Peer
from micromegas_jupyter.errors import InternalError, MicromegasError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_BEAT_SECONDS: Final = 1.0
_ASK_SECONDS: Final = 10.0
_LAST_SECONDS: Final = 6.0
_SUPERVISOR_GONE: Final = 1
_ASKED_TO_LEAVE_SECONDS: Final = 5.0
_ASKED_TO_LEAVE: Final = "The process of the server that answered this call is replaced."


class Worker:
    """This process as a worker; `run` returns when it is to end.

    Args:
        connection: Where the supervisor is heard and told.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._peer = Peer(connection, hears=self._hear, answers=self._answer)
        self._may_listen = threading.Event()
        self._number = 0
        self._retires = threading.Event()
        self._retirement: tuple[float, str, float] = (0.0, "", _LAST_SECONDS)
        self._answers: dict[str, Callable[[Facts], Facts]] = {}
        self._restrain: Callable[[tuple[str, str], float], None] = lambda _caller, _seconds: None

    def run(self) -> None:
        """Serve."""
        first = self._peer.read()
        if first is None:
            return
        order = WorkerOrder.from_json({name: value for name, value in first.items() if name != "is"})
        name_records(order.number)
        limit_own_memory(order.hard_bytes)
        threading.Thread(target=self._listen, name="supervisor-listener", daemon=True).start()
        try:
            self._serve(order)
        except Exception as error:  # noqa: BLE001 - whatever it is, the supervisor tells the person
            self._peer.tell("failed", failure=describe_failure(error))

    def retire(self, seconds: float, why: str, *, last_seconds: float = _LAST_SECONDS) -> None:
        """Have `run` end its calls within `seconds`, telling them `why`, and return; may be called from anywhere.

        What is not done `last_seconds` after that stays undone. Only the first call counts.
        """
        if not self._retires.is_set():
            self._retirement = (seconds, why, last_seconds)
            self._retires.set()

    def tell(self, what: str, **facts: object) -> None:
        """Tell the supervisor something, if it is there."""
        with suppress(Unavailable):
            self._peer.tell(what, **facts)

    def ask_others(self, what: str, **facts: object) -> OthersAnswers:
        """Return what the other workers answer to a question, and whether all of them did."""
        with suppress(MicromegasError):
            return read_answers(self._peer.ask(what, timeout_seconds=_ASK_SECONDS, **facts))
        return OthersAnswers(found=(), is_complete=False)

    def _serve(self, order: WorkerOrder) -> None:
        from micromegas_jupyter.assembly.workers.served import build_served

        served = build_served(order, self)
        self._answers, self._restrain = served.answers, served.restrain
        if order.is_spare:
            self._peer.tell("prepared")
            while not self._may_listen.wait(_BEAT_SECONDS):
                if self._retires.is_set():
                    return
                self._peer.tell("beat")
            served.be_worker(self._number)
        served.start()
        self._peer.tell("ready", **served.facts())
        while not self._retires.wait(_BEAT_SECONDS):
            if served.has_turned():
                self._peer.tell("beat")
        seconds, why, last_seconds = self._retirement
        last = threading.Timer(seconds + last_seconds, os._exit, (_SUPERVISOR_GONE,))
        last.daemon = True
        last.start()
        self._tell_counts()
        served.stop(seconds, why=why)
        self._tell_counts()

    def _tell_counts(self) -> None:
        """Tell what was counted, for nobody can ask any more soon."""
        if (metrics := self._answers.get("metrics")) is not None:
            self.tell("counts", **metrics({}))

    def _listen(self) -> None:
        self._peer.listen()
        # Whoever started this process is gone: nobody would replace or end it.
        if not self._retires.is_set():
            os._exit(_SUPERVISOR_GONE)

    def _hear(self, facts: Facts) -> None:
        match facts:
            case {"is": "listen", "number": int(number)}:
                self._number = number
                name_records(number)
                self._may_listen.set()
            case {"is": "restrain", "caller": [str(issuer), str(subject)], "seconds": float() | int() as seconds}:
                self._restrain((issuer, subject), float(seconds))
            case {"is": "tell_queries"} if (queries := self._answers.get("queries")) is not None:
                self.tell("queries", **queries({}))
            case {"is": "retire", "seconds": float() | int() as seconds, "why": str(why)}:
                self.retire(float(seconds), why)

    def _answer(self, question: Facts) -> Facts:
        answer = self._answers.get(str(question.get("what")))
        if answer is None:
            raise InternalError("A worker process was asked something that it does not know.")
        return answer(question)


def main() -> None:
    """Run this process as a worker, its supervisor at the other end of standard input."""
    connection = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    # The supervisor decides about these; a terminal or an init system may send them to every process of a server.
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    worker = Worker(connection)

    def leave(_number: int, _frame: "FrameType | None") -> None:
        # A handler interrupts the main thread anywhere, perhaps where it holds what `retire` needs.
        threading.Thread(target=worker.retire, args=(_ASKED_TO_LEAVE_SECONDS, _ASKED_TO_LEAVE), daemon=True).start()

    signal.signal(signal.SIGTERM, leave)
    try:
        worker.run()
    finally:
        logging.shutdown()  # audit lines that wait to be written
        # Threads of a query that does not end would keep the process.
        os._exit(0)


if __name__ == "__main__":
    main()
