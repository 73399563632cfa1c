"""Segments of a table: their names, and files that appear whole or not at all."""

import contextlib
import functools
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from micromegas_jupyter.errors import InternalError, Unavailable
from micromegas_jupyter.telemetry.tables import TableDefinition

ROWS_SUFFIX = ".parquet"
TOMBSTONE_SUFFIX = ".dropped"
TEMPORARY_SUFFIX = ".tmp"

_NAME = re.compile(r"([A-Za-z0-9]{1,64})-(\d{12})-(\d{12})(\.parquet|\.dropped)", re.ASCII)
_WRITER_ID = re.compile(r"[A-Za-z0-9]{1,64}", re.ASCII)


class Segment(NamedTuple):
    """One file of a table: rows of the flushes `first` to `last` of one writer, or a tombstone over them."""

    writer_id: str
    first: int
    last: int
    is_tombstone: bool = False

    @property
    def file_name(self) -> str:
        """The file's name in the table's folder."""
        suffix = TOMBSTONE_SUFFIX if self.is_tombstone else ROWS_SUFFIX
        return f"{self.writer_id}-{self.first:012d}-{self.last:012d}{suffix}"

    def covers(self, other: "Segment") -> bool:
        """Whether `other` is not to be read because of this one."""
        return (
            self != other
            and self.writer_id == other.writer_id
            and self.first <= other.first
            and other.last <= self.last
            # Of a pair over the same range the tombstone counts.
            and (self.is_tombstone or (self.first, self.last) != (other.first, other.last))
        )


def is_writer_id(text: str) -> bool:
    """Whether `text` can name a writer."""
    return _WRITER_ID.fullmatch(text) is not None


@functools.lru_cache(maxsize=16 * 1024)
def parse_segment(file_name: str) -> Segment | None:
    """Return what a file's name says, None for any other file."""
    match = _NAME.fullmatch(file_name)
    if match is None:
        return None
    writer_id, first, last, suffix = match.groups()
    segment = Segment(writer_id, int(first), int(last), suffix == TOMBSTONE_SUFFIX)
    return segment if segment.first <= segment.last else None


def select_visible(segments: Iterable[Segment]) -> list[Segment]:
    """Return the segments that together hold each row once, by writer and flush."""
    visible: list[Segment] = []
    writer_id = ""
    covered_to = -1
    # The widest of those that begin together comes first, and a tombstone before rows of its range.
    for segment in sorted(segments, key=lambda found: (found.writer_id, found.first, -found.last, -found.is_tombstone)):
        if segment.writer_id != writer_id:
            writer_id, covered_to = segment.writer_id, -1
        if segment.last <= covered_to:
            continue
        covered_to = segment.last
        if not segment.is_tombstone:
            visible.append(segment)
    return visible


_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)


class SegmentFile(NamedTuple):
    """A segment with its file's size and the time of its last change (seconds since 1970 UTC)."""

    segment: Segment
    size_bytes: int
    modified_at: float


@contextlib.contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turn errors of the file system and of the Parquet library into one that crosses packages."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise Unavailable(
            what, remedy="Check the free space and the access rights of the folder that holds the recording."
        ) from error


def make_private_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for this account only."""
    for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
        sync_folder(missing.parent)


def publish(folder: Path, name: str, *, owner_id: str, write: Callable[[BinaryIO], None]) -> None:
    """Make a file that is on disk in full before it has its name; when this raises, there is no such file."""
    temporary = folder / f".{Path(name).stem}.{owner_id}{TEMPORARY_SUFFIX}"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        rename_durably(temporary, folder / name)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def name_once(temporary: Path, target: Path) -> bool:
    """Give a finished file its name, unless another has it; return whether it has it now. It is on disk either way."""
    try:
        target.hardlink_to(temporary)  # unlike a rename it takes no other's place
    except FileExistsError:
        sync_folder(target.parent)  # whoever named the other may have ended before it came to that
        return False
    finally:
        temporary.unlink()
    _keep_name(target)
    return True


def rename_durably(temporary: Path, target: Path) -> None:
    """Give a finished file a name that nobody else has."""
    temporary.rename(target)
    _keep_name(target)


def _keep_name(target: Path) -> None:
    try:
        sync_folder(target.parent)
    except OSError:
        target.unlink()
        raise


def sync_folder(folder: Path) -> None:
    """Put the folder's names on disk; does nothing where the system has no such call."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def list_segments(folder: Path) -> list[Segment]:
    """Return all segments of a folder, those covered by others too; none when there is no folder."""
    try:
        with os.scandir(folder) as entries:
            found = [parse_segment(entry.name) for entry in entries]
    except FileNotFoundError:
        return []
    return [segment for segment in found if segment is not None]


def list_segment_files(folder: Path) -> list[SegmentFile]:
    """Return all segments of a folder with size and age; a file that goes meanwhile is left out."""
    found: list[SegmentFile] = []
    for segment in list_segments(folder):
        try:
            status = (folder / segment.file_name).stat()
        except FileNotFoundError:
            continue
        found.append(SegmentFile(segment, status.st_size, status.st_mtime))
    return found


def select_visible_files(files: Iterable[SegmentFile]) -> list[SegmentFile]:
    """Return the files that together hold each row once, by writer and flush."""
    by_segment = {found.segment: found for found in files}
    return [by_segment[segment] for segment in select_visible(by_segment)]


def remove_old_temporaries(folder: Path, *, modified_before: float) -> None:
    """Remove unfinished files that nobody has written to since `modified_before`."""
    for path in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):
            if path.lstat().st_mtime < modified_before:
                path.unlink()


WRITERS_FOLDER = ".writers"
_LOCK_NAME = re.compile(r"([A-Za-z0-9]{1,64})\.lock", re.ASCII)


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
        match = _LOCK_NAME.fullmatch(path.name)
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
    """Appends rows to one table under one writer's id, one flush after another; safe to use from several threads."""

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
                        write=lambda stream: pq.write_table(ordered, stream, compression=COMPRESSION),
                    )
            finally:
                # A number is used once, so that a range always means the same rows.
                self._next_sequence += 1


def sort_rows(table: pa.Table, definition: TableDefinition) -> pa.Table:
    """Return the rows in the table's order, each column with one dictionary."""
    one_dictionary = table.unify_dictionaries().combine_chunks()
    return one_dictionary.sort_by([(name, "ascending") for name in definition.sort_columns])
