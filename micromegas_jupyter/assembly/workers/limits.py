"""How much memory one worker may take, and what makes the operating system hold it to that.

The engine's pool counts what operators keep. Decoding, results on their way out, and one huge value are outside it.
"""

import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

_MIB: Final = 1024 * 1024
# Interpreter, libraries, threads' stacks and buffers took 350 to 450 MiB in a worker that had answered queries.
BASE_BYTES: Final = 1024 * _MIB
# The engine opens a table's files on up to 512 threads at once (Tokio's), and then keeps these for a while. A thread's
# stack counts as data when it is reserved, though hardly any of it is used: 520 took 1.15 GiB of data, 0.03 of memory.
_STACKS_BYTES: Final = 1152 * _MIB
_POOL_FACTOR: Final = 1.25
_WATCHED_SHARE: Final = 0.85

#: The engine's allocator takes 2 GiB at its start when it may, which would count against the limit.
WORKER_VARIABLES: Final = {"MIMALLOC_ARENA_EAGER_COMMIT": "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLimits:
    """A worker's memory, in bytes.

    Attributes:
        pool: What its queries share (the engine's pool).
        hard: What the operating system gives its data segment (RLIMIT_DATA) and not a byte more: an allocation above
            it fails, which ends the process.
        watched: The resident size above which the supervisor replaces it before that happens.
    """

    pool: int
    hard: int
    watched: int


def memory_limits(memory_mib: int, workers: int) -> MemoryLimits:
    """Return one worker's limits: its share of the memory for queries, the base that it needs, and threads' stacks."""
    pool = max(memory_mib * _MIB // max(workers, 1), 32 * _MIB)
    used = BASE_BYTES + int(pool * _POOL_FACTOR)
    return MemoryLimits(pool=pool, hard=used + _STACKS_BYTES, watched=int(used * _WATCHED_SHARE))


def limit_own_memory(hard_bytes: int) -> None:
    """Hold this process to `hard_bytes`, where the system can; no core is dumped when it ends by that."""
    if sys.platform == "win32":
        return
    import resource

    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with suppress(OSError, ValueError):
        highest = resource.getrlimit(resource.RLIMIT_DATA)[1]
        wanted = hard_bytes if highest == resource.RLIM_INFINITY else min(hard_bytes, highest)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, wanted))
