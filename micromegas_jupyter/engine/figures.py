"""What running one statement took, as DataFusion's own counters tell it.

Where a figure goes (the audit line, a metric) is the server's decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from datafusion.plan import ExecutionPlan

_MOST_STEPS: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryFigures:
    """What a statement took so far. A count is None when the engine does not tell it, never a guess.

    Attributes:
        context_init_seconds: Making the session: listing tables and registering those that the statement names.
        execution_seconds: Planning physically and starting the streams; reading rows is not in it.
        bytes_scanned: Bytes read from files, after whole files, row groups and pages were left out by statistics.
        peak_memory_bytes: The most memory that the statement held at once.
        spilled_bytes: Bytes written to the temporary folder for want of memory.
        spill_count: How many times something was written there.
        busy_seconds: How long its steps and scans worked, all threads together; waits are not in it.
    """

    context_init_seconds: float = 0.0
    execution_seconds: float = 0.0
    bytes_scanned: int | None = 0
    peak_memory_bytes: int | None = None
    spilled_bytes: int | None = 0
    spill_count: int | None = 0
    busy_seconds: float | None = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanCounts:
    """The counters of a plan's steps, added up; each None when a step does not tell."""

    bytes_scanned: int | None = None
    spilled_bytes: int | None = None
    spill_count: int | None = None
    busy_seconds: float | None = None


def count_plan(plan: ExecutionPlan) -> PlanCounts:
    """Add up what the steps of a plan have counted, while it runs or after; a plan of very many steps is unknown."""
    scanned: int | None = 0
    spilled = spills = busy_ns = 0
    waiting: list[Any] = [plan]
    for _ in range(_MOST_STEPS):
        if not waiting:
            return PlanCounts(
                bytes_scanned=scanned, spilled_bytes=spilled, spill_count=spills, busy_seconds=busy_ns / 1e9
            )
        step = waiting.pop()
        inputs = step.children()
        waiting.extend(inputs)
        counters = step.metrics()
        if counters is not None:
            spills += counters.spill_count or 0
            spilled += counters.spilled_bytes or 0
            busy_ns += (counters.elapsed_compute or 0) + (counters.sum_by_name("time_elapsed_processing") or 0)
        if not inputs and scanned is not None:
            read = None if counters is None else counters.sum_by_name("bytes_scanned")
            # A scan that is not DataFusion's own reads files without counting.
            scanned = None if read is None and "Dataset" in step.display() else scanned + (read or 0)
    return PlanCounts()
