"""The engine's interface: it takes settings and a statement, and returns an exact schema and record batches."""

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


#: The upper bound for any statement size setting.
MAX_STATEMENT_BYTES: Final = 524288
#: The table function that lists running queries; the server provides the list if a statement mentions the function.
RUNNING_QUERIES: Final = "running_queries"
#: In `Reads`, stands for any column of a table, or as a table name, for any table.
ANY: Final = "*"
#: The columns that a statement reads, by table; empty for a table whose rows are only counted.
Reads = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Limits of one embedded engine.

    `memory_limit_bytes` is the pool for operators of running queries. Decoding and output use other memory (2.7 GB
    peaks were observed with a 500 MB pool), so the process needs a limit from the operating system, too.
    `spill_limit_bytes` is per running query. `default_conditions` are SQL conditions by table that rows must meet for
    callers who are not administrators and have no `table_access`.
    """

    memory_limit_bytes: int = 1 << 30
    spill_limit_bytes: int = 8 << 30
    max_statement_bytes: int = 131072
    target_partitions: int | None = None
    batch_rows: int = 65536
    default_conditions: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeRange:
    """A closed range of timezone-aware datetimes; like upstream's, it is empty if it ends before it begins."""

    begin: datetime
    end: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """The input for one read of a followed table: `files` in order, up to a row limit and a byte limit.

    `offset` is the number of result rows from the first file that earlier reads returned.
    """

    table: str
    files: tuple[DataFile, ...] = field(repr=False)
    offset: int = 0
    max_rows: int
    max_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementRequest:
    """One statement as sent by a caller.

    Attributes:
        parameters: Rows of values; the statement runs once per row, and the results are concatenated. Columns named
            "0", "1", … bind `?` in order, or `$1`, `$2`, …; other names bind `$name`. None without parameters.
        time_range: Restricts all tables with a time before the statement reads them; None for all rows.
        row_limit: At most this many rows are returned, in addition to the statement's own LIMIT; None for all.
        partitions: The number of partitions; None for one per processor.
        messages: Results of its administrators' function: times (nanoseconds since 1970) and strings.
        running: The rows of `running_queries()` that the caller may see.
        tail: The files to read instead of the table's own; None for an ordinary statement.
        is_estimated: Whether to estimate its reads.
        is_read_only: Whether it must not make changes.
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
    """A table as a caller sees it; each row must meet at least one of the conditions, if any.

    `raw_name` is None if the table has no raw rows or if they do not exist for the caller. `source_conditions` apply to
    the rows that a view is computed from. The table only contains rows with the values in `equal`. `instance_of` is the
    table or view that it stands in for, if any. Rows that do not meet `retained` were deleted by retention. `needed`
    are the files that a planned statement needs. If it `cuts_times`, the statement gets all times in microseconds.
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
        """The table's name in the audit log."""
        return self.snapshot.name if self.instance_of is None else self.instance_of

    @property
    def all_conditions(self) -> tuple[str, ...]:
        """The conditions on its own rows and on its source's rows."""
        return (*self.conditions, *self.source_conditions)

    @property
    def hides_rows(self) -> bool:
        """Whether some rows may be hidden from the caller."""
        return bool(self.all_conditions)

    @property
    def has_deleted_rows(self) -> bool:
        """Whether its files may have deleted rows, which no caller may see."""
        materialized = self.snapshot.materialized
        sources = () if materialized is None else (materialized.source,)
        return self.retained is not None or any(FileList.of(one.files).has_vectors for one in (self.snapshot, *sources))

    @property
    def reuses_names(self) -> bool:
        """Whether a column has the same name as a different column in the files."""
        stored = self.snapshot.stored_schema
        pairs = [] if stored is None else zip(self.snapshot.schema.names, stored.names, strict=True)
        return stored is not None and any(name != other and name in stored.names for name, other in pairs)

    @property
    def needs_barrier(self) -> bool:
        """Whether the caller's expressions could be evaluated on hidden or deleted rows."""
        return self.hides_rows or self.has_deleted_rows

    @property
    def names(self) -> tuple[str, ...]:
        """The names that exist for the caller."""
        return (self.snapshot.name,) if self.raw_name is None else (self.snapshot.name, self.raw_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryStatistics:
    """A statement's resource usage so far; counts that the engine does not report are None.

    `context_init_seconds` covers listing and registering tables; `execution_seconds` excludes reading rows. Of the
    `files_total` in its tables, `files_read` were opened. `rows_scanned` were decoded, whether or not they met a
    condition. Counts depend on hidden rows: see `PlannedQuery.hides_rows`.
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
        """Return the combined statistics of two statements."""
        facts: dict[str, Any] = asdict(self)
        for name, value in asdict(other).items():
            facts[name] = None if value is None or facts[name] is None else facts[name] + value
        return QueryStatistics(**facts)


class FileSource(Protocol):
    """Provides information about table files that snapshots don't contain."""

    def files(self, table: str) -> pa.Table:
        """Return one row per file, or no rows if the table does not exist.

        Columns: `path` relative to the table's folder, `size`, `rows` (null if unknown), `written` (a time), and time
        bounds (null if unknown): `first_insert`, `last_insert`, `first_event`, `last_event`.
        """

    def past(
        self, table: str, to: datetime | int | None, caller: AuthContext
    ) -> tuple[TableSnapshot, str | None] | None:
        """Return a table as of a time or version (default: now), or None if missing; check the caller's permission.

        Rows that do not meet the condition, if any, do not exist.
        """

    def history(self, table: str, caller: AuthContext) -> pa.Table | None:
        """Return one row per commit with file and row counts, or None if missing; check the caller's permission."""


class TableFiles(NamedTuple):
    """The amount that an explained or estimated statement reads from a table: `files` out of `total`, bytes, and rows.

    `size` and `rows` cover all scans of the table, or are None if unknown for any file.
    """

    name: str
    files: int
    total: int
    size: int | None
    rows: int | None


class ScanProgress(NamedTuple):
    """The `scanned` fraction (0 to 1) of the `files` that a running statement needs."""

    files: int
    scanned: float


class PlannedQuery(Protocol):
    """A planned statement that can be run once.

    `schema` is the schema of every batch on the wire. `parameter_schema` has one field per placeholder, in order: `?`
    as "0", "1", …; `$1` as "0"; `$name` as "name"; null if unknown. `reads_tables` is False only if the unoptimized
    plan depends on no table, view, or listing of them. `reads` covers the parameter rows that were planned so far. If
    it `hides_rows`, its caller must not learn its counts or progress. `explained` is the information about tables for
    EXPLAIN and `is_estimated` requests, for callers who see all their rows. For a `Tail`, `reached` is the index of the
    next file to read, with the offset in it. The front makes the `change` before it runs the statement.
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
        """Return the scan progress, from any thread; None if the query isn't running or hides rows."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Optimize and start the plan, then yield its batches. Closing the iterator stops the query."""
