"""Calls something that has no deadline of its own, such as a library that asks a person for a password."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

_Answer = TypeVar("_Answer")


class CallTookTooLong(Exception):
    """The call has not ended in time; it goes on in the background, where nobody takes its answer any more."""


class TimelyCalls:
    """Makes each call on a thread of its own; safe to use from several threads.

    A call that does not end keeps its thread. Until it does end, every further call fails at once, so that such
    threads do not pile up. The lock guards `_overdue`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._overdue: threading.Thread | None = None

    def run(self, call: Callable[[], _Answer], *, timeout_seconds: float) -> _Answer:
        """Return the call's answer or raise what it raises.

        Raises:
            CallTookTooLong: It has not ended in time, or an earlier one still has not.
        """
        with self._lock:
            if self._overdue is not None and self._overdue.is_alive():
                raise CallTookTooLong
            self._overdue = None
        attempt = _Attempt(call)
        thread = threading.Thread(target=attempt.make, name="timely-call", daemon=True)
        thread.start()
        thread.join(timeout_seconds)
        if thread.is_alive():
            with self._lock:
                self._overdue = thread
            raise CallTookTooLong
        return attempt.answer()


class _Attempt(Generic[_Answer]):
    def __init__(self, call: Callable[[], _Answer]) -> None:
        self._call = call
        self._answers: list[_Answer] = []
        self._error: Exception | None = None

    def make(self) -> None:
        try:
            self._answers.append(self._call())
        except Exception as error:  # noqa: BLE001 - handed to the caller's thread
            self._error = error

    def answer(self) -> _Answer:
        if self._error is not None:
            raise self._error
        return self._answers[0]
