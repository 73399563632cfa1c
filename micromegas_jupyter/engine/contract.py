"""What any engine promises: a statement goes in, an exact schema and record batches come out.

Which engine does the work is `DataFusionEngine`'s job and that of later ones; who the caller is, `access` has found.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import datetime

    import pyarrow as pa

    from micromegas_jupyter.contracts import AuthContext
    from micromegas_jupyter.engine.figures import QueryFigures
    from micromegas_jupyter.engine.work_class import WorkClass


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeRange:
    """The closed range of times that a caller asks about; both ends aware.

    An end before the begin is a range that holds nothing, not an error, as upstream has it.

    Raises:
        ValueError: An end has no time zone.
    """

    begin: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.begin.utcoffset() is None or self.end.utcoffset() is None:
            raise ValueError("a time range needs times with a time zone")


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementRequest:
    """One statement as a caller sent it.

    Attributes:
        sql: One reading statement; a trailing `;` and blanks are accepted.
        parameters: One row of values: columns named "0", "1", … bind `?` in order, or `$1`, `$2`, …; other names
            bind `$name`. None when nothing is bound.
        time_range: What every table with a time is cut to before the statement sees it; None for all rows.
        row_limit: At most this many rows are given, on top of the statement's own LIMIT; None for all.
        preserve_dictionary: Whether dictionary-encoded columns stay so in the result; otherwise they are flattened.
        runs_at_once: Whether the rows are asked for as soon as it is planned, so that the engine may run a tiny
            statement while it plans it; errors of its run are raised by `batches` all the same.

    Raises:
        ValueError: `row_limit` is negative.
    """

    sql: str = field(repr=False)
    parameters: pa.RecordBatch | None = field(default=None, repr=False)
    time_range: TimeRange | None = None
    row_limit: int | None = None
    preserve_dictionary: bool = False
    runs_at_once: bool = False

    def __post_init__(self) -> None:
        if self.row_limit is not None and self.row_limit < 0:
            raise ValueError("a row limit is zero or more")


@runtime_checkable
class PlannedQuery(Protocol):
    """A statement that was understood and can be run once."""

    @property
    def schema(self) -> pa.Schema:
        """Return the exact schema of every batch, as it goes on the wire."""
        ...

    @property
    def parameter_schema(self) -> pa.Schema:
        """Return one field per placeholder, in order: `?` as "0", "1", …; `$1` as "0"; `$name` as "name".

        A type that the plan does not tell is null.
        """
        ...

    @property
    def work_class(self) -> WorkClass:
        """Return whether the statement is likely to be heavy; an estimate."""
        ...

    @property
    def figures(self) -> QueryFigures:
        """Return what the query took so far; all of it once `batches` has ended, in whatever way."""
        ...

    def batches(self) -> AsyncIterator[pa.RecordBatch]:
        """Run the query and yield its batches; closing the iterator or cancelling its task stops the work.

        Raises:
            InvalidStatement: A value makes the statement fail (division by zero, a cast), or a parameter is not bound.
            ResourcesExhausted: The query needs more memory or disk than the engine has.
            UnsupportedStatement: The engine cannot run this statement.
            Unavailable: A file of a table went away; the same statement may work when planned again.
            InternalError: A defect; the log has more.
        """
        ...


@runtime_checkable
class Engine(Protocol):
    """Turns statements into planned queries over the tables that a caller may see."""

    async def plan(self, request: StatementRequest, caller: AuthContext) -> PlannedQuery:
        """Check and plan `request`; nothing of it runs yet, unless it `runs_at_once` or is a SELECT of literals.

        A statement may be planned without its parameters.

        Raises:
            InvalidStatement: The SQL, a name, a type or a parameter is wrong.
            StatementRefused: The statement would write or set, or is larger or deeper than the limits.
            UnsupportedStatement: The SQL is valid, but the engine does not implement it.
            ResourcesExhausted: There is no room to plan it.
            Unavailable: The tables cannot be read now; the same statement may work later.
            InternalError: A defect; the log has more.
        """
        ...

    def tables(self, caller: AuthContext) -> Sequence[tuple[str, pa.Schema]]:
        """Return each table that `caller` may read, with its schema as a query without options would give it."""
        ...

    def close(self) -> None:
        """Release threads, memory and temporary files; planned queries must not be run any more."""
        ...
