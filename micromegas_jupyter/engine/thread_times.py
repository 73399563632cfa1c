"""How busy the engine's threads were, as Linux tells it.

What follows from that is `leftovers`' decision.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TASKS: Final = Path("/proc/self/task")
# Tokio's threads, those for blocking calls too; the kernel keeps 15 characters of a name.
_NAME: Final = "tokio-rt"
_STATE_FIELD: Final = 3
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True, slots=True)
class ThreadTime:
    """One thread's account since it began.

    Attributes:
        busy_seconds: How long it ran or waited for a processor; however loaded the machine is, a thread that never
            pauses is busy all the time.
        pauses: How often it stopped by itself.
    """

    busy_seconds: float
    pauses: int


def read_thread_times() -> dict[int, ThreadTime]:
    """Return the accounts of the engine's threads by their ids; empty on systems that do not tell."""
    found = {}
    with suppress(OSError):
        for task in _TASKS.iterdir():
            with suppress(OSError, ValueError, IndexError):
                if (task / "comm").read_text().startswith(_NAME):
                    found[int(task.name)] = _read(task)
    return found


def _read(task: Path) -> ThreadTime:
    pauses = next(line for line in (task / "status").read_text().splitlines() if line.startswith("voluntary"))
    return ThreadTime(busy_seconds=_busy_seconds(task), pauses=int(pauses.split()[1]))


def _busy_seconds(task: Path) -> float:
    try:
        ran, waited, _ = (task / "schedstat").read_text().split()
    except OSError:  # a kernel without these figures
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[14 - _STATE_FIELD]) + int(fields[15 - _STATE_FIELD])) / _TICKS_PER_SECOND
    return (int(ran) + int(waited)) / 1e9
