"""A process's writer: the lock that makes a writer's files its own, and the files it flushes."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from micromegas_jupyter.errors import InternalError, Unavailable
from micromegas_jupyter.lake.files import Segment, list_segments, make_private_folder, publish, storage_errors
from micromegas_jupyter.telemetry.tables import TableDefinition

WRITERS_FOLDER = ".writers"
_NAME = re.compile(r"([A-Za-z0-9]{1,64})\.lock", re.ASCII)


def hold_writer(root: Path, writer_id: str) -> FileLock:
    """Take the lock of a new writer; the caller releases it."""
    with storage_errors("The recording's folder cannot be used."):
        make_private_folder(root / WRITERS_FOLDER)
        lock = _lock(root, writer_id)
        try:
            lock.acquire()
        except Timeout as error:
            raise Unavailable(
                "Another process records under the same id.", remedy="Start the recorder again."
            ) from error
    return lock


def try_adopt_writer(root: Path, writer_id: str) -> FileLock | None:
    """Take the lock of a writer that is dead; None when it lives or cannot be told. The caller releases it."""
    if not (root / WRITERS_FOLDER / f"{writer_id}.lock").exists():
        return None
    lock = _lock(root, writer_id)
    try:
        lock.acquire()
    except (Timeout, OSError):
        return None
    return lock


def list_writers(root: Path, *, modified_before: float) -> Iterator[str]:
    """Yield the writers whose lock file is older than `modified_before`."""
    for path in (root / WRITERS_FOLDER).glob("*.lock"):
        match = _NAME.fullmatch(path.name)
        if match is not None and path.stat().st_mtime < modified_before:
            yield match.group(1)


def forget_writer(root: Path, writer_id: str) -> None:
    """Remove the lock file of a dead writer that has no files left; the caller holds the lock."""
    (root / WRITERS_FOLDER / f"{writer_id}.lock").unlink(missing_ok=True)


def _lock(root: Path, writer_id: str) -> FileLock:
    path = root / WRITERS_FOLDER / f"{writer_id}.lock"
    # Taken on one thread and released on another, so the lock belongs to the process.
    return FileLock(path, timeout=0, mode=0o600, thread_local=False)


COMPRESSION = "zstd"


class SegmentWriter:
    """Appends rows to one table under one writer's id; safe to use from several threads.

    The lock makes flushes of one table follow each other; it is held while the file is written.
    """

    def __init__(self, folder: Path, definition: TableDefinition, *, writer_id: str) -> None:
        self._folder = folder
        self._definition = definition
        self._writer_id = writer_id
        self._lock = threading.Lock()
        # An id that was used before goes on behind its files instead of replacing them.
        used = [segment.last for segment in list_segments(folder) if segment.writer_id == writer_id]
        self._next_sequence = max(used, default=-1) + 1

    @property
    def settled_sequence(self) -> int:
        """Every flush below this number has its file or never will."""
        return self._next_sequence

    def append(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Store `rows`; when this returns they are durable and visible, when it raises they are neither."""
        table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
        if not table.schema.equals(self._definition.schema):
            raise InternalError(f"Rows for {self._definition.name} do not have its columns.")
        if table.num_rows == 0:
            return
        ordered = sort_rows(table, self._definition)
        with self._lock:
            segment = Segment(self._writer_id, self._next_sequence, self._next_sequence)
            try:
                with storage_errors(f"Rows for {self._definition.name} could not be stored."):
                    make_private_folder(self._folder)
                    publish(
                        self._folder,
                        segment.file_name,
                        owner_id=self._writer_id,
                        write=lambda stream: write_parquet(ordered, stream),
                    )
            finally:
                # A number is used once, so that a range always means the same rows.
                self._next_sequence += 1


def sort_rows(table: pa.Table, definition: TableDefinition) -> pa.Table:
    """Return the rows in the table's order, each column with one dictionary."""
    one_dictionary = table.unify_dictionaries().combine_chunks()
    return one_dictionary.sort_by([(name, "ascending") for name in definition.sort_columns])


def write_parquet(table: pa.Table, stream: BinaryIO) -> None:
    """Write a table as one Parquet file."""
    pq.write_table(table, stream, compression=COMPRESSION)
