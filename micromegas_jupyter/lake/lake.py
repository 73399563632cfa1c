"""The current tables of a lake: a `TableSource` over Delta tables to which several processes write.

A materialized view consists of its stored rows and its query's result over the files added to its source since, both
at one pair of versions.
"""

import threading
import uuid
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote

import pyarrow as pa

from micromegas_jupyter.core.file_list import NO_FILES, FileList
from micromegas_jupyter.core.protocols import Materialized, TableProblem, TableSnapshot
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import MicromegasError, Unavailable, UsageError
from micromegas_jupyter.lake.data_files import write_runs
from micromegas_jupyter.lake.delta_log import (
    CONTROL_FOLDER,
    Action,
    TableGone,
    TableGuard,
    build_entry,
    entry_name,
    live_files,
    log_path,
    milliseconds,
)
from micromegas_jupyter.lake.snapshot import DeltaSnapshots, TableVersion
from micromegas_jupyter.lake.tables import DEFINITIONS, VIEW_ID_PROPERTY, add_entry
from micromegas_jupyter.telemetry.tables import VIEW_INSTANCE, VIEW_SOURCES
from micromegas_jupyter.telemetry.view_definitions import ViewDefinition

_MARKER: Final = f"{CONTROL_FOLDER}/lake.json"
_VIEW_LISTS: Final = "list_view_set"  # the prefix of functions that list views
_ATTEMPTS: Final = 3
_MAX_FILE_BYTES: Final = 64 * 1024 * 1024


REFRESH: Final = "REFRESH"
"""The operation of a commit that adds rows of its source to a view."""
MERGE: Final = "MERGE PARTITIONS"
"""The operation of a commit that merges rows of a view."""


class View(NamedTuple):
    """The state of a materialized view at a version of its table and a version of its source.

    Its table has its source's rows up to the version `watermark`, or None if it has no rows, or another table's rows.
    `facts` are those of its snapshot. If it can't be read, it has no `source`.
    """

    snapshot: TableSnapshot
    facts: Materialized
    table: TableVersion
    source: TableVersion | None
    watermark: int | None = None
    app_id: str = ""


class Lake:
    """The tables in a storage; safe to use from several threads."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._snapshots = DeltaSnapshots(storage, definitions=DEFINITIONS)
        self._lock = threading.Lock()
        self._views: dict[str, View] = {}

    def snapshot(self, sql: str | None = None) -> tuple[TableSnapshot, ...]:
        """Return all tables, refreshing those that `sql` references, or all tables without `sql`."""
        text = None if sql is None or _VIEW_LISTS in sql.lower() else _with_sources(sql)
        found = self._snapshots.list(text)
        views = [name for name, table in found.items() if table.materialized is not None]
        lowered = None if text is None else text.lower()
        for name in views:
            if lowered is None or name in lowered or name not in self._views:
                try:
                    found[name] = self._follow(name, found[name], found)
                except MicromegasError as error:  # statements that read other tables must not fail
                    problem = TableProblem(error.what, error.remedy, retryable=error.retryable)
                    found[name] = replace(found[name], problem=problem)
            else:
                found[name] = self._views[name].snapshot
        with self._lock:
            for name in self._views.keys() - set(views):
                self._views.pop(name, None)
        missing = [self._snapshots.empty(one) for name, one in DEFINITIONS.items() if name not in found]
        return (*missing, *found.values())

    def view(self, name: str) -> View | None:
        """Return the current state of a materialized view, or None."""
        table = self._snapshots.current(name)
        if table is None or table.materialized is None:
            return None
        self._follow(name, table, {})
        return self._views.get(name)

    def _follow(self, name: str, table: TableSnapshot, found: dict[str, TableSnapshot]) -> TableSnapshot:
        """Return a view with the source files whose rows it lacks, and store its source in `found`."""
        if table.materialized is None or table.problem is not None:
            return table
        source_name = table.materialized.source.name
        for _ in range(_ATTEMPTS):
            # Read after the view, so that the view's rows are never from a later version.
            source = self._snapshots.current(source_name)
            view = self._compose(name, source)
            if view is None:
                return table
            if view.source is not None:
                found[source_name] = view.source.snapshot
            if view.source is None or (view.watermark or 0) <= view.source.version:
                with self._lock:
                    before = self._views.get(name)
                    same = before is not None and before.snapshot == view.snapshot
                    self._views[name] = view._replace(snapshot=before.snapshot) if before and same else view
                    return self._views[name].snapshot
        raise Unavailable(f"The view {name} is constantly being refreshed by other calls.")

    def _compose(self, name: str, source: TableSnapshot | None) -> View | None:
        table = self._snapshots.known(name)
        if table is None or (facts := table.snapshot.materialized) is None:
            return None
        known = self._snapshots.known(facts.source.name)
        if source is None or source.problem is not None or source.materialized is not None or known is None:
            cause = None if source is None else source.problem
            reason = f"there is no table {facts.source.name} that it could be computed from."
            if source is not None:
                reason = f"{source.name} is itself a materialized view." if cause is None else cause.what
            problem = TableProblem(
                f"The materialized view {name} cannot be read: {reason}",
                "Ask one of the server's administrators to replace or drop the view.",
                retryable=bool(cause and cause.retryable),
            )
            return View(replace(table.snapshot, problem=problem), facts, table, None)
        application = _app_id(facts.properties, known.table_id)
        version, watermark = self._snapshots.transaction(name, application)
        if version != table.version:
            return self._compose(name, source)
        is_new = watermark is None and not table.snapshot.files
        files: FileList | None = None if watermark is None else self._snapshots.added(known, watermark)
        is_stale = files is None and not is_new
        of_source = replace(known.snapshot, files=known.snapshot.files if files is None else files)
        if files is not None:
            of_source = replace(of_source, bounds=None)
        facts = replace(facts, source=of_source, is_stale=is_stale)
        snapshot = replace(
            table.snapshot,
            files=NO_FILES if is_stale else table.snapshot.files,
            bounds=None if is_stale else table.snapshot.bounds,
            materialized=facts,
        )
        return View(snapshot, facts, table, known, watermark, application)


def commit_view(
    storage: Storage, view: View, runs: Iterable[pa.Table], *, operation: str, removed: Collection[str] | None
) -> bool:
    """Store a view's rows, replacing `removed` files (by default all); return False if its table has changed since.

    After a refresh, the same commit records the source's version. The commit never waits for another one and is never
    repeated, because the other one's rows may be the same.
    """
    name, clock, added = view.snapshot.name, SYSTEM_CLOCK, list[Action]()
    entry_id, is_stored = uuid.uuid4().hex, False
    try:
        for one in write_runs(storage, name, runs, clock=clock, partition={}, max_bytes=_MAX_FILE_BYTES):
            added.append(one)  # immediately, so that all of them are removed if a later one fails
        with closing(TableGuard(storage, name)) as guard, guard.hold():
            delta, now = guard.delta, milliseconds(clock)
            if (str(delta.metadata().id), delta.version()) != (view.table.table_id, view.table.version):
                return False
            paths = live_files(delta).column("path").to_pylist()
            actions: list[Action] = [
                {"remove": {"path": path, "deletionTimestamp": now, "dataChange": True}}
                for path in paths
                if removed is None or unquote(path).rpartition("/")[2] in removed
            ]
            if operation == REFRESH and view.source is not None:
                version = view.source.version
                actions.append({"txn": {"appId": view.app_id, "version": version, "lastUpdated": now}})
            facts = {"readVersion": view.table.version, "isBlindAppend": False}
            content = build_entry(operation, entry_id, [*actions, *added], clock=clock, **facts)
            is_stored = True  # until it is certain that no log entry contains the files
            is_stored = add_entry(storage, guard, log_path(name, entry_name(view.table.version + 1)), content)
    except TableGone:
        is_stored = False
    finally:
        if not is_stored:
            for one in added:
                storage.delete(f"{name}/{unquote(one['add']['path'])}")
    return is_stored


def _app_id(properties: Mapping[str, str], source_id: str) -> str:
    """Return the application ID under which a view's table records the source version that it is up to date with.

    Rows from a different definition, or from another table with the source's name, don't count.
    """
    view = ViewDefinition.from_properties(properties)
    known = "" if view is None else f"{view.name}.{view.digest}"
    return f"micromegas.view.{known}.{properties.get(VIEW_ID_PROPERTY)}.{source_id}"


def _with_sources(sql: str) -> str:
    """Return the statement followed by the names of the source tables of its views."""
    lowered = sql.lower()
    if VIEW_INSTANCE in lowered:  # its arguments may be expressions
        return " ".join([sql, *DEFINITIONS])
    return " ".join([sql, *(source for view, source in VIEW_SOURCES.items() if view in lowered)])


def is_lake(storage: Storage) -> bool:
    """Whether the storage is a lake, or can become one because it is empty or doesn't exist."""
    # A lake's Parquet files contain several versions of the same rows; if they were served as plain files, rows would
    # appear several times.
    if storage.is_local and (Path(storage.uri) / ".writers").is_dir():
        raise UsageError(
            "The directory contains a lake in the format used before Delta tables.",
            remedy="Start with a new directory.",
        )
    if storage.read(_MARKER) is not None:
        return True
    # If another server is creating the lake, it first writes to the marker's directory.
    has_folders = bool({*storage.list_folders()} - {CONTROL_FOLDER})
    if not has_folders and all(entry.path.startswith(f"{CONTROL_FOLDER}/") for entry in storage.list("")):
        return True
    return storage.read(_MARKER) is not None


def make_lake(storage: Storage) -> None:
    """Mark the storage as a lake."""
    if storage.read(_MARKER) is None:
        storage.replace(_MARKER, b'{"version": 1}\n', mark=None)
