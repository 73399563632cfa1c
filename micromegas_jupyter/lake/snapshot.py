"""Delta tables as the engine reads them: the latest version's files, with the log's information about each file.

Source: https://github.com/delta-io/delta/blob/master/PROTOCOL.md.
"""

import contextlib
import functools
import json
import logging
import os
import re
import threading
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.compute as pc
from cachetools import LRUCache
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from micromegas_jupyter.core.deletion_vectors import DamagedVector, decode_z85
from micromegas_jupyter.core.file_list import NO_FILES, VECTOR, FileList, TableChange
from micromegas_jupyter.core.protocols import (
    FIELD_ID,
    DataFile,
    DeletionVector,
    Materialized,
    TableProblem,
    TableSnapshot,
)
from micromegas_jupyter.core.storage import Storage, storage_errors
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.lake.delta_log import (
    EXPIRED_BEFORE,
    LOG_FOLDER,
    RESTORE,
    Action,
    TableGone,
    arrow_schema,
    commit_info,
    entry_marks,
    entry_name,
    live_files,
    log_path,
    open_delta,
    parse_actions,
    read_entry,
    read_state,
    time_of,
    times_of_files,
    update_delta,
)
from micromegas_jupyter.lake.tables import VIEW_SOURCE_PROPERTY, VIEW_UPDATED_BY_PROPERTY, VIEW_UPDATED_PROPERTY
from micromegas_jupyter.lake.types import stored_definition
from micromegas_jupyter.telemetry.tables import TableDefinition
from micromegas_jupyter.telemetry.view_definitions import ViewDefinition

_LOG = logging.getLogger(__name__)
_ODD: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, pa.ArrowException)
_TIME: Final = "time"
_ALL_COLUMNS: Final = "information_schema"  # a statement that reads it reads the columns of all tables
_MAX_REQUESTS: Final = 32  # concurrent requests to a bucket
# Limits for the log; if there are more or longer entries, deltalake reads them.
_MAX_ENTRIES: Final = 100
_MAX_ENTRY_BYTES: Final = 1024 * 1024
# A view is refreshed by version instead of by time, so the values for upstream's partition bounds cover all times.
_FIRST_TIME: Final = "1678-01-01T00:00:00Z"
_LAST_TIME: Final = "2262-01-01T00:00:00Z"
MAX_LATE_SECONDS: Final = 24 * 3600
"""How long a table's log and files are kept for a view's refresh."""
_MAX_FOLLOWED: Final = 8192  # entries in the log of a view's source
# Some writers truncate time bounds to milliseconds.
_CUT: Final = 1000
# These features don't affect how a data file is read once the log is known.
_READABLE_FEATURES: Final = frozenset(
    {"timestampNtz", "typeWidening", "typeWidening-preview", "v2Checkpoint", "vacuumProtocolCheck"}
)
_VECTORS: Final = "deletionVectors"
_KNOWN_FEATURES: Final = _READABLE_FEATURES | {_VECTORS, "columnMapping"}
_NAMES: Final = "delta.columnMapping."  # the prefix of a column's metadata about its name in files
_NAME_OF_VECTOR: Final = 20  # characters
_MAX_READER_VERSION: Final = 3
_MAX_REASON: Final = 200
_REMEDY: Final = "Tell the server's administrator."
_UNSUPPORTED: Final = re.compile("Unsupported|Invalid protocol|Schema error")


#: Identifies a logical file: its path, and that of its deletion vector or None.
_Key = tuple[str, tuple[str, int | None] | None]


class Unreadable(Exception):
    """A table that can't be read correctly; the reason completes "is left out: "."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A table at a version; `mark` distinguishes its last log entry from that of another table in the same location.

    `emptied` contains live files without remaining rows, which are not in the snapshot.
    """

    delta: DeltaTable  # as of the last read
    version: int
    mark: object
    types: pa.Schema = field(repr=False)  # of `live_files`
    bounded: tuple[str, ...]
    max_files: int
    snapshot: TableSnapshot
    emptied: frozenset[_Key] = frozenset()


class TableVersion(NamedTuple):
    """A table at a version; `table_id` distinguishes it from other tables with the same name."""

    table_id: str
    version: int
    snapshot: TableSnapshot


class DeltaSnapshots:
    """Tracks the tables in a storage, which may also be a single table. Safe to use from several threads.

    `is_foreign` tables were written by others: their files may have other types than their schema, and none may be a
    link or outside its table's directory.
    """

    def __init__(
        self, storage: Storage, *, definitions: Mapping[str, TableDefinition] | None = None, is_foreign: bool = False
    ) -> None:
        self._storage = storage
        self._definitions = definitions or {}
        self._is_foreign = is_foreign
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._known: dict[str, _Known] = {}
        self._empty: dict[str, TableSnapshot] = {}
        self._gone: set[str] = set()  # folders that don't contain a table, such as those of a bucket's dropped tables
        # When commits were made and which files they added, by table ID and version; None instead of files if they
        # also removed rows.
        self._added: LRUCache[tuple[str, int], tuple[float, list[Action] | None]] = LRUCache(_MAX_FOLLOWED)
        self.refused: dict[str, Unreadable] = {}

    def list(self, sql: str | None) -> dict[str, TableSnapshot]:
        """Return all tables, refreshing those that `sql` references. Unreadable ones have a `problem`."""
        text = None if sql is None else sql.lower()
        folders = self._storage.list_folders()
        if self._is_foreign and LOG_FOLDER in folders:
            folders = [""]
        names = {self._name(folder): folder for folder in folders if not folder.startswith(("_", "."))}
        named = {name for name in names if text is None or _ALL_COLUMNS in text or name.lower() in text}
        with contextlib.ExitStack() as stack:
            run: Callable[..., Iterator[TableSnapshot | None]] = map
            if len(named) > 1 and not self._storage.is_local:
                run = stack.enter_context(ThreadPoolExecutor(_MAX_REQUESTS)).map
            found = run(lambda name: self._find(name, names[name], is_named=name in named), names)
            tables = {name: table for name, table in zip(names, found, strict=True) if table is not None}
        with self._lock:
            for name in self._locks.keys() - names.keys():
                self._locks.pop(name, None)
                self._known.pop(name, None)
                self.refused.pop(name, None)
            self._gone &= names.keys()
        return tables

    def empty(self, definition: TableDefinition) -> TableSnapshot:
        """Return a table without any data; always returns the same object."""
        found = self._empty.get(definition.name)
        if found is None:
            found = self._snapshot(definition.name, _defined_schema(definition), ("date",), NO_FILES)
            self._empty[definition.name] = found
        return found

    def at(self, name: str, version: int) -> TableSnapshot:
        """Return a table at a version; raises `TableGone` or `Unreadable`."""
        with storage_errors(f"The table {name} could not be read.", self._storage):
            try:
                return self._read_version(name, name, _open(self._storage, name, version), None).snapshot
            except _ODD as error:
                raise Unreadable("its log cannot be read") from error

    def current(self, name: str) -> TableSnapshot | None:
        """Return the current state of one table."""
        return self._find(name, name, is_named=True)

    def known(self, name: str) -> TableVersion | None:
        """Return a table as of the last listing, or None."""
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            known = self._known.get(name)
            return None if known is None else TableVersion(_id_of(known), known.version, known.snapshot)

    def transaction(self, name: str, app_id: str) -> tuple[int, int | None]:
        """Return a table's version as of the last listing, and the version of an application's transaction in it."""
        with self._locks[name], storage_errors(f"The table {name} could not be read.", self._storage):
            known = self._known[name]
            found = known.delta.transaction_version(app_id)
            return known.version, None if found is None or found < 0 else found  # negative if a restore reverted it

    def added(self, table: TableVersion, after: int) -> FileList | None:
        """Return the files with the rows added to a table after a version, even if these files are no longer live.

        Returns None if rows were removed other than by retention, or if the first of these commits is so old that its
        log entry or files may be gone.
        """
        name, adds = table.snapshot.name, list[Action]()
        known = self._known.get(name)
        if known is None or table.version - after > _MAX_FOLLOWED:
            return None
        for version in range(after + 1, table.version + 1):
            key = table.table_id, version
            if key not in self._added:
                if (entry := read_entry(self._storage, name, version, is_durable=False)) is None:
                    return None
                self._added[key] = time_of(commit_info(entry), 0.0).timestamp(), _added_files(entry)
            committed_at, found = self._added[key]
            is_late = version == after + 1 and committed_at < SYSTEM_CLOCK.now().timestamp() - MAX_LATE_SECONDS
            if found is None or is_late:
                return None
            adds += found
        return self._files(name, name, table.snapshot.partition_columns, _as_live_files(adds, known))

    def data_file(self, table: str, add: Action, by: Sequence[str]) -> DataFile:
        """Return the file that an `add` action adds to a table with these partition columns; raises `Unreadable`."""
        values, vector = add.get("partitionValues") or {}, add.get("deletionVector")
        rows = json.loads(add.get("stats") or "{}").get("numRecords") if vector else None
        return DataFile(
            self._location(table, add["path"]),
            tuple(values.get(name) for name in by),
            deleted=self._vector(table, vector, rows) if vector else None,
        )

    def _find(self, name: str, folder: str, *, is_named: bool) -> TableSnapshot | None:
        """Return a table, or None if it doesn't exist; refresh it if it `is_named` or new."""
        known = self._known.get(name)
        try:
            if is_named or (known is None and name not in self.refused and name not in self._gone):
                return self._refresh(name, folder)
            if known is not None:
                return known.snapshot
        except TableGone:
            self.refused.pop(name, None)
            self._gone.add(name)
            self._note_empty_log(name, folder)
        except Unreadable:
            pass  # recorded as unreadable
        except Unavailable as error:
            problem = TableProblem(error.what, error.remedy, error.retryable)
            if known is None:
                self.refused[name] = Unreadable("it could not be read when it was last looked at")
                return self._unreadable(name, problem)
            self._known[name] = known
            return replace(known.snapshot, problem=problem)
        if (why := self.refused.get(name)) is None:
            return None
        problem = TableProblem(f"The table {name} cannot be read: {why}.", _REMEDY, retryable=False)
        return self._unreadable(name, problem)

    def _unreadable(self, name: str, problem: TableProblem) -> TableSnapshot:
        definition = self._definitions.get(name)
        raw_name = None if definition is None else definition.raw_name
        return TableSnapshot(name=name, schema=pa.schema([]), files=(), raw_name=raw_name, problem=problem)

    def _note_empty_log(self, name: str, folder: str) -> None:
        if self._is_foreign and self._storage.is_local and Path(self._storage.uri, folder, LOG_FOLDER).is_dir():
            self.refused[name] = Unreadable("its log cannot be read (there is no entry in it)")

    def _name(self, folder: str) -> str:
        return folder or self._storage.uri.rpartition("/")[2]

    def _refresh(self, name: str, folder: str) -> TableSnapshot:
        """Return the current table; it is the same object as before if nothing has changed."""
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock, storage_errors(f"The table {name} could not be read.", self._storage):
            known = self._known.get(name)
            version = -1 if known is None else known.version
            marks = {} if known is None else self._marks(folder, version)
            if known is not None and (known.mark is None or marks.get(version) != known.mark):
                known = None
            if known is None or version + 1 in marks:
                try:
                    known = self._known[name] = self._read(name, folder, known)
                except Unreadable as error:
                    self._known.pop(name, None)
                    self.refused[name] = error
                    raise
                except _ODD as error:  # a broken table must not break statements that use others
                    self._known.pop(name, None)
                    _LOG.error("A table could not be read.", extra={"table": name, "kind": type(error).__name__})
                    self.refused[name] = Unreadable("its log cannot be read")
                    raise self.refused[name] from error
                except BaseException:
                    self._known.pop(name, None)
                    raise
                self.refused.pop(name, None)
            self._gone.discard(name)
            return known.snapshot

    def _read(self, name: str, folder: str, known: _Known | None) -> _Known:
        if self._is_foreign and self._storage.is_local:
            _check_no_link(self._storage.uri, f"{folder}/{LOG_FOLDER}".lstrip("/"))
        if known is not None and (advanced := self._advance(name, folder, known)) is not None:
            return advanced
        delta = _open(self._storage, folder) if known is None else update_delta(known.delta, self._storage, folder)
        return self._read_version(name, folder, delta, known)

    def _read_version(self, name: str, folder: str, delta: DeltaTable, known: _Known | None) -> _Known:
        mark = self._marks(folder, delta.version()).get(delta.version())
        mapping = _check_readable(delta)
        by = tuple(delta.metadata().partition_columns)
        found = arrow_schema(delta)
        schema = pa.schema(map(_field, found))
        stored = None if mapping == "none" else pa.schema([_field(one, mapping) for one in found])
        definition = self._definitions.get(name)
        if definition is not None:
            if stored is not None:
                raise Unreadable(f"its column names differ from those in its files (column mapping by {mapping})")
            expected = {*definition.schema.names, *schema.names}  # older tables lack the nanosecond column
            _check_columns([one for one in stored_definition(definition) if one.name in expected], schema)
            schema = _defined_schema(definition)
        actions = _with_shown_names(live_files(delta), schema, stored)
        adds: list[Action] = []
        if _VECTORS in (delta.protocol().reader_features or ()):
            vectors = _find_vectors(self._storage, folder, delta.version(), actions)
            paths = actions.column("path").to_pylist()
            adds = [{"path": path, "deletionVector": one} for path, one in zip(paths, vectors, strict=True) if one]
            actions = self._with_vectors(folder, actions, vectors)
        files = self._files(name, folder, by, actions)
        emptied = _without(files, (self._key(folder, one) for one in adds))
        bounded = _bounded_columns(actions, schema)
        snapshot = self._snapshot(name, schema, by, files, bounds=_bounds(actions, bounded))
        snapshot = replace(snapshot, stored_schema=stored)
        properties = delta.metadata().configuration
        if (view := ViewDefinition.from_properties(properties)) is not None:
            snapshot = view_snapshot(snapshot, view, properties)
        if known is not None and known.snapshot == snapshot:
            snapshot = known.snapshot
        return _Known(delta, delta.version(), mark, actions.schema, bounded, 2 * len(files), snapshot, emptied)

    def _advance(self, name: str, folder: str, known: _Known) -> _Known | None:
        """Apply the log's next entries to a known table, or return None if the table must be read again.

        The table must be read again if the entries do more than add and remove files, and whenever the number of files
        has doubled, because the columns with useful bounds may have changed.
        """
        try:
            return self._follow(name, folder, known)
        except Exception:  # noqa: BLE001 - deltalake reports anything else that an entry may mean
            return None

    def _follow(self, name: str, folder: str, known: _Known) -> _Known | None:
        version, snapshot = known.version, known.snapshot
        if snapshot.materialized is not None:
            return None
        adds, removed = dict[_Key, Action](), set[_Key]()
        while (entry := self._read_entry(folder, version + 1)) is not None:
            version += 1
            if version > known.version + _MAX_ENTRIES or not all(map(_is_of_files, entry)):
                return None
            gone = {self._key(folder, one["remove"]) for one in entry if "remove" in one}
            added = {self._key(folder, one["add"]): one["add"] for one in entry if "add" in one}
            if not gone.isdisjoint(added):
                return None
            removed |= gone
            adds = {key: one for key, one in adds.items() if key not in gone} | added
        before = FileList.of(snapshot.files)
        paths, vectors, emptied = before.columns.column("path"), before.vectors, known.emptied - removed
        cleared = {path for path, vector in removed if vector == _vector_key(vectors.get(path))}
        again = {path for path, _ in adds} - cleared
        is_live = pc.any(pc.is_in(pa.array([*again], pa.string()), paths)).as_py()
        if is_live or len({path for path, _ in adds}) < len(adds) or any(path in again for path, _ in emptied):
            return None  # a file is added again, possibly with a different deletion vector
        places = pc.index_in(pa.array([*cleared], pa.string()), value_set=paths).drop_null()
        actions = _as_live_files(adds.values(), known)
        actions = self._with_vectors(folder, actions, [one.get("deletionVector") for one in adds.values()])
        files = self._files(name, folder, snapshot.partition_columns, actions)
        emptied |= _without(files, adds)
        change = TableChange(snapshot, places.to_numpy(), files, _bounds(actions, known.bounded))
        if len(snapshot.files) + len(files) > known.max_files:
            return None
        snapshot = change.apply(snapshot) if len(places) or len(files) else snapshot
        mark = self._marks(folder, version).get(version)
        # Checked last: another table in this location doesn't have either entry.
        found = replace(known, version=version, mark=mark, snapshot=snapshot, emptied=emptied)
        return found if self._is_at(folder, known) else None

    def _read_entry(self, folder: str, version: int) -> Sequence[Action] | None:
        path = log_path(folder, entry_name(version))
        found = self._storage.read(path, max_bytes=_MAX_ENTRY_BYTES)
        return None if found is None else parse_actions(found[0].splitlines())

    def _is_at(self, folder: str, known: _Known) -> bool:
        """Return whether the log still has the table's known entry."""
        return self._marks(folder, known.version).get(known.version) == known.mark

    def _marks(self, folder: str, version: int) -> dict[int, object]:
        """Return marks that identify the log entries of a version and of the next one; empty for a missing table."""
        log = f"{folder}/{LOG_FOLDER}".lstrip("/")
        if not self._storage.is_local:
            marks = entry_marks(self._storage, log, version)
            return {one: marks[entry_name(one)] for one in (version, version + 1) if entry_name(one) in marks}
        found: dict[int, object] = {}
        for one in (version, version + 1):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                status = os.stat(f"{self._storage.uri}/{log}/{entry_name(one)}")  # noqa: PTH116 - for each statement
                found[one] = status.st_ino, status.st_mtime_ns, status.st_size
        return found

    def _files(self, name: str, folder: str, by: tuple[str, ...], actions: pa.Table) -> FileList:
        """Return the files for these log actions."""
        definition = self._definitions.get(name)
        first, last = (_TIME, _TIME) if definition is None else definition.range_columns
        begins, ends = (
            pc.add(times_of_files(actions, bound).cast(pa.int64()), margin)
            for bound, margin in ((f"min.{first}", -_CUT), (f"max.{last}", _CUT))
        )
        partitions = [actions.column(f"partition.{one}").cast(pa.string()) for one in by]
        paths = [self._location(folder, path) for path in actions.column("path").to_pylist()]
        deleted = actions.column("deleted").to_pylist() if "deleted" in actions.column_names else ()
        vectors = [None if one is None else DeletionVector(**one) for one in deleted]
        return FileList.build(pa.array(paths, pa.string()), partitions, begins, ends, vectors)

    def _with_vectors(self, folder: str, actions: pa.Table, found: Sequence[Action | None]) -> pa.Table:
        """Return actions with their deletion vectors as `deleted` and the remaining row counts as `num_records`.

        Files without remaining rows are omitted.
        """
        if not any(found):
            return actions
        counts = actions.column("num_records").to_pylist()
        vectors = [self._vector(folder, one, rows) if one else None for one, rows in zip(found, counts, strict=True)]
        left = [
            rows if rows is None or vector is None else rows - vector.cardinality
            for rows, vector in zip(counts, vectors, strict=True)
        ]
        if any(rows is not None and rows < 0 for rows in left):
            raise Unreadable("a deletion vector deletes more rows than its file has")
        deleted = pa.array([vector and vector._asdict() for vector in vectors], VECTOR)
        place = actions.column_names.index("num_records")
        actions = actions.set_column(place, "num_records", pa.array(left, pa.int64())).append_column("deleted", deleted)
        return actions.filter(pa.array([rows != 0 or not vector for rows, vector in zip(left, vectors, strict=True)]))

    def _vector(self, folder: str, found: Action, rows: int | None) -> DeletionVector:
        """Return a deletion vector in the form that the engine loads."""
        kind, place = found["storageType"], found["pathOrInlineDv"]
        size, cardinality = int(found["sizeInBytes"]), int(found["cardinality"])
        if kind == "i":
            return DeletionVector(place, None, size, cardinality, rows)
        path = vector_path(self._storage, folder, found)
        return DeletionVector(
            self._location(folder, quote(path)), int(found.get("offset") or 0), size, cardinality, rows
        )

    def _key(self, folder: str, file: Action) -> _Key:
        """Return the key of the file that an `add` or `remove` action refers to."""
        vector = file.get("deletionVector")
        known = self._vector(folder, vector, None) if vector else None
        return self._location(folder, file["path"]), _vector_key(known)

    def _location(self, folder: str, path: str) -> str:
        parts = unquote(path).split("/")
        if "://" in path or not parts[0] or ".." in parts:
            raise Unreadable("some of its files are outside its folder")
        location = "/".join([*filter(None, [folder]), *parts])
        if self._storage.is_local:
            if self._is_foreign:
                _check_no_link(self._storage.uri, location)
            return self._storage.child_uri(location)
        scheme, _, rest = self._storage.child_uri(location).partition("://")
        return f"{scheme}://{quote(rest)}"

    def _snapshot(
        self,
        name: str,
        schema: pa.Schema,
        by: tuple[str, ...],
        files: FileList,
        *,
        bounds: pa.Table | None = None,
    ) -> TableSnapshot:
        definition = self._definitions.get(name)
        return TableSnapshot(
            name=name,
            schema=schema,
            files=files,
            partition_columns=by,
            range_columns=range_columns(schema) if definition is None else definition.range_columns,
            merge_sql=None if definition is None else definition.merge_sql,
            raw_name=None if definition is None else definition.raw_name,
            has_mixed_types=self._is_foreign,
            bounds=bounds,
            split_times=() if definition is None else definition.split_times,
        )


def _id_of(known: _Known) -> str:
    return str(known.delta.metadata().id)


def _added_files(entry: Sequence[Action]) -> list[Action] | None:
    """Return the files with the rows that a commit added, or None if it removed rows other than by retention.

    It is also None if the commit may have renamed columns, because a view's stored rows would keep the old columns'
    values.
    """
    info = commit_info(entry)
    settings = [one["metaData"].get("configuration") or {} for one in entry if "metaData" in one]
    is_mapped = any(one.get("delta.columnMapping.mode", "none") != "none" for one in settings)
    if info.get("operation") == RESTORE or is_mapped:
        return None
    if EXPIRED_BEFORE in info:
        return []  # the files it added contain the remaining rows of files that it removed
    adds = [one["add"] for one in entry if "add" in one and one["add"].get("dataChange", True)]
    is_removed = any("remove" in one and one["remove"].get("dataChange", True) for one in entry)
    return None if is_removed or any(one.get("deletionVector") for one in adds) else adds


def view_snapshot(table: TableSnapshot, view: ViewDefinition, properties: Mapping[str, str]) -> TableSnapshot:
    """Return the table of a materialized view without the rows of its source."""
    raw_name = f"__{view.name}__partitions"
    return replace(
        table,
        raw_name=raw_name,
        merge_sql=view.merge_partitions_query.replace("{source}", f'"{raw_name}"'),
        range_columns=view.range_columns,
        materialized=Materialized(
            source=TableSnapshot(name=properties.get(VIEW_SOURCE_PROPERTY, ""), schema=pa.schema([]), files=()),
            properties=dict(properties),
            updated_at=properties.get(VIEW_UPDATED_PROPERTY, ""),
            updated_by=properties.get(VIEW_UPDATED_BY_PROPERTY, ""),
            extract_sql=view.extract_query.replace("{begin}", _FIRST_TIME).replace("{end}", _LAST_TIME),
        ),
    )


def vector_path(storage: Storage, folder: str, vector: Action) -> str:
    """Return the path of a deletion vector file within its table; raises `Unreadable`."""
    kind, place = vector["storageType"], vector["pathOrInlineDv"]
    if kind == "u":
        try:
            name = uuid.UUID(bytes=decode_z85(place[-_NAME_OF_VECTOR:]))
        except (DamagedVector, ValueError) as error:
            raise Unreadable("the name of a deletion vector is corrupted") from error
        return "/".join([*filter(None, [place[:-_NAME_OF_VECTOR]]), f"deletion_vector_{name}.bin"])
    if kind != "p":
        raise Unreadable("the location of a deletion vector is unknown")
    return str(place).removeprefix("file://").removeprefix(storage.child_uri(f"{folder}/".lstrip("/")))


def range_columns(schema: pa.Schema) -> tuple[str, str] | None:
    """Return the columns that a time range applies to in a table outside the data model."""
    return (_TIME, _TIME) if _TIME in schema.names and pa.types.is_timestamp(schema.field(_TIME).type) else None


def _open(storage: Storage, folder: str, version: int | None = None) -> DeltaTable:
    """Open a table; raises `TableGone`, or `Unreadable` if deltalake cannot interpret its log."""
    if storage.is_local and not Path(storage.uri, folder, LOG_FOLDER).is_dir():
        raise TableGone
    try:
        return open_delta(storage, folder, version=version)
    except Unavailable as error:
        text = " ".join(str(error.__cause__).split())
        is_known = _UNSUPPORTED.search(text) is not None
        if not isinstance(error.__cause__, DeltaError) or not (is_known or storage.is_local):
            raise
        reason = f" ({text.rpartition('error: ')[2][:_MAX_REASON].rstrip('.')})" if is_known else ""
        raise Unreadable(f"its log cannot be read{reason}") from error


def _check_readable(delta: DeltaTable) -> str:
    """Check that the files and the log fully define the table's rows; return how columns are mapped."""
    protocol = delta.protocol()
    features = set(protocol.reader_features or ())
    mapping = delta.metadata().configuration.get("delta.columnMapping.mode", "none")
    if mapping not in {"none", "name", "id"}:
        raise Unreadable(f"its column names differ from those in its files (column mapping by {mapping[:_MAX_REASON]})")
    if unknown := sorted(features - _KNOWN_FEATURES):
        raise Unreadable(f"it uses features that this server cannot read: {', '.join(unknown)[:_MAX_REASON]}")
    if protocol.min_reader_version > _MAX_READER_VERSION:
        raise Unreadable(f"it requires reader version {protocol.min_reader_version}")
    return mapping


def _find_vectors(storage: Storage, folder: str, version: int, actions: pa.Table) -> list[Action | None]:
    """Return the deletion vectors of live files, in order; deltalake does not return them."""
    try:
        adds = read_state(storage, folder, version).files
        vectors = {_plain_path(path): add.get("deletionVector") for (path, _), add in adds.items()}
        paths = [_plain_path(path) for path in actions.column("path").to_pylist()]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Unreadable("its log cannot be read") from error
    if not len(adds) == len(vectors) == len(paths) or vectors.keys() != {*paths}:
        raise Unreadable("its log does not contain the same files as its latest version")
    return [vectors[path] for path in paths]


def _vector_key(vector: DeletionVector | None) -> tuple[str, int | None] | None:
    return None if vector is None else (vector.location, vector.offset)


def _without(files: FileList, keys: Iterable[_Key]) -> frozenset[_Key]:
    """Return the keys of files that are not in a list."""
    if not (known := [*keys]):
        return frozenset()
    paths = {*files.paths}
    return frozenset(key for key in known if key[0] not in paths)


def _plain_path(path: str) -> str:
    return unquote(unquote(path))


def _field(field: pa.Field, mapping: str | None = None) -> pa.Field:
    """Return a column as SQL sees it or, with a column `mapping`, as it is in files: with its name or ID there.

    Older files may have nulls in nested columns, regardless of the table's schema.
    """
    facts = field.metadata or {}
    inner = _changed_inside(field.type, functools.partial(_field, mapping=mapping))
    if mapping is None:
        others = {key: value for key, value in facts.items() if not key.decode().startswith(_NAMES)}
        return pa.field(field.name, inner, field.nullable, others or None)
    name, field_id = (facts.get(f"{_NAMES}{key}".encode()) for key in ("physicalName", "id"))
    if name is None or (mapping == "id" and field_id is None):
        raise Unreadable(f"the name of a column in its files is unknown (column mapping by {mapping})")
    return pa.field(name.decode(), inner, field.nullable, {FIELD_ID: field_id} if mapping == "id" else None)


def _changed_inside(kind: pa.DataType, change: Callable[[pa.Field], pa.Field]) -> pa.DataType:
    """Apply `change` to the fields of structs at any depth of a type, and make these fields nullable."""

    def inside(field: pa.Field) -> pa.Field:
        return pa.field(field.name, _changed_inside(field.type, change))

    if pa.types.is_struct(kind):
        return pa.struct([change(field).with_nullable(True) for field in kind.fields])
    if pa.types.is_list(kind):
        return pa.list_(inside(kind.value_field))
    if pa.types.is_map(kind):
        return pa.map_(inside(kind.key_field).with_nullable(False), inside(kind.item_field))
    return kind


def _with_shown_names(actions: pa.Table, schema: pa.Schema, stored: pa.Schema | None) -> pa.Table:
    """Return the log's file information, with bounds under the column names that SQL sees."""
    if "num_records" not in actions.column_names:
        actions = actions.append_column("num_records", pa.nulls(actions.num_rows, pa.int64()))
    if stored is None:
        return actions
    # A dot may also precede a part of a nested column.
    shown = {one: other for one, other in zip(stored.names, schema.names, strict=True) if "." not in one}
    columns: dict[str, pa.ChunkedArray] = {}
    for column in actions.column_names:
        what, dot, name = column.partition(".")
        is_bound = bool(dot) and what in {"min", "max", "null_count"}
        if not is_bound or name in shown:
            columns[f"{what}.{shown[name]}" if is_bound else column] = actions.column(column)
    return pa.table(columns)


def _check_columns(wanted: Iterable[pa.Field], found: pa.Schema) -> None:
    for one in wanted:
        if one.name not in found.names or found.field(one.name).type.id != one.type.id:
            raise Unreadable(f"its column {one.name} is missing or has a different type than in the data model")


def _bounded_columns(actions: pa.Table, schema: pa.Schema) -> tuple[str, ...]:
    """Return the columns that have bounds in `TableSnapshot.bounds`, based on the log's file statistics.

    A column whose bounds are the same in most files, such as a level, rarely excludes files. Such a column is omitted,
    because bounds are sent to executors. Floats are also omitted, because their bounds ignore NaN.
    """
    found = []
    for column in schema:
        names = [f"{what}.{column.name}" for what in ("min", "max", "null_count")]
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if "." in column.name or not {*names} <= {*actions.column_names}:
            continue  # a dot may also precede a part of a nested column
        low, high = (actions.column(name) for name in names[:2])
        is_time = pa.types.is_timestamp(low.type) and low.type.unit == "us" and pa.types.is_timestamp(kind)
        is_plain = pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_date(kind)
        if not is_time and (low.type != kind or not is_plain):
            continue
        known = low.drop_null()
        if not len(known):
            continue
        middle = known[len(known) // 2]
        holding = pc.sum(pc.and_(pc.less_equal(low, middle), pc.greater_equal(high, middle))).as_py() or 0
        if 2 * holding <= len(low) or is_time:
            found.append(column.name)
    return tuple(found)


def _bounds(actions: pa.Table, columns: Iterable[str]) -> pa.Table:
    """Return `TableSnapshot.bounds` for these columns."""
    found = {"rows": actions.column("num_records"), "bytes": actions.column("size_bytes")}
    for name in columns:
        for key, what in (("min", "min"), ("max", "max"), ("nulls", "null_count")):
            values = actions.column(f"{what}.{name}")
            found[f"{key}.{name}"] = values.cast(pa.int64()) if pa.types.is_timestamp(values.type) else values
    return pa.table(found)


def _is_of_files(action: Action) -> bool:
    """Return whether an action may be part of a commit that only adds and removes files."""
    return action.keys() <= {"commitInfo", "txn", "remove", "add"}


def _as_live_files(adds: Collection[Action], known: _Known) -> pa.Table:
    """Convert log actions to the format of `live_files`: the fields in use, in columns of the same types."""
    stats = [json.loads(one.get("stats") or "{}") for one in adds]
    columns = {"path": [one["path"] for one in adds], "size_bytes": [one["size"] for one in adds]}
    columns["num_records"] = [one.get("numRecords") for one in stats]
    schema, stored = known.snapshot.schema, known.snapshot.stored_schema or known.snapshot.schema
    names = dict(zip(schema.names, stored.names, strict=True))
    for name in known.snapshot.partition_columns:
        columns[f"partition.{name}"] = [one["partitionValues"][names.get(name, name)] for one in adds]
    wanted = {*known.bounded, *(known.snapshot.range_columns or ())}
    for what, member in (("min", "minValues"), ("max", "maxValues"), ("null_count", "nullCount")):
        for name in wanted:
            columns[f"{what}.{name}"] = [(one.get(member) or {}).get(names.get(name, name)) for one in stats]
    types = {name: known.types.field(name).type for name in columns if name in known.types.names}
    return pa.table({name: _typed(columns[name], kind) for name, kind in types.items()})


def _typed(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    """Convert JSON values to a column; the log stores times and days as strings."""
    is_text = any(isinstance(value, str) for value in values)
    return pa.array(values, pa.string()).cast(kind) if is_text else pa.array(values, kind)


def _check_no_link(path: str, location: str) -> None:
    for part in location.split("/"):
        path = f"{path}/{part}"
        if os.path.islink(path):  # noqa: PTH114 - checked for each file
            raise Unreadable("one of its files is a symbolic link, which is not followed")


def _defined_schema(definition: TableDefinition) -> pa.Schema:
    """Return the data model's columns as SQL sees them: times are in microseconds, except in split columns."""
    is_cut = {one.name: pa.types.is_timestamp(one.type) for one in definition.schema}
    is_cut |= dict.fromkeys(definition.split_times, False)
    return pa.schema(
        [one.with_type(pa.timestamp("us", one.type.tz)) if is_cut[one.name] else one for one in definition.schema]
    )
