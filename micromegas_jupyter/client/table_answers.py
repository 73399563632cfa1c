"""Server responses about tables; loaded by the methods that need them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

import msgspec


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSummary:
    """A table, whether the caller owns it, and whether the caller may send rows to it."""

    name: str
    is_owner: bool
    may_ingest: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TableColumn:
    """A column; `type` is its Arrow type name."""

    name: str
    type: str
    nullable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDescription:
    """A table on the server; only its owner sees its size.

    Attributes:
        name: The table's name.
        is_owner: Whether the caller may change and drop it.
        columns: The table's columns.
        partition_by: The columns whose values have separate folders.
        retention_days: How long rows are kept; None means the server's setting.
        undo_hours: For how many hours changes can be undone.
        time_travel: Who may read earlier versions: "owners", or all "readers" of the table.
        version: The number of the latest commit.
        row_count: The number of rows, or None if unknown.
        files: The number of files.
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
    """A table's commit: its operation, its program, and the recorded parameters and metrics."""

    version: int
    operation: str
    committed_at: datetime | None = None
    engine: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    metrics: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizeResult:
    """The number of files before and after."""

    removed_files: int
    added_files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """How to undo a change to a table.

    Attributes:
        undo_to: The time to restore to, just before the change; None if nothing was changed.
        undo_until: The deadline for the undo.
    """

    undo_to: datetime | None = None
    undo_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreResult(Undo):
    """The result of a restore, or the expected result with `dry_run`.

    Attributes:
        restored_version: The version that was restored.
        version: The version that the restore created; the latest one if nothing changed, and in a dry run.
        added_files: The number of files that were restored.
        removed_files: The number of files that were removed from the table.
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
    """The number of deleted rows; `undo` describes how to restore them."""

    undo: Undo

    def __new__(cls, count: int, undo: Undo) -> Self:
        """Return a number with `undo`."""
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
        """How to undo the deletion."""
        return Undo(undo_to=self.undo_to, undo_until=self.undo_until)


class Tables(msgspec.Struct, frozen=True):
    """The server's tables."""

    tables: tuple[TableSummary, ...]


class Versions(msgspec.Struct, frozen=True):
    """A table's commits."""

    versions: tuple[TableVersion, ...]
