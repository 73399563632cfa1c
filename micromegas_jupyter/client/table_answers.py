"""What a server answers about its tables; loaded by the methods that ask for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

import msgspec


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSummary:
    """A table of the server: whether the caller owns it, and whether they may send rows to it."""

    name: str
    is_owner: bool
    may_ingest: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TableColumn:
    """A column; `type` is Arrow's name of its type."""

    name: str
    type: str
    nullable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDescription:
    """A table of the server; only its owner learns how much is in it.

    Attributes:
        name: The table.
        is_owner: Whether the caller may change and drop it.
        columns: Its columns.
        partition_by: The partition columns.
        retention_days: How long rows are kept; None for as long as the server's own setting says.
        undo_hours: For how many hours changes can be undone.
        time_travel: Who may read earlier versions: "owners", or all "readers" of the table.
        version: The number of its latest commit.
        row_count: How many rows it has; None when that is not known.
        files: In how many files they are.
        size_bytes: The size of these files.
        created_at: When the table was created.
    """

    name: str
    is_owner: bool
    columns: tuple[TableColumn, ...]
    partition_by: tuple[str, ...] = ()
    retention_days: int | None = None
    undo_hours: int | None = None
    time_travel: str | None = None
    version: int | None = None
    row_count: int | None = None
    files: int | None = None
    size_bytes: int | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableVersion:
    """One commit of a table: what it did, by which program, with the parameters and metrics that were recorded."""

    version: int
    operation: str
    committed_at: datetime | None = None
    engine: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    metrics: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizeResult:
    """How many files became how many."""

    removed_files: int
    added_files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """How a change of a table is undone.

    Attributes:
        undo_to: The time to restore to, just before the change; None if nothing was changed.
        undo_until: The deadline for it.
    """

    undo_to: datetime | None = None
    undo_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreResult(Undo):
    """What a restore did, or with `dry_run` would do.

    Attributes:
        restored_version: The version that was restored.
        version: The version that this made; the latest one if nothing was to change, and in a dry run.
        added_files: How many files came back.
        removed_files: How many files the table no longer has.
        was_dropped: Whether the table had been dropped.
        missing_files: In a dry run, files that the restore needs but that are gone (at most 1,000).
    """

    restored_version: int
    version: int
    added_files: int
    removed_files: int
    was_dropped: bool
    missing_files: tuple[str, ...] = ()


class DeletedRows(int):
    """How many rows were deleted; `undo` has how they come back."""

    undo: Undo

    def __new__(cls, count: int, undo: Undo) -> Self:
        """Return a number that has `undo`."""
        made = super().__new__(cls, count)
        made.undo = undo
        return made


class Deletion(msgspec.Struct, frozen=True):
    """The response to a deletion."""

    deleted_rows: int
    undo_to: datetime | None = None
    undo_until: datetime | None = None

    @property
    def undo(self) -> Undo:
        """How it is undone."""
        return Undo(undo_to=self.undo_to, undo_until=self.undo_until)


class Tables(msgspec.Struct, frozen=True):
    """The tables of a server."""

    tables: tuple[TableSummary, ...]


class Versions(msgspec.Struct, frozen=True):
    """Commits of a table."""

    versions: tuple[TableVersion, ...]
