"""Notices that files have changed, by their marks and without reading them."""

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from micromegas_jupyter.core.files import FileMark, FileProblem, mark_of
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock

# Files change in steps of the kernel's tick, so that a second change may leave the same mark as the first.
_YOUNG = timedelta(seconds=1)


class FileWatch:
    """Tells whether files have changed since it was last asked. For one thread at a time.

    A file that changed within the last second counts as changed each time.

    Args:
        paths: The files; one that is missing, or cannot be looked at, counts as absent.
        clock: Tells how young a change is.
        follows_links: Whether the target of a symbolic link is watched instead of the link.
    """

    def __init__(self, paths: Iterable[Path], *, clock: Clock = SYSTEM_CLOCK, follows_links: bool = False) -> None:
        self._paths = tuple(paths)
        self._clock = clock
        self._follows_links = follows_links
        self.marks = self._read_marks()

    def has_changed(self) -> bool:
        """Look at the files, and return whether they may hold something else than at the time before."""
        before, self.marks = self.marks, self._read_marks()
        oldest_young_ns = (self._clock.now() - _YOUNG).timestamp() * 1e9
        is_young = any(mark is not None and mark.changed_ns > oldest_young_ns for mark in self.marks)
        return is_young or self.marks != before

    def _read_marks(self) -> tuple[FileMark | None, ...]:
        return tuple(map(self._read_mark, self._paths))

    def _read_mark(self, path: Path) -> FileMark | None:
        try:
            return mark_of(path, follows_links=self._follows_links)
        except FileProblem:
            return None
