"""Reads small files that an administrator names, within bounds and without ever waiting.

What they hold, and what follows when they cannot be read, is for the caller to say.
"""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from micromegas_jupyter.core.files import FileMark, FileProblem, mark_of

# Path and size cap; raises `OSError`.
ReadFile: TypeAlias = Callable[[str, int], bytes]


def read_named_file(path: str, max_bytes: int) -> bytes:
    """Return what the file holds; links are followed, as mounted secrets are links.

    Raises:
        OSError: It cannot be read, is no ordinary file, holds more than `max_bytes`, or every user of this machine
            can change it.
    """
    # Without O_NONBLOCK, opening a pipe would wait for somebody to write into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "It is not an ordinary file")
        if mode & stat.S_IWOTH:
            raise PermissionError(errno.EPERM, "Every user of this machine can change it")
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return data


def mark_of_named_file(path: str | Path) -> FileMark | None:
    """Return the present mark of the file, behind links too; None when it is missing or cannot be looked at."""
    try:
        return mark_of(Path(path), follows_links=True)
    except (FileProblem, ValueError):
        return None
