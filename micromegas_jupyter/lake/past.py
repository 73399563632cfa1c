"""Earlier versions of a table, as read by `table_at` and `table_history` in SQL, and the files added since a version.

A version is readable while the log can rebuild it and its files exist. Rows that retention has deleted since do not
come back, as with a restore.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from micromegas_jupyter.core.file_list import FileList
from micromegas_jupyter.core.protocols import DataFile, TableSnapshot
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import CursorExpired, InvalidStatement, Unavailable
from micromegas_jupyter.lake.delta_log import (
    DROPPED_MARKER,
    MAX_ENTRY_BYTES,
    RESTORE,
    TIME,
    Action,
    NotInLog,
    TableGone,
    TableLog,
    TableState,
    commit_info,
    entry_name,
    file_key,
    log_path,
    parse_actions,
    read_entry,
    replay,
    time_of,
)
from micromegas_jupyter.lake.snapshot import DeltaSnapshots, Unreadable, vector_path
from micromegas_jupyter.lake.tables import DEFINITIONS, retention_days
from micromegas_jupyter.lake.types import PARTITION_DATE

MAX_LISTED: Final = 1000
_MAX_COMMITS: Final = 20_000
_MILLISECOND: Final = timedelta(milliseconds=1)
_MAX_SHOWN: Final = 3
_MARK_BYTES: Final = 16
_FILE_BYTES: Final = 8
_NEVER: Final = datetime.fromtimestamp(0, UTC)
_DELETE: Final = "DELETE"
#: Operations that replace all rows.
_REPLACING: Final = frozenset({"WRITE", "CREATE OR REPLACE TABLE", "CREATE OR REPLACE TABLE AS SELECT"})
_TIME: Final = "time"
HISTORY: Final = pa.schema(
    [
        pa.field("version", pa.int64(), nullable=False),
        pa.field("time", TIME, nullable=False),
        pa.field("operation", pa.string()),
        pa.field("user", pa.string()),
        pa.field("files_added", pa.int64(), nullable=False),
        pa.field("files_removed", pa.int64(), nullable=False),
        pa.field("rows_added", pa.int64()),
        pa.field("rows_removed", pa.int64()),
        pa.field("is_readable", pa.bool_(), nullable=False),
    ]
)


class PastTable(NamedTuple):
    """A table at a version, and a SQL condition that excludes rows past their retention period, if needed."""

    snapshot: TableSnapshot
    condition: str | None


def read_past(storage: Storage, name: str, to: datetime | int | None, *, clock: Clock = SYSTEM_CLOCK) -> PastTable:
    """Return a table at a version or time, by default the current version; raises `InvalidStatement` or `TableGone`."""
    log = TableLog(storage, name)
    if log.newest < 0:
        raise TableGone
    to = log.newest if to is None else to
    if isinstance(to, int) and to > log.newest:
        raise InvalidStatement(f"The table {name} has no version {to}.", remedy=f"Its latest version is {log.newest}.")
    if isinstance(to, int) and to < log.first:
        raise _removed(name, to, "log entries", f"The earliest possible version is {log.first}.")
    try:
        found = replay(storage, name, to, max_commits=_MAX_COMMITS, is_durable=False)
        version = found.then.version
        snapshot = DeltaSnapshots(storage, definitions=DEFINITIONS).at(name, version)
        there = {entry.path for entry in storage.list(name)}
        gone = sorted({path for add in found.then.files.values() for path in _paths(storage, name, add)} - there)
    except NotInLog as error:
        what = f"version {to}" if isinstance(to, int) else f"version as early as {_iso(to)}"
        remedy = f"Its earliest known version is from {_iso(error.earliest)}."
        raise InvalidStatement(f"The table {name} has no {what}.", remedy=remedy) from None
    except Unreadable as error:
        raise Unavailable(
            f"Version {version} of the table {name} cannot be read: {error}.",
            remedy="Tell the server's administrator.",
            retryable=False,
        ) from error
    if isinstance(to, datetime) and any(dropped_at <= to for dropped_at in found.drops):
        raise InvalidStatement(
            f"The table {name} did not exist at {_iso(to)} because it had been dropped; it was restored later."
        )
    if gone:
        shown = ", ".join(path.rpartition("/")[2] for path in gone[:_MAX_SHOWN])
        more = f" and {len(gone) - _MAX_SHOWN:,} more" if len(gone) > _MAX_SHOWN else ""
        remedy = f"table_history('{name}') shows the versions that can be read."
        raise _removed(name, version, f"files ({shown}{more})", remedy)
    days, first = retention_days(found.now.properties), found.expired_before
    if days is not None and version < found.now.version and found.now.properties.get("delta.appendOnly") != "true":
        kept = (clock.now() - timedelta(days=days)).date()
        first = kept if first is None else max(first, kept)
    return PastTable(snapshot, None) if first is None else _without_expired(snapshot, first)


def read_history(storage: Storage, name: str) -> pa.Table:
    """Return the latest 1,000 commits in the log, newest first, with the columns of `HISTORY`."""
    log = TableLog(storage, name)
    if log.newest < 0:
        raise TableGone
    shown = max(log.newest - MAX_LISTED + 1, 0)
    while shown not in log.entries and shown < log.newest:
        shown += 1
    base = max((one for one in log.checkpoints if one < shown), default=-1)
    if base < log.first:  # the state before the first listed commit cannot be rebuilt
        base = -1 if log.first == 0 else log.first
    state = TableState() if base < 0 else log.read_checkpoint(base, datetime.min.replace(tzinfo=UTC))
    there = {entry.path for entry in storage.list(name)}
    missing = {key for key, add in state.files.items() if _is_missing(storage, name, add, there)}
    rows: list[dict[str, Any]] = []
    last: datetime | None = None
    for version in range(min(shown, base + 1), log.newest + 1):
        if (actions := read_entry(storage, name, version, is_durable=False)) is None:
            continue
        info = commit_info(actions)
        made_at = time_of(info, log.entries.get(version, 0.0))
        last = made_at if last is None else max(made_at, last + _MILLISECOND)
        is_known = version > base
        removes, adds = ([one[what] for one in actions if what in one] for what in ("remove", "add"))
        gone = [state.files.get(file_key(one)) if is_known else None for one in removes]
        if is_known:
            state.apply(actions, version, last)
            added = {file_key(one) for one in adds if _is_missing(storage, name, one, there)}
            missing = (missing - {*map(file_key, removes)}) | added
        if version >= shown:
            row = version, last, info.get("operation"), info.get("userName"), len(adds), len(removes)
            counts = _count_rows(adds), _count_rows(gone)
            rows.append(dict(zip(HISTORY.names, (*row, *counts, version >= base and not missing), strict=True)))
    return pa.Table.from_pylist(rows[::-1], schema=HISTORY)


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _removed(name: str, version: int, what: str, remedy: str) -> InvalidStatement:
    return InvalidStatement(
        f"Version {version} of the table {name} can no longer be read: {what} were removed.", remedy=remedy
    )


def _without_expired(snapshot: TableSnapshot, first: date) -> PastTable:
    """Exclude rows from before a day: omit their files, or add a condition if the table isn't partitioned by day."""
    files = FileList.of(snapshot.files)
    if snapshot.partition_columns == (PARTITION_DATE,):
        kept = np.array([(one.partition[0] or "9") >= first.isoformat() for one in files], np.bool_)
        bounds = None if snapshot.bounds is None else snapshot.bounds.filter(pa.array(kept))
        return PastTable(replace(snapshot, files=files.where(kept), bounds=bounds), None)
    kind = snapshot.schema.field(_TIME).type if _TIME in snapshot.schema.names else None
    if kind is None or not pa.types.is_timestamp(kind):
        return PastTable(snapshot, None)
    return PastTable(snapshot, f"{_TIME} IS NULL OR {_TIME} >= '{first.isoformat()}T00:00:00Z'")


def _paths(storage: Storage, name: str, add: Action) -> list[str]:
    """Return the paths of a file and its deletion vector; raises `Unreadable`."""
    parts, vector = [unquote(add["path"])], add.get("deletionVector")
    if vector is not None and vector["storageType"] != "i":
        parts.append(vector_path(storage, name, vector))
    return [f"{name}/{path}" for path in parts]


def _is_missing(storage: Storage, name: str, add: Action, there: set[str]) -> bool:
    try:
        return not there.issuperset(_paths(storage, name, add))
    except Unreadable:
        return True


def _count_rows(adds: Iterable[Action | None]) -> int | None:
    """Return the number of undeleted rows in files, or None if a file doesn't specify its row count."""
    count = 0
    for add in adds:
        rows = None if add is None else json.loads(add.get("stats") or "{}").get("numRecords")
        if add is None or rows is None:
            return None
        count += rows - (add.get("deletionVector") or {"cardinality": 0})["cardinality"]
    return count


@dataclass(frozen=True, slots=True, kw_only=True)
class TailPosition:
    """A follow's position: after all commits up to `version`, and after some of the files that the next commit added.

    `mark` distinguishes the version's log entry from another table's. `index` is that of the next file; `offset` of
    its rows were returned; `file` identifies that file with its deleted rows.
    """

    version: int
    mark: bytes
    committed_at: datetime
    index: int = 0
    offset: int = 0
    file: bytes = bytes(_FILE_BYTES)


@dataclass(slots=True, kw_only=True)
class _Pending:
    """A file that a commit added, and the effects of later commits on it."""

    start: TailPosition
    add: Action
    is_compacted: bool = False
    is_gone: bool = False
    is_changed: bool = False


class AddedFiles(NamedTuple):
    """Files that were added to a table, and the positions before each of them and after the last one."""

    files: tuple[DataFile, ...]
    positions: tuple[TailPosition, ...]
    is_cut: bool  # whether more files were added

    def position(self, index: int, offset: int) -> TailPosition:
        """Return the position in a file after this many of its rows were returned."""
        found = self.positions[index]
        if index == len(self.files):
            return found
        return replace(found, offset=offset, file=_identify(self.files[index]) if offset else found.file)


class TableTail:
    """Finds additions to a table; raises `TableGone`, or `CursorExpired` if they can't be determined."""

    def __init__(self, storage: Storage, table: str) -> None:
        self._storage = storage
        self._table = table
        self._snapshots = DeltaSnapshots(storage)

    def find(self, since: datetime | None) -> TailPosition:
        """Return the position after the last commit, or after those made up to a time."""
        log = TableLog(self._storage, self._table)
        first = version = log.newest
        if since is None or version < 0:
            return self._position(version)
        while first - 1 in log.entries:
            first -= 1
        low, high = first - 1, version
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._position(middle).committed_at <= since else (low, middle - 1)
        if 0 <= low < first:
            earliest = self._position(first).committed_at
            raise CursorExpired(
                f"The log of {self._table} no longer contains the commits before {_iso(earliest)}.",
                remedy="Follow the table from that time on, and query the earlier rows.",
                restart_from=earliest,
            )
        return self._position(low)

    def read(self, position: TailPosition, *, by: Sequence[str], max_files: int) -> AddedFiles | None:
        """Return the files added after a position, or None; the table is partitioned `by` these columns."""
        self._check(position)
        pending, end = self._find_pending(position, max_files=max_files)
        if end.version == position.version:
            return None
        found = [*pending.values()]
        positions = [one.start for one in found] + [end]
        if position.offset and found:
            positions[0] = self._resumed(found[0], position, by)
        files: list[DataFile] = []
        kept: list[TailPosition] = []
        for one, at in zip(found[:max_files], positions, strict=False):
            if one.is_changed:
                if not files:
                    raise self._expired(position, "rows that had not been returned yet were changed or deleted")
                return AddedFiles(tuple(files), (*kept, at), is_cut=True)
            if not one.is_gone:
                files.append(self._snapshots.data_file(self._table, one.add, by))
                kept.append(at)
        is_cut = len(found) > max_files
        return AddedFiles(tuple(files), (*kept, positions[min(max_files, len(found))]), is_cut=is_cut)

    def _find_pending(self, position: TailPosition, *, max_files: int) -> tuple[dict[str, _Pending], TailPosition]:
        """Return the files added after a position, keyed by path (at most `max_files` + 1), and the end position."""
        pending, end = dict[str, _Pending](), position
        while (content := self._entry(end.version + 1)) is not None:
            if end.version - position.version >= _MAX_COMMITS:
                raise self._expired(position, f"there have been more than {_MAX_COMMITS:,} commits since then")
            actions = parse_actions(content.splitlines())
            new = self._apply(pending, actions, position)
            first = position.index if end.version == position.version else 0
            for index, add in list(enumerate(new))[first:]:
                if len(pending) <= max_files:  # one additional file provides the position after the others
                    start = replace(end, index=index, offset=0)
                    pending[add["path"]] = _Pending(start=start, add=add)
            end = _after(content, actions, end.version + 1)
        return pending, end

    def _resumed(self, first: _Pending, position: TailPosition, by: Sequence[str]) -> TailPosition:
        is_first = (first.start.version, first.start.index) == (position.version, position.index)
        if first.is_gone or first.is_changed or not is_first:
            return first.start
        if _identify(self._snapshots.data_file(self._table, first.add, by)) != position.file:
            raise self._expired(position, "rows of a file were deleted while it was being read")
        return replace(first.start, offset=position.offset, file=position.file)

    def _apply(
        self, pending: Mapping[str, _Pending], actions: Sequence[Action], position: TailPosition
    ) -> list[Action]:
        """Record a commit's effects on pending files, and return the files with new rows that it added."""
        adds = [one["add"] for one in actions if "add" in one]
        removes = [one["remove"] for one in actions if "remove" in one]
        operation, by_path = commit_info(actions).get("operation"), {add["path"]: add for add in adds}
        changed = [one for one in removes if one.get("dataChange", True)]
        is_replacing = bool(changed) and operation in _REPLACING
        rewrites = any(add["dataChange"] and add["path"] not in pending for add in adds) and not is_replacing
        for one in removes:
            if (known := pending.get(one["path"])) is None:
                continue
            if (again := by_path.get(one["path"])) is not None:
                known.add = again
            elif not one.get("dataChange", True):
                known.is_compacted = True
            elif rewrites and operation != RESTORE:
                known.is_changed = True
            else:
                known.is_gone = True
        if changed:
            _note_compacted(pending, by_path, changed, is_replacing=is_replacing)
        new = [add for add in adds if add["dataChange"]]
        if operation in {_DELETE, RESTORE}:
            return []
        if new and changed and not is_replacing:
            raise self._expired(position, f"another program changed rows ({str(operation)[:_MARK_BYTES]})")
        return new

    def _check(self, position: TailPosition) -> None:
        """Check that the log still has the entry for a position."""
        log = self._storage
        if not log.is_local and log.read(log_path(self._table, DROPPED_MARKER)) is not None:
            raise TableGone
        content = self._entry(position.version)
        if content is not None and _mark(content) == position.mark:
            return
        if content is None and (newest := TableLog(log, self._table).newest) < 0:
            if position.version < 0:
                return
            raise TableGone
        if content is None and position.version < 0 and self._entry(0) is not None:
            return
        is_other = content is not None or newest < position.version
        raise self._expired(position, "another table now has this name" if is_other else "its log was cleaned up")

    def _position(self, version: int) -> TailPosition:
        if version < 0:
            return TailPosition(version=-1, mark=bytes(_MARK_BYTES), committed_at=_NEVER)
        if (content := self._entry(version)) is None:
            raise TableGone
        return _after(content, parse_actions(content.splitlines()), version)

    def _entry(self, version: int) -> bytes | None:
        found = self._storage.read(log_path(self._table, entry_name(version)), max_bytes=MAX_ENTRY_BYTES)
        return None if version < 0 or found is None else found[0]

    def _expired(self, position: TailPosition, why: str) -> CursorExpired:
        return CursorExpired(
            f"The follow of the table {self._table} cannot continue after {_iso(position.committed_at)}: {why}.",
            restart_from=position.committed_at,
        )


def _note_compacted(
    pending: Mapping[str, _Pending], by_path: Mapping[str, Action], changed: Sequence[Action], *, is_replacing: bool
) -> None:
    """Record that rows of compacted files may have changed, because their original file is unknown."""
    partitions = [one.get("partitionValues") for one in changed]
    for known in pending.values():
        if known.is_compacted and known.add["path"] in by_path:
            known.is_compacted = False
        elif known.is_compacted and (known.add.get("partitionValues") in partitions or None in partitions):
            known.is_gone, known.is_changed = is_replacing, not is_replacing


def _after(content: bytes, actions: Sequence[Action], version: int) -> TailPosition:
    made_at = time_of(commit_info(actions), 0.0)
    return TailPosition(version=version, mark=_mark(content), committed_at=made_at)


def _mark(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_MARK_BYTES]


def _identify(file: DataFile) -> bytes:
    return hashlib.sha256(repr((file.path, file.deleted)).encode()).digest()[:_FILE_BYTES]
