"""Removes files: those that a merged file replaced, and those whose rows are too old or too many.

A file first stops being listed and is removed a grace period later, so that a query which began before still
finds it. Merging is `compaction`'s job.
"""

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from micromegas_jupyter.lake.files import (
    SegmentFile,
    publish,
    select_visible_files,
    storage_errors,
    sync_folder,
)
from micromegas_jupyter.lake.limits import LakeLimits
from micromegas_jupyter.lake.segments import Segment


def select_expired(
    tables: Mapping[str, Iterable[SegmentFile]], *, now: float, limits: LakeLimits
) -> dict[str, list[Segment]]:
    """Choose what is to be dropped: rows past their age, then the oldest files while all are too large.

    Args:
        tables: The files of each table.
        now: Seconds since 1970 UTC.
        limits: The bounds.
    """
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
    """Let a file's rows disappear from every later listing.

    Raises:
        Unavailable: The tombstone could not be written; nothing was changed.
    """
    tombstone = segment._replace(is_tombstone=True)
    with storage_errors("Old rows could not be dropped."):
        publish(folder, tombstone.file_name, owner_id=owner_id, write=lambda _stream: None)


def remove_covered(folder: Path, files: Iterable[SegmentFile], *, now: float, limits: LakeLimits) -> int:
    """Remove the files that have not been listed for the grace period; return how many.

    A tombstone goes last, a round after all that it covers.

    Raises:
        Unavailable: A file could not be removed; the rest waits for the next time.
    """
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
    return len(due) + len(bare_tombstones)


def _unlink_all(folder: Path, segments: list[Segment]) -> None:
    for segment in segments:
        with contextlib.suppress(FileNotFoundError):
            (folder / segment.file_name).unlink()
    if segments:
        sync_folder(folder)
