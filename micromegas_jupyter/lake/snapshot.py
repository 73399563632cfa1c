"""Delta tables as the engine reads them: the files of the latest version, with what the log tells of each.

A table is opened by deltalake once. After that only new entries of its log are read, here, since opening a table again
or asking deltalake for all its files takes a tenth of a second at 10,000 files.
Source: https://github.com/delta-io/delta/blob/master/PROTOCOL.md.
"""

import datetime as dt
import json
import os
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from micromegas_jupyter.core.protocols import DataFile, TableSnapshot
from micromegas_jupyter.core.storage import MAX_OBJECT_BYTES, Storage, storage_errors
from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.lake.delta_log import DROPPED_MARKER, LOG_FOLDER, TableGone, entry_name, log_path, open_delta
from micromegas_jupyter.telemetry.tables import TableDefinition

_TIME: Final = "time"
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND: Final = dt.timedelta(microseconds=1)
# Some writers cut the bounds of times to milliseconds.
_CUT: Final = 1000
# They change nothing about how a data file is read once the log is known.
_HARMLESS_FEATURES: Final = frozenset({"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"})
_KNOWN_FEATURES: Final = _HARMLESS_FEATURES | {"deletionVectors", "columnMapping"}
_MAX_READER_VERSION: Final = 3
_IGNORED_ACTIONS: Final = frozenset({"commitInfo", "txn", "cdc", "domainMetadata"})
_MAX_REASON: Final = 200

_UNSUPPORTED: Final = re.compile("Unsupported|Invalid protocol|Schema error")
_Actions = list[dict[str, Any]]


class Unreadable(Exception):
    """A table that would be read wrongly or not at all; its text completes "is left out: "."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A table at one version; `mark` tells its last log entry from that of another table in the same place."""

    version: int
    mark: object
    files: dict[str, DataFile] = field(repr=False)
    snapshot: TableSnapshot


class DeltaSnapshots:
    """Follows the tables in a storage. Safe to use from several threads; one looks at a table at a time.

    `is_foreign` tables were written by others: their files may have other types than their schema, and none may be a
    link or lie outside of its table.
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
        self.refused: dict[str, Unreadable] = {}

    def list(self, sql: str | None) -> dict[str, TableSnapshot]:  # noqa: C901 - each way in which a table is left out
        """Return all tables that can be read; those that `sql` names as they stand now.

        Raises `Unavailable` when one that it names cannot be read.
        """
        text = None if sql is None else sql.lower()
        names = [name for name in self._storage.list_folders() if not name.startswith(("_", "."))]
        tables = {}
        for name in names:
            known = self._known.get(name)
            if text is not None and name.lower() not in text and (known is not None or name in self.refused):
                if known is not None:
                    tables[name] = known.snapshot
                continue
            try:
                tables[name] = self.refresh(name)
            except TableGone:
                continue
            except Unreadable as error:
                if text is not None and re.search(rf'\b(?:from|join)\s+"?{re.escape(name.lower())}\b', text):
                    raise Unavailable(f"The table {name} cannot be read: {error}.", table=name) from error
            except Unavailable as error:
                error.table = name
                if text is not None and name.lower() in text:
                    raise
                # Others must not fail for it.
                if known is None:
                    self.refused[name] = Unreadable("it could not be read when it was last looked at")
                else:
                    self._known[name], tables[name] = known, known.snapshot
        with self._lock:
            for name in self._locks.keys() - set(names):
                self._locks.pop(name, None)
                self._known.pop(name, None)
                self.refused.pop(name, None)
        return tables

    def refresh(self, folder: str) -> TableSnapshot:
        """Return the table in a folder of the storage as it stands now, the same object while nothing has changed.

        Raises `Unreadable`, `TableGone`, or `Unavailable`.
        """
        with self._lock:
            lock = self._locks.setdefault(folder, threading.Lock())
        with lock, storage_errors(f"The table {folder or 'in the folder'} could not be read."):
            known = self._known.get(folder)
            found = None if known is None else self._advance(folder, known)
            if found is None:
                self._known.pop(folder, None)
                try:
                    found = self._open(folder)
                except Unreadable as error:
                    self.refused[folder] = error
                    raise
                self.refused.pop(folder, None)
            self._known[folder] = found
            return found.snapshot

    def empty(self, definition: TableDefinition) -> TableSnapshot:
        """Return a table that nothing was written to yet."""
        return self._snapshot(definition.name, _defined_schema(definition), ("date",), {})

    def _open(self, folder: str) -> _Known:
        if self._is_foreign and self._storage.is_local:
            _check_no_link(Path(self._storage.uri), f"{folder}/{LOG_FOLDER}".lstrip("/"))
        table = open_delta_or_refuse(self._storage, folder)
        check_readable(table)
        by = tuple(table.metadata().partition_columns)
        definition = self._definitions.get(folder)
        columns = _range_columns(definition)
        adds = _adds(pa.table(table.get_add_actions(flatten=True)), by, columns)
        files = dict(self._data_file(folder, add, by, columns) for add in adds)
        schema = pa.schema(table.schema().to_arrow()).remove_metadata()
        if definition is not None:
            schema = _checked_schema(definition, schema)
        name = folder or self._storage.uri.rpartition("/")[2]
        mark = self._marks(folder, table.version()).get(table.version())
        return _Known(table.version(), mark, files, self._snapshot(name, schema, by, files))

    def _advance(self, folder: str, known: _Known) -> _Known | None:
        """Return the table with what was committed since; None when it has to be opened anew."""
        marks = self._marks(folder, known.version)
        if known.mark is None or marks.get(known.version) != known.mark:
            return None
        versions = [version for version in sorted(marks) if version > known.version]
        if not versions:
            return known
        by, columns = known.snapshot.partition_columns, _range_columns(self._definitions.get(folder))
        files, is_changed = dict(known.files), False
        for version in versions:
            entry = self._read_entry(folder, version)
            if entry is None or any(action.keys() - _IGNORED_ACTIONS - {"add", "remove"} for action in entry):
                return None
            for action in entry:
                if (removed := action.get("remove")) is not None:
                    is_changed |= files.pop(removed["path"], None) is not None
            for action in entry:
                if (added := action.get("add")) is not None:
                    if added.get("deletionVector"):
                        return None
                    path, file = self._data_file(folder, added, by, columns)
                    is_changed |= files.get(path) != file
                    files[path] = file
        snapshot = replace(known.snapshot, files=tuple(files.values())) if is_changed else known.snapshot
        return _Known(versions[-1], marks[versions[-1]], files, snapshot)

    def _marks(self, folder: str, version: int) -> dict[int, object]:
        """Return what tells log entries apart, for a version and those that follow it without a gap."""
        marks: dict[int, object] = {}
        if self._storage.is_local:
            while (mark := _file_mark(Path(self._storage.uri, folder, LOG_FOLDER, entry_name(version)))) is not None:
                marks[version] = mark
                version += 1
            return marks
        prefix = f"{folder}/{LOG_FOLDER}" if folder else LOG_FOLDER
        found = {
            entry.path.rpartition("/")[2]: entry.mark for entry in self._storage.list(prefix, after=f"{version:020}.")
        }
        while DROPPED_MARKER not in found and (mark := found.get(entry_name(version))) is not None:
            marks[version] = mark
            version += 1
        return marks

    def _read_entry(self, folder: str, version: int) -> _Actions | None:
        """Return the actions of a version; None when deltalake had better read it."""
        path = log_path(folder, entry_name(version)).lstrip("/")
        try:
            found = self._storage.read(path, max_bytes=MAX_OBJECT_BYTES)
            return None if found is None else [json.loads(line) for line in found[0].splitlines() if line]
        except (Unavailable, ValueError):
            return None

    def _data_file(
        self, folder: str, add: Mapping[str, Any], by: tuple[str, ...], columns: tuple[str, str]
    ) -> tuple[str, DataFile]:
        path, partition = add["path"], add["partitionValues"]
        parts = unquote(path).split("/")
        if "://" in path or not parts[0] or ".." in parts:
            raise Unreadable("some of its files lie outside of its folder")
        begin, end = _bounds(add.get("stats"), columns)
        location = "/".join([*filter(None, [folder]), *parts])
        if self._storage.is_local:
            url = self._storage.child_uri(location)
            if self._is_foreign:
                _check_no_link(Path(self._storage.uri), location)
        else:
            scheme, _, rest = self._storage.child_uri(location).partition("://")
            url = f"{scheme}://{quote(rest)}"
        return path, DataFile(url, tuple(partition.get(name) for name in by), begin, end)

    def _snapshot(
        self, name: str, schema: pa.Schema, by: tuple[str, ...], files: Mapping[str, DataFile]
    ) -> TableSnapshot:
        definition = self._definitions.get(name)
        has_time = _TIME in schema.names and pa.types.is_timestamp(schema.field(_TIME).type)
        return TableSnapshot(
            name=name,
            schema=schema,
            files=tuple(files.values()),
            partition_columns=by,
            range_columns=_range_columns(definition) if definition is not None or has_time else None,
            merge_sql=None if definition is None else definition.merge_sql,
            raw_name=None if definition is None else definition.raw_name,
            has_mixed_types=self._is_foreign,
        )


def open_delta_or_refuse(storage: Storage, folder: str) -> DeltaTable:
    """Open a table; raises `TableGone`, or `Unreadable` when deltalake cannot know what its log means."""
    if storage.is_local and not Path(storage.uri, folder, LOG_FOLDER).is_dir():
        raise TableGone
    try:
        if folder:
            return open_delta(storage, folder)
        return DeltaTable(storage.uri, storage_options=storage.options)
    except (DeltaError, Unavailable) as error:
        cause = error if isinstance(error, DeltaError) else error.__cause__
        text = " ".join(str(cause).split())
        if isinstance(cause, DeltaError) and (storage.is_local or _UNSUPPORTED.search(text)):
            reason = text.rpartition("error: ")[2][:_MAX_REASON].rstrip(".")
            is_known = _UNSUPPORTED.search(text) is not None
            raise Unreadable(f"its log cannot be read{f' ({reason})' if is_known else ''}") from error
        raise


def check_readable(table: DeltaTable) -> None:
    """Check that the rows of a table are those of its files as they are; raises `Unreadable`."""
    protocol = table.protocol()
    features = set(protocol.reader_features or ())
    mapping = table.metadata().configuration.get("delta.columnMapping.mode", "none")
    if mapping != "none":
        raise Unreadable(f"its columns have other names in its files (column mapping by {mapping})")
    if unknown := sorted(features - _KNOWN_FEATURES):
        raise Unreadable(f"it uses what this server cannot read: {', '.join(unknown)[:_MAX_REASON]}")
    if protocol.min_reader_version > _MAX_READER_VERSION:
        raise Unreadable(f"it needs a reader of version {protocol.min_reader_version}")
    if "deletionVectors" in features and any(
        batch.num_rows for batch in pa.RecordBatchReader.from_stream(table.deletion_vectors())
    ):
        raise Unreadable("it has deletion vectors; purge them with the program that made them (REORG TABLE)")


def _adds(actions: pa.Table, by: tuple[str, ...], columns: tuple[str, str]) -> Iterable[Mapping[str, Any]]:
    """Return the files that deltalake knows in the form of the log's own actions."""
    values = [_texts(actions.column(f"partition.{name}")) for name in by]
    bounds = [
        actions.column(name).to_pylist() if name in actions.column_names else [None] * actions.num_rows
        for name in (f"min.{columns[0]}", f"max.{columns[1]}")
    ]
    for row, path in enumerate(actions.column("path").to_pylist()):
        stats = {"minValues": {columns[0]: bounds[0][row]}, "maxValues": {columns[1]: bounds[1][row]}}
        yield {"path": path, "partitionValues": {name: texts[row] for name, texts in zip(by, values, strict=True)},
               "stats": stats}  # fmt: skip


def _texts(column: pa.ChunkedArray) -> list[str | None]:
    if pa.types.is_binary(column.type):
        return [None if value is None else value.decode() for value in column.to_pylist()]
    return column.cast(pa.string()).to_pylist()  # type: ignore[no-any-return]


def _bounds(stats: object, columns: tuple[str, str]) -> tuple[int | None, int | None]:
    """Return between which times all rows of a file lie."""
    try:
        known = json.loads(stats) if isinstance(stats, str) else stats
        if not isinstance(known, dict):
            return None, None
        begin = _microseconds((known.get("minValues") or {}).get(columns[0]))
        end = _microseconds((known.get("maxValues") or {}).get(columns[1]))
    except (ValueError, AttributeError, OverflowError):
        return None, None
    return None if begin is None else begin - _CUT, None if end is None else end + _CUT


def _microseconds(value: object) -> int | None:
    if isinstance(value, str):
        value = dt.datetime.fromisoformat(value)
    if not isinstance(value, dt.datetime):
        return None
    return ((value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)) - _EPOCH) // _MICROSECOND


def _file_mark(path: Path) -> object | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - asked for each statement
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _check_no_link(root: Path, location: str) -> None:
    path = root
    for part in location.split("/"):
        path /= part
        if path.is_symlink():
            raise Unreadable("one of its files is a link, and links are not followed")


def _range_columns(definition: TableDefinition | None) -> tuple[str, str]:
    return (_TIME, _TIME) if definition is None else definition.range_columns


def _defined_schema(definition: TableDefinition) -> pa.Schema:
    """Return the columns as SQL sees them: those of the data model with times in microseconds."""
    fields = []
    for one in definition.schema:
        kind = pa.timestamp("us", one.type.tz) if pa.types.is_timestamp(one.type) else one.type
        fields.append(one.with_type(kind))
    return pa.schema(fields)


def _checked_schema(definition: TableDefinition, found: pa.Schema) -> pa.Schema:
    schema = _defined_schema(definition)
    for one in schema:
        stored = found.field(one.name).type if one.name in found.names else None
        kind = one.type.value_type if pa.types.is_dictionary(one.type) else one.type
        is_same = stored is not None and (
            stored.id == kind.id if pa.types.is_nested(kind) or pa.types.is_timestamp(kind) else stored == kind
        )
        if not is_same:
            raise Unreadable(f"its column {one.name} is missing or has another type than in the data model")
    return schema
