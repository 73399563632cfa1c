"""Keeps a lake small: merges small files, drops old ones, removes what nobody reads any more."""

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.lake.files import (
    COMPRESSION,
    Segment,
    SegmentFile,
    SegmentWriter,
    forget_writer,
    list_segment_files,
    list_writers,
    publish,
    remove_old_temporaries,
    select_visible_files,
    sort_rows,
    storage_errors,
    sync_folder,
    try_adopt_writer,
)
from micromegas_jupyter.lake.user_tables import UserTables
from micromegas_jupyter.telemetry.tables import TableDefinition, merge_rows

ROWS_PER_GROUP = 128 * 1024
_MEBIBYTE = 1024 * 1024
_DAY_SECONDS = 24 * 3600

Stopping = Callable[[], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeLimits:
    """How a lake keeps itself small.

    Attributes:
        fan_in: How many files of one tier become one of the next.
        tiers: How many tiers of merged files there are; `fan_in ** tiers` flushes end up in one file.
        max_file_bytes: Files are not merged into one that is larger than this.
        grace_seconds: How long a file that is no longer listed stays for earlier queries: longer than the longest.
        max_age_seconds: Rows older than this are dropped, counted from when they were last rewritten.
        max_total_bytes: The oldest files are dropped while the listed ones together are larger than this.
        temporary_age_seconds: When an unfinished file counts as a dead process's leftover.
    """

    fan_in: int = 32
    tiers: int = 3
    max_file_bytes: int = 64 * _MEBIBYTE
    grace_seconds: float = 900.0
    max_age_seconds: float = 7.0 * _DAY_SECONDS
    max_total_bytes: int = 2048 * _MEBIBYTE
    temporary_age_seconds: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeSetup:
    """What all parts of one lake share: its folder (absolute), its tables, its limits and a clock."""

    root: Path
    tables: tuple[TableDefinition, ...]
    limits: LakeLimits
    clock: Clock

    def folder(self, definition: TableDefinition) -> Path:
        """Where a table's files lie."""
        return self.root / definition.name


class MergePlan(NamedTuple):
    """The merged file and the files that it takes the place of, in their order."""

    merged: Segment
    sources: list[Segment]


class CompactionStopped(Exception):
    """The process is about to end; nothing was changed. Stays inside this package."""


def plan_tiers(files: Iterable[SegmentFile], *, settled_sequence: int, limits: LakeLimits) -> list[MergePlan]:
    """Plan what a living writer merges: for each complete range of a tier the merged segment and its sources.

    Ranges are aligned, so ranges of different tiers lie inside each other or apart. A range counts as complete
    once the writer's next flush lies behind it. At most one tier of a range is planned at a time.
    """
    visible = select_visible_files(files)
    plans: list[MergePlan] = []
    planned: set[Segment] = set()
    for tier in range(1, limits.tiers + 1):
        span = limits.fan_in**tier
        for number, group in groupby(visible, key=lambda found: found.segment.first // span):
            members = list(group)
            first, last = number * span, (number + 1) * span - 1
            sources = [found.segment for found in members]
            if (
                len(members) > 1
                and last < settled_sequence
                and sources[-1].last <= last
                and planned.isdisjoint(sources)
                and sum(found.size_bytes for found in members) <= limits.max_file_bytes
            ):
                plans.append(MergePlan(Segment(sources[0].writer_id, first, last), sources))
                planned.update(sources)
    return plans


def plan_remains(files: Iterable[SegmentFile], *, limits: LakeLimits) -> list[MergePlan]:
    """Plan what is merged for a dead writer: all that it left, in as few files as their size allows."""
    plans: list[MergePlan] = []
    group: list[Segment] = []
    group_bytes = 0
    for found in [*select_visible_files(files), None]:
        if found is None or group_bytes + found.size_bytes > limits.max_file_bytes:
            if len(group) > 1:
                plans.append(MergePlan(Segment(group[0].writer_id, group[0].first, group[-1].last), group))
            group, group_bytes = [], 0
        if found is not None:
            group.append(found.segment)
            group_bytes += found.size_bytes
    return plans


def merge_segments(
    folder: Path, definition: TableDefinition, *, plan: MergePlan, owner_id: str, is_stopping: Stopping
) -> None:
    """Write the rows of the plan's sources into its merged file, which hides them from the moment it has its name."""
    paths = [folder / source.file_name for source in plan.sources]

    def write(stream: BinaryIO) -> None:
        with pq.ParquetWriter(stream, definition.schema, compression=COMPRESSION) as writer:
            for rows in _read_merged(paths, definition):
                if is_stopping():
                    raise CompactionStopped("The merging of files was stopped.")
                writer.write_table(sort_rows(rows, definition))

    with storage_errors(f"Files of {definition.name} could not be merged."):
        publish(folder, plan.merged.file_name, owner_id=owner_id, write=write)


def _read_merged(paths: list[Path], definition: TableDefinition) -> Iterable[pa.Table]:
    pending: list[pa.Table] = []
    pending_rows = 0
    for path in paths:
        with pq.ParquetFile(path) as source:
            if not source.schema_arrow.equals(definition.schema):
                raise Unavailable(f"A file of {definition.name} has other columns than the table.")
            for index in range(source.num_row_groups):
                pending.append(source.read_row_group(index, use_threads=False))
                pending_rows += pending[-1].num_rows
                if pending_rows >= ROWS_PER_GROUP and definition.merge_rule is None:
                    yield pa.concat_tables(pending)
                    pending, pending_rows = [], 0
        if definition.merge_rule is not None:
            # Partial states shrink to one row for each key, so the whole range fits in memory.
            pending = [merge_rows(pa.concat_tables(pending), definition.merge_rule)]
    if pending:
        yield pa.concat_tables(pending)


def select_expired(
    tables: Mapping[str, Iterable[SegmentFile]], *, now: float, limits: LakeLimits
) -> dict[str, list[Segment]]:
    """Choose what is to be dropped: rows past their age, then the oldest files while all are too large."""
    listed = [(found, table) for table, files in tables.items() for found in select_visible_files(files)]
    listed.sort(key=lambda pair: (pair[0].modified_at, pair[1], pair[0].segment))
    excess_bytes = sum(found.size_bytes for found, _ in listed) - limits.max_total_bytes
    expired: dict[str, list[Segment]] = {}
    for found, table in listed:
        if found.modified_at >= now - limits.max_age_seconds and excess_bytes <= 0:
            break
        expired.setdefault(table, []).append(found.segment)
        excess_bytes -= found.size_bytes
    return expired


def drop_segment(folder: Path, segment: Segment, *, owner_id: str) -> None:
    """Let a file's rows disappear from every later listing."""
    tombstone = segment._replace(is_tombstone=True)
    with storage_errors("Old rows could not be dropped."):
        publish(folder, tombstone.file_name, owner_id=owner_id, write=lambda _stream: None)


def remove_covered(folder: Path, files: Iterable[SegmentFile], *, now: float, limits: LakeLimits) -> None:
    """Remove files unlisted for the grace period; a tombstone goes last, a round after all that it covers."""
    remaining = list(files)
    settled: dict[str, list[Segment]] = {}
    for found in remaining:
        segment = found.segment
        if found.modified_at < now - limits.grace_seconds and (segment.is_tombstone or segment.first < segment.last):
            settled.setdefault(segment.writer_id, []).append(segment)
    due = {
        found.segment
        for found in remaining
        if any(segment.covers(found.segment) for segment in settled.get(found.segment.writer_id, ()))
    }
    bare_tombstones = [
        segment
        for segments in settled.values()
        for segment in segments
        if segment.is_tombstone and segment not in due and not any(segment.covers(found.segment) for found in remaining)
    ]
    with storage_errors("Files that are no longer needed could not be removed."):
        _unlink_all(folder, sorted(due))
        _unlink_all(folder, bare_tombstones)


def _unlink_all(folder: Path, segments: list[Segment]) -> None:
    for segment in segments:
        with contextlib.suppress(FileNotFoundError):
            (folder / segment.file_name).unlink()
    if segments:
        sync_folder(folder)


_LOG = logging.getLogger(__name__)

Listing = dict[str, list[SegmentFile]]

_RETRY_SECONDS = 600.0


class Maintenance:
    """Runs rounds for one writer; remembers for a while which merges failed. One round at a time, on one thread."""

    def __init__(self, setup: LakeSetup, writers: Mapping[str, SegmentWriter], *, writer_id: str) -> None:
        self._setup = setup
        self._writers = writers
        self._writer_id = writer_id
        self._retry_at: dict[tuple[str, Segment], float] = {}
        self._user_tables = UserTables(setup.root)

    def run(self, is_stopping: Stopping) -> None:
        """Do one round; ends early, with what is done so far, when `is_stopping` says so."""
        now = self._setup.clock.monotonic()
        self._retry_at = {key: retry_at for key, retry_at in self._retry_at.items() if retry_at > now}
        # Read before the folders, so that every flush below these numbers is in the listing.
        settled = {name: writer.settled_sequence for name, writer in self._writers.items()}
        listing = self._list()
        try:
            for definition in self._setup.tables:
                own = [found for found in listing[definition.name] if found.segment.writer_id == self._writer_id]
                for plan in plan_tiers(own, settled_sequence=settled[definition.name], limits=self._setup.limits):
                    self._merge(definition, plan, is_stopping)
            for writer_id in sorted(_writers_with_several_files(listing) - {self._writer_id}):
                self._adopt(writer_id, is_stopping)
        except CompactionStopped:
            return
        listing = self._list()
        expired = select_expired(listing, now=self._now(), limits=self._setup.limits)
        for table, segments in expired.items():
            for segment in segments:
                drop_segment(self._setup.root / table, segment, owner_id=self._writer_id)
        with storage_errors("Files that are no longer needed could not be removed."):
            self._remove(listing)

    def _adopt(self, writer_id: str, is_stopping: Stopping) -> None:
        lock = try_adopt_writer(self._setup.root, writer_id)
        if lock is None:
            return
        try:
            for definition in self._setup.tables:
                # Listed again under the lock: another process may have merged them meanwhile.
                left = [found for found in self._files(definition) if found.segment.writer_id == writer_id]
                for plan in plan_remains(left, limits=self._setup.limits):
                    self._merge(definition, plan, is_stopping)
        finally:
            lock.release()

    def _merge(self, definition: TableDefinition, plan: MergePlan, is_stopping: Stopping) -> None:
        key = (definition.name, plan.merged)
        if key in self._retry_at:
            return
        folder = self._setup.folder(definition)
        try:
            merge_segments(folder, definition, plan=plan, owner_id=self._writer_id, is_stopping=is_stopping)
        except Unavailable as error:
            self._retry_at[key] = self._setup.clock.monotonic() + _RETRY_SECONDS
            _LOG.warning("files could not be merged", extra={"table": definition.name}, exc_info=error)

    def _remove(self, listing: Listing) -> None:
        now = self._now()
        stale_before = now - self._setup.limits.temporary_age_seconds
        alive = {self._writer_id}
        for definition in self._setup.tables:
            folder = self._setup.folder(definition)
            remove_covered(folder, listing[definition.name], now=now, limits=self._setup.limits)
            remove_old_temporaries(folder, modified_before=stale_before)
            alive.update(found.segment.writer_id for found in listing[definition.name])
        self._user_tables.remove_stale_files(modified_before=stale_before)
        for writer_id in set(list_writers(self._setup.root, modified_before=stale_before)) - alive:
            lock = try_adopt_writer(self._setup.root, writer_id)
            if lock is not None:
                forget_writer(self._setup.root, writer_id)
                lock.release()

    def _list(self) -> Listing:
        return {definition.name: self._files(definition) for definition in self._setup.tables}

    def _files(self, definition: TableDefinition) -> list[SegmentFile]:
        with storage_errors(f"The files of {definition.name} could not be listed."):
            return list_segment_files(self._setup.folder(definition))

    def _now(self) -> float:
        return self._setup.clock.now().timestamp()


def _writers_with_several_files(listing: Listing) -> set[str]:
    found: set[str] = set()
    for files in listing.values():
        writer_ids = [file.segment.writer_id for file in select_visible_files(files)]
        found.update(one for one, other in pairwise(writer_ids) if one == other)
    return found
