"""What becomes of a statement whose executor was ended: which error its caller gets, and why it was."""

from __future__ import annotations

import enum
import signal
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.errors import (
    DeadlineExceeded,
    MicromegasError,
    QueryCancelled,
    ResourcesExhausted,
    ServerUnavailable,
)

if TYPE_CHECKING:
    from micromegas_jupyter.executors.processes import Ended
    from micromegas_jupyter.executors.settings import PoolSettings, WorkerOptions

_MIB: Final = 1024 * 1024
_SMALLER: Final = "Aggregate or filter first, or ask the server's administrator for a higher limit."
_NO_MEMORY: Final = ("memory allocation", "allocation failed", "out of memory", "cannot allocate", "capacity overflow")


class Cause(enum.StrEnum):
    """Why a statement was ended; the values are labels of a metric and words of the audit."""

    MEMORY = "memory"
    STACK = "stack"
    CRASH = "crash"
    PLANNING = "planning"
    DEADLINE = "deadline"
    STALLED = "stalled_reader"
    CANCELLED = "cancelled"
    DISCONNECTED = "disconnected"
    KILLED = "killed"
    LOST = "lost"


#: Causes that are the statement's own doing: they count against its caller.
CHARGED: Final = frozenset({Cause.MEMORY, Cause.STACK, Cause.CRASH, Cause.PLANNING, Cause.DEADLINE, Cause.KILLED})


def find_cause(ended: Ended, decided: Cause | None, *, is_large: bool = False) -> Cause:
    """Return why an executor ended.

    Args:
        ended: How it ended.
        decided: What the front has decided.
        is_large: Whether it had more memory than a stack that has overflowed accounts for.
    """
    if decided is not None or ended.code is None:
        return decided or Cause.LOST
    error = ended.error.lower()
    if hasattr(signal, "SIGPROF") and ended.code == -signal.SIGPROF:
        return Cause.PLANNING
    if "overflowed its stack" in error:
        return Cause.STACK
    if ended.code in {-signal.SIGSEGV, -getattr(signal, "SIGBUS", 0)}:
        # The engine's allocator (mimalloc) hands out memory that the system has refused it, which ends the same way.
        return Cause.MEMORY if is_large else Cause.STACK
    if any(word in error for word in _NO_MEMORY):
        return Cause.MEMORY
    return Cause.KILLED if ended.code == -getattr(signal, "SIGKILL", 0) else Cause.CRASH


def build_error(  # noqa: PLR0911 - one for each cause
    cause: Cause, *, settings: PoolSettings, options: WorkerOptions
) -> MicromegasError:
    """Return the error of a statement that was ended."""
    match cause:
        case Cause.MEMORY:
            limit = min(settings.memory_bytes, options.data_limit_bytes or settings.memory_bytes)
            size = f"{limit / (1024 * _MIB):.3g} GiB" if limit >= 1024 * _MIB else f"{limit // _MIB} MiB"
            return ResourcesExhausted(
                f"This statement needed more memory than it may take (at most {size}) and was ended; nothing else was "
                "affected.",
                remedy=_SMALLER,
                limit="memory",
            )
        case Cause.STACK:
            return ResourcesExhausted(
                "This statement nests too deeply for the engine and was ended; nothing else was affected.",
                remedy="Split it: fewer nested sub-queries, brackets or operators in one expression.",
                limit="stack",
            )
        case Cause.KILLED:
            return ResourcesExhausted(
                "The operating system ended this statement's process, most likely for want of memory on the machine.",
                remedy=_SMALLER,
                limit="memory",
            )
        case Cause.CRASH:
            return ResourcesExhausted(
                "This statement crashed the engine's process and was ended; nothing else was affected.",
                remedy="Write it in another way, with smaller numbers and values. The server's log has more.",
                limit="crash",
            )
        case Cause.PLANNING:
            return ResourcesExhausted(
                f"Planning this statement took more than {options.planning_seconds:g} s of CPU time, so it was ended.",
                remedy="Make it shorter: fewer terms, joins, set operations or sub-queries.",
                limit="planning",
            )
        case Cause.DEADLINE:
            return DeadlineExceeded(
                f"The statement took longer than the {settings.statement_timeout_seconds or 0:g} s that this server "
                "gives one statement.",
                remedy="Ask for less at a time: a shorter time range, fewer columns, an aggregate instead of all rows.",
                limit="query_timeout",
            )
        case Cause.STALLED:
            return DeadlineExceeded("The client did not take the result in time.", limit="stalled_client")
        case Cause.CANCELLED | Cause.DISCONNECTED:
            return QueryCancelled("The query was cancelled, as you asked.")
        case Cause.LOST:
            return ServerUnavailable("The process that ran this statement has ended.", remedy="Run it again.")
