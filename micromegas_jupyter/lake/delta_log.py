"""Reads and adds entries of a Delta table's log (https://github.com/delta-io/delta/blob/master/PROTOCOL.md).

Entries are written here and not by deltalake, which never syncs to disk: an entry is on disk before it becomes
visible, and no version is assigned twice. A concurrent drop of the table is detected before and after a commit. Past
states are rebuilt here, too (Action Reconciliation), because deltalake does not return whole `add` actions.
"""

import contextlib
import functools
import itertools
import json
import os
import re
import sys
import threading
import uuid
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from micromegas_jupyter.core.storage import Storage, storage_errors
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import ResourcesExhausted, Unavailable, UsageError

if sys.platform != "win32":
    import fcntl

CONTROL_FOLDER: Final = "_micromegas"
LOG_FOLDER: Final = "_delta_log"
DROPPED_MARKER: Final = "_micromegas_dropped"
"""An object in the log of a bucket's table that hides the table, because it was dropped."""
SHORT_LIVED_IDS: Final = "writeIds"
"""A member of a commit's information: IDs of writes that are soon forgotten. Checkpoints don't contain it."""
EXPIRED_BEFORE: Final = "micromegasExpiredBefore"
"""A member of the information of a commit by which retention deleted rows: the first day that it kept."""
RESTORE: Final = "RESTORE"
"""The operation of a commit that restores an earlier version, given by its `version` parameter."""
DROPPED_AT: Final = "micromegasDroppedAt"
"""A member of the information of a commit that brought back a table: when it was dropped (ms since 1970)."""
ENGINE: Final = "micromegas_jupyter"
TIME: Final = pa.timestamp("us", "UTC")
MAX_ENTRY_BYTES: Final = 256 * 1024 * 1024
_WRITER_FEATURES: Final = frozenset({"appendOnly", "invariants", "timestampNtz"})
_MAX_WRITER_VERSION: Final = 2
_FEATURES_VERSION: Final = 7
_MAPPING_VERSION: Final = 5
_FEATURES_TO_RESTORE: Final = frozenset({"columnMapping", "deletionVectors"})
_MAPPED_FIELDS: Final = frozenset({"delta.columnMapping.id", "delta.columnMapping.physicalName"})
_MAX_BRIEF_ENTRIES: Final = 20_000
_OPEN_ATTEMPTS: Final = 5
_ENTRY_NAME: Final = re.compile(r"[0-9]{20}\.json")
_LOG_OBJECT: Final = re.compile(
    r"([0-9]{20})\.(?:(json)|checkpoint(?:\.[0-9]{10}\.([0-9]{10})|\.([0-9a-fA-F-]{36}))?\.(?:parquet|json))"
)
_IN_CHECKPOINTS: Final = ("add", "metaData", "protocol", "txn", "sidecar")
_MAX_REPLAYED: Final = 100_000
_READERS: Final = 32
_MAX_LISTINGS: Final = 3
_MAX_LOOK_BACK: Final = 8
_MILLISECOND: Final = timedelta(milliseconds=1)
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
_LOCK_ATTEMPTS: Final = 1000
_LOCK_WAIT_SECONDS: Final = 0.01

Action = Mapping[str, Any]
#: Identifies a logical file: its path in the log, and its deletion vector or "".
FileKey = tuple[str, str]


class TableGone(Exception):
    """The table does not exist, or another table now has its name."""


def log_path(table: str, name: str) -> str:
    """Return the path of an object in a table's log."""
    return f"{table}/{LOG_FOLDER}/{name}".lstrip("/")  # the storage may be a single table


def entry_name(version: int) -> str:
    """Return the name of a version's log entry."""
    return f"{version:020}.json"


def read_entry(storage: Storage, table: str, version: int, *, is_durable: bool = True) -> list[Action] | None:
    """Return a version's actions, or None; if `is_durable`, entries by other programs are synced to disk.

    This project's entries were on disk before they got their names. Syncing thousands again would take minutes.
    """
    path = log_path(table, entry_name(version))
    found = storage.read(path, max_bytes=MAX_ENTRY_BYTES)
    if found is None:
        return None
    actions = parse_actions(found[0].splitlines())
    if is_durable and commit_info(actions).get("engineInfo") != ENGINE:
        storage.sync_file(path)
    return actions


def parse_actions(lines: Iterable[bytes]) -> list[Action]:
    """Return an entry's actions; raises Unavailable if it is corrupted."""
    try:
        return [json.loads(line) for line in lines if line]
    except ValueError as error:
        raise Unavailable("A table's log is corrupted.", remedy="Restore the table from a backup.") from error


def build_entry(operation: str, entry_id: str, actions: Iterable[Action], *, clock: Clock, **facts: object) -> bytes:
    """Return the content of a log entry; `is_entry` recognizes the content by its ID."""
    info = {
        "timestamp": milliseconds(clock),
        "operation": operation,
        "engineInfo": ENGINE,
        "txnId": entry_id,
        **facts,
    }
    return b"".join(json.dumps(one, separators=(",", ":")).encode() + b"\n" for one in ({"commitInfo": info}, *actions))


def file_key(file: Action) -> FileKey:
    """Return the key of the file that an `add` or `remove` action refers to (PROTOCOL.md, Action Reconciliation)."""
    vector = file.get("deletionVector")
    return file["path"], f"{vector['storageType']}{vector['pathOrInlineDv']}@{vector.get('offset')}" if vector else ""


def commit_info(actions: Iterable[Action]) -> Action:
    """Return an entry's commit information, which may be empty."""
    return next((action["commitInfo"] for action in actions if "commitInfo" in action), {})


def is_entry(actions: Iterable[Action], entry_id: str) -> bool:
    """Whether these actions are from the entry that was built with this ID."""
    return any(action.get("commitInfo", {}).get("txnId") == entry_id for action in actions)


def take_back(storage: Storage, table: str, version: int, entry_id: str) -> bool:
    """Remove an entry that was added to a table in a bucket after the table was dropped; return whether it is gone.

    While the table can be restored, the entry is replaced by an empty one, because later ones may follow it. If the
    table has been restored, or another one has its name and continued its log, the entry stays.
    """
    if storage.is_local:
        return True
    path = log_path(table, entry_name(version))
    found = storage.read(path, max_bytes=MAX_ENTRY_BYTES)
    if found is None or entry_id.encode() not in found[0]:
        return True
    if storage.read(log_path(table, DROPPED_MARKER)) is not None:
        return storage.replace(path, build_entry("WRITE", uuid.uuid4().hex, (), clock=SYSTEM_CLOCK), mark=found[1])
    if storage.read(log_path(table, entry_name(version + 1)), max_bytes=MAX_ENTRY_BYTES) is not None:
        return False
    storage.delete(path)
    return True


def milliseconds(clock: Clock) -> int:
    """Return the current time in the log's format, milliseconds since 1970."""
    return round(clock.now().timestamp() * 1000)


def entry_marks(storage: Storage, log: str, version: int) -> dict[str, str]:
    """Return the marks of a bucket's log entries from a version on, keyed by name; empty for a dropped table."""
    found = {entry.path.rpartition("/")[2]: entry.mark for entry in storage.list(log, after=f"{version:020}.")}
    return {} if DROPPED_MARKER in found else found


def open_delta(storage: Storage, table: str, *, is_hidden: bool = False, version: int | None = None) -> DeltaTable:
    """Return the table at a version, by default the latest; raises `TableGone`, including for hidden dropped tables."""
    with storage_errors("A table could not be opened.", storage):
        if not storage.is_local and not is_hidden and storage.read(log_path(table, DROPPED_MARKER)) is not None:
            raise TableGone
        wanted = version
        for is_last in (*[False] * _OPEN_ATTEMPTS, True):
            try:
                return DeltaTable(storage.child_uri(table), version=version, storage_options=storage.options)
            except TableNotFoundError:
                break
            except Exception as error:
                # The table may have been dropped in the meantime.
                if is_last or not (storage.is_local or _is_gap(error)):
                    raise
                if _is_gap(error) and wanted is None:
                    version = _find_newest_version(storage, table)
    raise TableGone


def update_delta(delta: DeltaTable, storage: Storage, table: str) -> DeltaTable:
    """Update an open table with new commits, and return it."""
    try:
        delta.update_incremental()
    except Exception as error:
        if not _is_gap(error):
            raise
        return open_delta(storage, table)
    return delta


def _is_gap(error: Exception) -> bool:
    """Whether a listing had entries but lacked earlier ones, which were added while the listing was being read."""
    return "contiguous" in str(error)


def _find_newest_version(storage: Storage, table: str) -> int | None:
    names = (entry.path.rpartition("/")[2] for entry in storage.list(f"{table}/{LOG_FOLDER}"))
    return max((int(name[:20]) for name in names if _ENTRY_NAME.fullmatch(name)), default=None)


def check_writable(delta: DeltaTable, *, is_restore: bool = False) -> None:
    """Check that adding rows, or restoring whole files, doesn't require features that only other writers support."""
    protocol = delta.protocol()
    version, properties = protocol.min_writer_version, delta.metadata().configuration
    unknown = set(protocol.writer_features or ()) - _WRITER_FEATURES - (_FEATURES_TO_RESTORE if is_restore else set())
    is_mapped_only = version == _MAPPING_VERSION and not any(map(_has_rule, properties.items()))
    is_known = version in {*range(_MAX_WRITER_VERSION + 1), _FEATURES_VERSION} or (is_restore and is_mapped_only)
    known = _MAPPED_FIELDS if is_restore else {"delta.columnMapping.id"}
    has_rules = any(
        key.startswith("delta.") and key not in known for field in delta.schema().fields for key in field.metadata
    )
    if unknown or not is_known or has_rules:
        reason = ", ".join(sorted(unknown)) or "constraints on column values"
        name = unquote(delta.table_uri.rstrip("/").rpartition("/")[2])
        raise UsageError(
            f"The table {name} uses features that this server cannot write: {reason}.",
            remedy="Write to it with the program that created it, or create a new table.",
        )


def _has_rule(property_: tuple[str, str]) -> bool:
    name, value = property_
    return name.startswith("delta.constraints.") or (name == "delta.enableChangeDataFeed" and value != "false")


def arrow_schema(delta: DeltaTable) -> pa.Schema:
    """Return all columns of a table, including partition columns."""
    return pa.schema(delta.schema().to_arrow()).remove_metadata()


def live_files(delta: DeltaTable) -> pa.Table:
    """Return the log's information about the files of the open version."""
    return pa.table(delta.get_add_actions(flatten=True))


def times_of_files(files: pa.Table, name: str) -> pa.ChunkedArray:
    """Return a time bound of live files in microseconds; null if the log has no bound or an invalid one."""
    if name not in files.column_names or not pa.types.is_timestamp(files.column(name).type):
        return pa.chunked_array([pa.nulls(files.num_rows, TIME)])
    return files.column(name).cast(TIME, safe=False)


def read_checkpoint_version(storage: Storage, table: str) -> int:
    """Return the version of a table's latest checkpoint, or -1."""
    pointer = storage.read(log_path(table, "_last_checkpoint"))
    return -1 if pointer is None else int(json.loads(pointer[0])["version"])


def write_checkpoint(storage: Storage, table: str, delta: DeltaTable) -> None:
    """Write a durable checkpoint of the open version."""
    delta.create_checkpoint()
    for name in (f"{delta.version():020}.checkpoint.parquet", "_last_checkpoint"):
        storage.sync_file(log_path(table, name))
    storage.sync_folder(f"{table}/{LOG_FOLDER}")


def read_write_ids(storage: Storage, table: str, *, version: int) -> dict[str, int]:
    """Return the IDs of the application transactions in the log up to a version, with their latest versions."""
    first, ids = 0, dict[str, int]()
    checkpoint = read_checkpoint_version(storage, table)
    if 0 <= checkpoint <= version:
        first, prefix = checkpoint + 1, f"{checkpoint:020}.checkpoint"
        for entry in list(storage.list(f"{table}/{LOG_FOLDER}", after=f"{checkpoint:020}.c")):
            if entry.path.startswith(log_path(table, prefix)) and entry.path.endswith(".parquet"):
                found = storage.read(entry.path, max_bytes=MAX_ENTRY_BYTES)
                with storage_errors("The log of a table could not be read.", storage):
                    rows = pq.read_table(pa.BufferReader(found[0] if found else b""), columns=["txn"])["txn"]
                    ids |= {row["appId"]: int(row["version"]) for row in rows.drop_null().to_pylist() if row["appId"]}
    for one in range(first, version + 1):
        for action in read_entry(storage, table, one) or ():
            if "txn" in action:
                ids[action["txn"]["appId"]] = int(action["txn"]["version"])
    return {name: count for name, count in ids.items() if count >= 0}  # negative if a restore removed the rows


def read_short_lived_ids(storage: Storage, table: str, *, version: int, since: float) -> dict[str, int]:
    """Return the short-lived IDs of entries since this time and their row counts, earliest first."""
    found: list[Mapping[str, int]] = []
    while version >= 0 and len(found) < _MAX_BRIEF_ENTRIES:
        content = storage.read(log_path(table, entry_name(version)), max_bytes=MAX_ENTRY_BYTES)
        if content is None:
            break  # old enough to have been cleaned up
        info = commit_info(parse_actions(content[0].split(b"\n", 1)[:1]))
        if info.get("timestamp", 0) / 1000 < since:
            break
        found.append(info.get(SHORT_LIVED_IDS, {}))
        version = _version_before(info, version)
    return {name: count for ids in reversed(found) for name, count in ids.items()}


def _version_before(info: Action, version: int) -> int:
    """Return the version that a commit is based on: the previous version or the restored one."""
    if info.get("operation") != RESTORE:
        return version - 1
    restored = str((info.get("operationParameters") or {}).get("version", ""))
    return int(restored) if restored.isdecimal() and int(restored) < version else -1


class TableGuard:
    """Opens a table as `delta`, and checks whether its name still refers to the same table.

    While rows are added to a local table, a shared lock on its log's directory is held, and an exclusive one while it
    is dropped. In a bucket, before and after a commit, the current entry must be unchanged, and there must be no
    marker. The directory stays open until `close`, or until the guard is garbage-collected. Raises `TableGone`.
    """

    def __init__(self, storage: Storage, table: str) -> None:
        self._storage = storage
        self._table = table
        self._folder = Path(storage.uri) / table / LOG_FOLDER
        self._lock = threading.Lock()
        self._mark: str | None = None
        self._descriptor: int | None = None
        if storage.is_local and os.name == "posix":
            self._descriptor = self._open()  # while it is open, no other directory can be mistaken for it
            self._close = weakref.finalize(self, os.close, self._descriptor)
            try:
                with self.hold():
                    self.delta = open_delta(storage, table)
            except BaseException:
                self.close()
                raise
        else:
            self.delta = open_delta(storage, table)
            self._version = self.delta.version()
            self.check(self._version)

    @contextlib.contextmanager
    def hold(self, *, is_exclusive: bool = False) -> Iterator[None]:
        """Keep a local table from being dropped or, with `is_exclusive`, from being written to.

        Raises `TableGone`, or `Unavailable` after some seconds.
        """
        if self._descriptor is None:
            self.check(self._version)
            yield
            return
        descriptor = self._open()
        try:
            _lock(descriptor, is_exclusive=is_exclusive)
            if not self._folder.is_dir() or not os.path.samestat(self._folder.stat(), os.fstat(self._descriptor)):
                raise TableGone
            yield
        finally:
            os.close(descriptor)

    def check(self, version: int) -> None:
        """Check that the table in a bucket still exists and has an entry for this version; remember that entry."""
        if self._storage.is_local:
            return
        with self._lock:
            marks = entry_marks(self._storage, f"{self._table}/{LOG_FOLDER}", self._version)
            known, found = marks.get(entry_name(self._version)), marks.get(entry_name(version))
            if known is None or found is None or self._mark not in {None, known}:
                raise TableGone
            self._version, self._mark = version, found

    def close(self) -> None:
        """Release the table."""
        if self._descriptor is not None:
            self._close()

    def _open(self) -> int:
        try:
            return os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            raise TableGone from None


def _lock(descriptor: int, *, is_exclusive: bool) -> None:
    waiting = threading.Event()
    for _ in range(_LOCK_ATTEMPTS):
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if is_exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting.wait(_LOCK_WAIT_SECONDS)
        else:
            return
    raise Unavailable("The table is being written to or dropped by another process.")


class NotInLog(Exception):
    """The table can't be rebuilt from the log as of that time; `earliest` is the first possible time."""

    def __init__(self, earliest: datetime) -> None:
        super().__init__(f"the log begins at {earliest}")
        self.earliest = earliest


@dataclass(slots=True)
class TableState:
    """A table at a version: its protocol, metadata, live files (`add` actions by `file_key`), and write IDs."""

    version: int = -1
    committed_at: datetime = _LONG_AGO
    protocol: Action = field(default_factory=dict)
    metadata: Action = field(default_factory=dict)
    files: dict[FileKey, Action] = field(default_factory=dict)
    write_ids: dict[str, int] = field(default_factory=dict)

    @property
    def properties(self) -> Mapping[str, str]:
        """The table's properties."""
        return self.metadata.get("configuration") or {}

    @property
    def columns(self) -> tuple[object, ...]:
        """The columns and the partition columns, as in the log."""
        return self.metadata.get("schemaString"), *(self.metadata.get("partitionColumns") or ())

    def copy(self) -> "TableState":
        """Return a copy that advances independently."""
        return replace(self, files=dict(self.files), write_ids=dict(self.write_ids))

    def apply(self, actions: Iterable[Action], version: int, committed_at: datetime) -> None:
        """Advance to the next version."""
        self.version, self.committed_at = version, committed_at
        actions = list(actions)
        for action in actions:  # a commit may remove a file and add it again with a different deletion vector
            if "remove" in action:
                self.files.pop(file_key(action["remove"]), None)
        for action in actions:
            if "add" in action:
                self.files[file_key(action["add"])] = action["add"]
            elif "txn" in action:
                self.write_ids[action["txn"]["appId"]] = int(action["txn"]["version"])
            self.metadata = action.get("metaData", self.metadata)
            self.protocol = action.get("protocol", self.protocol)


@dataclass(slots=True)
class Replay:
    """A table's state at a past time and now, and facts about the commits in between.

    Attributes:
        then: The state at the time.
        now: The state at the latest version.
        expired_before: The first day that retention kept in any commit since, or None if it didn't delete rows.
        write_ids: The IDs of writes since, as this project's writers record them.
        removed_at: When each file that is no longer live was removed.
        drops: When the table was dropped, if it was brought back after the time.
    """

    then: TableState
    now: TableState
    expired_before: date | None = None
    write_ids: set[str] = field(default_factory=set)
    removed_at: dict[str, datetime] = field(default_factory=dict)
    drops: list[datetime] = field(default_factory=list)

    def advance(self, actions: Sequence[Action], version: int, committed_at: datetime) -> None:
        """Apply a commit that was made after the past time."""
        info = commit_info(actions)
        self.now.apply(actions, version, committed_at)
        for action in actions:
            if "remove" in action:
                self.removed_at[action["remove"]["path"]] = committed_at
            elif "txn" in action and info.get("engineInfo") == ENGINE:
                self.write_ids.add(action["txn"]["appId"])
        if DROPPED_AT in info:
            self.drops.append(datetime.fromtimestamp(info[DROPPED_AT] / 1000, UTC))
        if expired := info.get(EXPIRED_BEFORE):
            day = date.fromisoformat(expired)
            self.expired_before = day if self.expired_before is None else max(day, self.expired_before)


def replay(
    storage: Storage, table: str, to: datetime | int, *, max_commits: int = _MAX_REPLAYED, is_durable: bool = True
) -> Replay:
    """Rebuild a table's past and current states, syncing log entries if `is_durable`; raises `NotInLog`."""
    log = TableLog(storage, table)
    then = log.read_base(to)
    first, last, found = then.version + 1, then.committed_at, None
    if log.newest - first > max_commits:
        raise ResourcesExhausted(
            f"There have been more than {max_commits:,} commits since that time.",
            remedy="Use a later time.",
            limit="ingest",
        )
    for version, actions in log.read_entries(first, is_durable=is_durable):
        made_at = time_of(commit_info(actions), log.entries[version])
        last = made_at if last == _LONG_AGO else max(made_at, last + _MILLISECOND)
        if found is None and (version <= to if isinstance(to, int) else last <= to):
            then.apply(actions, version, last)
            continue
        if then.version < 0:
            raise NotInLog(last)
        found = found or Replay(then, then.copy())
        found.advance(actions, version, last)
    return found or Replay(then, then.copy())


def read_state(storage: Storage, table: str, version: int) -> TableState:
    """Rebuild a table's state at a version; raises `Unavailable` if the log no longer has the required entries."""
    log = TableLog(storage, table)
    base = max((one for one in log.checkpoints if one <= version), default=-1)
    state = log.read_checkpoint(base, _LONG_AGO) if base >= 0 else TableState()
    for number, actions in log.read_entries(base + 1, version + 1, is_durable=False):
        state.apply(actions, number, time_of(commit_info(actions), log.entries.get(number, 0.0)))
    return state


def committed_at(storage: Storage, table: str, version: int) -> datetime | None:
    """Return when a version was committed, or None if its log entry no longer exists.

    Commit times increase with versions. So the times of some earlier commits matter if clocks differ.
    """
    times: list[datetime] = []
    for back in range(min(_MAX_LOOK_BACK, version) + 1):
        actions = read_entry(storage, table, version - back)
        if actions is None:
            break
        times.append(time_of(commit_info(actions), 0.0) + back * _MILLISECOND)
    return max(times, default=None)


def was_dropped(storage: Storage, table: str, time: datetime) -> bool:
    """Whether a table had been dropped by a time and was restored later."""
    version = TableLog(storage, table).newest
    while (actions := read_entry(storage, table, version)) is not None:
        info = commit_info(actions)
        made_at = time_of(info, time.timestamp())
        if made_at <= time:
            return False
        if DROPPED_AT in info and info[DROPPED_AT] <= time.timestamp() * 1000:
            return True
        version -= 1
    return False


def cleanup_log(storage: Storage, table: str, *, before: float) -> int:
    """Remove log objects that aren't needed to rebuild any state since `before`; return their number.

    deltalake would remove every entry before the newest checkpoint, including the version that was in effect at the
    start of the window.
    """
    checkpoints = TableLog(storage, table).checkpoints
    kept = max((version for version, (_, changed_at) in checkpoints.items() if changed_at <= before), default=0)
    removed = 0
    for entry in sorted(storage.list(f"{table}/{LOG_FOLDER}")):
        match = _LOG_OBJECT.fullmatch(entry.path.rpartition("/")[2])
        if match is not None and int(match[1]) < kept:
            storage.delete(entry.path)
            removed += 1
    return removed


class TableLog:
    """A table's log: when its entries were changed, and the paths and times of its complete checkpoints."""

    def __init__(self, storage: Storage, table: str) -> None:
        self._storage = storage
        self._table = table
        # A listing can miss an entry that is written in the meantime but contain the next one. Cleanups begin with the
        # oldest entries, so they don't leave such gaps.
        for _ in range(_MAX_LISTINGS):
            self._list()
            if self._newest_missing() <= min(self.entries, default=0):
                break

    def _list(self) -> None:
        self.entries: dict[int, float] = {}
        parts: dict[tuple[int, str | None, str | None], tuple[list[str], float]] = {}
        for entry in self._storage.list(f"{self._table}/{LOG_FOLDER}".lstrip("/")):
            match = _LOG_OBJECT.fullmatch(entry.path.rpartition("/")[2])
            if match is None:
                continue
            if match[2]:
                self.entries[int(match[1])] = entry.modified_at
            else:
                key = int(match[1]), match[3], match[4]
                paths, changed_at = parts.get(key, ([], 0.0))
                parts[key] = ([*paths, entry.path], max(changed_at, entry.modified_at))
        self.checkpoints = {key[0]: found for key, found in parts.items() if len(found[0]) == int(key[1] or 1)}
        self.newest = max([*self.entries, *self.checkpoints], default=-1)

    def _newest_missing(self) -> int:
        """Return the newest version without an entry, or -1."""
        missing = self.newest
        while missing in self.entries:
            missing -= 1
        return missing

    @property
    def first(self) -> int:
        """The first version that can be rebuilt, because all entries after it exist."""
        missing = self._newest_missing()
        kept = (version for version in self.checkpoints if version >= missing)
        return min(kept, default=self.newest + 1) if missing >= 0 else 0

    def read_base(self, to: datetime | int) -> TableState:
        """Return the state to start from: the newest checkpoint up to a version or time, or an empty state.

        All entries after it exist.
        """
        missing = self._newest_missing()
        earliest = datetime.fromtimestamp(max(self.entries.values(), default=0.0), UTC)
        for version in sorted(self.checkpoints, reverse=True):
            if version < missing:
                break
            made_at = self._time_of(version)
            if version <= to if isinstance(to, int) else made_at <= to:
                return self.read_checkpoint(version, made_at)
            earliest = made_at
        if missing >= 0:
            raise NotInLog(earliest)
        return TableState()

    def read_entries(
        self, first: int, end: int | None = None, *, is_durable: bool = True
    ) -> Iterator[tuple[int, list[Action]]]:
        """Yield the actions of the versions from `first` to before `end`, if set; synced to disk if `is_durable`."""
        end = self.newest + 1 if end is None else end
        read = functools.partial(self._read_entry, is_durable=is_durable)
        with ThreadPoolExecutor(1 if self._storage.is_local else _READERS) as pool:
            for begin in range(first, end, _READERS):
                versions = range(begin, min(begin + _READERS, end))
                yield from zip(versions, pool.map(read, versions), strict=True)

    def _read_entry(self, version: int, *, is_durable: bool = True) -> list[Action]:
        actions = read_entry(self._storage, self._table, version, is_durable=is_durable)
        if actions is None:
            raise _cleaned_up()
        return actions

    def _time_of(self, version: int) -> datetime:
        if version in self.entries:
            return time_of(commit_info(self._read_entry(version)), self.entries[version])
        return datetime.fromtimestamp(self.checkpoints[version][1], UTC)  # committed before its checkpoint was written

    def read_checkpoint(self, version: int, made_at: datetime) -> TableState:
        """Return the state in a checkpoint, which may consist of a single file or several parts, or have sidecars."""
        state = TableState(version, made_at)
        for path in self.checkpoints[version][0]:
            actions = list(self._read_actions(path))
            sidecars = [one["sidecar"]["path"] for one in actions if "sidecar" in one]
            with ThreadPoolExecutor(1 if self._storage.is_local else _READERS) as pool:
                found = pool.map(lambda name: list(self._read_actions(self._sidecar_path(name))), sidecars)
                state.apply(itertools.chain(actions, *found), version, made_at)
        return state

    def _sidecar_path(self, name: str) -> str:
        name = unquote(name)
        if "/" in name or "\\" in name:
            raise Unavailable("A table's log refers to files outside its folder.", retryable=False)
        return log_path(self._table, f"_sidecars/{name}")

    def _read_actions(self, path: str) -> Iterator[Action]:
        found = self._storage.read(path, max_bytes=MAX_ENTRY_BYTES)
        if found is None:
            raise _cleaned_up()
        if path.endswith(".json"):
            yield from parse_actions(found[0].splitlines())
            return
        with storage_errors("The log of a table could not be read.", self._storage):
            file = pq.ParquetFile(pa.BufferReader(found[0]))
            wanted = [name for name in _IN_CHECKPOINTS if name in file.schema_arrow.names]
            for batch in file.iter_batches(columns=wanted):
                for row in batch.to_pylist():
                    yield {name: _plain(value) for name, value in row.items() if value is not None}


def _cleaned_up() -> Unavailable:
    return Unavailable("The table's log was cleaned up in the meantime.", remedy="Try again.")


def time_of(info: Action, changed_at: float) -> datetime:
    """Return when a commit was made, or, if that isn't recorded, when its entry was changed."""
    made_ms = info.get("inCommitTimestamp") or info.get("timestamp")
    return datetime.fromtimestamp(changed_at if made_ms is None else made_ms / 1000, UTC)


def _plain(value: Any) -> Any:
    """Convert a checkpoint's value to the form used in log entries: no nulls or typed copies, and maps as objects."""
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return dict(value)
    if not isinstance(value, dict):
        return value
    plain = {key: _plain(one) for key, one in value.items() if one is not None and not key.endswith("_parsed")}
    for key in ("partitionValues", "configuration", "options", "tags"):
        if plain.get(key) == []:
            plain[key] = {}
    return plain
