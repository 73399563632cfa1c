"""What a process that runs statements may take, and what of it other processes may see."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.executors.settings import STACK_BYTES

if TYPE_CHECKING:
    from micromegas_jupyter.executors.settings import WorkerOptions

_PR_SET_DUMPABLE: Final = 4


def hide_memory(*, is_hidden: bool = True) -> None:
    """Keep other processes of the same user from reading this one's memory and environment, and dump no core."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0 if is_hidden else 1)


def limit_process(options: WorkerOptions) -> None:
    """Limit what this process may take: memory, stack, no core dumps; first in line when the machine runs out."""
    if sys.platform == "win32":
        return
    import resource

    def limit(what: int, value: int) -> None:
        highest = resource.getrlimit(what)[1]
        wanted = value if highest == resource.RLIM_INFINITY else min(value, highest)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(what, (wanted, highest if what == resource.RLIMIT_STACK else wanted))

    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_STACK, STACK_BYTES)
    if options.data_limit_bytes is not None:
        limit(resource.RLIMIT_DATA, options.data_limit_bytes)
    hide_memory(is_hidden=False)  # a hidden process may not write its own files of /proc
    try:
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    finally:
        hide_memory()
