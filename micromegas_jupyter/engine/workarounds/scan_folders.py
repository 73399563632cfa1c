"""Makes DataFusion list the files of a scan on a single thread instead of one thread per file.

DataFusion (55) requests the sizes of all paths in a scan concurrently, and Tokio starts up to 512 threads for that.
Reads then use all of these threads in turn. Its allocator (mimalloc 2) returns memory that one thread allocated and
another freed only after the first has allocated memory about 100 times more: some 13 MB of file contents per thread. A
folder is listed on one thread, so the files of a scan are linked in a folder.

Source: `ListingTable::list_files_for_scan` in
https://github.com/apache/datafusion/blob/main/datafusion/catalog-listing/src/table.rs; `_mi_malloc_generic` in
https://github.com/microsoft/mimalloc/blob/v2.2.4/src/page.c.
"""

import atexit
import contextlib
import operator
import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock

# Below this number, listing the paths doesn't take more threads than the scan itself.
_MIN_LINKED: Final = 5
# Across all folders; scans beyond this limit use their paths directly.
_MAX_LINKS: Final = 50_000
# After this time, statements that used a folder have finished or no longer read files.
_IDLE_SECONDS: Final = 3600.0

#: Identifies a file's version: it changes if the file is replaced, or removed and restored.
Mark = tuple[int, ...]


class FoundFile(NamedTuple):
    """A file in a scan, identified by its absolute path and mark, or by a URL without a mark."""

    path: str
    mark: Mark = ()

    @property
    def size(self) -> int | None:
        """Its size in bytes, if known."""
        return self.mark[0] if self.mark else None

    @property
    def url(self) -> str:
        """The URL for scans, with characters escaped that could be patterns."""
        return Path(self.path).as_uri() if self.mark else self.path


#: Returns a file's mark, which begins with its size, based on its status.
mark_of: Final[Callable[[os.stat_result], Mark]] = operator.attrgetter(
    "st_size", "st_dev", "st_ino", "st_mtime_ns", "st_ctime_ns"
)


@dataclass(slots=True)
class _Folder:
    path: str
    used_at: float
    changed_at: int


class ScanFolders:
    """Folders of links, removed when the process exits."""

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK, max_links: int = _MAX_LINKS) -> None:
        self._clock = clock
        self._max_links = max_links
        self._root = ""
        self._made = 0
        self._links = 0
        self._folders: OrderedDict[tuple[FoundFile, ...], _Folder] = OrderedDict()

    def urls(self, files: Sequence[FoundFile]) -> list[str]:
        """Return the URLs for a scan of these files: a folder of links, or the files."""
        folder = None
        if len(files) >= _MIN_LINKED and all(file.mark for file in files) and os.name == "posix":
            with contextlib.suppress(OSError):  # there is no space for links, or a link is missing
                folder = self._find(tuple(files))
        return [file.url for file in files] if folder is None else [f"{Path(folder).as_uri()}/"]

    def _find(self, files: tuple[FoundFile, ...]) -> str | None:
        folder = self._folders.get(files)
        # A cleanup of temporary files may have removed links, and a missing link would be read as an empty file.
        if folder is not None and os.stat(folder.path).st_mtime_ns != folder.changed_at:  # noqa: PTH116 - as below
            raise FileNotFoundError(folder.path)
        if folder is None:
            if not self._evict_idle(len(files)):
                return None
            path = self._link(files)
            folder = self._folders[files] = _Folder(path, 0.0, Path(path).stat().st_mtime_ns)
            self._links += len(files)
        folder.used_at = self._clock.monotonic()
        self._folders.move_to_end(files)
        return folder.path

    def _evict_idle(self, count: int) -> bool:
        idle_since = self._clock.monotonic() - _IDLE_SECONDS
        while self._links + count > self._max_links and self._folders:
            key, oldest = next(iter(self._folders.items()))
            if oldest.used_at > idle_since:
                break
            del self._folders[key]
            self._links -= len(key)
            shutil.rmtree(oldest.path, ignore_errors=True)
        return self._links + count <= self._max_links

    def _link(self, files: Sequence[FoundFile]) -> str:
        if not self._root:
            self._root = tempfile.mkdtemp(prefix="scans-")
            # The folder isn't removed with this object, because plans may outlive it and would read a missing folder as
            # empty.
            atexit.register(shutil.rmtree, self._root, ignore_errors=True)
        self._made += 1
        folder = f"{self._root}/{self._made}"
        os.mkdir(folder)  # noqa: PTH102 - hundreds of links, in microseconds each
        for number, file in enumerate(files):
            os.symlink(file.path, f"{folder}/{number:06d}")  # noqa: PTH211 - as above
        return folder
