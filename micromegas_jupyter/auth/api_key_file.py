"""Reads the file that holds an API key, and refuses one that somebody else could have put another key into.

Upstream says nothing of the file's mode, so one that others can merely read is taken; telling the person is for the
callers.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from micromegas_jupyter.auth.trusted_files import (
    current_reader,
    find_foreign_writer,
    is_mounted_read_only,
    is_readable_by_others,
)
from micromegas_jupyter.core.files import FileProblem, read_shared_file
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.errors import ConfigurationError

SETTING = "api_key_file"
# What others could read is known to them, so closing the file is half of it.
OPEN_REMEDY = "Close it with chmod 600. If others use this machine, have a new key made as well."


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyFile:
    """What the file holds and who else sees it.

    Attributes:
        name: The file's name without its folder.
        text: All that it holds.
        is_readable_by_others: Whether others than the reader and root can read it.
    """

    name: str
    text: Secret = field(repr=False)
    is_readable_by_others: bool


def read_api_key_file(path: str | os.PathLike[str]) -> ApiKeyFile:
    """Read the file, also through a symbolic link; `~` stands for the home folder.

    Raises:
        ConfigurationError: It is missing, a folder or a pipe, or too large, or somebody else can change it.
    """
    place = Path(path).expanduser()
    try:
        text, found = _read(place)
    except FileProblem as problem:
        raise ConfigurationError(
            f"The API key file {place.name} {problem.args[0]}.", key=SETTING, remedy="Correct the path or the file."
        ) from None
    reader = current_reader()
    writer = find_foreign_writer(found, reader=reader)
    if writer is not None:
        raise ConfigurationError(
            f"The API key file {place.name} {writer}.",
            key=SETTING,
            remedy="Look at what it holds, then let it belong to you (chown) and close it to others (chmod 600).",
        )
    is_open = is_readable_by_others(found, reader=reader, is_mounted_read_only=is_mounted_read_only(place))
    return ApiKeyFile(name=place.name, text=text, is_readable_by_others=is_open)


def _read(path: Path) -> tuple[Secret, os.stat_result]:
    # Whoever raises has no plain text among its variables, which a verbose traceback would show.
    content, found = read_shared_file(path)
    return Secret(content.decode("utf-8", "replace")), found
