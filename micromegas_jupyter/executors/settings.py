"""The number of executors, their limits per statement and in total, and how a process limits itself."""

import contextlib
import ctypes
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from micromegas_jupyter.engine.contract import EngineSettings
from micromegas_jupyter.flightsql.framing import DecodeLimits

if sys.platform != "win32":
    import resource  # imported here for forked executors

MIB: Final = 1024 * 1024
#: Writable address space of one executor (RLIMIT_DATA). The stacks of 512 Tokio threads count, whether used or not.
DATA_LIMIT_BYTES: Final = 2048 * MIB
STACK_BYTES: Final = 64 * MIB  # for an executor's main thread, because planning recurses with the statement
#: Shared by the operators of one statement; decoding and results use additional memory.
_MAX_MEMORY_POOL_BYTES: Final = 512 * MIB


def count_processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """Options that all executors of a server share. Not secret, because the zygote's command line contains them."""

    lake: str | None  # the lake's folder or URL for uploads
    denials_file: str | None
    spill_directory: str  # contains a folder per executor
    engine: EngineSettings = field(default_factory=lambda: EngineSettings(memory_limit_bytes=_MAX_MEMORY_POOL_BYTES))
    data_limit_bytes: int | None = DATA_LIMIT_BYTES  # RLIMIT_DATA
    planning_seconds: float = 10.0  # CPU time
    preloaded: str | None = None  # a module that every executor imports at startup
    uses_bucket: bool = False  # whether executors receive the variables with its endpoint and credentials

    @property
    def large_bytes(self) -> int:
        """Memory above which a crash is attributed to memory, not to a stack overflow."""
        return max(2 * STACK_BYTES, (self.data_limit_bytes or 0) // 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """The pool of one server; `config.server` documents its limits."""

    max_executors: int = 40  # and thus concurrent statements
    spare_executors: int = 4  # idle executors that are started ahead of demand
    max_idle_executors: int = 16  # idle executors that remain when demand falls
    max_per_caller: int = 16
    queue_timeout_seconds: float = 60.0
    statement_timeout_seconds: float | None = 1800.0
    write_timeout_seconds: float = 300.0
    memory_bytes: int = 4096 * MIB  # private memory of all executors together
    max_ended_per_caller: int = 20
    processors: int = field(default_factory=count_processors)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSettings:
    """The limits of ingest, per server process; all are greater than 0."""

    #: Per call; counted both as received and without sharing.
    max_bytes: int = 1024 * MIB
    max_rows: int = 50_000_000
    #: The amount that is unpacked at a time, and thus the maximum size of a row.
    max_row_bytes: int = 16 * MIB
    max_columns: int = 512
    max_batch_rows: int = 2 * MIB
    max_dictionary_bytes: int = 32 * MIB
    max_concurrent: int = 64
    max_per_caller: int = 16
    #: The number of tables that one caller may create; administrators are exempt.
    max_tables_per_caller: int = 100
    #: How long a call waits for its turn before it is rejected.
    admission_wait_seconds: float = 30.0
    idle_seconds: float = 60.0
    max_seconds: float = 3600.0

    def decode_limits(self) -> DecodeLimits:
        """Return the limits of one call's decoder."""
        return DecodeLimits(
            max_columns=self.max_columns,
            max_batch_rows=self.max_batch_rows,
            max_unpacked_bytes=4 * self.max_row_bytes,
            max_dictionary_bytes=self.max_dictionary_bytes,
        )


_PR_SET_DUMPABLE: Final = 4
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def hide_memory(*, is_hidden: bool = True) -> None:
    """Keep other processes of the same user from reading this process's memory and environment; disables core dumps."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0 if is_hidden else 1)


def keep_freed_memory() -> None:
    """Let glibc keep up to 32 MiB for the next messages: returning it each time takes half of the front end's time."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # other C libraries don't have mallopt(3)
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_M_TRIM_THRESHOLD, 32 * MIB)
            mallopt(_M_MMAP_THRESHOLD, 4 * MIB)  # larger messages are rare


def limit_process(options: WorkerOptions) -> None:
    """Limit this process: memory, stack, no core dumps; it is killed first if the machine runs out of memory."""
    if sys.platform == "win32":
        return

    def limit(what: int, value: int) -> None:
        hard = resource.getrlimit(what)[1]
        soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(what, (soft, hard if what == resource.RLIMIT_STACK else soft))

    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_STACK, STACK_BYTES)
    if options.data_limit_bytes is not None:
        limit(resource.RLIMIT_DATA, options.data_limit_bytes)
    hide_memory(is_hidden=False)  # a hidden process can't write its own files in /proc
    try:
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    finally:
        hide_memory()
