"""Merges consecutive small files of one writer into one file that takes their place.

Who may merge a writer's files is `writer_lock`'s; removing the files that were merged is `retention`'s.
"""

from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.lake.files import SegmentFile, publish, select_visible_files, storage_errors
from micromegas_jupyter.lake.limits import LakeLimits
from micromegas_jupyter.lake.segment_writer import COMPRESSION, sort_rows
from micromegas_jupyter.lake.segments import Segment
from micromegas_jupyter.telemetry import TableDefinition, merge_rows

ROWS_PER_GROUP = 128 * 1024

Stopping = Callable[[], bool]


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
    folder: Path,
    definition: TableDefinition,
    *,
    plan: MergePlan,
    owner_id: str,
    is_stopping: Stopping,
) -> None:
    """Write the rows of the plan's sources into its merged file, which hides them from the moment it has its name.

    Raises:
        CompactionStopped: `is_stopping` said so.
        Unavailable: A source cannot be read or the merged file cannot be written; nothing was changed.
    """
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
