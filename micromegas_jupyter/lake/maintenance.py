"""One round of keeping a lake small: merge, adopt what dead writers left, drop, remove.

Each step is safe to repeat and to be cut short; when a round runs is the caller's choice.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.lake.compaction import (
    CompactionStopped,
    MergePlan,
    Stopping,
    merge_segments,
    plan_remains,
    plan_tiers,
)
from micromegas_jupyter.lake.files import (
    SegmentFile,
    list_segment_files,
    remove_old_temporaries,
    select_visible_files,
    storage_errors,
)
from micromegas_jupyter.lake.limits import LakeSetup
from micromegas_jupyter.lake.retention import drop_segment, remove_covered, select_expired
from micromegas_jupyter.lake.segment_writer import SegmentWriter
from micromegas_jupyter.lake.user_tables import UserTables
from micromegas_jupyter.lake.writer_lock import forget_writer, list_writers, try_adopt_writer
from micromegas_jupyter.telemetry import TableDefinition

if TYPE_CHECKING:
    from micromegas_jupyter.lake.segments import Segment

_LOG = logging.getLogger(__name__)

Listing = dict[str, list[SegmentFile]]

_RETRY_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceReport:
    """What one round did.

    Attributes:
        merged: Files that were written in the place of several.
        failed: Merges that could not be done; their files stay as they are and are tried again after ten minutes.
        dropped: Files whose rows were dropped for age or size.
        removed: Files that are gone from the disk.
    """

    merged: int = 0
    failed: int = 0
    dropped: int = 0
    removed: int = 0


class Maintenance:
    """Runs rounds for one writer; remembers for a while which merges failed. One round at a time, on one thread."""

    def __init__(
        self,
        setup: LakeSetup,
        writers: Mapping[str, SegmentWriter],
        *,
        writer_id: str,
    ) -> None:
        self._setup = setup
        self._writers = writers
        self._writer_id = writer_id
        self._retry_at: dict[tuple[str, Segment], float] = {}
        self._user_tables = UserTables(setup.root)

    def run(self, is_stopping: Stopping) -> MaintenanceReport:
        """Do one round; ends early, with what is done so far, when `is_stopping` says so.

        Raises:
            Unavailable: The folder cannot be read, or files cannot be removed.
        """
        now = self._setup.clock.monotonic()
        self._retry_at = {key: retry_at for key, retry_at in self._retry_at.items() if retry_at > now}
        merged = failed = 0
        # Read before the folders, so that every flush below these numbers is in the listing.
        settled = {name: writer.settled_sequence for name, writer in self._writers.items()}
        listing = self._list()
        try:
            for definition in self._setup.tables:
                own = [found for found in listing[definition.name] if found.segment.writer_id == self._writer_id]
                for plan in plan_tiers(own, settled_sequence=settled[definition.name], limits=self._setup.limits):
                    was_merged = self._merge(definition, plan, is_stopping)
                    merged, failed = merged + was_merged, failed + (not was_merged)
            adopted, failed_adopted = self._adopt(_writers_with_several_files(listing) - {self._writer_id}, is_stopping)
            merged, failed = merged + adopted, failed + failed_adopted
        except CompactionStopped:
            return MaintenanceReport(merged=merged, failed=failed)
        listing = self._list()
        dropped = self._drop_expired(listing)
        with storage_errors("Files that are no longer needed could not be removed."):
            removed = self._remove(listing)
        return MaintenanceReport(merged=merged, failed=failed, dropped=dropped, removed=removed)

    def _adopt(self, writer_ids: set[str], is_stopping: Stopping) -> tuple[int, int]:
        merged = failed = 0
        for writer_id in sorted(writer_ids):
            lock = try_adopt_writer(self._setup.root, writer_id)
            if lock is None:
                continue
            try:
                for definition in self._setup.tables:
                    # Listed again under the lock: another process may have merged them meanwhile.
                    left = [found for found in self._files(definition) if found.segment.writer_id == writer_id]
                    for plan in plan_remains(left, limits=self._setup.limits):
                        was_merged = self._merge(definition, plan, is_stopping)
                        merged, failed = merged + was_merged, failed + (not was_merged)
            finally:
                lock.release()
        return merged, failed

    def _merge(self, definition: TableDefinition, plan: MergePlan, is_stopping: Stopping) -> bool:
        key = (definition.name, plan.merged)
        if key in self._retry_at:
            return False
        try:
            merge_segments(
                self._setup.folder(definition),
                definition,
                plan=plan,
                owner_id=self._writer_id,
                is_stopping=is_stopping,
            )
        except Unavailable as error:
            self._retry_at[key] = self._setup.clock.monotonic() + _RETRY_SECONDS
            _LOG.warning("files could not be merged", extra={"table": definition.name}, exc_info=error)
            return False
        return True

    def _drop_expired(self, listing: Listing) -> int:
        expired = select_expired(listing, now=self._now(), limits=self._setup.limits)
        for table, segments in expired.items():
            for segment in segments:
                drop_segment(self._setup.root / table, segment, owner_id=self._writer_id)
        return sum(map(len, expired.values()))

    def _remove(self, listing: Listing) -> int:
        now = self._now()
        removed = 0
        alive: set[str] = set()
        for definition in self._setup.tables:
            folder = self._setup.folder(definition)
            removed += remove_covered(folder, listing[definition.name], now=now, limits=self._setup.limits)
            removed += remove_old_temporaries(folder, modified_before=now - self._setup.limits.temporary_age_seconds)
            alive.update(found.segment.writer_id for found in listing[definition.name])
        leftover_before = now - self._setup.limits.temporary_age_seconds
        removed += self._user_tables.remove_leftovers(modified_before=leftover_before)
        for writer_id in list_writers(self._setup.root, modified_before=now - self._setup.limits.temporary_age_seconds):
            self._forget_if_dead(writer_id, alive)
        return removed

    def _forget_if_dead(self, writer_id: str, alive: set[str]) -> None:
        if writer_id in alive or writer_id == self._writer_id:
            return
        lock = try_adopt_writer(self._setup.root, writer_id)
        if lock is not None:
            try:
                forget_writer(self._setup.root, writer_id)
            finally:
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
