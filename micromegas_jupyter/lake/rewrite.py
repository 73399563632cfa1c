"""Replaces files of a Delta table by others with the same rows, or fewer: compaction and retention.

deltalake 1.6.3 has no call that removes chosen files (`create_write_transaction` replaces whole partitions), and it
syncs nothing: a power cut after its `optimize` may lose rows that were durable before. So the log entry is written
here, in the order files, entry, folder. It takes the next free version, and gives up when a commit since the snapshot
removed one of the files or changed the table; appends by others do no harm.
"""

import datetime as dt
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq

from micromegas_jupyter.core.storage import Storage, storage_errors
from micromegas_jupyter.errors import Unavailable

LOG_FOLDER: Final = "_delta_log"
RUN_BYTES: Final = 64 * 1024 * 1024
_ROWS_PER_GROUP: Final = 128 * 1024
_MAX_SOURCE_BYTES: Final = 1024 * 1024 * 1024
_MAX_ENTRY_BYTES: Final = 256 * 1024 * 1024
_MAX_ATTEMPTS: Final = 1000
_MAX_TEXT: Final = 64
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
    sources: tuple[LiveFile, ...]
    schema: pa.Schema
    arrange: Callable[[pa.Table], pa.Table] | None
    keeps_rows: bool
    max_file_bytes: int


class Stopped(Exception):
    """The process is about to end; nothing was changed."""


def rewrite(storage: Storage, plan: Rewriting, *, now: dt.datetime, is_stopping: Callable[[], bool]) -> bool:
    """Carry out a plan in one commit; False, and nothing is changed, when another commit made it void."""
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
        keeps_files = True  # until it is known that no log entry names them
        keeps_files = _commit(storage, plan, files.added, now=now)
    finally:
        if not keeps_files:
            files.remove()
    return keeps_files


class _Files:
    """Writes runs of rows into files of a bounded size, and lists them as the log does."""

    def __init__(self, storage: Storage, plan: Rewriting, *, now: dt.datetime) -> None:
        self._storage = storage
        self._plan = plan
        self._modified_ms = round(now.timestamp() * 1000)
        self._sink = pa.BufferOutputStream()
        self._writer: pq.ParquetWriter | None = None
        self.added: list[dict[str, Any]] = []

    def write(self, rows: pa.Table) -> None:
        """Write some rows."""
        if rows.num_rows == 0:
            return
        if self._writer is None:
            self._sink = pa.BufferOutputStream()
            self._writer = pq.ParquetWriter(self._sink, self._plan.schema, compression="zstd")
        self._writer.write_table(rows, row_group_size=_ROWS_PER_GROUP)
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
            {
                "path": quote(path, safe="/="),
                "partitionValues": dict(partition),
                "size": len(content),
                "modificationTime": self._modified_ms,
                "dataChange": not self._plan.keeps_rows,
                "stats": json.dumps(_statistics(pq.read_metadata(pa.BufferReader(content)), self._plan.schema)),
            }
        )

    def remove(self) -> None:
        """Remove all files, of which the log says nothing."""
        for one in self.added:
            self._storage.delete(f"{self._plan.table}/{unquote(one['path'])}")


def _read_runs(storage: Storage, plan: Rewriting, is_stopping: Callable[[], bool]) -> Iterator[pa.Table]:
    """Yield the rows of the sources, in their order, in parts that memory has room for."""
    pending: list[pa.Table] = []
    for source in plan.sources:
        path = f"{plan.table}/{unquote(source.path)}"
        with _open(storage, path) as file:
            for index in range(file.num_row_groups):
                if is_stopping():
                    raise Stopped
                pending.append(_fit(file.read_row_group(index, use_threads=False), plan.schema))
                if sum(one.nbytes for one in pending) >= RUN_BYTES:
                    yield pa.concat_tables(pending)
                    pending = []
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


def _commit(storage: Storage, plan: Rewriting, added: list[dict[str, Any]], *, now: dt.datetime) -> bool:
    content = _log_entry(plan, added, now=now)
    removed = {source.path for source in plan.sources}
    version = plan.version + 1
    for _ in range(_MAX_ATTEMPTS):
        path = f"{plan.table}/{LOG_FOLDER}/{version:020}.json"
        if storage.create(path, content):
            return True
        winner = storage.read(path, max_bytes=_MAX_ENTRY_BYTES)
        if winner is None:
            break  # the log has moved on by far, or the table is gone
        if winner[0] == content:
            return True  # only the answer to our own write got lost
        if _is_conflict(winner[0], removed):
            break
        version += 1
    return False


def _log_entry(plan: Rewriting, added: list[dict[str, Any]], *, now: dt.datetime) -> bytes:
    milliseconds = round(now.timestamp() * 1000)
    facts: dict[str, object] = {
        "timestamp": milliseconds,
        "operation": "OPTIMIZE" if plan.keeps_rows else "DELETE",
        "operationParameters": {},
        "readVersion": plan.version,
        "isBlindAppend": False,
        "engineInfo": "micromegas_jupyter",
        "txnId": str(uuid.uuid4()),
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
    actions = [{"commitInfo": facts}, *({"remove": one} for one in removals), *({"add": one} for one in added)]
    return "".join(f"{json.dumps(action)}\n" for action in actions).encode()


def _is_conflict(entry: bytes, removed: set[str]) -> bool:
    for line in entry.splitlines():
        action = json.loads(line)
        if "metaData" in action or "protocol" in action:
            return True
        if "remove" in action and action["remove"]["path"] in removed:
            return True
    return False


def _statistics(metadata: pq.FileMetaData, schema: pa.Schema) -> dict[str, Any]:
    """Return what readers skip a file by: counts, and bounds of those columns whose bounds are exact."""
    found: dict[str, Any] = {"numRecords": metadata.num_rows, "minValues": {}, "maxValues": {}, "nullCount": {}}
    positions = {metadata.schema.column(index).path: index for index in range(metadata.num_columns)}
    for name in schema.names:
        position = positions.get(name)
        if position is None:
            continue  # it is nested
        groups = [metadata.row_group(index).column(position).statistics for index in range(metadata.num_row_groups)]
        known = [group for group in groups if group is not None and group.has_null_count]
        if len(known) < len(groups):
            continue
        found["nullCount"][name] = sum(group.null_count for group in known)
        with_rows = [group for group in known if group.num_values]
        if not with_rows or not all(group.has_min_max for group in with_rows):
            continue
        least, greatest = min(group.min for group in with_rows), max(group.max for group in with_rows)
        if _is_exact(least) and _is_exact(greatest):
            found["minValues"][name], found["maxValues"][name] = _bound(least), _bound(greatest)
    return found


def _is_exact(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _MAX_TEXT
    return isinstance(value, int | dt.date) and not isinstance(value, bool)


def _bound(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        text = value.isoformat(timespec="microseconds")
        return text.replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, dt.date) else value
