"""The engine's interface: settings and a statement go in, an exact schema and record batches come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from micromegas_jupyter.core.file_list import FileList

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    import pyarrow as pa

    from micromegas_jupyter.core.protocols import AuthContext, DataFile, TableSnapshot
    from micromegas_jupyter.engine.partition_calls import PartitionCall


#: The longest statement that any setting allows.
MAX_STATEMENT_BYTES: Final = 524288
#: The table function over what runs on the server, which the server tells the engine when a statement names it.
RUNNING_QUERIES: Final = "running_queries"
#: In `Reads`, any column of a table; as a table's name, any table.
ANY: Final = "*"
#: The columns that a statement reads, by table; none for a table of which only rows are counted.
Reads = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Limits of one embedded engine.

    The pool of `memory_limit_bytes` is that of the operators of running queries. Decoding and output live outside of it
    (a 500 MB pool has been seen with 2.7 GB peaks), so the process needs a limit of the operating system, too.
    `spill_limit_bytes` is for each running query. `default_conditions` are, by table, conditions in SQL that rows must
    meet for callers who are not administrators and whose `table_access` is None.
    """

    memory_limit_bytes: int = 1 << 30
    spill_limit_bytes: int = 8 << 30
    max_statement_bytes: int = 131072
    target_partitions: int | None = None
    batch_rows: int = 65536
    default_conditions: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeRange:
    """A closed range of aware times; one that ends before it begins is empty, as upstream has it."""

    begin: datetime
    end: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """What a read of a follow covers: `files` of a table, one after another, up to a number of rows and bytes.

    `offset` counts the rows of the statement's result over the first file that earlier reads returned.
    """

    table: str
    files: tuple[DataFile, ...] = field(repr=False)
    offset: int = 0
    max_rows: int
    max_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementRequest:
    """One statement as a caller sent it.

    Attributes:
        parameters: Rows of values; the statement runs once for each row, and the results follow one another. Columns
            named "0", "1", … bind `?` in order, or `$1`, `$2`, …; other names bind `$name`. None when nothing is bound.
        time_range: What every table with a time is cut to before the statement sees it; None for all rows.
        row_limit: At most this many rows are returned, on top of the statement's own LIMIT; None for all.
        partitions: How many partitions it runs in; None for one per processor.
        messages: What the administrators' function in it has done: times (nanoseconds since 1970) and texts.
        running: The rows of `running_queries()`: those that the caller may see, and no others.
        tail: The files to read in place of the table's own; None for an ordinary statement.
        is_estimated: Whether what it would read is wanted.
        is_read_only: Whether it must not change anything.
    """

    sql: str = field(repr=False)
    parameters: pa.RecordBatch | None = field(default=None, repr=False)
    time_range: TimeRange | None = None
    row_limit: int | None = None
    preserve_dictionary: bool = False
    partitions: int | None = None
    messages: tuple[tuple[int, str], ...] = ()
    running: tuple[Mapping[str, object], ...] = field(default=(), hash=False, repr=False)
    tail: Tail | None = field(default=None, hash=False, repr=False)
    is_estimated: bool = False
    is_read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VisibleTable:
    """One table as one caller sees it: a row must meet one of the conditions, if there are any.

    `raw_name` is None when the table has no raw rows or when they do not exist for the caller. Of a view,
    `source_conditions` are those on the rows that it is computed from. Only rows with the values of `equal` are in it.
    `instance_of` is the table or view that it stands in for, if any. Rows that do not meet `retained` were deleted by
    retention. `needed` are the files that a planned statement needs of it. If it `cuts_times`, the statement gets all
    times in microseconds.
    """

    snapshot: TableSnapshot
    conditions: tuple[str, ...] = ()
    raw_name: str | None = None
    source_conditions: tuple[str, ...] = ()
    equal: tuple[tuple[str, str | None], ...] = ()
    instance_of: str | None = None
    retained: str | None = None
    needed: Sequence[DataFile] = field(default=(), repr=False, compare=False)
    cuts_times: bool = False

    @property
    def read_as(self) -> str:
        """The name under which the audit lists it."""
        return self.snapshot.name if self.instance_of is None else self.instance_of

    @property
    def all_conditions(self) -> tuple[str, ...]:
        """The conditions on its own rows and on those that it is computed from."""
        return (*self.conditions, *self.source_conditions)

    @property
    def hides_rows(self) -> bool:
        """Whether there may be rows that the caller must not see."""
        return bool(self.all_conditions)

    @property
    def has_deleted_rows(self) -> bool:
        """Whether its files may have rows that are deleted, which exist for nobody."""
        materialized = self.snapshot.materialized
        sources = () if materialized is None else (materialized.source,)
        return self.retained is not None or any(FileList.of(one.files).has_vectors for one in (self.snapshot, *sources))

    @property
    def reuses_names(self) -> bool:
        """Whether the name of a column is that of another one in the files."""
        stored = self.snapshot.stored_schema
        pairs = [] if stored is None else zip(self.snapshot.schema.names, stored.names, strict=True)
        return stored is not None and any(name != other and name in stored.names for name, other in pairs)

    @property
    def needs_barrier(self) -> bool:
        """Whether what the caller wrote could be evaluated on rows that do not exist for the caller."""
        return self.hides_rows or self.has_deleted_rows

    @property
    def names(self) -> tuple[str, ...]:
        """The names that exist for the caller."""
        return (self.snapshot.name,) if self.raw_name is None else (self.snapshot.name, self.raw_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryStatistics:
    """What a statement took so far; None for counts that the engine does not give.

    Listing and registering tables is `context_init_seconds`; `execution_seconds` are without reading rows. Of the
    `files_total` of its tables, `files_read` were opened. `rows_scanned` were decoded, whether or not they met a
    condition. Counts depend on rows that are hidden from the caller: see `PlannedQuery.hides_rows`.
    """

    context_init_seconds: float = 0.0
    execution_seconds: float = 0.0
    files_total: int | None = 0
    files_read: int | None = 0
    rows_scanned: int | None = 0
    bytes_scanned: int | None = 0
    spilled_bytes: int | None = 0
    spill_count: int | None = 0

    def plus(self, other: QueryStatistics) -> QueryStatistics:
        """Return what two statements took together."""
        facts: dict[str, Any] = asdict(self)
        for name, value in asdict(other).items():
            facts[name] = None if value is None or facts[name] is None else facts[name] + value
        return QueryStatistics(**facts)


class FileSource(Protocol):
    """Tells of the files that tables are stored in, beyond what a snapshot needs of them."""

    def files(self, table: str) -> pa.Table:
        """Return a row for each file; no rows when there is no such table.

        Its columns: `path` below the table's folder, `size`, `rows` (null if unknown), `written` (when), and bounds of
        times, null if unknown: `first_insert`, `last_insert`, `first_event`, `last_event`.
        """

    def past(
        self, table: str, to: datetime | int | None, caller: AuthContext
    ) -> tuple[TableSnapshot, str | None] | None:
        """Return a table at a time or version, by default now, if the caller may read earlier ones; None if it is gone.

        Rows that do not meet the condition, if there is one, do not exist.
        """

    def history(self, table: str, caller: AuthContext) -> pa.Table | None:
        """Return a row for each commit, with counts of files and rows, if the caller may read earlier versions."""


class TableFiles(NamedTuple):
    """What a statement that is explained or estimated reads of a table: so many `files` of `total`, bytes, and rows.

    `size` and `rows` are for all its scans of the table, None if these aren't known for each file.
    """

    name: str
    files: int
    total: int
    size: int | None
    rows: int | None


class ScanProgress(NamedTuple):
    """How much is `scanned` (0 to 1) of the `files` that a running statement needs."""

    files: int
    scanned: float


class PlannedQuery(Protocol):
    """A statement that was understood and can be run once.

    `schema` is that of every batch on the wire. `parameter_schema` has one field per placeholder, in order: `?` as "0",
    "1", …; `$1` as "0"; `$name` as "name"; null if unknown. `reads_tables` is False only if the plan, as it was before
    it was optimized, depends on no table, view or listing of them. `reads` covers the rows of parameters that were
    planned so far. If it `hides_rows`, its caller must not learn its counts or progress. `explained` is what EXPLAIN
    and a request that `is_estimated` show of tables to callers who see all their rows. For a `Tail`, `reached` is the
    index of the next file to read, with the offset in it. The front makes the `change` before it runs the statement.
    """

    schema: pa.Schema
    parameter_schema: pa.Schema
    reads: Reads
    reads_tables: bool
    hides_rows: bool
    explained: Sequence[TableFiles]
    reached: tuple[int, int] | None
    change: PartitionCall | None

    @property
    def statistics(self) -> QueryStatistics: ...  # noqa: D102 - see above

    def progress(self) -> ScanProgress | None:
        """Return how much of its files is scanned, from any thread; None if it's not running or hides rows."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Optimize the plan and start it, then return its batches. Closing the iterator stops the query."""
