"""Temporary folders that do not outlive their process for long, however it ends.

A process that is killed cannot remove its folder. Each folder is therefore locked while its process lives; the lock is
the operating system's and ends with the process, so whoever gets it may remove the folder. When to look for such
folders is the callers' decision.
"""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Final

_MOST_LOOKED_AT: Final = 100_000
_TRIES: Final = 8
_OWN_MODE: Final = 0o700


class TemporaryFolder:
    """A folder that only this process's user can read; removed by `close`, or when the interpreter ends.

    Where the file system has no locks, or the system is Windows, nobody else ever removes it.

    Args:
        prefix: What its name begins with.
        parent: An existing folder; the system's for temporary files when left out.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, prefix: str, *, parent: str | None = None) -> None:
        for _ in range(_TRIES):
            self._folder = tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True)
            self.path = Path(self._folder.name)
            with suppress(FileNotFoundError, BlockingIOError):
                self._lock = _lock(self.path)
                return
            # Another process looked for abandoned ones in the moment between making and locking it.
            self._folder.cleanup()
        raise OSError(f"no folder below {self.path.parent} stays")

    @property
    def locks(self) -> tuple[int, ...]:
        """What to leave open in another process that the folder belongs to as well (`pass_fds`)."""
        return () if self._lock is None else (self._lock,)

    def close(self) -> None:
        """Remove it with everything in it; safe to call twice, and never raises."""
        self._folder.cleanup()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def remove_abandoned(prefix: str, *, parent: str | None = None) -> int:
    """Remove the folders of processes that have ended without doing so; return how many.

    What is not certainly such a folder stays: one that is locked, another user's, one that others may enter, a link,
    and one on a file system without locks. Never raises.

    Args:
        prefix: What their names begin with.
        parent: Where they are; the system's folder for temporary files when left out.
    """
    if sys.platform == "win32":
        return 0
    name = re.compile(re.escape(prefix) + r"[a-z0-9_]{8}", re.ASCII)
    removed = 0
    with suppress(OSError), _opened(parent or tempfile.gettempdir(), follows_links=True) as place:
        with os.scandir(place) as entries:
            found = [entry.name for entry in islice(entries, _MOST_LOOKED_AT) if name.fullmatch(entry.name)]
        for folder in found:
            with suppress(OSError):
                removed += _remove(folder, place)
    return removed


if sys.platform == "win32":

    def _lock(_path: Path) -> int | None:
        return None

else:
    import fcntl

    def _lock(path: Path) -> int | None:
        """Return the open folder, locked; None when it cannot be locked at all.

        Raises:
            FileNotFoundError: It is gone.
            BlockingIOError: Somebody else has locked it.
        """
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        is_held = False
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_held = os.path.samestat(os.fstat(folder), path.lstat())
        except (FileNotFoundError, BlockingIOError):
            raise
        except OSError:  # network file systems, some of them
            return None
        finally:
            if not is_held:
                os.close(folder)
        if not is_held:
            raise FileNotFoundError(path)
        return folder

    @contextmanager
    def _opened(path: str, *, place: int | None = None, follows_links: bool = False) -> Iterator[int]:
        no_links = 0 if follows_links else os.O_NOFOLLOW
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | no_links, dir_fd=place)
        try:
            yield folder
        finally:
            os.close(folder)

    def _remove(name: str, place: int) -> bool:
        """Remove one folder if its process is gone. All names are looked up below the folder that was checked."""
        with _opened(name, place=place) as folder:
            status = os.fstat(folder)
            is_own = status.st_uid == os.geteuid() and status.st_mode & 0o777 == _OWN_MODE
            if not is_own or status.st_dev != os.fstat(place).st_dev:
                return False
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries]
            for inside in names:
                try:
                    os.unlink(inside, dir_fd=folder)
                except OSError:
                    shutil.rmtree(inside, dir_fd=folder)
            os.rmdir(name, dir_fd=place)
            return True
