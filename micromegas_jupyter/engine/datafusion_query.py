"""Runs one planned statement on the embedded engine and gives its batches as they go on the wire.

Closing the iterator drops DataFusion's stream. Most operators then stop within a second or two; nested-loop and cross
joins, hash joins in which one row matches very many, and a long run of one scalar function do not until their current
step ends. Only ending the process stops those.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.engine.contract import QueryStatistics
from micromegas_jupyter.engine.errors import Context, is_engine_failure, translate
from micromegas_jupyter.engine.parameters import missing_parameter
from micromegas_jupyter.engine.schemas import to_wire
from micromegas_jupyter.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import datafusion
    import pyarrow as pa
    from datafusion import DataFrame
    from datafusion.plan import ExecutionPlan

    from micromegas_jupyter.engine.plan_checks import PathScrubber
    from micromegas_jupyter.engine.sessions import LentSession

_log = logging.getLogger(__name__)
_MAX_STEPS: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a plan's own batches become the query's.

    Attributes:
        schema: The schema on the wire.
        row_limit: Rows after which the query ends, for plans that cannot hold a limit themselves; None for all.
        scrubber: Removes paths from a described plan; None for ordinary rows.
        is_one_row: Whether there is one row that is made of nothing.
    """

    schema: pa.Schema
    row_limit: int | None = None
    scrubber: PathScrubber | None = field(default=None, repr=False)
    is_one_row: bool = False

    def convert(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return one batch as it goes on the wire."""
        if self.scrubber is not None:
            batch = self.scrubber.clean_batch(batch)
        return to_wire(batch, self.schema)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What a statement's placeholders are, and which of them (as written) have no value yet."""

    schema: pa.Schema
    unbound: tuple[str, ...] = ()


class DataFusionQuery:
    """A `PlannedQuery` of the embedded engine; its session lives as long as it does."""

    def __init__(  # noqa: PLR0913 - options by keyword, all of them parts of one plan
        self,
        frame: DataFrame,
        result: Result,
        *,
        parameters: Parameters,
        context: Context,
        context_init_seconds: float = 0.0,
        lent: LentSession | None = None,
    ) -> None:
        self.schema = result.schema
        self.parameter_schema = parameters.schema
        self.statistics = QueryStatistics(context_init_seconds=context_init_seconds)
        self._lent = lent
        self._frame: DataFrame | None = frame
        self._result = result
        self._parameters = parameters
        self._context = context

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Optimize the plan and start it, then return its batches; can be called once."""
        if self._parameters.unbound:
            raise missing_parameter(list(self._parameters.unbound))
        frame, self._frame = self._frame, None
        if frame is None:
            raise InternalError("A planned query was run twice.")
        started = SYSTEM_CLOCK.monotonic()
        source: Iterable[pa.RecordBatch | datafusion.RecordBatch]
        try:
            # A single row is not worth a stream.
            source = frame.collect() if self._result.is_one_row else frame.execute_stream()
        except BaseException as error:
            if not is_engine_failure(error):
                raise
            raise translate(error, self._context) from error
        self.statistics = replace(self.statistics, execution_seconds=SYSTEM_CLOCK.monotonic() - started)
        return self._rows(frame, source)

    def _rows(
        self, frame: DataFrame, source: Iterable[pa.RecordBatch | datafusion.RecordBatch]
    ) -> Iterator[pa.RecordBatch]:
        remaining = self._result.row_limit
        is_whole = False
        try:
            for found in source:
                batch = self._result.convert(found if self._result.is_one_row else found.to_pyarrow())
                if remaining is not None:
                    batch = batch.slice(0, remaining)
                    remaining -= batch.num_rows
                yield batch
                if remaining == 0:
                    return
            is_whole = True
        except BaseException as error:
            if not is_engine_failure(error):
                raise
            raise translate(error, self._context) from error
        finally:
            # A traceback keeps this frame alive; the work stops when the stream itself is dropped.
            del source
            if not self._result.is_one_row:
                self._count(frame)
            del frame
            lent, self._lent = self._lent, None
            if is_whole and lent is not None:
                lent.release()

    def _count(self, frame: DataFrame) -> None:
        try:
            # The plan that ran, with its counters: DataFusion keeps it beside the frame.
            self.statistics = with_counts(self.statistics, frame.execution_plan())
        except BaseException as error:
            if not is_engine_failure(error):
                raise
            _log.warning("the engine's counters cannot be read", exc_info=error)
            self.statistics = without_counts(self.statistics)


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
