"""What a supervisor and a worker say to each other: JSON objects, one a line, over a pair of sockets.

Each side tells (no answer) and asks (one answer, with a deadline). What the words mean is for `supervisor` and
`program`; the other side is this package's own program, so a line that cannot be read ends the talk.
"""

import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import Final

from micromegas_jupyter.assembly.workers.failures import describe_failure, rebuild_failure
from micromegas_jupyter.errors import InternalError, Unavailable

Facts = dict[str, object]

MAX_LINE_BYTES: Final = 8 * 1024 * 1024
_SEND_SECONDS: Final = 5
_ANSWERING_THREADS: Final = 2
_MAX_QUESTIONS: Final = 64


class Peer:
    """One end of the talk.

    `_lock` covers the questions that wait and the sending; a line is sent whole.

    Args:
        connection: This end; closed by `close`.
        hears: Called with each thing that was told, on the reading thread; must be quick.
        answers: Called with each question on a thread that may block; returns the answer, or raises.
    """

    def __init__(
        self, connection: socket.socket, *, hears: Callable[[Facts], None], answers: Callable[[Facts], Facts]
    ) -> None:
        # A blocking read needs a blocking socket; only sending has a time limit, which the kernel holds.
        connection.setblocking(True)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_SECONDS, 0))
        self._connection = connection
        self._lines = connection.makefile("rb")
        self._hears = hears
        self._answers = answers
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Facts]] = {}
        self._asked = 0
        self._threads: ThreadPoolExecutor | None = None

    def tell(self, what: str, **facts: object) -> None:
        """Say something.

        Raises:
            Unavailable: The other side is gone, or does not listen.
        """
        self._send({**facts, "is": what})

    def ask(self, what: str, *, timeout_seconds: float, **facts: object) -> Facts:
        """Return the answer to a question.

        Raises:
            Unavailable: There is none in time, or the other side is gone.
            MicromegasError: What the other side raised.
        """
        answer: Future[Facts] = Future()
        with self._lock:
            self._asked += 1
            number = self._asked
            if len(self._waiting) >= _MAX_QUESTIONS:
                raise Unavailable("A worker process has too much to answer.")
            self._waiting[number] = answer
        try:
            self._send({**facts, "is": "ask", "what": what, "number": number})
            found = answer.result(timeout_seconds)
        except FutureTimeoutError:
            raise Unavailable("A worker process did not answer in time.") from None
        finally:
            with self._lock:
                self._waiting.pop(number, None)
        failure = found.get("failure")
        if failure is not None:
            raise rebuild_failure(failure)
        return found

    def read(self) -> Facts | None:
        """Return the next line, None when the other side is gone or says what cannot be read."""
        try:
            line = self._lines.readline(MAX_LINE_BYTES)
            found = json.loads(line) if line.endswith(b"\n") else None
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def listen(self) -> None:
        """Hear and answer until the other side is gone."""
        try:
            while (found := self.read()) is not None:
                self._take(found)
        finally:
            with self._lock:
                waiting, self._waiting = dict(self._waiting), {}
            for answer in waiting.values():
                with suppress(Exception):
                    answer.set_exception(Unavailable("A worker process has ended."))
            if self._threads is not None:
                self._threads.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """End the talk; safe to call twice, from any thread."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def finish(self) -> None:
        """End the talk and give up what reads it; for the thread that reads."""
        self.close()
        self._lines.close()

    def _take(self, found: Facts) -> None:
        match found.get("is"):
            case "answer":
                with self._lock:
                    number = found.get("number")
                    answer = self._waiting.pop(number, None) if isinstance(number, int) else None
                if answer is not None:
                    answer.set_result(found)
            case "ask":
                if self._threads is None:
                    self._threads = ThreadPoolExecutor(_ANSWERING_THREADS, thread_name_prefix="worker-answers")
                self._threads.submit(self._answer, found)
            case _:
                self._hears(found)

    def _answer(self, question: Facts) -> None:
        answer: Mapping[str, object]
        try:
            answer = self._answers(question)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other side waits for an answer
            answer = {"failure": describe_failure(error)}
        with suppress(Unavailable):
            self._send({**answer, "is": "answer", "number": question.get("number")})

    def _send(self, facts: Mapping[str, object]) -> None:
        line = json.dumps(facts).encode() + b"\n"
        if len(line) > MAX_LINE_BYTES:
            raise InternalError("A message between processes is too long.")
        try:
            with self._lock:
                self._connection.sendall(line)
        except OSError:
            # Half a line may be out, so the talk is over.
            self.close()
            raise Unavailable("A worker process has ended.") from None
