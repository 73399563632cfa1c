"""Reads small files that hold a secret, and refuses those that other people of the machine can read.

What a file holds is for its users to understand. Unlike the token file, such a file is often put there by an
administrator or an orchestrator: it may be a symbolic link, may belong to root, and is never changed here.
"""

import os
import stat
from pathlib import Path, PurePath

from micromegas_jupyter.auth.trusted_files import is_mounted_read_only
from micromegas_jupyter.core.files import FileProblem, read_shared_file
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.errors import ConfigurationError

MAX_SECRET_FILE_BYTES = 64 * 1024

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_ROOT = 0


def read_secret_file(path: PurePath, *, setting: str) -> Secret:
    """Return the file's text.

    Args:
        path: The file; `~` stands for the home folder.
        setting: The setting that names it, for errors.

    Raises:
        ConfigurationError: It is missing, a folder or a pipe, too large or not UTF-8, or others can read or change it.
    """
    place = Path(path).expanduser()
    try:
        text, found = _read(place)
    except FileProblem as problem:
        raise ConfigurationError(
            f"The file that {setting} names {problem.args[0]}.", key=setting, remedy="Correct the path or the file."
        ) from None
    exposure = find_exposure(found, reader=os.geteuid(), is_mounted_read_only=is_mounted_read_only(place))
    if exposure is not None:
        raise ConfigurationError(
            f"The file that {setting} names {exposure}.",
            key=setting,
            remedy="Let it belong to you and close it to others: chmod 600. What others could read by now is known to "
            "them, so make a new secret.",
        )
    if text is None:
        raise ConfigurationError(
            f"The file that {setting} names is not UTF-8 text.", key=setting, remedy="Write it again as plain text."
        )
    return text


def read_secret_line(path: PurePath, *, setting: str) -> Secret:
    """Return the one line that the file holds, without white space around it; raises as `read_secret_file` does.

    Raises:
        ConfigurationError: It holds nothing or several lines.
    """
    line = Secret(read_secret_file(path, setting=setting).reveal().strip())
    if not line.reveal() or not line.reveal().isprintable():
        raise ConfigurationError(
            f"The file that {setting} names does not hold one line of text.",
            key=setting,
            remedy="Write the secret alone into it.",
        )
    return line


def find_exposure(found: os.stat_result, *, reader: int, is_mounted_read_only: bool) -> str | None:
    """Return what exposes a file's secret, as it goes on after the file's name; None when nothing does.

    A file of the reader's own has to be closed to everybody else (mode 0600 or 0400). One that root has put there may
    be open to a group, through which this program reads it. Secrets that an orchestrator mounts into a container are
    root's and open to everybody by default (0444, 0644): where the mount is read-only the mode is taken as its choice,
    since nobody inside could mend it.

    Args:
        found: What the system says of the file.
        reader: The user id of this program.
        is_mounted_read_only: Whether the file's file system cannot be written.
    """
    if found.st_uid not in {reader, _ROOT}:
        return "belongs to another user"
    if found.st_uid == _ROOT and is_mounted_read_only:
        return None
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be changed by others"
    closed_to = _OTHERS if found.st_uid == reader else stat.S_IRWXO
    return "can be read by others" if found.st_mode & closed_to else None


def _read(path: Path) -> tuple[Secret | None, os.stat_result]:
    # Whoever raises has no plain text among its variables, which a verbose traceback would show.
    content, found = read_shared_file(path, max_bytes=MAX_SECRET_FILE_BYTES)
    try:
        return Secret(content.decode("utf-8")), found
    except UnicodeDecodeError:
        return None, found
