"""Starts the threads on which DataFusion works: more than long statements keep busy, and behind everything else.

A small statement passes through the same threads as heavy ones. While each of them is busy it waits for a whole batch
of somebody else's work at each step; with two to spare it does not. That they are a little less urgent lets the event
loop and planning run at once when they have something to do. What was measured is in
docs/decisions/0012-small-queries-beside-heavy-ones.md.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import Final

from datafusion import SessionContext

from micromegas_jupyter.errors import ConfigurationError

_VARIABLE: Final = "TOKIO_WORKER_THREADS"
_SPARE_THREADS: Final = 2
_MOST_BUSY: Final = 256
#: As nice(1): what is added, and the least urgent there is.
_MORE_NICENESS: Final = 5
_MOST_NICENESS: Final = 19

_lock = threading.Lock()
_has_started = False


def processor_count() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_heavy_statements() -> int:
    """Return how many heavy statements run at once unless somebody says otherwise: one for two processors."""
    return max(1, processor_count() // 2)


def start_threads(busy_threads: int) -> None:
    """Start DataFusion's threads, if this process has none yet; an operator's `TOKIO_WORKER_THREADS` wins.

    Args:
        busy_threads: How many of them heavy and medium statements may keep busy.

    Raises:
        ConfigurationError: The variable is no number of threads.
    """
    global _has_started  # noqa: PLW0603 - the runtime is one for the process, too
    with _lock:
        if _has_started:
            return
        _check_variable(os.environ.get(_VARIABLE))
        _has_started = True
        # The runtime's threads inherit how urgent the thread is that makes them.
        starter = threading.Thread(
            target=_start, args=(min(busy_threads, _MOST_BUSY) + _SPARE_THREADS,), name="engine-starter"
        )
        starter.start()
        starter.join()


def _check_variable(text: str | None) -> None:
    if text is not None and not (text.isascii() and text.isdecimal() and 0 < len(text) <= 4 and int(text)):  # noqa: PLR2004
        raise ConfigurationError(
            f"{_VARIABLE} is not a number of threads from 1 to 9,999.",
            key=_VARIABLE,
            remedy="Set it to such a number, or leave it out.",
        )


def _start(threads: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            own = os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(own + _MORE_NICENESS, _MOST_NICENESS))
    is_ours = _VARIABLE not in os.environ
    if is_ours:
        os.environ[_VARIABLE] = str(threads)
    try:
        SessionContext().sql("SELECT 1").collect()
    finally:
        if is_ours:
            del os.environ[_VARIABLE]
