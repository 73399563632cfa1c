"""Names of the files in a table's folder, and which of them hold the table's rows.

A name says which flushes of which writer the file covers. A merged file covers the range of the files that it
was made of, so that its appearance under its name is at once their disappearance: whoever lists the folder
skips what lies inside another's range. A tombstone is an empty file that covers what is to be forgotten.
Reading and writing the files is for others.
"""

import functools
import re
from collections.abc import Iterable
from typing import NamedTuple

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
