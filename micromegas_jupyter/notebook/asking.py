"""Asks the person for a line for as long as something waits for it, and no longer; the question is the caller's.

Neither a kernel's input request nor a terminal's prompt takes a deadline; an interrupt ends both.
"""

from __future__ import annotations

import _thread
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from micromegas_jupyter.notebook.parts import Login


class WaitEnded(Exception):
    """The sign-in ended before the person had answered."""


class _Question:
    """One question; its lock decides which came first, the answer or the sign-in's end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_open = True
        self.was_interrupted = False

    def answered(self) -> None:
        with self._lock:
            self._is_open = False

    def interrupt(self) -> None:
        with self._lock:
            if self._is_open:
                self._is_open = False
                self.was_interrupted = True
                # A kernel's input request looks for it a hundred times a second; a prompt's event loop is woken.
                _thread.interrupt_main()


def ask_until(login: Login, ask: Callable[[], str]) -> str:
    """Return what the person answers.

    Args:
        login: What waits for the answer.
        ask: Asks; runs on this thread. Only the main thread can be interrupted.

    Raises:
        WaitEnded: The sign-in ended first.
        KeyboardInterrupt: The person interrupted.
    """
    question = _Question()
    if threading.current_thread() is threading.main_thread():
        login.on_done(lambda *_: question.interrupt())
    try:
        text = ask()
        question.answered()
    except KeyboardInterrupt:
        if question.was_interrupted:
            raise WaitEnded from None
        raise
    finally:
        question.answered()
    if login.done:
        raise WaitEnded
    return text
