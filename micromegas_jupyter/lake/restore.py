"""Restores a table to an earlier state, or a dropped table under its name, as long as its files are kept.

The state becomes current with one log entry (decision 0036). Rows that retention has deleted since that time, or that
are now past their retention, stay deleted.
"""

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from micromegas_jupyter.core.files import sync_folder
from micromegas_jupyter.core.storage import Storage, storage_errors
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import PermissionDenied, ResourcesExhausted, Unavailable, UsageError
from micromegas_jupyter.lake.data_files import open_file, write_runs
from micromegas_jupyter.lake.delta_log import (
    DROPPED_AT,
    DROPPED_MARKER,
    EXPIRED_BEFORE,
    LOG_FOLDER,
    MAX_ENTRY_BYTES,
    RESTORE,
    Action,
    FileKey,
    NotInLog,
    Replay,
    TableGone,
    TableGuard,
    TableState,
    build_entry,
    check_writable,
    commit_info,
    committed_at,
    entry_name,
    file_key,
    is_entry,
    log_path,
    milliseconds,
    open_delta,
    read_entry,
    replay,
    take_back,
    was_dropped,
)
from micromegas_jupyter.lake.dropped import (
    DROPPED_FOLDER,
    UNDO_LIMIT,
    UNDO_WINDOW,
    DroppedTable,
    check_held,
    finish_move,
    free_name,
    hold_names,
    list_dropped,
    move_back,
)
from micromegas_jupyter.lake.snapshot import Unreadable, vector_path
from micromegas_jupyter.lake.tables import (
    DEFINITIONS,
    OWNER_PROPERTY,
    Tables,
    first_retained_day,
    is_name,
    no_table,
    undo_hours,
)
from micromegas_jupyter.lake.types import PARTITION_DATE

_MAX_ATTEMPTS: Final = 10
_MAX_SHOWN: Final = 5  # missing files in an error
_MAX_LISTED: Final = 1000  # in the result of a dry run
_MAX_COMMITS: Final = 100  # commits by other processes during one attempt
_MAX_SECONDS: Final = 1800.0  # less than the hour for which maintenance keeps files beyond the window
_MAX_SKEW: Final = timedelta(minutes=5)
_CUT: Final = timedelta(milliseconds=1)  # some writers truncate time bounds to milliseconds
_FIRST_TIME: Final = datetime(1970, 1, 1, tzinfo=UTC)  # year 1 in some time zones does not exist in UTC
_TIME: Final = "time"
_MAPPING: Final = "delta.columnMapping.mode"
_ROWS: Final = pa.timestamp("us", "UTC")


class Restored(NamedTuple):
    """The result of a restore.

    Attributes:
        restored_version: The restored version.
        version: The new version; the current one if nothing changed.
        added_files: The number of files that were restored.
        removed_files: The number of files that were removed from the table.
        dropped_at: When the table was dropped, if it was.
        missing_files: Files that a dry run could not find, at most 1,000.
    """

    restored_version: int
    version: int
    added_files: int
    removed_files: int
    dropped_at: datetime | None = None
    missing_files: tuple[str, ...] = ()

    @property
    def was_dropped(self) -> bool:
        """Whether the table had been dropped."""
        return self.dropped_at is not None


class RestoreRequest(NamedTuple):
    """The table to restore, and the time or version; `required_owner` limits this to tables that the caller owns.

    A version belongs to the table in use, or without one, to the most recently dropped table. A `dry_run` does not
    commit.
    """

    name: str
    to: datetime | int
    required_owner: str | None = None
    dry_run: bool = False


def restore_table(tables: Tables, request: RestoreRequest, *, clock: Clock = SYSTEM_CLOCK) -> Restored:
    """Restore the table that had this name at a time, or a version of it; raises `UsageError` with the possible times.

    A table in use gets one commit, after others' commits. A dropped table gets its name back if it is free.
    """
    storage, name, required_owner = tables.storage, request.name, request.required_owner
    now = clock.now()
    to = request.to if isinstance(request.to, int) else max(request.to, _FIRST_TIME)
    if not is_name(name):
        raise no_table(name)
    if isinstance(to, datetime) and to > now + _MAX_SKEW:
        raise UsageError("The time to restore to is in the future.", remedy="Use a time in the past.")
    live = tables.find(name)
    finish_move(storage, name, before=now - UNDO_LIMIT)
    found = _find_newest(storage, name, live) if isinstance(to, int) else _find(storage, name, live, to)
    if found is None:
        raise no_table(name) if isinstance(to, int) else _nothing_to_restore(tables, name, to, required_owner, now=now)
    _check_owner(name, found.owner, required_owner)
    time = _last_time_of(storage, found, name, to, now=now) if isinstance(to, int) else to
    window = timedelta(hours=found.undo_hours)
    if time < now - window - (UNDO_LIMIT - UNDO_WINDOW):
        raise _too_early(now - window)
    try:
        if found.dropped is None:
            with closing(TableGuard(storage, name)) as guard, guard.hold():
                return _Work(storage, name, name, clock, check=guard.check, dry_run=request.dry_run).run(to)
        if now - found.dropped.restorable_since > UNDO_LIMIT:
            raise no_table(name)
        if live is not None:
            raise _name_is_taken(name)
        properties = open_delta(storage, found.path, is_hidden=True).metadata().configuration
        with tables.adding(properties):
            pass  # check before starting the work
        if request.dry_run:
            dropped_at = found.dropped.dropped_at
            work = _Work(storage, found.path, name, clock, check=lambda _: None, dropped_at=dropped_at, dry_run=True)
            return work.run(to)._replace(dropped_at=dropped_at)
        bring_back = _restore_folder if storage.is_local else _restore_objects
        return bring_back(tables, found.dropped, to, clock, properties)
    except TableGone:
        raise no_table(name) from None  # it was dropped, or another call has restored it


class _Found(NamedTuple):
    """A table, in use or dropped, that may have had the name at that time."""

    created_ms: int
    path: str
    owner: str | None
    dropped: DroppedTable | None
    undo_hours: int


def _find(storage: Storage, name: str, live: DeltaTable | None, time: datetime) -> _Found | None:
    """Return the table that had this name at this time, or None."""
    found: list[_Found] = []

    def add(delta: DeltaTable, path: str, dropped: DroppedTable | None) -> None:
        metadata = delta.metadata()
        created_ms = metadata.created_time or 0
        if created_ms <= time.timestamp() * 1000:
            properties = metadata.configuration
            found.append(_Found(created_ms, path, properties.get(OWNER_PROPERTY), dropped, undo_hours(properties)))

    if live is not None:
        add(live, name, None)
    for one in list_dropped(storage, name):
        if time < one.dropped_at:
            with suppress(TableGone):
                add(open_delta(storage, one.path, is_hidden=True), one.path, one)
    if len(found) > 1:  # one of them may have been dropped at that time, when another table had the name
        found = [one for one in found if not was_dropped(storage, one.path, time)]
    return max(found, key=lambda one: one.created_ms, default=None)


def _find_newest(storage: Storage, name: str, live: DeltaTable | None) -> _Found | None:
    """Return the table in use, or the most recently dropped one."""
    dropped = None if live is not None else next(reversed(list_dropped(storage, name)), None)
    path = name if dropped is None else dropped.path
    try:
        delta = open_delta(storage, path, is_hidden=True) if live is None and dropped is not None else live
    except TableGone:
        return None
    if delta is None:
        return None
    properties = delta.metadata().configuration
    return _Found(0, path, properties.get(OWNER_PROPERTY), dropped, undo_hours(properties))


def _last_time_of(storage: Storage, found: _Found, name: str, version: int, *, now: datetime) -> datetime:
    """Return the last time at which a version was in effect."""
    newest = open_delta(storage, found.path, is_hidden=True).version()
    if version > newest:
        raise UsageError(f"The table {name} has no version {version}.", remedy=f"Its latest version is {newest}.")
    if version == newest:
        return now if found.dropped is None else found.dropped.dropped_at
    ended_at = committed_at(storage, found.path, version + 1)
    return _FIRST_TIME if ended_at is None else ended_at - _CUT


def _nothing_to_restore(
    tables: Tables, name: str, time: datetime, required_owner: str | None, *, now: datetime
) -> UsageError:
    """Return the error for a time at which no table had the name, including the possible times."""
    live = tables.find(name)
    if live is not None:
        metadata = live.metadata()
        _check_owner(name, metadata.configuration.get(OWNER_PROPERTY), required_owner)
        created_at = datetime.fromtimestamp((metadata.created_time or 0) / 1000, UTC)
        if created_at <= time:
            return _dropped_then(name, time)
        return UsageError(
            f"The table {name} did not exist at {_iso(time)}.",
            remedy=f"It was created at {_iso(created_at)}. Use that time or a later one.",
        )
    kept = [one for one in list_dropped(tables.storage, name) if now - one.restorable_since <= UNDO_LIMIT]
    for one in reversed(kept):
        with suppress(TableGone):
            metadata = open_delta(tables.storage, one.path, is_hidden=True).metadata()
            _check_owner(name, metadata.configuration.get(OWNER_PROPERTY), required_owner)
            return UsageError(
                f"There was no table {name} at {_iso(time)}.",
                remedy=f"It was dropped at {_iso(one.dropped_at)}. Use an earlier time, such as "
                f"{_iso(one.dropped_at - _CUT)}.",
            )
    return no_table(name)


def _dropped_then(name: str, time: datetime) -> UsageError:
    return UsageError(
        f"There was no table {name} at {_iso(time)}.",
        remedy="It had been dropped by that time and was restored later. Use an earlier or later time.",
    )


def _check_owner(name: str, owner: str | None, required_owner: str | None) -> None:
    if required_owner is not None and owner != required_owner:
        raise PermissionDenied(
            f"You do not own the table {name}.",
            reason="not_table_owner",
            remedy="Ask its owner or one of the server's administrators.",
        )


def _too_early(earliest: datetime, missing: Sequence[str] = ()) -> UsageError:
    more = f" and {len(missing) - _MAX_SHOWN} more" if len(missing) > _MAX_SHOWN else ""
    files = f" Missing: {', '.join(missing[:_MAX_SHOWN])}{more}." if missing else ""
    return UsageError(
        "The table cannot be restored to that time: some files or log entries from that time no longer exist." + files,
        remedy=f"The earliest possible time is {_iso(earliest)}.",
    )


def _name_is_taken(name: str) -> UsageError:
    return UsageError(
        f"Another table named {name} was created after the one that you want to restore was dropped.",
        remedy="Drop the new one, or have its owner drop it, and try again. The new one can be restored, too.",
    )


def _restore_folder(
    tables: Tables, dropped: DroppedTable, to: datetime | int, clock: Clock, properties: Mapping[str, str]
) -> Restored:
    """Restore a local table in its hidden location and rename its folder back; a crash in between leaves it hidden."""
    storage = tables.storage
    root = Path(storage.uri)
    with (
        closing(TableGuard(storage, dropped.path)) as guard,
        guard.hold(is_exclusive=True),
        storage_errors("The table could not be restored.", storage),
    ):
        work = _Work(storage, dropped.path, dropped.name, clock, check=guard.check, dropped_at=dropped.dropped_at)
        restored = work.run(to)
        try:
            with tables.adding(properties):
                (root / dropped.path).rename(root / dropped.name)  # fails for a nonempty directory
        except OSError:
            if tables.find(dropped.name) is None:
                raise
            raise _name_is_taken(dropped.name) from None
        sync_folder(root)
        sync_folder(root / DROPPED_FOLDER)
    return restored._replace(dropped_at=dropped.dropped_at)


def _restore_objects(
    tables: Tables, dropped: DroppedTable, to: datetime | int, clock: Clock, properties: Mapping[str, str]
) -> Restored:
    """Restore a table in a bucket behind its marker, then remove the marker; a crash before that leaves it hidden."""
    storage, name = tables.storage, dropped.name
    with hold_names(storage) as lease:
        current = next((one for one in list_dropped(storage, name) if one.id == dropped.id), None)
        if current is None:
            raise TableGone
        if current.path != name:
            marked = next((one for one in list_dropped(storage, name) if one.path == name), None)
            if marked is not None and marked.id != current.id:
                free_name(storage, name, lease=lease, before=clock.now() - UNDO_LIMIT)
            if tables.find(name) is not None:
                raise _name_is_taken(name)
            move_back(storage, current, lease=lease)
        work = _Work(storage, name, name, clock, check=lambda _: check_held(lease), dropped_at=current.dropped_at)
        restored = work.run(to)
        with tables.adding(properties):
            check_held(lease)
            storage.delete(log_path(name, DROPPED_MARKER))
    return restored._replace(dropped_at=current.dropped_at)


@dataclass(slots=True)
class _Plan:
    """The table's planned files: those from that time, without rows that retention has deleted."""

    files: dict[FileKey, Action]
    written: list[Action]
    expired_before: date | None


class _Work:
    """A restore of the table `name`, which is currently stored at `path`.

    `check` raises if `path` no longer has this table; it is called before and after a commit. Restoring a dropped table
    always commits, so that the log records how long it was dropped.
    """

    def __init__(  # noqa: PLR0913 - options by keyword
        self,
        storage: Storage,
        path: str,
        name: str,
        clock: Clock,
        *,
        check: Callable[[int], None],
        dropped_at: datetime | None = None,
        dry_run: bool = False,
    ) -> None:
        self._storage = storage
        self._path = path
        self._name = name
        self._clock = clock
        self._check = check
        self._dropped_at = dropped_at
        self._dry_run = dry_run
        self._deadline = SYSTEM_CLOCK.monotonic() + _MAX_SECONDS

    def run(self, to: datetime | int) -> Restored:
        """Restore the state at a time or version."""
        version = self._version_to_keep(to)
        if version is not None and (self._dropped_at is None or not self._is_writable()):
            return Restored(version, version, 0, 0)
        for _ in range(_MAX_ATTEMPTS):
            try:
                found = replay(self._storage, self._path, to)
            except NotInLog as error:
                raise _too_early(error.earliest) from None
            if isinstance(to, datetime) and any(dropped_at <= to for dropped_at in found.drops):
                raise _dropped_then(self._name, to)
            with storage_errors("The table could not be restored.", self._storage):
                restored = self._attempt(found)
            if restored is not None:
                return restored
        raise Unavailable("Other calls kept changing the table, so it was not restored.", remedy="Try again.")

    def _version_to_keep(self, to: datetime | int) -> int | None:
        """Return the latest version if it was requested or in effect at that time, and retention hasn't changed it."""
        delta = open_delta(self._storage, self._path, is_hidden=True)
        last = committed_at(self._storage, self._path, delta.version())
        kept = first_retained_day(delta.metadata().configuration, self._name, now=self._clock.now())
        is_wanted = to == delta.version() if isinstance(to, int) else last is not None and last <= to
        return delta.version() if is_wanted and kept is None else None

    def _is_writable(self) -> bool:
        try:
            check_writable(open_delta(self._storage, self._path, is_hidden=True), is_restore=True)
        except UsageError:
            return False
        return True

    def _attempt(self, found: Replay) -> Restored | None:
        """Commit the state at that time; return None if another process's commit makes the plan invalid."""
        plan = self._plan(found)
        differs = plan.files.keys() != found.now.files.keys() or found.then.columns != found.now.columns
        differs = differs or found.then.properties.get(_MAPPING) != found.now.properties.get(_MAPPING)
        if self._dropped_at is None and not differs:
            return Restored(found.now.version, found.now.version, 0, 0)
        keeps_files = False
        try:
            self._check_may_change(found, plan)
            missing, earliest = self._find_files(found, plan)
            if self._dry_run:
                restored = _restored(found, plan, found.now.version)
                return restored._replace(missing_files=tuple(missing[:_MAX_LISTED]))
            if missing:
                raise _too_early(earliest, missing)
            for path in self._paths_to_add(found, plan):
                self._storage.sync_file(f"{self._path}/{unquote(path)}")
            keeps_files = True  # until it is certain that no log entry contains them
            version = self._commit(found, plan)
            keeps_files = version is not None
        finally:
            if not keeps_files:
                self._delete_files(plan.written)
        return None if version is None else _restored(found, plan, version)

    def _check_may_change(self, found: Replay, plan: _Plan) -> None:
        check_writable(open_delta(self._storage, self._path, is_hidden=True), is_restore=True)
        then, now = found.then, found.now
        if then.properties.get(_MAPPING) != now.properties.get(_MAPPING):
            raise UsageError(f"The column mapping of the table {self._name} has changed since that time.")
        if plan.expired_before is not None and (_MAPPING in now.properties or any(vector for _, vector in plan.files)):
            raise UsageError(
                f"The table {self._name} has a retention period, which a restore cannot apply to deletion vectors or "
                "mapped columns.",
                remedy="Restore it with the program that created it.",
            )
        if now.properties.get("delta.appendOnly") == "true" and now.files.keys() - plan.files.keys():
            raise UsageError(
                f"The table {self._name} accepts only new rows (delta.appendOnly), so it cannot be restored.",
                remedy="Remove that property first.",
            )
        if _protocol(then) - _protocol(now):
            raise UsageError(f"The table {self._name} used Delta features at that time that it no longer uses.")
        if self._name in DEFINITIONS and then.columns != now.columns:
            raise UsageError(f"The columns of {self._name}, a data model table, have changed since that time.")
        for path, _ in plan.files:
            if "://" in path or ".." in unquote(path).split("/") or unquote(path).startswith("/"):
                raise UsageError(f"Some files of the table {self._name} are outside its folder.")

    def _plan(self, found: Replay) -> _Plan:
        """Choose the files from that time, and rewrite those from which retention has since deleted some rows."""
        kept = first_retained_day(found.now.properties, self._name, now=self._clock.now())
        first = max((day for day in (kept, found.expired_before) if day is not None), default=None)
        plan = _Plan(dict(found.then.files), [], first)
        if first is None or found.now.properties.get("delta.appendOnly") == "true":
            return plan
        is_dated = (found.then.metadata.get("partitionColumns") or []) == [PARTITION_DATE]
        has_time = not is_dated and _has_times(found.then)
        try:
            for key, add in found.then.files.items():
                if is_dated:
                    day = add.get("partitionValues", {}).get(PARTITION_DATE)
                    is_gone = day is not None and date.fromisoformat(day) < first
                else:
                    is_gone = has_time and self._lacks_rows(add["path"], add, first, plan)
                if is_gone:
                    del plan.files[key]
            plan.files |= {file_key(one): one for one in plan.written}
        except BaseException:
            self._delete_files(plan.written)
            raise
        return plan

    def _delete_files(self, adds: list[Action]) -> None:
        for add in adds:
            self._storage.delete(f"{self._path}/{unquote(add['path'])}")

    def _lacks_rows(self, path: str, add: Action, first_day: date, plan: _Plan) -> bool:
        """Whether a file has rows from before a day; its rows from that day on are written to a new file."""
        first = datetime(first_day.year, first_day.month, first_day.day, tzinfo=UTC)
        low, high = _bounds(add)
        if low is not None and low - _CUT >= first:
            return False
        if high is not None and high + _CUT < first and not _has_nulls(add):
            return True
        location = f"{self._path}/{unquote(path)}"
        if self._storage.is_local and not Path(self._storage.child_uri(location)).exists():
            return False  # reported with the missing files
        expired = 0

        def unexpired_rows() -> Iterator[pa.Table]:
            nonlocal expired
            with open_file(self._storage, location) as file:
                for group in range(file.num_row_groups):
                    rows = file.read_row_group(group, use_threads=False)
                    if _TIME not in rows.column_names or not pa.types.is_timestamp(rows.schema.field(_TIME).type):
                        yield rows
                        continue
                    is_old = pc.less(rows.column(_TIME).cast(_ROWS, safe=False), pa.scalar(first, _ROWS))
                    expired += pc.sum(is_old).as_py() or 0
                    is_kept = pc.invert(pc.fill_null(is_old, False))
                    if pc.any(is_kept).as_py():
                        yield rows.filter(is_kept)

        partition = add.get("partitionValues") or {}
        written = [
            one["add"]
            for one in write_runs(self._storage, self._path, unexpired_rows(), clock=self._clock, partition=partition)
        ]
        if not expired:
            self._delete_files(written)
            return False
        plan.written += written
        return True

    def _find_files(self, found: Replay, plan: _Plan) -> tuple[list[str], datetime]:
        """Return the missing files that the restore needs, and the earliest time that can be restored without them."""
        if not (added := self._paths_to_add(found, plan)):
            return [], found.now.committed_at
        there = {entry.path.removeprefix(f"{self._path}/") for entry in self._storage.list(self._path)}
        gone = [time for path, time in found.removed_at.items() if unquote(path) not in there]
        missing = sorted(path for path in added if unquote(path) not in there)
        return missing, max(gone, default=found.now.committed_at)

    def _paths_to_add(self, found: Replay, plan: _Plan) -> set[str]:
        keys = plan.files.keys() - found.now.files.keys()
        vectors = [vector for key in keys if (vector := plan.files[key].get("deletionVector"))]
        try:
            paths = [quote(vector_path(self._storage, self._path, one)) for one in vectors if one["storageType"] != "i"]
        except Unreadable as error:
            raise UsageError(f"The table {self._name} cannot be restored: {error}.") from None
        return {*paths, *(path for path, _ in keys)}

    def _commit(self, found: Replay, plan: _Plan) -> int | None:
        """Add the log entry after other processes' entries; return None if one of them makes the plan invalid."""
        entry_id = uuid.uuid4().hex
        for _ in range(_MAX_COMMITS):
            while (other := read_entry(self._storage, self._path, found.now.version + 1)) is not None:
                if is_entry(other, entry_id):
                    return found.now.version + 1  # only the response to our own write was lost
                if _makes_void(other, plan):
                    return None
                committed_ms = commit_info(other).get("timestamp", 0)
                found.advance(other, found.now.version + 1, datetime.fromtimestamp(committed_ms / 1000, UTC))
            if SYSTEM_CLOCK.monotonic() > self._deadline:
                raise Unavailable("The table could not be restored in time.", remedy="Try again.")
            self._check(found.now.version)
            self._storage.sync_folder(f"{self._path}/{LOG_FOLDER}")
            version, content = found.now.version + 1, self._build_entry(found, plan, entry_id)
            if self._storage.create(log_path(self._path, entry_name(version)), content):
                self._check_after(version, entry_id)
                return version
        return None

    def _check_after(self, version: int, entry_id: str) -> None:
        """Remove an entry that was added to a new table's log because the table was dropped in the meantime."""
        try:
            self._check(version)
        except TableGone:
            take_back(self._storage, self._path, version, entry_id)
            raise

    def _build_entry(self, found: Replay, plan: _Plan, entry_id: str) -> bytes:
        then, now, made_ms = found.then, found.now, milliseconds(self._clock)
        actions: list[Action] = []
        if then.columns != now.columns:
            names = ("schemaString", "partitionColumns")
            actions.append({"metaData": {**now.metadata, **{name: then.metadata[name] for name in names}}})
        # An ID whose rows are gone is forgotten, so that a repeated upload stores them; an ID with restored rows counts
        # again.
        ids = {one: then.write_ids.get(one, -1) for one in sorted(found.write_ids)}
        actions += [{"txn": {"appId": one, "version": rows, "lastUpdated": made_ms}} for one, rows in ids.items()]
        removed = [add for key, add in now.files.items() if key not in plan.files]
        actions += [
            {
                "remove": {
                    "path": add["path"],
                    "deletionTimestamp": made_ms,
                    "dataChange": True,
                    "extendedFileMetadata": True,
                    "partitionValues": add.get("partitionValues") or {},
                    "size": add["size"],
                    **({"deletionVector": add["deletionVector"]} if add.get("deletionVector") else {}),
                }
            }
            for add in removed
        ]
        added = [add for key, add in plan.files.items() if key not in now.files]
        actions += [{"add": {**add, "dataChange": True}} for add in added]
        content = build_entry(
            RESTORE,
            entry_id,
            actions,
            clock=self._clock,
            operationParameters={"version": str(then.version)},
            operationMetrics={"numRestoredFiles": len(added), "numRemovedFiles": len(removed)},
            readVersion=now.version,
            isBlindAppend=False,
            **({EXPIRED_BEFORE: plan.expired_before.isoformat()} if plan.expired_before else {}),
            **({} if self._dropped_at is None else {DROPPED_AT: round(self._dropped_at.timestamp() * 1000)}),
        )
        if len(content) > MAX_ENTRY_BYTES:
            raise ResourcesExhausted(
                "Too many files and writes have changed since that time.", remedy="Use a later time.", limit="ingest"
            )
        return content


def _makes_void(other: Sequence[Action], plan: _Plan) -> bool:
    """Whether a commit invalidates a plan; appends and compactions of later rows don't.

    A planned file that was live must be checked before it is put back.
    """
    return EXPIRED_BEFORE in commit_info(other) or any(
        action.keys() & {"metaData", "protocol"} or ("remove" in action and file_key(action["remove"]) in plan.files)
        for action in other
    )


def _restored(found: Replay, plan: _Plan, version: int) -> Restored:
    added, removed = plan.files.keys() - found.now.files.keys(), found.now.files.keys() - plan.files.keys()
    return Restored(found.then.version, version, len(added), len(removed))


def _protocol(state: TableState) -> set[tuple[str, str]]:
    """Return the features that readers and writers must support."""
    names = ("readerFeatures", "writerFeatures")
    return {(name, feature) for name in names for feature in state.protocol.get(name) or ()}


def _has_times(state: TableState) -> bool:
    """Whether there is a time column that retention uses."""
    fields = json.loads(state.metadata.get("schemaString") or "{}").get("fields", [])
    kinds = {one.get("name"): one.get("type") for one in fields}
    return kinds.get(_TIME) in {"timestamp", "timestamp_ntz"}


def _bounds(add: Action) -> tuple[datetime | None, datetime | None]:
    """Return the time bounds of a file, or None if the log doesn't have any."""
    try:
        statistics = json.loads(add.get("stats") or "{}")
    except ValueError:
        return None, None
    return _parse(statistics.get("minValues", {}).get(_TIME)), _parse(statistics.get("maxValues", {}).get(_TIME))


def _has_nulls(add: Action) -> bool:
    statistics = json.loads(add.get("stats") or "{}")
    return bool(statistics.get("nullCount", {}).get(_TIME, 1))


def _parse(text: object) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
