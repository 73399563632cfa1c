"""What running one statement took, according to DataFusion's own counters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from datafusion.plan import ExecutionPlan

_MAX_STEPS: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryStatistics:
    """What a statement took so far. A count that the engine does not tell is None, never a guess.

    Attributes:
        context_init_seconds: Making the session: listing tables and registering those that the statement names.
        execution_seconds: Optimizing the plan and starting it; reading rows is not included.
        bytes_scanned: Bytes read from files, after whole files, row groups and pages were skipped by statistics.
        peak_memory_bytes: The most memory that the statement held at once.
        spilled_bytes: Bytes written to the temporary folder for want of memory.
        spill_count: How many times something was written there.
    """

    context_init_seconds: float = 0.0
    execution_seconds: float = 0.0
    bytes_scanned: int | None = 0
    peak_memory_bytes: int | None = None
    spilled_bytes: int | None = 0
    spill_count: int | None = 0


def with_counts(statistics: QueryStatistics, plan: ExecutionPlan) -> QueryStatistics:
    """Return `statistics` with what a plan's steps have counted, while it runs or after.

    The counts of a plan of very many steps are None.
    """
    scanned: int | None = 0
    spilled = spills = 0
    waiting: list[Any] = [plan]
    for _ in range(_MAX_STEPS):
        if not waiting:
            return replace(statistics, bytes_scanned=scanned, spilled_bytes=spilled, spill_count=spills)
        step = waiting.pop()
        inputs = step.children()
        waiting.extend(inputs)
        counters = step.metrics()
        if counters is not None:
            spills += counters.spill_count or 0
            spilled += counters.spilled_bytes or 0
        if not inputs and scanned is not None:
            read = None if counters is None else counters.sum_by_name("bytes_scanned")
            # A scan that is not DataFusion's own reads files without counting.
            scanned = None if read is None and "Dataset" in step.display() else scanned + (read or 0)
    return without_counts(statistics)


def without_counts(statistics: QueryStatistics) -> QueryStatistics:
    """Return `statistics` of a query of which the engine tells no counts."""
    return replace(statistics, bytes_scanned=None, spilled_bytes=None, spill_count=None)
