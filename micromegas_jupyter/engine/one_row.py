"""Statements whose whole result is one row made of nothing, such as `SELECT 1`: found, and run in one go.

Neither files nor steps that collect rows are in such a plan. What its row costs is spent on constants, which any
planning computes as well; so the thread that plans can run it, and it never needs room on disk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.engine.figures import QueryFigures
from micromegas_jupyter.engine.work_class import WorkClass
from micromegas_jupyter.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pyarrow as pa

# A literal with a line break could look like a line of its own; then a statement is run in steps that need not be.
_STEP: Final = re.compile(r" *(?:Projection: |SubqueryAlias: |Limit: |EmptyRelation)")
#: Statements with one of these words hardly ever are of one row, so they are not tried as such.
_UNLIKELY: Final = frozenset(
    {
        "order", "group", "distinct", "union", "intersect", "except", "join", "where", "over", "values", "unnest",
        "recursive", "generate_series", "range", "explain", "show", "information_schema",
    }
)  # fmt: skip


def is_one_row(plan_text: str) -> bool:
    """Return whether a plan, which was not optimised, gives one row or none without reading anything.

    Args:
        plan_text: The plan, one step a line.
    """
    return all(_STEP.match(line) for line in plan_text.split("\n"))


def may_be_one_row(names: frozenset[str]) -> bool:
    """Return whether a statement with these words, in lower case, is worth trying as one of one row."""
    return names.isdisjoint(_UNLIKELY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What came of a statement that has run.

    Attributes:
        batches: Its rows.
        failure: Why it failed, if it did.
        seconds: How long it ran.
    """

    batches: tuple[pa.RecordBatch, ...] = field(default=(), repr=False)
    failure: Exception | None = field(default=None, repr=False)
    seconds: float


class ReadyQuery:
    """A `PlannedQuery` whose rows are there.

    Attributes:
        shared: Where whoever sends the rows may keep what they make of them, for all queries that give the very same
            batches; None when no other query does.
    """

    def __init__(
        self,
        ran: Ran,
        *,
        schema: pa.Schema,
        parameter_schema: pa.Schema,
        context_init_seconds: float,
        shared: dict[str, object] | None = None,
    ) -> None:
        self.shared = shared
        self._ran: Ran | None = ran
        self._schema = schema
        self._parameter_schema = parameter_schema
        self._figures = QueryFigures(context_init_seconds=context_init_seconds, execution_seconds=ran.seconds)

    @property
    def schema(self) -> pa.Schema:
        """Return the exact schema of every batch."""
        return self._schema

    @property
    def parameter_schema(self) -> pa.Schema:
        """Return one field per placeholder, in order."""
        return self._parameter_schema

    @property
    def work_class(self) -> WorkClass:
        """Return that the statement is small."""
        return WorkClass.SMALL

    @property
    def figures(self) -> QueryFigures:
        """Return what the query took; it read no file and wrote none."""
        return self._figures

    async def batches(self) -> AsyncIterator[pa.RecordBatch]:
        """Yield the batches; can be called once.

        Raises:
            MicromegasError: As in `PlannedQuery.batches`.
        """
        ran, self._ran = self._ran, None
        if ran is None:
            raise InternalError("A planned query was run twice.")
        if ran.failure is not None:
            raise ran.failure
        for batch in ran.batches:
            yield batch
