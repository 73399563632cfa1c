"""Keeps a lake's Delta tables small and fast: retention, compaction, checkpoints, vacuum, and a status for users.

Compaction adds its own log entry, because deltalake 1.6.3 has no call to replace chosen files, and never syncs: a
power failure after its `optimize` may lose durable rows. Versions 1.6.4 to 1.6.6 duplicate all rows if two compactions
overlap.
"""

import logging
import re
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import msgspec
import pyarrow as pa

from micromegas_jupyter.core.storage import Entry, Storage, storage_errors
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import MicromegasError, UsageError
from micromegas_jupyter.lake.data_files import open_file, write_runs
from micromegas_jupyter.lake.delta_log import (
    CONTROL_FOLDER,
    Action,
    TableGone,
    TableGuard,
    arrow_schema,
    build_entry,
    check_writable,
    cleanup_log,
    entry_name,
    is_entry,
    live_files,
    log_path,
    milliseconds,
    read_checkpoint_version,
    read_entry,
    read_state,
    take_back,
    times_of_files,
    update_delta,
    write_checkpoint,
)
from micromegas_jupyter.lake.dropped import DROPPED_FOLDER, UNDO_HOURS, remove_dropped
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.lease import Lease, ObservedLease, try_acquire
from micromegas_jupyter.lake.snapshot import MAX_LATE_SECONDS
from micromegas_jupyter.lake.tables import (
    DEFINITIONS,
    MODEL_RETENTION_DAYS,
    Tables,
    first_retained_day,
    no_table,
    retention_days,
    undo_hours,
)
from micromegas_jupyter.lake.types import PARTITION_DATE
from micromegas_jupyter.telemetry.tables import merge_rows
from micromegas_jupyter.telemetry.view_definitions import ViewDefinition

STATUS_OBJECT: Final = f"{CONTROL_FOLDER}/maintenance.json"
_MEBIBYTE: Final = 1024 * 1024
_MAX_GROUP_BYTES: Final = 128 * _MEBIBYTE
_MAX_GROUP_FILES: Final = 1000  # per commit, so that a stopped round has made progress
_RUN_BYTES: Final = 64 * _MEBIBYTE
_MAX_ATTEMPTS: Final = 1000
_STAGED_FILE: Final = re.compile(r"[a-z][a-z0-9_]{0,62}/([^/]+=[^/]*/)*part-[0-9a-f]{32}\.parquet", re.ASCII)
_TIME: Final = "time"
_PROCESS: Final = "process_id"
_OPTIMIZE_ROUNDS: Final = 3
_MAX_LOGGED: Final = 500
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceSettings:
    """When maintenance works on a table, and what it retains.

    Attributes:
        min_small_files: A partition with this many files smaller than half of `max_file_bytes` is compacted.
        max_file_bytes: The approximate maximum file size.
        quiet_seconds: A past day is compacted into as few files as possible once no rows have arrived for this time.
        vacuum_hours: How long an unused file is kept if the table's changes can be undone for 24 hours; for another
            undo time, it is longer or shorter by the difference. It must exceed the longest query or upload, and the
            undo time by an hour, so that a restore that starts in time finds its files.
        vacuum_interval_seconds: The interval between searches for unused files.
        checkpoint_commits: The number of commits after which a table gets a checkpoint.
        retention_days: Rows of the data model's tables older than this are deleted, by whole days. A table's own
            `micromegas.retentionDays` takes precedence over this and `max_total_bytes`.
        max_total_bytes: The maximum total size of the data model's tables; the oldest days, but never today, are
            deleted until it is met.
    """

    min_small_files: int = 50
    max_file_bytes: int = 64 * _MEBIBYTE
    quiet_seconds: float = 600.0
    vacuum_hours: int = UNDO_HOURS + 1
    vacuum_interval_seconds: float = 3600.0
    checkpoint_commits: int = 50
    retention_days: int = MODEL_RETENTION_DAYS
    max_total_bytes: int = 2048 * _MEBIBYTE


class TableStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A table's status after a round.

    Attributes:
        bytes: The size of the current version's files.
        files: The number of these files.
        small_files: How many of these files a compaction would merge.
        commits: The table's current version, which is its number of commits.
        lag_seconds: The age of the newest file that is overdue for compaction, or 0.
        error: Why maintenance of the table failed, or why it is impossible.
    """

    bytes: int = 0
    files: int = 0
    small_files: int = 0
    commits: int = 0
    lag_seconds: float = 0.0
    error: str | None = None


class LakeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The actions and findings of the last maintenance round; `done` has counts by kind of work. Times are aware UTC.

    `view_sources` has all materialized views with their sources. The `views` lack rows from these. No stored row of
    the `stale_views` can be used.
    """

    finished_at: datetime
    duration_seconds: float
    vacuumed_at: datetime | None
    tables: dict[str, TableStatus]
    done: dict[str, int]
    free_bytes: int | None = None
    last_error: str | None = None
    views: tuple[str, ...] = ()
    view_sources: dict[str, str] = {}
    stale_views: int = 0


class MaintenanceReport(NamedTuple):
    """The findings of a round, or None if another process has the lease; `seen` is then passed to the next round."""

    status: LakeStatus | None = None
    seen: ObservedLease | None = None


class _LeaseLost(Exception):
    """Another process now has the lease."""


def run_round(
    storage: Storage,
    *,
    settings: MaintenanceSettings | None = None,
    clock: Clock = SYSTEM_CLOCK,
    seen: ObservedLease | None = None,
) -> MaintenanceReport:
    """Maintain each table that needs it, unless another process does so; a failing table does not stop the others.

    Raises `Unavailable` if the storage itself cannot be used.
    """
    lease = try_acquire(storage, clock=clock, seen=seen)
    if not isinstance(lease, Lease):
        return MaintenanceReport(seen=lease)
    try:
        return MaintenanceReport(_Round(storage, settings or MaintenanceSettings(), clock, lease).run())
    finally:
        lease.release()


def read_status(storage: Storage) -> LakeStatus | None:
    """Return the last round's status, or None."""
    found = storage.read(STATUS_OBJECT)
    try:
        return None if found is None else msgspec.json.decode(found[0], type=LakeStatus)
    except msgspec.DecodeError:
        return None  # written by a different version of this program


def optimize(storage: Storage, name: str) -> dict[str, int]:
    """Merge a table's small files into a few large ones right now; return the number of files before and after."""
    if Tables(storage).find(name) is None:
        raise no_table(name)
    work = _Round(storage, MaintenanceSettings(min_small_files=2), SYSTEM_CLOCK, None)
    added = 0
    try:
        with storage_errors("The table could not be optimized.", storage), closing(_Table(storage, name)) as table:
            table.check_changeable()
            for _ in range(_OPTIMIZE_ROUNDS):  # repeats if other processes commit in the meantime
                added += sum([work.compact(table, group) for group in work.plan(table)])
    except TableGone:
        raise no_table(name) from None
    return {"removed_files": work.done["compacted_files"], "added_files": added}


_Partition = tuple[tuple[str, str | None], ...]


class _File(NamedTuple):
    """A file in a table's current version, with the names and values from the log."""

    path: str
    size_bytes: int
    modified_ms: int
    partition: _Partition
    begin: datetime | None  # lower bound of `time`, or None if unknown

    @property
    def day(self) -> date:
        """The day in a table that is partitioned by day; for rows without a time, the latest day."""
        return date.fromisoformat(self.partition[0][1] or date.max.isoformat())


class _Table(TableGuard):
    """A table at its newest version for one round."""

    def __init__(self, storage: Storage, name: str) -> None:
        super().__init__(storage, name)
        self.name = name
        self.definition = DEFINITIONS.get(name)
        self.refresh()

    def refresh(self) -> None:
        """Read new commits."""
        self.delta = update_delta(self.delta, self._storage, self.name)
        metadata = self.delta.metadata()
        self.properties: Mapping[str, str] = metadata.configuration
        self.partition_columns = tuple(metadata.partition_columns)
        columns = arrow_schema(self.delta)
        self.schema = pa.schema([one for one in columns if one.name not in self.partition_columns])
        self.has_dates = self.partition_columns == (PARTITION_DATE,)
        self.view: ViewDefinition | None = None
        self.is_damaged = False
        try:
            self.view = ViewDefinition.from_properties(self.properties)
        except ValueError:
            self.is_damaged = True
        self.time_column = _TIME if self.view is None else self.view.range_columns[1]
        self.files = _list_files(self.delta, self.partition_columns, self._written_partitions, self.time_column)

    def check_changeable(self) -> None:
        """Raise `UsageError` if rows can't be deleted or merged; the log and unused files are still cleaned up."""
        check_writable(self.delta)
        if self.is_damaged:
            raise UsageError(f"The definition of the materialized view {self.name} is corrupted.")

    def _written_partitions(self) -> Mapping[str, _Partition]:
        """Return the files' partition values as written in the log; deltalake formats some types differently."""
        state = read_state(self._storage, self.name, self.delta.version())
        by = self.partition_columns
        return {add["path"]: tuple((name, add["partitionValues"][name]) for name in by) for add in state.files.values()}

    def partitions(self) -> Iterable[list[_File]]:
        """Return the files by partition."""
        found: dict[_Partition, list[_File]] = {}
        for file in self.files:
            found.setdefault(file.partition, []).append(file)
        return found.values()


class _Round:
    def __init__(self, storage: Storage, settings: MaintenanceSettings, clock: Clock, lease: Lease | None) -> None:
        self._storage = storage
        self._settings = settings
        self._clock = clock
        self._lease = lease
        self._now = clock.now()
        self._old = self._now.timestamp() - settings.vacuum_hours * 3600
        self._tables = Tables(storage, clock=clock)
        self.done: Counter[str] = Counter()
        self._status: dict[str, TableStatus] = {}
        self._last_error: str | None = None
        self._lake = Lake(storage)
        self._views: list[str] = []
        self._stale_views = 0
        self._view_sources: dict[str, str] = {}
        self._sources: frozenset[str] = frozenset()  # of the last round's views

    def run(self) -> LakeStatus:
        began_at = self._clock.monotonic()
        before = read_status(self._storage)
        vacuumed_at = None if before is None else before.vacuumed_at
        interval = timedelta(seconds=self._settings.vacuum_interval_seconds)
        vacuums = vacuumed_at is None or self._now - vacuumed_at >= interval
        self._sources = frozenset(() if before is None else before.view_sources.values())
        with suppress(_LeaseLost):
            self._work({} if before is None else before.tables, vacuums=vacuums)
            vacuumed_at = self._now if vacuums else vacuumed_at
        status = LakeStatus(
            finished_at=self._clock.now(),
            duration_seconds=round(self._clock.monotonic() - began_at, 3),
            vacuumed_at=vacuumed_at,
            tables=self._status,
            done=dict(self.done),
            free_bytes=shutil.disk_usage(self._storage.uri).free if self._storage.is_local else None,
            last_error=self._last_error,
            views=tuple(self._views),
            view_sources=self._view_sources,
            stale_views=self._stale_views,
        )
        with suppress(_LeaseLost):
            self._check_lease()
            self._storage.write(STATUS_OBJECT, msgspec.json.format(msgspec.json.encode(status), indent=2))
        return status

    def _work(self, known: Mapping[str, TableStatus], *, vacuums: bool) -> None:
        names = self._tables.list()
        self._status = {name: known.get(name, TableStatus()) for name in names}
        first_days = self._first_days(names)
        for name in names:
            self._check_lease()
            try:
                with (
                    storage_errors(f"The table {name} could not be maintained.", self._storage),
                    closing(_Table(self._storage, name)) as table,
                ):
                    self._maintain(table, first_days.get(name, date.min), vacuums=vacuums)
            except TableGone:
                self._status.pop(name)
            except MicromegasError as error:
                cause = str(error.__cause__ or "")[:_MAX_LOGGED]
                _LOG.warning(
                    "a table could not be maintained", extra={"table": name, "reason": error.what, "cause": cause}
                )
                self._last_error = error.what
                self._status[name] = msgspec.structs.replace(self._status[name], error=error.what)
        with storage_errors("What is left of dropped tables could not be removed.", self._storage):
            self._remove_remains()

    def _check_lease(self) -> None:
        if self._lease is not None and not self._lease.is_held():
            raise _LeaseLost

    def _maintain(self, table: _Table, first_day: date, *, vacuums: bool) -> None:
        error = None
        try:
            table.check_changeable()
            if table.view is not None:
                error = self._look_at_view(table.name)
            self._delete_old_rows(table, first_day)
            for group in self.plan(table):
                self.compact(table, group)
        except UsageError as refusal:
            error = refusal.what
        self._checkpoint(table)
        if vacuums:
            self._vacuum(table)
        newest_ms = max((file.modified_ms for group in self.plan(table) for file in group), default=None)
        self._status[table.name] = TableStatus(
            bytes=sum(file.size_bytes for file in table.files),
            files=len(table.files),
            small_files=sum(map(self._is_small, table.files)),
            commits=table.delta.version(),
            lag_seconds=0.0 if newest_ms is None else max(0.0, round(self._now.timestamp() - newest_ms / 1000, 1)),
            error=error,
        )

    def _look_at_view(self, name: str) -> str | None:
        """Record whether a view must be refreshed, which other processes do; return why it can't be read."""
        try:
            view = self._lake.view(name)
        except MicromegasError as error:  # possibly because of its source; its own files must be cleaned up anyway
            return error.what
        if view is None:
            return None
        self._view_sources[name] = view.facts.source.name
        if view.source is None:
            return "The view cannot be read." if view.snapshot.problem is None else view.snapshot.problem.what
        self._stale_views += view.facts.is_stale
        if view.facts.is_stale or view.watermark != view.source.version:
            self._views.append(name)
        return None

    def _first_days(self, names: Iterable[str]) -> dict[str, date]:
        """Return the first day to keep for each data model table, so that their total size is within the limit."""
        days: Counter[tuple[date, str]] = Counter()
        for name in DEFINITIONS.keys() & set(names):
            with (
                suppress(TableGone, MicromegasError),  # maintenance of that table will report the error
                storage_errors("A table could not be read.", self._storage),
                closing(_Table(self._storage, name)) as table,
            ):
                if table.has_dates and retention_days(table.properties) is None:
                    for file in table.files:
                        days[file.day, name] += file.size_bytes
        excess_bytes = sum(days.values()) - self._settings.max_total_bytes
        first: dict[str, date] = {}
        for (day, name), size_bytes in sorted(days.items()):
            if excess_bytes <= 0 or day >= self._now.date():
                break
            first[name] = day + timedelta(days=1)
            excess_bytes -= size_bytes
        return first

    def _delete_old_rows(self, table: _Table, first_day: date) -> None:
        kept = first_retained_day(table.properties, table.name, now=self._now, model_days=self._settings.retention_days)
        first_day = first_day if kept is None else max(first_day, kept)
        first = datetime(first_day.year, first_day.month, first_day.day, tzinfo=UTC)
        if table.has_dates:
            column, is_due = PARTITION_DATE, any(file.day < first_day for file in table.files)
        else:
            column, is_due = table.time_column, any(file.begin and file.begin < first for file in table.files)
        if is_due and table.properties.get("delta.appendOnly") != "true":
            limit = first_day.isoformat() if table.has_dates else first.isoformat()
            quoted = column.replace('"', '""')
            deleted = self._tables.delete(table.name, f"\"{quoted}\" < '{limit}'", expired_before=first_day)
            self.done["deleted_rows"] += deleted.rows
            table.refresh()

    def _is_small(self, file: _File) -> bool:
        return file.size_bytes < self._settings.max_file_bytes // 2

    def _is_over(self, table: _Table, files: Sequence[_File]) -> bool:
        return table.has_dates and files[0].day < self._now.date()

    def plan(self, table: _Table) -> list[list[_File]]:
        """Return the files to merge, in groups from a single partition and of limited size.

        Files of views are merged when the views are refreshed.
        """
        found: list[list[_File]] = []
        if table.view is not None or table.is_damaged:
            return found
        quiet_from = self._now.timestamp() - self._settings.quiet_seconds
        for files in table.partitions():
            small = [file for file in files if self._is_small(file)]
            is_quiet = all(file.modified_ms / 1000 <= quiet_from for file in small)
            if len(small) >= self._settings.min_small_files or (self._is_over(table, files) and is_quiet):
                found += [group for group in _groups(small) if len(group) > 1]
        return found

    def compact(self, table: _Table, files: Sequence[_File]) -> int:
        """Replace files with others that have the same rows, in one commit, unless another commit makes that invalid.

        Return the number of new files. Rows of the data model are sorted by process and time, and partial states are
        merged once their day is over.
        """
        definition, added = table.definition, list[Action]()
        rule = definition.merge_rule if definition is not None and self._is_over(table, files) else None
        order = [] if definition is None else dict.fromkeys((_PROCESS, definition.range_columns[0]))

        def arrange(rows: pa.Table) -> pa.Table:
            merged = rows if rule is None else merge_rows(rows, rule)
            return merged.sort_by([(name, "ascending") for name in order]) if order else merged

        keeps_files = False
        try:
            runs = map(arrange, self._read_runs(table, files))
            partition, max_bytes = dict(files[0].partition), self._settings.max_file_bytes
            for one in write_runs(
                self._storage, table.name, runs, clock=self._clock, partition=partition, max_bytes=max_bytes
            ):
                added.append(one)  # immediately, so that all are removed if a later one fails
            self._check_lease()
            with table.hold():
                keeps_files = True  # until it is certain that no log entry contains them
                keeps_files = self._commit(table, files, added, changes_data=rule is not None)
        finally:
            if not keeps_files:
                for one in added:
                    self._storage.delete(f"{table.name}/{unquote(one['add']['path'])}")
        self.done["compacted_files" if keeps_files else "conflicts"] += len(files) if keeps_files else 1
        table.refresh()
        return len(added) if keeps_files else 0

    def _read_runs(self, table: _Table, files: Iterable[_File]) -> Iterator[pa.Table]:
        """Yield the rows of files in order, in parts that fit in memory."""
        pending: list[pa.Table] = []
        pending_bytes = 0
        for source in files:
            path = f"{table.name}/{unquote(source.path)}"
            with open_file(self._storage, path) as file:
                for index in range(file.num_row_groups):
                    self._check_lease()
                    pending.append(_fit(file.read_row_group(index, use_threads=False), table.schema))
                    pending_bytes += pending[-1].nbytes
                    if pending_bytes >= _RUN_BYTES:
                        yield pa.concat_tables(pending)
                        pending, pending_bytes = [], 0
        if pending:
            yield pa.concat_tables(pending)

    def _commit(self, table: _Table, removed: Sequence[_File], added: Sequence[Action], *, changes_data: bool) -> bool:
        """Add a log entry as the next free version; False if a commit since the snapshot makes it invalid.

        A commit does so if it removed one of the files or changed the table; appends by others are harmless.
        """
        entry_id, first = uuid.uuid4().hex, table.delta.version() + 1
        removals = [
            {
                "path": file.path,
                "deletionTimestamp": milliseconds(self._clock),
                "dataChange": changes_data,
                "extendedFileMetadata": True,
                "partitionValues": dict(file.partition),
                "size": file.size_bytes,
            }
            for file in removed
        ]
        additions = [{"add": {**one["add"], "dataChange": changes_data}} for one in added]
        actions = [*({"remove": one} for one in removals), *additions]
        facts = {"readVersion": first - 1, "isBlindAppend": False}
        content = build_entry("OPTIMIZE", entry_id, actions, clock=self._clock, operationParameters={}, **facts)
        paths = {file.path for file in removed}
        for version in range(first, first + _MAX_ATTEMPTS):
            if self._storage.create(log_path(table.name, entry_name(version)), content):
                try:
                    table.check(version)
                except TableGone:  # a table in a bucket was dropped before the commit
                    take_back(self._storage, table.name, version, entry_id)
                    raise
                return True
            winner = read_entry(self._storage, table.name, version)
            if winner is not None and is_entry(winner, entry_id):
                return True  # only the response to our own write was lost
            if winner is None or any(
                action.keys() & {"metaData", "protocol"} or action.get("remove", {}).get("path") in paths
                for action in winner
            ):
                break
        return False

    def _checkpoint(self, table: _Table) -> None:
        """Write a checkpoint if there have been many commits since the last one, and remove old log entries."""
        self._check_lease()
        last = max(0, read_checkpoint_version(self._storage, table.name))
        if table.delta.version() - last < self._settings.checkpoint_commits:
            return
        write_checkpoint(self._storage, table.name, table.delta)
        before = self._now.timestamp() - self._undo_hours_of(table) * 3600
        cleanup_log(self._storage, table.name, before=before)
        self.done["checkpoints"] += 1

    def _undo_hours_of(self, table: _Table) -> int:
        hours = undo_hours(table.properties) - UNDO_HOURS + self._settings.vacuum_hours
        # Views need their source's log and files to be kept for this long.
        return max(hours, MAX_LATE_SECONDS // 3600 + 1) if table.name in self._sources else hours

    def _vacuum(self, table: _Table) -> None:
        """Remove files that aren't in any version of the last hours, including those of writes that never committed."""
        # deltalake only lists the files; if it deleted them, it would make two commits and include files that are long
        # gone.
        hours = self._undo_hours_of(table)
        listed = table.delta.vacuum(retention_hours=hours, enforce_retention_duration=False, full=True)
        unused = {path.removeprefix(f"{table.delta.table_uri.rstrip('/')}/") for path in listed}
        unused -= {unquote(file.path) for file in table.files}
        # deltalake 1.6.3 may list vectors that live files need.
        unused = {path for path in unused if not path.endswith(".bin")}
        self._remove_old(
            list(self._storage.list(table.name)),
            lambda entry: entry.path.removeprefix(f"{table.name}/") in unused or _is_temporary(entry.path),
        )

    def _remove_remains(self) -> None:
        """Remove dropped tables, and files of tables that were never created; dropped folders age from their drop.

        In a local directory, also remove temporary files of killed processes.
        """
        before = datetime.fromtimestamp(self._old, UTC)
        hidden: list[str] = []
        if not self._storage.is_local:
            hidden = sorted({*self._storage.list_folders()} - {*self._tables.list(), CONTROL_FOLDER})
        if removed := remove_dropped(self._storage, hidden, before=before):
            self.done["removed_tables"] += removed
        for name in hidden:
            entries = list(self._storage.list(name))
            # A table with a log has been dropped, or was created or restored in the meantime.
            if not any(entry.path.startswith(log_path(name, "")) for entry in entries):
                self._remove_old(entries, lambda entry: _STAGED_FILE.fullmatch(entry.path) is not None)
        if not self._storage.is_local:
            return
        for file in Path(self._storage.child_uri(CONTROL_FOLDER)).glob(".*.tmp"):
            with suppress(FileNotFoundError):
                if file.stat().st_mtime < self._old:
                    file.unlink()
                    self.done["removed_files"] += 1
        for folder in Path(self._storage.child_uri(DROPPED_FOLDER)).glob("*"):
            with suppress(FileNotFoundError):  # a table that was created in the meantime
                if "." not in folder.name and folder.stat().st_mtime < self._old:  # otherwise, it is a dropped table
                    shutil.rmtree(folder, ignore_errors=True)
                    self.done["removed_tables"] += 1

    def _remove_old(self, entries: Iterable[Entry], is_unused: Callable[[Entry], bool]) -> None:
        for entry in entries:
            self._check_lease()
            if entry.modified_at < self._old and is_unused(entry):
                self._storage.delete(entry.path)
                self.done["removed_files"] += 1


def _list_files(
    delta: Any, partition_columns: Sequence[str], written: Callable[[], Mapping[str, _Partition]], time_column: str
) -> list[_File]:
    actions = live_files(delta)
    columns = [actions[name].to_pylist() for name in ("path", "size_bytes", "modification_time")]
    begins = times_of_files(actions, f"min.{time_column}").to_pylist()
    kinds = [actions[f"partition.{name}"].type for name in partition_columns]
    if all(_has_one_text(kind) for kind in kinds):
        values = [actions[f"partition.{name}"].cast(pa.string()).to_pylist() for name in partition_columns]
        texts = zip(*values, strict=True) if values else [()] * actions.num_rows
        partitions = [tuple(zip(partition_columns, one, strict=True)) for one in texts]
    else:
        known = written()
        partitions = [known[path] for path in columns[0]]
    found = [_File(*one) for one in zip(*columns, partitions, begins, strict=True)]
    return sorted(found, key=lambda file: (file.modified_ms, file.path))


def _has_one_text(kind: pa.DataType) -> bool:
    """Whether the log can represent a partition value of this type in only one way."""
    return any(is_kind(kind) for is_kind in (pa.types.is_string, pa.types.is_date, pa.types.is_integer))


def _groups(files: Iterable[_File]) -> Iterator[list[_File]]:
    """Yield the files in groups of at most 1,000 files and 128 MB, or a single file."""
    group: list[_File] = []
    for file in files:
        size_bytes = sum(one.size_bytes for one in group)
        if group and (size_bytes + file.size_bytes > _MAX_GROUP_BYTES or len(group) >= _MAX_GROUP_FILES):
            yield group
            group = []
        group.append(file)
    if group:
        yield group


def _fit(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return an older version's rows with the table's current columns and types."""
    names = set(rows.column_names)
    columns = [
        rows.column(field.name).cast(field.type) if field.name in names else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _is_temporary(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name.startswith(".") and name.endswith(".tmp")
