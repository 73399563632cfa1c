"""Replaces files of a Delta table by others with the same rows, or fewer: compaction and retention.

deltalake 1.6.3 has no call that removes chosen files (`create_write_transaction` replaces whole partitions), and it
syncs nothing: a power cut after its `optimize` may lose rows that were durable before. So the log entry is written
here, in the order files, entry, folder. It takes the next free version, and gives up when a commit since the snapshot
removed one of the files or changed the table; appends by others do no harm.
"""

import datetime as dt
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq

from micromegas_jupyter.core.storage import Storage, storage_errors
from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.lake.data_files import COMPRESSION, ROWS_PER_GROUP, NewFile, build_statistics
from micromegas_jupyter.lake.delta_log import Action, TableGuard, build_entry, entry_name, log_path, read_entry

_RUN_BYTES: Final = 64 * 1024 * 1024
_MAX_SOURCE_BYTES: Final = 1024 * 1024 * 1024
_MAX_ATTEMPTS: Final = 1000
_NULL_FOLDER: Final = "__HIVE_DEFAULT_PARTITION__"

Partition = tuple[tuple[str, str | None], ...]


class LiveFile(NamedTuple):
    """A file of a table's present version, with the names and values that the log has."""

    path: str
    size_bytes: int
    modified_ms: int
    partition: Partition
    begin: dt.datetime | None  # no row has an earlier `time`; None when unknown


class Rewriting(NamedTuple):
    """What becomes of some files of one partition: nothing, or files of their rows after `arrange`.

    `arrange` may sort and leave out rows, of which it gets some 64 MiB at a time. `schema` has the columns that are in
    the files, `version` is the one of the snapshot that the sources were found in.
    """

    table: str
    version: int
    guard: TableGuard
    sources: tuple[LiveFile, ...]
    schema: pa.Schema
    arrange: Callable[[pa.Table], pa.Table] | None
    keeps_rows: bool
    max_file_bytes: int


class Stopped(Exception):
    """The process is about to end; nothing was changed."""


def rewrite(storage: Storage, plan: Rewriting, *, now: dt.datetime, is_stopping: Callable[[], bool]) -> bool:
    """Carry out a plan in one commit; False, and nothing is changed, when another commit made it void.

    Raises `Stopped`, and `TableGone` when the table is dropped meanwhile.
    """
    files = _Files(storage, plan, now=now)
    keeps_files = False
    try:
        arrange = plan.arrange
        if arrange is not None:
            with storage_errors(f"Files of {plan.table} could not be rewritten."):
                for run in _read_runs(storage, plan, is_stopping):
                    files.write(arrange(run))
                files.finish()
        if is_stopping():
            raise Stopped
        with plan.guard.hold():
            keeps_files = True  # until it is known that no log entry names them
            keeps_files = _commit(storage, plan, files.added, now=now)
    finally:
        if not keeps_files:
            for one in files.added:
                storage.delete(f"{plan.table}/{unquote(one.path)}")
    return keeps_files


class _Files:
    """Writes runs of rows into files of a bounded size."""

    def __init__(self, storage: Storage, plan: Rewriting, *, now: dt.datetime) -> None:
        self._storage = storage
        self._plan = plan
        self._modified_ms = round(now.timestamp() * 1000)
        self._sink = pa.BufferOutputStream()
        self._writer: pq.ParquetWriter | None = None
        self._statistics: dict[str, Any] = {}
        self.added: list[NewFile] = []

    def write(self, rows: pa.Table) -> None:
        """Write some rows."""
        if rows.num_rows == 0:
            return
        found = build_statistics(rows)
        if self._writer is None:
            self._sink = pa.BufferOutputStream()
            self._writer = pq.ParquetWriter(self._sink, self._plan.schema, compression=COMPRESSION)
            self._statistics = dict(found)
        else:
            self._statistics = _merge_statistics(self._statistics, dict(found))
        self._writer.write_table(rows, row_group_size=ROWS_PER_GROUP)
        if self._sink.tell() >= self._plan.max_file_bytes:
            self.finish()

    def finish(self) -> None:
        """Store what is still to be stored."""
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        content = self._sink.getvalue().to_pybytes()
        partition = self._plan.sources[0].partition
        folder = "".join(f"{quote(name)}={quote(value or _NULL_FOLDER, safe='')}/" for name, value in partition)
        path = f"{folder}part-{uuid.uuid4().hex}.parquet"
        self._storage.write(f"{self._plan.table}/{path}", content)
        self.added.append(
            NewFile(
                path=quote(path, safe="/="),
                size_bytes=len(content),
                partition=dict(partition),
                modified_ms=self._modified_ms,
                statistics=self._statistics,
            )
        )


def _merge_statistics(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return the statistics of both; a bound that either lacks is not known."""

    def both(kind: str, merge: Callable[[Any, Any], Any]) -> dict[str, Any]:
        return {name: merge(value, other[kind][name]) for name, value in one[kind].items() if name in other[kind]}

    return {
        "numRecords": one["numRecords"] + other["numRecords"],
        "minValues": both("minValues", min),
        "maxValues": both("maxValues", max),
        "nullCount": both("nullCount", lambda first, second: first + second),
    }


def _read_runs(storage: Storage, plan: Rewriting, is_stopping: Callable[[], bool]) -> Iterator[pa.Table]:
    """Yield the rows of the sources, in their order, in parts that memory has room for."""
    pending: list[pa.Table] = []
    pending_bytes = 0
    for source in plan.sources:
        path = f"{plan.table}/{unquote(source.path)}"
        with _open(storage, path) as file:
            for index in range(file.num_row_groups):
                if is_stopping():
                    raise Stopped
                pending.append(_fit(file.read_row_group(index, use_threads=False), plan.schema))
                pending_bytes += pending[-1].nbytes
                if pending_bytes >= _RUN_BYTES:
                    yield pa.concat_tables(pending)
                    pending, pending_bytes = [], 0
    if pending:
        yield pa.concat_tables(pending)


def _open(storage: Storage, path: str) -> pq.ParquetFile:
    if storage.is_local:
        return pq.ParquetFile(Path(storage.child_uri(path)))
    found = storage.read(path, max_bytes=_MAX_SOURCE_BYTES)
    if found is None:
        raise Unavailable("A file of the table is gone.")
    return pq.ParquetFile(pa.BufferReader(found[0]))


def _fit(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows of an older version with the columns and types that the table has now."""
    if rows.schema.equals(schema):
        return rows
    names = set(rows.column_names)
    columns = [
        rows.column(field.name).cast(field.type) if field.name in names else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _commit(storage: Storage, plan: Rewriting, added: list[NewFile], *, now: dt.datetime) -> bool:
    entry_id = str(uuid.uuid4())
    content = build_entry(_actions(plan, added, entry_id=entry_id, milliseconds=round(now.timestamp() * 1000)))
    removed = {source.path for source in plan.sources}
    for version in range(plan.version + 1, plan.version + 1 + _MAX_ATTEMPTS):
        if storage.create(log_path(plan.table, entry_name(version)), content):
            return True
        winner = read_entry(storage, plan.table, version)
        if winner is None:
            break  # the log has moved on by far
        if any(action.get("commitInfo", {}).get("txnId") == entry_id for action in winner):
            return True  # only the answer to our own write got lost
        if any(_is_conflict(action, removed) for action in winner):
            break
    return False


def _is_conflict(action: Action, removed: set[str]) -> bool:
    return "metaData" in action or "protocol" in action or action.get("remove", {}).get("path") in removed


def _actions(plan: Rewriting, added: list[NewFile], *, entry_id: str, milliseconds: int) -> list[Action]:
    facts: Action = {
        "timestamp": milliseconds,
        "operation": "OPTIMIZE" if plan.keeps_rows else "DELETE",
        "operationParameters": {},
        "readVersion": plan.version,
        "isBlindAppend": False,
        "engineInfo": "micromegas_jupyter",
        "txnId": entry_id,
    }
    removals = [
        {
            "path": source.path,
            "deletionTimestamp": milliseconds,
            "dataChange": not plan.keeps_rows,
            "extendedFileMetadata": True,
            "partitionValues": dict(source.partition),
            "size": source.size_bytes,
        }
        for source in plan.sources
    ]
    additions = [{**one.action()["add"], "dataChange": not plan.keeps_rows} for one in added]
    return [{"commitInfo": facts}, *({"remove": one} for one in removals), *({"add": one} for one in additions)]
