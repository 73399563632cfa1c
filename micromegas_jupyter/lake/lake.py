"""Tables on a folder, which is all that the processes share that read and write one lake at once."""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
from filelock import FileLock

from micromegas_jupyter.core.protocols import TableSnapshot, TableSource
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.lake.files import (
    SegmentWriter,
    hold_writer,
    is_writer_id,
    list_segments,
    remove_old_temporaries,
    select_visible,
    storage_errors,
)
from micromegas_jupyter.lake.ingest import LakeSink
from micromegas_jupyter.lake.maintenance import LakeLimits, LakeSetup, Maintenance, Stopping
from micromegas_jupyter.lake.user_tables import UserTables
from micromegas_jupyter.telemetry.tables import TABLES, TableDefinition

# A folder's time of change moves in steps of up to 10 ms (the kernel's tick), so a listing made this soon after a
# change may lack a file that came in the same step.
_SETTLE_NS = 100_000_000
# Against file systems whose folder times cannot be relied on.
_MAX_LISTING_AGE_SECONDS = 1.0


class _Listing(NamedTuple):
    snapshot: TableSnapshot
    changed_ns: int
    is_settled: bool
    listed_at: float


class Lake:
    """The tables under one folder; a `TableSource`.

    Safe to use from several threads: an entry of the cache that lost a race no longer fits its folder's time of change.
    """

    def __init__(
        self,
        root: Path,
        *,
        tables: tuple[TableDefinition, ...] = TABLES,
        limits: LakeLimits | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._setup = LakeSetup(root=root.absolute(), tables=tables, limits=limits or LakeLimits(), clock=clock)
        self._listings: dict[Path, _Listing] = {}
        self._user_tables = UserTables(self._setup.root)

    def snapshot(self) -> tuple[TableSnapshot, ...]:
        """Return all tables as they stand now; the same object as before for a table that has not changed."""
        fixed = [
            self._listed(self._setup.folder(definition), definition.name, partial(_build_snapshot, definition))
            for definition in self._setup.tables
        ]
        made = [self._listed(table.folder, table.name, table.snapshot) for table in self._user_tables.list()]
        return (*fixed, *made)

    def open_writer(self, writer_id: str) -> "LakeWriter":
        """Return the way to write, to be closed by the caller."""
        if not is_writer_id(writer_id):
            raise UsageError("A writer's id is made of at most 64 letters and digits.")
        lock = hold_writer(self._setup.root, writer_id)
        try:
            return LakeWriter(self._setup, writer_id=writer_id, lock=lock)
        except BaseException:
            lock.release()
            raise

    def sink(self) -> LakeSink:
        """Return the way to store rows that callers send."""
        return LakeSink(self._setup, self._user_tables)

    def remove_stale_files(self) -> None:
        """Remove files of writes that were cut short long ago, as a writer's `maintain` does too."""
        before = self._setup.clock.now().timestamp() - self._setup.limits.temporary_age_seconds
        with storage_errors("Files that are no longer needed could not be removed."):
            for definition in self._setup.tables:
                remove_old_temporaries(self._setup.folder(definition), modified_before=before)
        self._user_tables.remove_stale_files(modified_before=before)

    def _listed(self, folder: Path, name: str, build: Callable[[tuple[str, ...]], TableSnapshot]) -> TableSnapshot:
        listed_at = self._setup.clock.monotonic()
        # Both are read before the folder, so that a change in between makes the entry stale, not wrong.
        now_ns = int(self._setup.clock.now().timestamp() * 1e9)
        with storage_errors(f"The files of {name} could not be listed."):
            try:
                changed_ns = folder.stat().st_mtime_ns
            except FileNotFoundError:
                changed_ns = 0
            known = self._listings.get(folder)
            if (
                known is not None
                and known.changed_ns == changed_ns
                and known.is_settled
                and listed_at - known.listed_at < _MAX_LISTING_AGE_SECONDS
            ):
                return known.snapshot
            visible = select_visible(list_segments(folder))
        files = tuple(f"{folder}/{segment.file_name}" for segment in visible)
        snapshot = known.snapshot if known is not None and known.snapshot.files == files else build(files)
        is_settled = now_ns - changed_ns > _SETTLE_NS
        self._listings[folder] = _Listing(snapshot, changed_ns, is_settled, listed_at)
        return snapshot


class LakeWriter:
    """Writes to all tables under one id, which it alone uses; append and maintain may run on two threads."""

    def __init__(self, setup: LakeSetup, *, writer_id: str, lock: FileLock) -> None:
        self._lock = lock
        with storage_errors("The recording's folder cannot be read."):
            self._writers = {
                definition.name: SegmentWriter(setup.folder(definition), definition, writer_id=writer_id)
                for definition in setup.tables
            }
        self._maintenance = Maintenance(setup, self._writers, writer_id=writer_id)

    def append(self, table_name: str, rows: pa.Table | pa.RecordBatch) -> None:
        """Store rows; when this returns they are durable and visible, when it raises they are neither."""
        writer = self._writers.get(table_name)
        if writer is None:
            raise UsageError(f"There is no table {table_name!r} to write to.")
        writer.append(rows)

    def maintain(self, is_stopping: Stopping = lambda: False) -> None:
        """Merge, drop and remove files once; call it every few seconds, on one thread."""
        self._maintenance.run(is_stopping)

    def close(self) -> None:
        """Give the id up: from now on others may merge what this writer left. Safe to call twice."""
        self._lock.release()


def _build_snapshot(definition: TableDefinition, files: tuple[str, ...]) -> TableSnapshot:
    return TableSnapshot(
        name=definition.name,
        schema=definition.schema,
        files=files,
        range_columns=definition.range_columns,
        merge_sql=definition.merge_sql,
        raw_name=definition.raw_name,
    )


CACHE_SECONDS: Final = 1.0


class CachedListing:
    """The tables of another source, at most a second old; who comes while it is asked gets that answer."""

    def __init__(self, source: TableSource, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._source = source
        self._clock = clock
        self._lock = threading.Lock()
        self._listing: Sequence[TableSnapshot] = ()
        self._until = float("-inf")

    def snapshot(self) -> Sequence[TableSnapshot]:
        """Return all tables."""
        with self._lock:
            if self._clock.monotonic() >= self._until:
                self._listing = self._source.snapshot()
                self._until = self._clock.monotonic() + CACHE_SECONDS
            return self._listing
