"""Values and protocols that cross packages; they hold no behaviour beyond their own validity.

Each package re-exports those that belong to its public face (`auth`, `access`); nothing here imports a library
that is slow to load.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import pyarrow as pa


@runtime_checkable
class AuthProvider(Protocol):
    """Anything that can give a valid bearer token, called once before each call to the server."""

    def get_token(self) -> str:
        """Return a token that is valid now; raises `AuthenticationError` or `Unavailable`."""
        ...


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
    """Which tables a caller may read, and which of their rows; a table that is not here does not exist for them.

    Attributes:
        filters: By table name, conditions in SQL over the table's columns; a row is visible when one of them holds.
            An empty tuple means all rows. The name `*` stands for every table that is not named.
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
        may_delegate: Whether `x-user-*` headers attribute this caller's calls to somebody else.
        groups: Group or role names from the token.
        client_id: The application that the token was made for (`azp` or `client_id`), when stated.
        roles: The caller's roles on this server.
        scopes: What the credential is for: `read`, `ingest`.
        table_access: Which tables and rows the caller may read; None for all.
        notice: A sentence that every answer to this caller should carry, about a credential that will not do for
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
    notice: str | None = None


@runtime_checkable
class TokenValidator(Protocol):
    """Answers who bears a token."""

    def validate_token(self, token: str) -> AuthContext:
        """Return who bears `token`. May use the network; safe to call from several threads.

        Raises:
            Rejected: The token is not acceptable.
            Unavailable: It could not be decided now; the same token may be accepted later.
        """
        ...

    def cached_context(self, token: str) -> AuthContext | None:
        """Return the context when it is known without any I/O or signature work, else None; never raises."""
        ...

    def close(self) -> None:
        """Stop background work and release connections."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSnapshot:
    """One table as it stands at one moment: its schema and the files that hold its rows.

    Attributes:
        files: Absolute paths of Parquet files, each row in exactly one of them. May be empty.
        range_columns: The columns (first, last) that a query's time range [begin, end] filters: rows with
            `first <= end` and `last >= begin`. For an event both are its `time`.
        merge_sql: For tables whose rows are partial states: a SELECT over the raw rows (relation name
            `raw_name`) that gives the table's rows; None when the raw rows are the table.
        raw_name: The name under which the raw rows are visible when `merge_sql` is set.
        has_mixed_types: Whether some files have a column in another type, whose values that of `schema` holds.
    """

    name: str
    schema: pa.Schema = field(repr=False)
    files: tuple[str, ...] = field(repr=False)
    range_columns: tuple[str, str] | None = None
    merge_sql: str | None = None
    raw_name: str | None = None
    has_mixed_types: bool = False


@runtime_checkable
class TableSource(Protocol):
    """Where an engine finds its tables."""

    def snapshot(self) -> Sequence[TableSnapshot]:
        """Return all tables as they stand now; cheap enough to call for every query."""
        ...


class WriteMode(enum.Enum):
    """What a write does about the table that it names."""

    APPEND = "append"
    CREATE = "create"
    CREATE_OR_APPEND = "create_append"


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteRequest:
    """One write of rows into one table.

    Attributes:
        write_id: Names this write among all others, as lower-case hexadecimal digits: a second write with the same id
            into the same table stores nothing more. None when the caller gave no such name.
        is_trusted: Whether the rows may claim to be what the server itself records about its callers.
        may_read: Whether the caller may know the table's columns; else errors name no column that they did not send.
        maker: Names the caller among all others, as lower-case hexadecimal digits; None for nobody in particular.
        most_tables: How many tables the caller may have made; None for as many as there may be.
    """

    table: str
    mode: WriteMode
    write_id: str | None = None
    is_trusted: bool = False
    may_read: bool = False
    maker: str | None = None
    most_tables: int | None = None


class TableWrite(Protocol):
    """One write under way. Each method blocks; one thread at a time. Ends with `commit` or `abandon`.

    They raise `UsageError` when the rows do not fit the table, `ResourcesExhausted` when there is no room for them, and
    `Unavailable` when they cannot be stored now; none is stored then.
    """

    def write(self, batch: pa.RecordBatch) -> None:
        """Take rows of the schema that the write was opened with; nobody sees them before `commit`."""
        ...

    def commit(self) -> int:
        """Make all rows durable and visible at once and return how many were written."""
        ...

    def abandon(self) -> None:
        """Forget the rows; does nothing after a `commit`, and never raises."""
        ...


class TableSink(Protocol):
    """Where a server puts rows that callers send."""

    def open_write(self, request: WriteRequest, schema: pa.Schema) -> TableWrite:
        """Begin a write of rows with `schema`; blocks, and raises as the write does."""
        ...
