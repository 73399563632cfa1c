"""What an engine takes and gives: a statement goes in, an exact schema and record batches come out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    import pyarrow as pa

    from micromegas_jupyter.engine.statistics import QueryStatistics


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
        parameters: Rows of values; the statement runs once for each row, and the results follow one another. Columns
            named "0", "1", … bind `?` in order, or `$1`, `$2`, …; other names bind `$name`. None when nothing is bound.
        time_range: What every table with a time is cut to before the statement sees it; None for all rows.
        row_limit: At most this many rows are returned, on top of the statement's own LIMIT; None for all.
        preserve_dictionary: Whether dictionary-encoded columns stay so in the result; otherwise they are flattened.
        partitions: How many partitions it runs in; None for one per processor.

    Raises:
        ValueError: `row_limit` is negative.
    """

    sql: str = field(repr=False)
    parameters: pa.RecordBatch | None = field(default=None, repr=False)
    time_range: TimeRange | None = None
    row_limit: int | None = None
    preserve_dictionary: bool = False
    partitions: int | None = None

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
    def statistics(self) -> QueryStatistics:
        """Return what the query took so far; all of it once the iterator of `batches` has ended, in whatever way."""
        ...

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Optimize the plan and start it, then return its batches. Closing the iterator stops the query.

        Both the call and the iterator raise:

        Raises:
            InvalidStatement: A value makes the statement fail (division by zero, a cast), or a parameter is not bound.
            ResourcesExhausted: The query needs more memory or disk than the engine has.
            UnsupportedStatement: The engine cannot run this statement.
            Unavailable: A file of a table is gone; the same statement may work when planned again.
            InternalError: A defect, or the query ran before; the log has more.
        """
        ...
