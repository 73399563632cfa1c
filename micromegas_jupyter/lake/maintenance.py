"""Keeps a lake's Delta tables small and quick: retention, compaction, checkpoints, vacuum, and a status for people."""

import enum
import logging
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from micromegas_jupyter.core.storage import Entry, Storage, storage_errors
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import MicromegasError, UsageError
from micromegas_jupyter.lake.delta_log import (
    CONTROL_FOLDER,
    LOG_FOLDER,
    TableGone,
    TableGuard,
    check_writable,
    log_path,
    open_delta,
)
from micromegas_jupyter.lake.lease import Lease, Sighting, try_acquire
from micromegas_jupyter.lake.rewrite import LiveFile, Partition, Rewriting, Stopped, rewrite
from micromegas_jupyter.lake.tables import DEFINITIONS, DROPPED_FOLDER, RETENTION_PROPERTY, Tables
from micromegas_jupyter.lake.types import PARTITION_DATE
from micromegas_jupyter.telemetry.tables import TableDefinition, merge_rows

STATUS_OBJECT: Final = f"{CONTROL_FOLDER}/maintenance.json"
_MEBIBYTE: Final = 1024 * 1024
_MAX_GROUP_BYTES: Final = 128 * _MEBIBYTE
_MAX_GROUP_FILES: Final = 1000  # of one commit, so that a round that is stopped has done something
_STAGED_FILE: Final = re.compile(r"[a-z][a-z0-9_]{0,62}/([^/]+=[^/]*/)*part-[0-9a-f]{32}\.parquet", re.ASCII)
_NO_DAY: Final = "9999-12-31"  # rows without a time are kept
_TIME: Final = "time"
_PROCESS: Final = "process_id"
_TEST_COMMITS: Final = 4
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceSettings:
    """When a table is worked on, and what is kept.

    Attributes:
        min_small_files: A partition with so many files smaller than half of `max_file_bytes` is compacted.
        max_file_bytes: About how large files become.
        quiet_seconds: A day that is over is compacted into as few files as possible once nothing came for so long.
        vacuum_hours: How long a file stays that no table has any more: longer than the longest query or upload.
        vacuum_interval_seconds: How often unused files are looked for.
        checkpoint_commits: After so many commits a table gets a checkpoint.
        retention_days: Rows of the data model's tables older than this are deleted, by whole days. A table's own
            `micromegas.retentionDays` goes before this and `max_total_bytes`.
        max_total_bytes: The oldest days are deleted while the data model's tables are larger together; never today.
    """

    min_small_files: int = 50
    max_file_bytes: int = 64 * _MEBIBYTE
    quiet_seconds: float = 600.0
    vacuum_hours: int = 24
    vacuum_interval_seconds: float = 3600.0
    checkpoint_commits: int = 50
    retention_days: int = 7
    max_total_bytes: int = 2048 * _MEBIBYTE


class TableStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One table after a round.

    Attributes:
        bytes: Size of the files of the present version.
        files: Their number.
        small_files: How many of them a compaction would take.
        commits: The present version of the table, which counts its commits.
        lag_seconds: Age of the newest file that should have been compacted and was not; 0 when nothing is due.
        error: Why the last work on the table failed, or why it cannot be done.
    """

    bytes: int = 0
    files: int = 0
    small_files: int = 0
    commits: int = 0
    lag_seconds: float = 0.0
    vacuumed_at: datetime | None = None
    error: str | None = None


class LakeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the last round of maintenance did and found; `done` counts by kind of work. Times are aware UTC."""

    finished_at: datetime
    duration_seconds: float
    deltalake_version: str
    compacts: bool
    tables: dict[str, TableStatus]
    done: dict[str, int]
    free_bytes: int | None = None
    last_error: str | None = None


class Outcome(enum.Enum):
    """How a round ended."""

    DONE = "done"
    STOPPED = "stopped"
    HELD_BY_ANOTHER = "held by another process"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceReport:
    """How a round ended; `seen` is to be handed to the next round of this machine, in whatever process that runs."""

    outcome: Outcome
    status: LakeStatus | None = None
    seen: Sighting | None = None


def run_round(
    storage: Storage,
    *,
    settings: MaintenanceSettings | None = None,
    clock: Clock = SYSTEM_CLOCK,
    is_stopping: Callable[[], bool] = lambda: False,
    seen: Sighting | None = None,
) -> MaintenanceReport:
    """Work on each table that needs it, unless another process does; a table that fails does not stop the others.

    Raises `Unavailable` when the storage itself cannot be used.
    """
    lease = try_acquire(storage, clock=clock, seen=seen)
    if lease is None or isinstance(lease, Sighting):
        return MaintenanceReport(outcome=Outcome.HELD_BY_ANOTHER, seen=lease)
    try:
        return _Round(storage, settings or MaintenanceSettings(), clock, lease, is_stopping).run()
    finally:
        lease.release()


def read_status(storage: Storage) -> LakeStatus | None:
    """Return what the last round left; None when there was none."""
    found = storage.read(STATUS_OBJECT)
    try:
        return None if found is None else msgspec.json.decode(found[0], type=LakeStatus)
    except msgspec.DecodeError:
        return None  # of another version of this program


def detect_safe_compaction() -> bool:
    """Whether deltalake refuses the second of two compactions that overlap; 1.6.4 to 1.6.6 store all rows twice."""
    from deltalake import DeltaTable, write_deltalake
    from deltalake.exceptions import DeltaError

    with tempfile.TemporaryDirectory(prefix="micromegas-self-test-") as folder:
        for number in range(_TEST_COMMITS):
            write_deltalake(folder, pa.table({"number": [number]}), mode="append")
        for table in (DeltaTable(folder), DeltaTable(folder, version=_TEST_COMMITS - 1)):
            try:
                table.optimize.compact()
            except DeltaError:
                continue
        return bool(pc.sum(_actions(DeltaTable(folder))["num_records"]).as_py() == _TEST_COMMITS)


class _Table:
    """A table at its newest version, for one round."""

    def __init__(self, storage: Storage, name: str) -> None:
        self.name = name
        self.delta = open_delta(storage, name)
        self.guard = TableGuard(storage, name, version=self.delta.version())
        self.definition = DEFINITIONS.get(name)
        self.refresh()

    def refresh(self) -> None:
        """Read what was committed since."""
        self.delta.update_incremental()
        metadata = self.delta.metadata()
        self.properties: Mapping[str, str] = metadata.configuration
        self.partition_columns = tuple(metadata.partition_columns)
        schema = pa.schema(self.delta.schema().to_arrow())
        self.schema = pa.schema([column for column in schema if column.name not in self.partition_columns])
        self.files = _live_files(self.delta, self.partition_columns)

    @property
    def has_dates(self) -> bool:
        """Whether each partition is a day."""
        return self.partition_columns == (PARTITION_DATE,)

    @property
    def own_retention_days(self) -> int | None:
        """The retention that was set for this table alone."""
        text = self.properties.get(RETENTION_PROPERTY, "")
        return int(text) if text.isdecimal() and int(text) > 0 else None


class _Round:
    def __init__(
        self,
        storage: Storage,
        settings: MaintenanceSettings,
        clock: Clock,
        lease: Lease,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._storage = storage
        self._settings = settings
        self._clock = clock
        self._is_told_to_stop = is_stopping
        self._lease = lease
        self._now = clock.now()
        self._tables = Tables(storage, clock=clock)
        self._done: Counter[str] = Counter()
        self._status: dict[str, TableStatus] = {}
        self._last_error: str | None = None

    def _is_stopping(self) -> bool:
        return self._is_told_to_stop() or self._lease.is_lost

    def run(self) -> MaintenanceReport:
        import deltalake

        began_at = self._clock.monotonic()
        before = read_status(self._storage)
        if before is not None and before.deltalake_version == deltalake.__version__:
            compacts = before.compacts
        else:
            compacts = detect_safe_compaction()
        if not compacts:
            _LOG.error("compaction is off: this version of deltalake stores rows twice when two compactions overlap")
        outcome = Outcome.DONE
        try:
            self._work({} if before is None else before.tables, compacts=compacts)
        except Stopped:
            outcome = Outcome.STOPPED
        status = LakeStatus(
            finished_at=self._clock.now(),
            duration_seconds=round(self._clock.monotonic() - began_at, 3),
            deltalake_version=deltalake.__version__,
            compacts=compacts,
            tables=self._status,
            done=dict(self._done),
            free_bytes=shutil.disk_usage(self._storage.uri).free if self._storage.is_local else None,
            last_error=self._last_error,
        )
        if not self._lease.is_lost:
            self._storage.write(STATUS_OBJECT, msgspec.json.format(msgspec.json.encode(status), indent=2))
        return MaintenanceReport(outcome=outcome, status=status)

    def _work(self, known: Mapping[str, TableStatus], *, compacts: bool) -> None:
        names = self._tables.list()
        self._status = {name: known.get(name, TableStatus()) for name in names}
        expired = self._days_over_bound(names)
        for name in names:
            try:
                with storage_errors(f"The table {name} could not be maintained."), self._opened(name) as table:
                    self._maintain(table, expired.get(name, frozenset()), compacts=compacts)
            except TableGone:
                self._status.pop(name)
            except MicromegasError as error:
                _LOG.warning("a table could not be maintained", extra={"table": name}, exc_info=error)
                self._last_error = error.what
                self._status[name] = msgspec.structs.replace(self._status[name], error=error.what)
        with storage_errors("What is left of dropped tables could not be removed."):
            self._remove_remains()

    @contextmanager
    def _opened(self, name: str) -> Iterator[_Table]:
        table = _Table(self._storage, name)
        try:
            yield table
        finally:
            table.guard.close()

    def _maintain(self, table: _Table, expired: AbstractSet[str], *, compacts: bool) -> None:
        name = table.name
        error = None
        try:
            check_writable(table.delta)
            self._drop_old_rows(table, expired)
            if compacts:
                self._compact(table)
        except UsageError as refusal:
            error = refusal.what
        self._checkpoint(table)
        vacuumed_at = self._status[name].vacuumed_at
        if vacuumed_at is None or (self._now - vacuumed_at).total_seconds() >= self._settings.vacuum_interval_seconds:
            self._vacuum(table)
            vacuumed_at = self._now
        due = [file for group in self._plan(table) for file in group]
        newest_ms = max((file.modified_ms for file in due), default=None)
        self._status[name] = TableStatus(
            bytes=sum(file.size_bytes for file in table.files),
            files=len(table.files),
            small_files=sum(map(self._is_small, table.files)),
            commits=table.delta.version(),
            lag_seconds=0.0 if newest_ms is None else max(0.0, round(self._now.timestamp() - newest_ms / 1000, 1)),
            vacuumed_at=vacuumed_at,
            error=error,
        )

    def _days_over_bound(self, names: Iterable[str]) -> dict[str, set[str]]:
        """Return the oldest days of the data model's tables that have to go, by table."""
        days: Counter[tuple[str, str]] = Counter()
        for name in names:
            if name not in DEFINITIONS:
                continue
            with (
                suppress(TableGone, MicromegasError),  # its own work will say so
                storage_errors("A table could not be read."),
                self._opened(name) as table,
            ):
                if table.has_dates and table.own_retention_days is None:
                    for file in table.files:
                        days[_day(file), name] += file.size_bytes
        excess_bytes = sum(days.values()) - self._settings.max_total_bytes
        expired: dict[str, set[str]] = {}
        for (day, name), size_bytes in sorted(days.items()):
            if excess_bytes <= 0 or day >= self._now.date().isoformat():
                break
            expired.setdefault(name, set()).add(day)
            excess_bytes -= size_bytes
        return expired

    def _drop_old_rows(self, table: _Table, expired: AbstractSet[str]) -> None:
        days = table.own_retention_days
        if days is None and table.definition is not None:
            days = self._settings.retention_days
        if table.properties.get("delta.appendOnly") == "true":
            return
        first_day = date.min if days is None else (self._now - timedelta(days=days)).date()
        if table.has_dates:
            kept_from = first_day.isoformat()
            for files in _by_partition(table.files):
                day = _day(files[0])
                if day < kept_from or day in expired:
                    self._rewrite(table, files, None, keeps_rows=False, kind="deleted_days")
        elif days is not None and _TIME in table.schema.names and pa.types.is_timestamp(table.schema.field(_TIME).type):
            cutoff = datetime(first_day.year, first_day.month, first_day.day, tzinfo=UTC)
            old = [file for file in table.files if file.begin is not None and file.begin < cutoff]
            kind = table.schema.field(_TIME).type
            limit = pa.scalar(cutoff if kind.tz else cutoff.replace(tzinfo=None), kind)

            def keep(rows: pa.Table) -> pa.Table:
                return rows.filter(pc.fill_null(pc.greater_equal(rows[_TIME], limit), True))

            for group in _groups(old):
                self._rewrite(table, group, keep, keeps_rows=False, kind="trimmed_files")

    def _is_small(self, file: LiveFile) -> bool:
        return file.size_bytes < self._settings.max_file_bytes // 2

    def _plan(self, table: _Table) -> Iterator[list[LiveFile]]:
        """Yield the files that are to become fewer, in groups that are of one partition and not too large."""
        today = self._now.date().isoformat()
        quiet_from = self._now.timestamp() - self._settings.quiet_seconds
        for files in _by_partition(table.files):
            small = [file for file in files if self._is_small(file)]
            is_over = table.has_dates and _day(files[0]) < today
            is_quiet = all(file.modified_ms / 1000 <= quiet_from for file in small)
            if len(small) >= self._settings.min_small_files or (is_over and is_quiet):
                yield from (group for group in _groups(small) if len(group) > 1)

    def _compact(self, table: _Table) -> None:
        today = self._now.date().isoformat()
        for group in list(self._plan(table)):
            is_over = table.has_dates and _day(group[0]) < today
            merges = is_over and table.definition is not None and table.definition.merge_rule is not None
            arrange = partial(_arrange, definition=table.definition, merges=merges)
            self._rewrite(table, group, arrange, keeps_rows=not merges, kind="compacted_files")

    def _rewrite(
        self,
        table: _Table,
        files: Sequence[LiveFile],
        arrange: Callable[[pa.Table], pa.Table] | None,
        *,
        keeps_rows: bool,
        kind: str,
    ) -> None:
        if self._is_stopping():
            raise Stopped
        plan = Rewriting(
            table=table.name,
            version=table.delta.version(),
            guard=table.guard,
            sources=tuple(files),
            schema=table.schema,
            arrange=arrange,
            keeps_rows=keeps_rows,
            max_file_bytes=self._settings.max_file_bytes,
        )
        if rewrite(self._storage, plan, now=self._clock.now(), is_stopping=self._is_stopping):
            self._done[kind] += len(files)
        else:
            self._done["conflicts"] += 1
        table.refresh()

    def _checkpoint(self, table: _Table) -> None:
        """Write a checkpoint when there are many commits after the last one, and let old log entries go."""
        if self._is_stopping():
            raise Stopped
        found = self._storage.read(log_path(table.name, "_last_checkpoint"))
        last = int(msgspec.json.decode(found[0])["version"]) if found is not None else 0
        version = table.delta.version()
        if version - last < self._settings.checkpoint_commits:
            return
        table.delta.create_checkpoint()
        for one in (f"{version:020}.checkpoint.parquet", "_last_checkpoint"):
            self._storage.sync_file(log_path(table.name, one))
        self._storage.sync_folder(f"{table.name}/{LOG_FOLDER}")
        table.delta.cleanup_metadata()
        self._done["checkpoints"] += 1

    def _vacuum(self, table: _Table) -> None:
        """Remove files that no version of the last hours has, those of writes that never committed among them."""
        if self._is_stopping():
            raise Stopped
        hours = self._settings.vacuum_hours
        # deltalake lists, and does not delete: that would be two commits each time, and files that are long gone.
        listed = table.delta.vacuum(retention_hours=hours, enforce_retention_duration=False, full=True)
        unused = {path.removeprefix(f"{table.delta.table_uri.rstrip('/')}/") for path in listed}
        live = {unquote(file.path) for file in table.files}
        self._remove_old(
            table.name,
            lambda entry: (
                (path := entry.path.removeprefix(f"{table.name}/")) not in live
                and (path in unused or _is_temporary(path))
            ),
        )

    def _remove_remains(self) -> None:
        """Remove dropped tables, and files of tables that were never made; a dropped folder is as old as its drop."""
        if not self._storage.is_local:
            self._tables.finish_drops()
            for name in sorted({*self._storage.list_folders()} - {*self._tables.list()}):
                self._remove_old(name, lambda entry: _STAGED_FILE.fullmatch(entry.path) is not None)
            return
        old = self._now.timestamp() - self._settings.vacuum_hours * 3600
        for folder in Path(self._storage.child_uri(DROPPED_FOLDER)).glob("*"):
            if folder.stat().st_mtime < old:
                shutil.rmtree(folder, ignore_errors=True)
                self._done["removed_tables"] += 1

    def _remove_old(self, folder: str, is_unused: Callable[[Entry], bool]) -> None:
        old = self._now.timestamp() - self._settings.vacuum_hours * 3600
        for entry in list(self._storage.list(folder)):
            if self._is_stopping():
                raise Stopped
            if entry.modified_at < old and is_unused(entry):
                self._storage.delete(entry.path)
                self._done["removed_files"] += 1


def _arrange(rows: pa.Table, *, definition: TableDefinition | None, merges: bool) -> pa.Table:
    """Sort rows of the data model by process and time, and merge partial states."""
    if definition is None:
        return rows
    if merges and definition.merge_rule is not None:
        rows = merge_rows(rows, definition.merge_rule)
    return rows.sort_by([(name, "ascending") for name in dict.fromkeys((_PROCESS, definition.range_columns[0]))])


def _live_files(delta: Any, partition_columns: Sequence[str]) -> list[LiveFile]:
    actions = _actions(delta)
    begins = actions[f"min.{_TIME}"].to_pylist() if f"min.{_TIME}" in actions.column_names else []
    is_time = bool(begins) and pa.types.is_timestamp(actions[f"min.{_TIME}"].type)
    values = [[_text(value) for value in actions[f"partition.{name}"].to_pylist()] for name in partition_columns]
    found = []
    for row, (path, size, modified) in enumerate(
        zip(*(actions[name].to_pylist() for name in ("path", "size_bytes", "modification_time")), strict=True)
    ):
        partition = tuple((name, values[index][row]) for index, name in enumerate(partition_columns))
        begin = begins[row] if is_time else None
        begin = begin.replace(tzinfo=UTC) if begin is not None and begin.tzinfo is None else begin
        found.append(LiveFile(path, size, modified, partition, begin))
    return sorted(found, key=lambda file: (file.modified_ms, file.path))


def _actions(delta: Any) -> pa.Table:
    return pa.table(delta.get_add_actions(flatten=True))


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    raise UsageError("A table is not maintained: its partitions are of a type that the log writes in several ways.")


def _by_partition(files: Iterable[LiveFile]) -> list[list[LiveFile]]:
    found: dict[Partition, list[LiveFile]] = {}
    for file in files:
        found.setdefault(file.partition, []).append(file)
    return list(found.values())


def _groups(files: Iterable[LiveFile]) -> Iterator[list[LiveFile]]:
    """Yield the files in groups of at most 1,000 and 128 MB, or one file."""
    group: list[LiveFile] = []
    group_bytes = 0
    for file in files:
        if group and (group_bytes + file.size_bytes > _MAX_GROUP_BYTES or len(group) >= _MAX_GROUP_FILES):
            yield group
            group, group_bytes = [], 0
        group.append(file)
        group_bytes += file.size_bytes
    if group:
        yield group


def _day(file: LiveFile) -> str:
    return file.partition[0][1] or _NO_DAY


def _is_temporary(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name.startswith(".") and name.endswith(".tmp")
