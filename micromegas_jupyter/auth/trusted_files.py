"""Says whether somebody else could have written a file or a folder that this person's programs believe.

Reading files is `private_files`'s job; what becomes of one that is not believed is the callers'.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

_ROOT = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Who reads.

    Attributes:
        user_id: The user that the program acts as.
        group_id: That user's group.
    """

    user_id: int
    group_id: int

    def has_own_group(self, group_id: int) -> bool:
        """Whether a group is this user's alone: many systems give each user a group of the same number."""
        return group_id == self.group_id == self.user_id


def current_reader() -> Reader | None:
    """Return who this program acts as; None on Windows, where neither owners nor modes are looked at."""
    if os.name == "nt":
        return None
    return Reader(user_id=os.geteuid(), group_id=os.getegid())


def find_foreign_writer(found: os.stat_result, *, reader: Reader | None) -> str | None:
    """Return who else could change a file or folder, as it goes on after its name; None when nobody could.

    Root can change everything anyway, so what belongs to root is as good as the reader's own. In a folder with the
    sticky bit nobody replaces what another has put there.

    Args:
        found: What the system says of it; of a symbolic link, what it says of its target.
        reader: Who reads; None believes everything.
    """
    if reader is None:
        return None
    if found.st_uid not in {reader.user_id, _ROOT}:
        return "belongs to another user"
    if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX:
        return None
    if found.st_mode & stat.S_IWOTH:
        return "can be changed by everybody on this machine"
    if found.st_mode & stat.S_IWGRP and not reader.has_own_group(found.st_gid):
        return "can be changed by its group"
    return None


def is_readable_by_others(found: os.stat_result, *, reader: Reader | None, is_mounted_read_only: bool) -> bool:
    """Whether others than the reader and root can read a file.

    What root has put there may be open to a group, through which this program reads it. A file of root's on a file
    system that is mounted read-only is an orchestrator's, which alone can say who reads it.

    Args:
        found: What the system says of the file.
        reader: Who reads; None means that it is not known.
        is_mounted_read_only: Whether the file's file system cannot be written.
    """
    is_roots = found.st_uid == _ROOT
    if reader is None or (is_roots and is_mounted_read_only):
        return False
    if found.st_mode & stat.S_IROTH:
        return True
    is_for_a_group = bool(found.st_mode & stat.S_IRGRP) and not reader.has_own_group(found.st_gid)
    return is_for_a_group and (not is_roots or reader.user_id == _ROOT)


def is_mounted_read_only(path: Path) -> bool:
    """Whether the file system that holds the file cannot be written; False when that cannot be found out."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except (OSError, AttributeError):  # Windows has no such call
        return False
