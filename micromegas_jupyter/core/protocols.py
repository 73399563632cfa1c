"""Values and protocols that cross packages; nothing here imports a library that is slow to load."""

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
    """Anything that can give a valid bearer token, called once before each call to the server."""

    def get_token(self) -> str:
        """Return a token that is valid now; raises `AuthenticationError` or `Unavailable`."""


class AuthType(enum.StrEnum):
    """How a caller proved who they are."""

    OIDC = "oidc"
    API_KEY = "api_key"
    NONE = "none"


ClaimValue = str | int | bool


class TokenKind(enum.StrEnum):
    """Which tokens of an issuer are accepted; a token that does not show its kind is taken for either."""

    ACCESS = "access"
    ID = "id"
    EITHER = "either"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableAccess:
    """Which tables a caller may read (`*`: all others); no other table exists for them.

    `filters` are conditions in SQL by table, of which a row must meet one; an empty tuple means all rows.
    """

    filters: Mapping[str, tuple[str, ...]] = field(hash=False)

    def may_read(self, table: str) -> bool:
        """Whether the table exists for the caller."""
        return table in self.filters or "*" in self.filters

    def conditions(self, table: str) -> tuple[str, ...]:
        """Return the conditions of which a row must meet one, for a table that exists for the caller."""
        found = self.filters.get(table)
        return self.filters["*"] if found is None else found


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteAccess:
    """Which tables a caller may write to: each a name, a prefix (`team_*`), or `*` for all.

    Attributes:
        ingest: Tables that they may send rows to.
        creates: Tables that they may also create; whoever created a table owns it.
        owns: Tables that they may create, replace, alter, optimize and drop, and delete rows of, whoever created them.
    """

    ingest: frozenset[str] = frozenset()
    creates: frozenset[str] = frozenset()
    owns: frozenset[str] = frozenset()

    def may_ingest(self, table: str) -> bool:
        """Whether the caller may send rows to the table."""
        return _matches(table, self.ingest | self.creates | self.owns)

    def may_create(self, table: str) -> bool:
        """Whether the caller may create a table of this name."""
        return _matches(table, self.creates | self.owns)

    def owns_table(self, table: str) -> bool:
        """Whether the caller owns the table even if another user created it."""
        return _matches(table, self.owns)


def _matches(table: str, patterns: frozenset[str]) -> bool:
    return table in patterns or any(pattern.endswith("*") and table.startswith(pattern[:-1]) for pattern in patterns)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthContext:
    """Who makes a call, as the validator found it.

    Attributes:
        subject: The issuer's own name of the caller (`sub`), or the API key's name.
        email: The caller's address as the token states it; for display, rights need `email_verified`.
        issuer: The token's issuer, or `api_key`, or `none`.
        expires_at: When the credential ends (aware UTC); None when it does not.
        auth_type: How the caller proved who they are.
        is_admin: Whether the server's administrator list names this caller.
        name: A name for people, when the token has one.
        email_verified: Whether the issuer says, as JSON `true`, that the address belongs to the caller.
        may_delegate: Whether `x-user-*` headers attribute this caller's calls to another user.
        groups: Group or role names from the token.
        client_id: The application that the token was made for (`azp` or `client_id`), when stated.
        roles: The caller's roles on this server.
        scopes: The credential's scopes: `read`, `write`, `ingest`, `ingest:TABLE`.
        table_access: Which tables and rows the caller may read; None for all.
        max_scan_bytes: How many bytes a statement of the caller may read; None for any number.
        write_access: Which tables the caller may write to; administrators may write to all.
        owner: Of an API key, the user who is responsible for it, as `issuer|subject`; None if the key names none.
        notice: A sentence that every response to this caller should contain, about a credential that will not do for
            ever.
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
    """Return which tables and rows a caller may read, None for all.

    `default_conditions` limit callers without other limits, except administrators.
    """
    if caller.table_access is not None or caller.is_admin or not default_conditions:
        return caller.table_access
    return TableAccess(filters={"*": (), **{table: (one,) for table, one in default_conditions.items()}})


@runtime_checkable
class TokenValidator(Protocol):
    """Identifies the bearer of a token."""

    def validate_token(self, token: str) -> AuthContext:
        """Return who bears `token`. May use the network; safe to call from several threads.

        Raises:
            Rejected: The token is not acceptable.
            Unavailable: It could not be decided now; the same token may be accepted later.
        """

    def cached_context(self, token: str) -> AuthContext | None:
        """Return the context if it is known without I/O or signature checks, or None; never raises."""

    def close(self) -> None:
        """Stop background work and release connections."""


#: The field of a column's metadata that has its ID, as PyArrow has it in the schemas of Parquet files.
FIELD_ID: Final = b"PARQUET:field_id"


class DeletionVector(NamedTuple):
    """Where the log of a Delta table has which rows of a file are deleted (PROTOCOL.md, Deletion Vectors).

    Attributes:
        location: The path or URL of the file that it is stored in; without an `offset`, its content in Z85.
        offset: Where it begins in that file.
        size: The number of bytes of its content.
        cardinality: How many rows it deletes.
        rows: How many rows the data file has; None if that is unknown.
    """

    location: str
    offset: int | None
    size: int
    cardinality: int
    rows: int | None


class DataFile(NamedTuple):
    """A file of a table: an absolute path, or a URL in a bucket.

    Attributes:
        partition: The values of the table's `partition_columns` as text, as the Delta log has them; None is null.
        begin: No row has an earlier time in the first of `range_columns` (microseconds since 1970); None when unknown.
        end: No row has a later time in the last of `range_columns`.
        deleted: Which of its rows are deleted; None for none.
    """

    path: str
    partition: tuple[str | None, ...] = ()
    begin: int | None = None
    end: int | None = None
    deleted: DeletionVector | None = None


class FileFormat(enum.Enum):
    """How the rows of a file are encoded."""

    PARQUET = "parquet"
    CSV = "csv"
    JSON_LINES = "json"
    ARROW = "arrow"


class TableProblem(NamedTuple):
    """Why a table cannot be read now, or by such a statement ever, and what to do; for those who may see the table."""

    what: str
    remedy: str
    retryable: bool = True
    is_elsewhere: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSource:
    """The rows that a view is computed from.

    Their times are up to `lookback_seconds` before and `slack_seconds` after the view's own `time_column`. It reads
    these `columns` of the table, whichever of its own columns are asked for.
    """

    table: str
    columns: tuple[str, ...]
    time_column: str
    slack_seconds: int = 0
    lookback_seconds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSnapshot:
    """A snapshot of one table: its schema, and files with each row in exactly one of them.

    A time range filters rows by the first and last of `range_columns`. Where rows are partial states, `merge_sql`
    makes the table of those in `raw_name`. With `has_mixed_types` some files have a narrower type in a column.
    The values of `partition_columns` are not in the files but in `DataFile.partition`. A view has the columns and files
    of its `source`, and `merge_sql` computes it. Rows of a table with a `problem` must not be read; its columns are
    those that it had before, if any are known. If columns have other names in the files, `stored_schema` has them in
    the same order, with the IDs of fields if columns are matched by these. Columns of `split_times` count nanoseconds;
    files have them in microseconds, and the rest in columns whose names end in `NANOS`. A materialized view has its own
    files, with partial rows that `merge_sql` merges, and `materialized`.

    `bounds` has a row for each of `files`, and of some columns `min.x`, `max.x` and `nulls.x`, where no value of the
    file is lower or greater and so many are null, `rows`, and `bytes`; null where it is unknown. Times count
    microseconds.
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

    The files of `source` are those whose rows are not in the view yet. If the view `is_stale`, they are all files of
    that table, and the view has none. `properties` are those of its Delta table; `updated_at` and `updated_by` tell of
    its definition.
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
        """Return all tables; those that `sql` may read or describe are current. None is for all of them.

        It is cheap enough to call for every query.
        """


class WriteMode(enum.Enum):
    """What a write does about the table that it names."""

    APPEND = "append"
    CREATE = "create"
    CREATE_OR_APPEND = "create_append"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteRequest:
    """One write of rows into one table; a second one with the same `write_id` stores nothing more.

    `is_trusted` rows may claim to be the server's own records. Without `may_read`, errors name no column that the
    caller did not send. `maker` names the caller, who may have made `most_tables`. Without `is_owner`, a table may be
    replaced only if `maker` created it. Rows that are `is_own` have exactly the columns of a table of the data model,
    and are not checked. A `write_id` that `is_short_lived` is forgotten after some minutes.
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
    """One write under way, for one thread at a time; ends with `commit` or `abandon`.

    Raises `UsageError` when rows do not fit, else `ResourcesExhausted` or `Unavailable`; nothing is stored then.
    """

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows with the schema that the write was opened with; they are invisible before `commit`."""

    def commit(self) -> int:
        """Make all rows durable and visible atomically, and return their number."""

    def abandon(self) -> None:
        """Forget the rows; does nothing after a `commit`, and never raises."""


class TableSink(Protocol):
    """The destination of rows that callers send."""

    def open_write(self, request: WriteRequest, schema: pa.Schema) -> TableWrite:
        """Begin a write of rows with `schema`; blocks, and raises as the write does."""
