"""Runs one planned statement on the embedded engine and gives its batches as they go on the wire.

What stops: closing `batches()` or cancelling its task drops DataFusion's stream, and scans, aggregates, sorts, windows,
recursive queries and endless `generate_series` stop within a second or two. What does not, until its current step ends:
nested-loop and cross joins, hash joins in which one row matches very many, a long run of one scalar function (a regular
expression over a huge string), and planning itself. Only ending the process stops those, which is its supervisor's job.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.engine.errors import Context, is_engine_failure, translate
from micromegas_jupyter.engine.figures import PlanCounts, QueryFigures, count_plan
from micromegas_jupyter.engine.leftovers import goes_on_for_long
from micromegas_jupyter.engine.one_row import Ran
from micromegas_jupyter.engine.owner import QUERY_OWNER
from micromegas_jupyter.engine.placeholders import missing_parameter
from micromegas_jupyter.engine.wire_schema import to_wire
from micromegas_jupyter.engine.work_class import WorkClass
from micromegas_jupyter.errors import InternalError
from micromegas_jupyter.seams import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pyarrow as pa
    from datafusion import DataFrame

    from micromegas_jupyter.engine.explain import PathScrubber
    from micromegas_jupyter.engine.leftovers import Leftovers
    from micromegas_jupyter.engine.pool import PlanningPool
    from micromegas_jupyter.engine.session_pool import LentSession

_log = logging.getLogger(__name__)

# Converting fewer rows than these takes less time than handing them to another thread.
_ROWS_WORTH_A_THREAD: Final = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a plan's own batches become the query's.

    Attributes:
        schema: The schema on the wire.
        row_limit: Rows after which the query ends, for plans that cannot hold a limit themselves; None for all.
        scrubber: Removes paths from a described plan; None for ordinary rows.
    """

    schema: pa.Schema
    row_limit: int | None = None
    scrubber: PathScrubber | None = field(default=None, repr=False)

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


def run_now(frame: DataFrame, result: Result, context: Context) -> Ran:
    """Run a statement of one row in this thread, which must be one that may block."""
    started = SYSTEM_CLOCK.monotonic()
    failure = None
    batches: tuple[pa.RecordBatch, ...] = ()
    try:
        batches = tuple(result.convert(batch) for batch in frame.collect())
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        failure = translate(error, context)
        failure.__cause__ = error.with_traceback(None)  # which would keep the statement alive
    return Ran(batches=batches, failure=failure, seconds=SYSTEM_CLOCK.monotonic() - started)


class DataFusionQuery:
    """A `PlannedQuery` of the embedded engine; its session lives as long as it does."""

    def __init__(  # noqa: PLR0913 - options by keyword, all of them parts of one plan
        self,
        frame: DataFrame,
        result: Result,
        *,
        parameters: Parameters,
        pool: PlanningPool,
        context: Context,
        context_init_seconds: float = 0.0,
        work_class: WorkClass = WorkClass.SMALL,
        leftovers: Leftovers | None = None,
        lent: LentSession | None = None,
    ) -> None:
        self._lent = lent
        self._work_class = work_class
        self._leftovers = leftovers
        self._figures = QueryFigures(context_init_seconds=context_init_seconds)
        self._frame: DataFrame | None = frame
        self._result = result
        self._parameters = parameters
        self._pool = pool
        self._context = context

    @property
    def schema(self) -> pa.Schema:
        """Return the exact schema of every batch."""
        return self._result.schema

    @property
    def parameter_schema(self) -> pa.Schema:
        """Return one field per placeholder, in order."""
        return self._parameters.schema

    @property
    def work_class(self) -> WorkClass:
        """Return whether the statement is likely to be heavy."""
        return self._work_class

    @property
    def figures(self) -> QueryFigures:
        """Return what the query took so far."""
        return self._figures

    async def batches(self) -> AsyncIterator[pa.RecordBatch]:
        """Run the query and yield its batches; can be called once.

        Raises:
            InvalidStatement: A value makes the statement fail, or a parameter has no value.
            ResourcesExhausted: The query needs more memory or disk than there is.
            UnsupportedStatement: The engine cannot run this statement.
            Unavailable: A file went away.
            InternalError: A defect.
        """
        if self._parameters.unbound:
            raise missing_parameter(list(self._parameters.unbound))
        frame, self._frame = self._frame, None
        stream = None
        if frame is None:
            raise InternalError("A planned query was run twice.")
        remaining = self._result.row_limit
        is_whole = False
        owner = QUERY_OWNER.get()  # here, for the end may come in another context
        began = 0.0 if self._leftovers is None else self._leftovers.begin(owner)
        try:
            # Making the stream plans physically and lists files: work for a thread that may block.
            started = SYSTEM_CLOCK.monotonic()
            stream = await self._pool.run(frame.execute_stream)
            self._figures = replace(self._figures, execution_seconds=SYSTEM_CLOCK.monotonic() - started)
            async for found in stream:
                batch = await self._convert(found.to_pyarrow())
                if remaining is not None:
                    batch = batch.slice(0, remaining)
                    remaining -= batch.num_rows
                yield batch
                if remaining == 0:
                    return
            is_whole = True
        except BaseException as error:
            # Whoever keeps this error (gRPC does) would keep the stream with it: the frames below hold it.
            traceback.clear_frames(error.__traceback__)
            if not is_engine_failure(error):
                raise
            raise translate(error, self._context) from error
        finally:
            # A traceback keeps this frame alive; the work stops when the stream itself is let go.
            is_started, stream = stream is not None, None
            if self._leftovers is not None:
                is_long = not is_whole and goes_on_for_long(frame.logical_plan().display_indent())
                self._leftovers.end(began=began, is_given_up=not is_whole, is_long=is_long, owner=owner)
            if is_started:
                self._count(frame)
            frame = None
            self._let_go(is_whole=is_whole)

    def _let_go(self, *, is_whole: bool) -> None:
        """Let the session be used again, if nothing works in it any more."""
        lent, self._lent = self._lent, None
        if is_whole and lent is not None:
            lent.give_back()

    def _count(self, frame: DataFrame) -> None:
        try:
            # The plan that ran, with its counters: DataFusion keeps it beside the frame.
            counts = count_plan(frame.execution_plan())
        except BaseException as error:
            if not is_engine_failure(error):
                raise
            _log.warning("the engine's counters cannot be read", exc_info=error)
            counts = PlanCounts()
        self._figures = replace(
            self._figures,
            bytes_scanned=counts.bytes_scanned,
            spilled_bytes=counts.spilled_bytes,
            spill_count=counts.spill_count,
            busy_seconds=counts.busy_seconds,
        )

    async def _convert(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if batch.num_rows < _ROWS_WORTH_A_THREAD or batch.schema.equals(self._result.schema, check_metadata=True):
            return self._result.convert(batch)
        return await asyncio.to_thread(self._result.convert, batch)
