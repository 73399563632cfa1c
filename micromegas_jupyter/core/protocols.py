"""Values and protocols that packages share; nothing here imports a library that is slow to load."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import pyarrow as pa


@runtime_checkable
class AuthProvider(Protocol):
    """Anything that provides valid bearer tokens; called once before each call to the server."""

    def get_token(self) -> str:
        """Return a token that is currently valid; raises `AuthenticationError` or `Unavailable`."""


class AuthType(enum.StrEnum):
    """How a caller proved their identity."""

    OIDC = "oidc"
    API_KEY = "api_key"
    NONE = "none"


ClaimValue = str | int | bool


class TokenKind(enum.StrEnum):
    """Which tokens from an issuer are accepted; a token whose kind is unknown counts as either."""

    ACCESS = "access"
    ID = "id"
    EITHER = "either"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableAccess:
    """Which tables a caller may read (`*` means all others); to the caller, other tables don't exist.

    `filters` are SQL conditions by table; a row must meet at least one. An empty tuple means all rows.
    """

    filters: Mapping[str, tuple[str, ...]] = field(hash=False)

    def may_read(self, table: str) -> bool:
        """Whether the table exists for the caller."""
        return table in self.filters or "*" in self.filters

    def conditions(self, table: str) -> tuple[str, ...]:
        """Return the conditions for a table that exists for the caller; a row must meet at least one of them."""
        found = self.filters.get(table)
        return self.filters["*"] if found is None else found


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteAccess:
    """Which tables a caller may write to; each entry is a name, a prefix (`team_*`), or `*` for all.

    Attributes:
        ingest: Tables that they may send rows to.
        creates: Tables that they may also create; the creator of a table owns it.
        owns: Tables that they may create, replace, alter, optimize, and drop, and whose rows they may delete,
            regardless of the creator.
    """

    ingest: frozenset[str] = frozenset()
    creates: frozenset[str] = frozenset()
    owns: frozenset[str] = frozenset()

    def may_ingest(self, table: str) -> bool:
        """Whether the caller may send rows to the table."""
        return _matches(table, self.ingest | self.creates | self.owns)

    def may_create(self, table: str) -> bool:
        """Whether the caller may create a table with this name."""
        return _matches(table, self.creates | self.owns)

    def owns_table(self, table: str) -> bool:
        """Whether the caller owns the table, even if another user created it."""
        return _matches(table, self.owns)


def _matches(table: str, patterns: frozenset[str]) -> bool:
    return table in patterns or any(pattern.endswith("*") and table.startswith(pattern[:-1]) for pattern in patterns)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthContext:
    """The caller of a request, as identified by the validator.

    Attributes:
        subject: The caller's name at the issuer (`sub`), or the API key's name.
        email: The caller's address in the token; for display only, because rights require `email_verified`.
        issuer: The token's issuer, `api_key`, or `none`.
        expires_at: When the credential expires (aware UTC); None if it does not expire.
        auth_type: How the caller proved their identity.
        is_admin: Whether this caller is on the server's administrator list.
        name: A display name, if the token has one.
        email_verified: Whether the issuer confirms, as JSON `true`, that the address belongs to the caller.
        may_delegate: Whether `x-user-*` headers can attribute this caller's calls to another user.
        groups: Group or role names from the token.
        client_id: The application that the token was issued to (`azp` or `client_id`), if stated.
        roles: The caller's roles on this server.
        scopes: The credential's purposes: `read`, `write`, `ingest`, `ingest:TABLE`.
        table_access: Which tables and rows the caller may read; None for all.
        max_scan_bytes: How many bytes a statement of the caller may read; None for no limit.
        write_access: Which tables the caller may write to; administrators may write to all.
        owner: The user who is responsible for an API key, as `issuer|subject`; None if the key has no owner.
        notice: A sentence to include in every response to this caller, about a credential that will stop working.
    """

    subject: str
    issuer: str
    auth_type: AuthType
    email: str | None = None
    expires_at: datetime | None = None
    is_admin: bool = False
    name: str | None = None
    email_verified: bool = False
    may_delegate: bool = False
    groups: tuple[str, ...] = ()
    client_id: str | None = None
    roles: tuple[str, ...] = ()
    scopes: frozenset[str] = frozenset({"read"})
    table_access: TableAccess | None = None
    max_scan_bytes: int | None = None
    write_access: WriteAccess = WriteAccess()
    owner: str | None = None
    notice: str | None = None


def find_table_access(caller: AuthContext, default_conditions: Mapping[str, str]) -> TableAccess | None:
    """Return which tables and rows a caller may read, or None for all.

    `default_conditions` restrict callers without other restrictions, except administrators.
    """
    if caller.table_access is not None or caller.is_admin or not default_conditions:
        return caller.table_access
    return TableAccess(filters={"*": (), **{table: (one,) for table, one in default_conditions.items()}})


@runtime_checkable
class TokenValidator(Protocol):
    """Identifies the holder of a token."""

    def validate_token(self, token: str) -> AuthContext:
        """Return the bearer of `token`. May use the network; safe to call from several threads.

        Raises:
            Rejected: The token is not acceptable.
            Unavailable: The token could not be checked now; it may be accepted later.
        """

    def cached_context(self, token: str) -> AuthContext | None:
        """Return the context if it can be found without I/O or signature checks, or None; never raises."""

    def close(self) -> None:
        """Stop background work and release connections."""


#: The metadata key that PyArrow uses for a column's ID in Parquet schemas.
FIELD_ID: Final = b"PARQUET:field_id"


class DeletionVector(NamedTuple):
    """A reference in a Delta table's log to the deleted rows of a file (PROTOCOL.md, Deletion Vectors).

    Attributes:
        location: The path or URL of the file that contains it; without an `offset`, its content in Z85.
        offset: Its position in that file.
        size: The number of bytes of its content.
        cardinality: How many rows it deletes.
        rows: How many rows the data file has; None if unknown.
    """

    location: str
    offset: int | None
    size: int
    cardinality: int
    rows: int | None


class DataFile(NamedTuple):
    """A table's data file; its path is absolute, or the URL of an object in a bucket.

    Attributes:
        partition: The values of the table's `partition_columns` as strings, as in the Delta log; None means null.
        begin: The lower bound of the first of `range_columns` (microseconds since 1970); None if unknown.
        end: The upper bound of the last of `range_columns`; None if unknown.
        deleted: Which of its rows are deleted; None if all rows are live.
    """

    path: str
    partition: tuple[str | None, ...] = ()
    begin: int | None = None
    end: int | None = None
    deleted: DeletionVector | None = None


class FileFormat(enum.Enum):
    """The format of a data file."""

    PARQUET = "parquet"
    CSV = "csv"
    JSON_LINES = "json"
    ARROW = "arrow"


class TableProblem(NamedTuple):
    """Why a table can't be read right now or by some statements, and a remedy; for callers who may see the table."""

    what: str
    remedy: str
    retryable: bool = True
    is_elsewhere: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSource:
    """The rows that a view is computed from.

    Their times are from `lookback_seconds` before to `slack_seconds` after the view's own `time_column`. The view reads
    these `columns` of the table, regardless of the requested columns.
    """

    table: str
    columns: tuple[str, ...]
    time_column: str
    slack_seconds: int = 0
    lookback_seconds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSnapshot:
    """A snapshot of one table: its schema and its files. Each row is in exactly one file.

    A time range filters rows by the first and last of `range_columns`. If rows are partial states, `merge_sql` computes
    the table from those in `raw_name`. With `has_mixed_types`, some files have a narrower type in a column. The values
    of `partition_columns` are not in the files but in `DataFile.partition`. A view has the columns and files of its
    `source`, and `merge_sql` computes it.

    Rows of a table with a `problem` must not be read; its columns are the previous ones, if known. If columns have
    other names in the files, `stored_schema` has these names in the same order, with field IDs if columns are matched
    by ID. Columns in `split_times` are in nanoseconds; files contain their microseconds, and the remainder in columns
    with the suffix `NANOS`. A materialized view has `materialized` and its own files, with partial rows that
    `merge_sql` merges.

    `bounds` has one row per file. Its columns are `rows`, `bytes`, and, for some columns, `min.x`, `max.x`, and
    `nulls.x`: bounds of the file's values and the number of nulls. Unknown values are null. Times are in microseconds.
    """

    name: str
    schema: pa.Schema = field(repr=False)
    files: Sequence[DataFile] = field(repr=False)
    partition_columns: tuple[str, ...] = ()
    file_format: FileFormat = FileFormat.PARQUET
    range_columns: tuple[str, str] | None = None
    merge_sql: str | None = None
    raw_name: str | None = None
    bounds: pa.Table | None = field(default=None, repr=False, compare=False)
    has_mixed_types: bool = False
    problem: TableProblem | None = None
    source: ViewSource | None = None
    stored_schema: pa.Schema | None = field(default=None, repr=False)
    split_times: tuple[str, ...] = ()
    materialized: Materialized | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Materialized:
    """The definition of a materialized view: the rows of `extract_sql` over `source`.

    The files of `source` are those whose rows are not in the view yet. If the view `is_stale`, `source` has all files
    of that table, and the view has no files. `properties` are those of its Delta table; `updated_at` and `updated_by`
    are about its definition.
    """

    source: TableSnapshot
    extract_sql: str
    properties: Mapping[str, str] = field(default_factory=dict)
    updated_at: str = ""
    updated_by: str = ""
    is_stale: bool = False


@runtime_checkable
class TableSource(Protocol):
    """The tables of an engine."""

    def snapshot(self, sql: str | None = None) -> Sequence[TableSnapshot]:
        """Return all tables; those that `sql` may read or describe are up to date (without `sql`, all of them).

        It is cheap enough to call for every query.
        """


class WriteMode(enum.Enum):
    """How a write handles an existing or missing table."""

    APPEND = "append"
    CREATE = "create"
    CREATE_OR_APPEND = "create_append"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteRequest:
    """A single write of rows to a table; a second write with the same `write_id` stores nothing.

    With `is_trusted`, rows may claim to be the server's own records. Without `may_read`, errors only mention columns
    that the caller sent. `maker` identifies the caller, who may have created up to `most_tables`. Without `is_owner`, a
    table may be replaced only if `maker` created it. With `is_own`, rows have exactly the columns of a data model
    table, and are not checked. With `is_short_lived`, the `write_id` is forgotten after some minutes.
    """

    table: str
    mode: WriteMode
    write_id: str | None = None
    is_trusted: bool = False
    may_read: bool = False
    maker: str | None = None
    most_tables: int | None = None
    is_owner: bool = False
    is_own: bool = False
    is_short_lived: bool = False


class TableWrite(Protocol):
    """A write in progress, used by one thread at a time; finished with `commit` or `abandon`.

    Raises `UsageError` if rows do not fit, otherwise `ResourcesExhausted` or `Unavailable`; nothing is stored then.
    """

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows with the schema that was passed to `open_write`; they are invisible until `commit`."""

    def commit(self) -> int:
        """Make all rows durable and visible atomically, and return the number of rows."""

    def abandon(self) -> None:
        """Discard the rows; does nothing after a `commit`, and never raises."""


class TableSink(Protocol):
    """The destination of rows that callers send."""

    def open_write(self, request: WriteRequest, schema: pa.Schema) -> TableWrite:
        """Begin a write of rows with `schema`; blocks, and raises the same errors as `TableWrite`."""
