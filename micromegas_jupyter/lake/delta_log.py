"""The log of a Delta table (https://github.com/delta-io/delta/blob/master/PROTOCOL.md): its entries, read and added.

Entries are made here and not by deltalake, which syncs nothing to disk: an entry is on disk before anybody can see it,
and the next version is taken by nobody twice. A table that is dropped meanwhile is noticed before and after a commit.
"""

import contextlib
import json
import os
import re
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from micromegas_jupyter.core.storage import Storage, storage_errors
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import Unavailable, UsageError

if sys.platform != "win32":
    import fcntl

CONTROL_FOLDER: Final = "_micromegas"
LOG_FOLDER: Final = "_delta_log"
DROPPED_MARKER: Final = "_micromegas_dropped"
"""An object in the log of a bucket's table: it was dropped, and its objects are being removed."""
BRIEF_IDS: Final = "writeIds"
"""A member of an entry's commit information: ids of writes that are soon forgotten. It does not reach checkpoints."""
TIME: Final = pa.timestamp("us", "UTC")
MAX_ENTRY_BYTES: Final = 256 * 1024 * 1024
_WRITER_FEATURES: Final = frozenset({"appendOnly", "invariants", "timestampNtz"})
_MAX_WRITER_VERSION: Final = 2
_FEATURES_VERSION: Final = 7
_MAX_BRIEF_ENTRIES: Final = 20_000
_OPEN_ATTEMPTS: Final = 5
_ENTRY_NAME: Final = re.compile(r"[0-9]{20}\.json")
_LOCK_ATTEMPTS: Final = 1000
_LOCK_WAIT_SECONDS: Final = 0.01

Action = Mapping[str, Any]


class TableGone(Exception):
    """There is no such table, or another has its name by now."""


def log_path(table: str, name: str) -> str:
    """Return the path of an object in a table's log."""
    return f"{table}/{LOG_FOLDER}/{name}"


def entry_name(version: int) -> str:
    """Return the name of a version's log entry."""
    return f"{version:020}.json"


def read_entry(storage: Storage, table: str, version: int) -> list[Action] | None:
    """Return the actions of a version that another process may have added, made durable; None when there is none."""
    path = log_path(table, entry_name(version))
    found = storage.read(path, max_bytes=MAX_ENTRY_BYTES)
    if found is None:
        return None
    storage.sync_file(path)
    return _parse_actions(found[0].splitlines())


def _parse_actions(lines: Iterable[bytes]) -> list[Action]:
    try:
        return [json.loads(line) for line in lines if line]
    except ValueError as error:
        raise Unavailable("The log of a table is damaged.", remedy="Restore the table from a copy.") from error


def build_entry(operation: str, entry_id: str, actions: Iterable[Action], *, clock: Clock, **facts: object) -> bytes:
    """Return the content of a log entry; `is_entry` finds it again by its id."""
    info = {
        "timestamp": milliseconds(clock),
        "operation": operation,
        "engineInfo": "micromegas_jupyter",
        "txnId": entry_id,
        **facts,
    }
    return b"".join(json.dumps(one, separators=(",", ":")).encode() + b"\n" for one in ({"commitInfo": info}, *actions))


def is_entry(actions: Iterable[Action], entry_id: str) -> bool:
    """Whether this is the entry that was built with an id."""
    return any(action.get("commitInfo", {}).get("txnId") == entry_id for action in actions)


def milliseconds(clock: Clock) -> int:
    """Return the time as logs have it."""
    return round(clock.now().timestamp() * 1000)


def entry_marks(storage: Storage, log: str, version: int) -> dict[str, str]:
    """Return the marks of a bucket's log entries from a version on, by name; none of a table that is dropped."""
    found = {entry.path.rpartition("/")[2]: entry.mark for entry in storage.list(log, after=f"{version:020}.")}
    return {} if DROPPED_MARKER in found else found


def open_delta(storage: Storage, table: str) -> DeltaTable:
    """Return the table at its latest version; raises `TableGone`."""
    with storage_errors("A table could not be opened."):
        if not storage.is_local and storage.read(log_path(table, DROPPED_MARKER)) is not None:
            raise TableGone
        version = None
        for is_last in (*[False] * _OPEN_ATTEMPTS, True):
            try:
                return DeltaTable(storage.child_uri(table), version=version, storage_options=storage.options)
            except TableNotFoundError:
                break
            except Exception as error:
                # A drop may come in between.
                if is_last or not (storage.is_local or _is_gap(error)):
                    raise
                if _is_gap(error):
                    version = _find_newest_version(storage, table)
    raise TableGone


def update_delta(delta: DeltaTable, storage: Storage, table: str) -> DeltaTable:
    """Return a table that was opened before, with what was committed since."""
    try:
        delta.update_incremental()
    except Exception as error:
        if not _is_gap(error):
            raise
        return open_delta(storage, table)
    return delta


def _is_gap(error: Exception) -> bool:
    """Whether a listing had entries, but not those before them, which were added while it was read."""
    return "contiguous" in str(error)


def _find_newest_version(storage: Storage, table: str) -> int | None:
    names = (entry.path.rpartition("/")[2] for entry in storage.list(f"{table}/{LOG_FOLDER}"))
    return max((int(name[:20]) for name in names if _ENTRY_NAME.fullmatch(name)), default=None)


def check_writable(delta: DeltaTable) -> None:
    """Check that rows may be added without doing what only other writers can."""
    protocol = delta.protocol()
    unknown = set(protocol.writer_features or ()) - _WRITER_FEATURES
    is_known = protocol.min_writer_version <= _MAX_WRITER_VERSION or protocol.min_writer_version == _FEATURES_VERSION
    has_rules = any(
        key.startswith("delta.") and key != "delta.columnMapping.id"
        for field in delta.schema().fields
        for key in field.metadata
    )
    if unknown or not is_known or has_rules:
        reason = ", ".join(sorted(unknown)) or "rules for the values of columns"
        raise UsageError(
            f"The table uses what this server cannot write: {reason}.",
            remedy="Write to it with the program that made it, or make a new table.",
        )


def arrow_schema(delta: DeltaTable) -> pa.Schema:
    """Return all columns of a table, those of its partitions too."""
    return pa.schema(delta.schema().to_arrow()).remove_metadata()


def live_files(delta: DeltaTable) -> pa.Table:
    """Return what the log says of the files of the version that is open."""
    return pa.table(delta.get_add_actions(flatten=True))


def times_of_files(files: pa.Table, name: str) -> pa.ChunkedArray:
    """Return a bound of times of live files in microseconds, null where the log has none or none of a time."""
    if name not in files.column_names or not pa.types.is_timestamp(files.column(name).type):
        return pa.chunked_array([pa.nulls(files.num_rows, TIME)])
    return files.column(name).cast(TIME, safe=False)


def read_checkpoint_version(storage: Storage, table: str) -> int:
    """Return the version of a table's last checkpoint, -1 when it has none."""
    pointer = storage.read(log_path(table, "_last_checkpoint"))
    return -1 if pointer is None else int(json.loads(pointer[0])["version"])


def write_checkpoint(storage: Storage, table: str, delta: DeltaTable) -> None:
    """Write a durable checkpoint of the version that is open."""
    delta.create_checkpoint()
    for name in (f"{delta.version():020}.checkpoint.parquet", "_last_checkpoint"):
        storage.sync_file(log_path(table, name))
    storage.sync_folder(f"{table}/{LOG_FOLDER}")


def read_write_ids(storage: Storage, table: str, *, version: int) -> dict[str, int]:
    """Return the application transactions in the log up to a version, with their versions."""
    first, ids = 0, dict[str, int]()
    checkpoint = read_checkpoint_version(storage, table)
    if 0 <= checkpoint <= version:
        first, prefix = checkpoint + 1, f"{checkpoint:020}.checkpoint"
        for entry in list(storage.list(f"{table}/{LOG_FOLDER}", after=f"{checkpoint:020}.c")):
            if entry.path.startswith(log_path(table, prefix)) and entry.path.endswith(".parquet"):
                found = storage.read(entry.path, max_bytes=MAX_ENTRY_BYTES)
                with storage_errors("The log of a table could not be read."):
                    rows = pq.read_table(pa.BufferReader(found[0] if found else b""), columns=["txn"])["txn"]
                    ids |= {row["appId"]: int(row["version"]) for row in rows.drop_null().to_pylist() if row["appId"]}
    for one in range(first, version + 1):
        for action in read_entry(storage, table, one) or ():
            if "txn" in action:
                ids[action["txn"]["appId"]] = int(action["txn"]["version"])
    return ids


def brief_ids(actions: Iterable[Action]) -> tuple[float, Mapping[str, int]]:
    """Return when an entry was made, in seconds since 1970, and the ids in it that are not kept for long."""
    info: Action = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
    return info.get("timestamp", 0) / 1000, info.get(BRIEF_IDS, {})


def read_brief_ids(storage: Storage, table: str, *, version: int, since: float) -> dict[str, int]:
    """Return the short-lived ids of entries since then, with their rows, the earliest first."""
    found: list[Mapping[str, int]] = []
    while version >= 0 and len(found) < _MAX_BRIEF_ENTRIES:
        content = storage.read(log_path(table, entry_name(version)), max_bytes=MAX_ENTRY_BYTES)
        if content is None:
            break  # it was cleaned up, and so is old
        made_at, ids = brief_ids(_parse_actions(content[0].split(b"\n", 1)[:1]))
        if made_at < since:
            break
        found.append(ids)
        version -= 1
    return {name: count for ids in reversed(found) for name, count in ids.items()}


class TableGuard:
    """Opens a table as `delta`, and tells whether it is still the one that has its name.

    A local table is held by a shared lock on its log's folder while rows are added, and by an exclusive one while it is
    dropped. In a bucket, the entry at hand must be as it was, and no marker be there, before and after a commit.
    The folder stays open until `close`, or until nobody has this guard any more. Raises `TableGone`.
    """

    def __init__(self, storage: Storage, table: str) -> None:
        self._storage = storage
        self._table = table
        self._folder = Path(storage.uri) / table / LOG_FOLDER
        self._lock = threading.Lock()
        self._mark: str | None = None
        self._descriptor: int | None = None
        if storage.is_local and os.name == "posix":
            self._descriptor = self._open()  # while it is open, no other folder can be taken for this one
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
        """Keep a local table from being dropped, or when `is_exclusive` from being written to.

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
        """Check that the table in a bucket is still there, with an entry of this version, which is remembered."""
        if self._storage.is_local:
            return
        with self._lock:
            marks = entry_marks(self._storage, f"{self._table}/{LOG_FOLDER}", self._version)
            known, found = marks.get(entry_name(self._version)), marks.get(entry_name(version))
            if known is None or found is None or self._mark not in {None, known}:
                raise TableGone
            self._version, self._mark = version, found

    def close(self) -> None:
        """Let the table go."""
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
