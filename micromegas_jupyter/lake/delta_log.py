"""The log of a Delta table (https://github.com/delta-io/delta/blob/master/PROTOCOL.md): its entries, read and added.

Entries are made here and not by deltalake, which syncs nothing to disk: an entry is on disk before anybody can see it,
and the next version is taken by nobody twice. A table that is dropped meanwhile is noticed before and after a commit.
"""

import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from micromegas_jupyter.core.storage import Storage, storage_errors
from micromegas_jupyter.errors import Unavailable, UsageError

if sys.platform != "win32":
    import fcntl

CONTROL_FOLDER: Final = "_micromegas"
LOG_FOLDER: Final = "_delta_log"
DROPPED_MARKER: Final = "_micromegas_dropped"
"""An object in the log of a bucket's table: it was dropped, and its objects are being removed."""
MAX_ENTRY_BYTES: Final = 256 * 1024 * 1024
_WRITER_FEATURES: Final = frozenset({"appendOnly", "invariants", "timestampNtz"})
_MAX_WRITER_VERSION: Final = 2
_FEATURES_VERSION: Final = 7
_OPEN_ATTEMPTS: Final = 10
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
    with storage_errors("The log of a table could not be read."):
        try:
            return [json.loads(line) for line in found[0].splitlines() if line]
        except ValueError as error:
            raise Unavailable("The log of a table is damaged.", remedy="Restore the table from a copy.") from error


def build_entry(actions: list[Action]) -> bytes:
    """Return the content of a log entry."""
    return b"".join(json.dumps(action, separators=(",", ":")).encode() + b"\n" for action in actions)


def open_delta(storage: Storage, table: str) -> DeltaTable:
    """Return the table at its latest version; raises `TableGone`."""
    folder = Path(storage.uri) / table / LOG_FOLDER
    with storage_errors("A table could not be opened."):
        if not storage.is_local and storage.read(log_path(table, DROPPED_MARKER)) is not None:
            raise TableGone
        for _ in range(_OPEN_ATTEMPTS):
            before = _inode(folder)
            try:
                return DeltaTable(storage.child_uri(table), storage_options=storage.options)
            except TableNotFoundError:
                raise TableGone from None
            except Exception as error:
                # Of entries that are added while a folder is listed, the listing may have the later ones only.
                has_gap = "contiguous" in str(error)
                if not (has_gap or (storage.is_local and (before is None or before != _inode(folder)))):
                    raise
        raise Unavailable("The table is being changed by others all the time.")


def _inode(folder: Path) -> int | None:
    try:
        return folder.stat().st_ino
    except OSError:
        return None


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


def read_write_ids(storage: Storage, table: str, *, version: int) -> dict[str, int]:
    """Return the application transactions in the log up to a version, with their versions."""
    first, ids = 0, {}
    pointer = storage.read(log_path(table, "_last_checkpoint"))
    if pointer is not None:
        checkpoint = int(json.loads(pointer[0])["version"])
        if checkpoint <= version:
            first, ids = checkpoint + 1, _read_checkpoint_ids(storage, table, checkpoint)
    for one in range(first, version + 1):
        for action in read_entry(storage, table, one) or ():
            if "txn" in action:
                ids[action["txn"]["appId"]] = int(action["txn"]["version"])
    return ids


def _read_checkpoint_ids(storage: Storage, table: str, version: int) -> dict[str, int]:
    ids = {}
    for entry in list(storage.list(log_path(table, "").rstrip("/"), after=f"{version:020}.c")):
        name = entry.path.rsplit("/", 1)[-1]
        if not (name.startswith(f"{version:020}.checkpoint") and name.endswith(".parquet")):
            continue
        found = storage.read(entry.path, max_bytes=MAX_ENTRY_BYTES)
        with storage_errors("The log of a table could not be read."):
            column = pq.read_table(pa.BufferReader(found[0] if found else b""), columns=["txn"]).column("txn")
            for row in column.drop_null().to_pylist():
                if row["appId"] is not None:
                    ids[row["appId"]] = int(row["version"])
    return ids


class TableGuard:
    """Tells whether a table is still the one that it was made for.

    A local table is held by a shared lock on its log's folder while rows are added, and by an exclusive one while it is
    dropped. In a bucket, the entry at hand must be as it was, and no marker be there, before and after a commit.
    """

    def __init__(self, storage: Storage, table: str, *, version: int) -> None:
        self._storage = storage
        self._table = table
        self._lock = threading.Lock()
        self._version = version
        self._mark: str | None = None
        self._descriptor: int | None = None
        if not storage.is_local:
            self.check(version)
        elif os.name == "posix":
            self._descriptor = self._open()  # while it is open, no other folder can be taken for this one
            self._identity = os.fstat(self._descriptor)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep a local table from being dropped; raises `TableGone`."""
        if not self._storage.is_local:
            self.check(self._version)
        with self._locked(is_exclusive=False):
            yield

    @contextlib.contextmanager
    def hold_exclusively(self) -> Iterator[None]:
        """Keep a local table from being written to; raises `TableGone`, or `Unavailable` after some seconds."""
        with self._locked(is_exclusive=True):
            yield

    def check(self, version: int) -> None:
        """Check that the table in a bucket is still there, with an entry of this version, which is remembered."""
        if self._storage.is_local:
            return
        with self._lock:
            entries = {
                entry.path.rsplit("/", 1)[-1]: entry.mark
                for entry in self._storage.list(f"{self._table}/{LOG_FOLDER}", after=f"{self._version:020}.")
            }
            known, found = entries.get(entry_name(self._version)), entries.get(entry_name(version))
            if DROPPED_MARKER in entries or known is None or found is None or self._mark not in {None, known}:
                raise TableGone
            self._version, self._mark = version, found

    def close(self) -> None:
        """Let the table go."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    @contextlib.contextmanager
    def _locked(self, *, is_exclusive: bool) -> Iterator[None]:
        if not self._storage.is_local or os.name != "posix":
            yield
            return
        descriptor = self._open()
        try:
            if not os.path.samestat(os.fstat(descriptor), self._identity):
                raise TableGone
            _lock(descriptor, is_exclusive=is_exclusive)
            if not os.path.samestat(self._folder_status(), self._identity):
                raise TableGone
            yield
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        try:
            return os.open(Path(self._storage.uri) / self._table / LOG_FOLDER, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            raise TableGone from None

    def _folder_status(self) -> os.stat_result:
        try:
            return (Path(self._storage.uri) / self._table / LOG_FOLDER).stat()
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
