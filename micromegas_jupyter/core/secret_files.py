"""Files that hold a secret in plain text: a password, a private key, a key to sign with."""

import os
from pathlib import Path, PurePath

from micromegas_jupyter.core.files import FileProblem, find_exposure, is_mounted_read_only, read_shared_file
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import ConfigurationError

MAX_SECRET_FILE_BYTES = 64 * 1024


def read_secret_file(path: PurePath, *, setting: str) -> Secret:
    """Return a file's text, unless other people of the machine can read or change it; errors name the `setting`.

    Unlike the token file, such a file often comes from an administrator or an orchestrator: it may be a symbolic link,
    may belong to root, and is never changed here.
    """
    path = Path(path).expanduser()
    try:
        text, found = _read(path)
    except FileProblem as problem:
        raise ConfigurationError(
            f"The file that {setting} names {problem.args[0]}.", key=setting, remedy="Correct the path or the file."
        ) from None
    exposure = find_exposure(found, is_mounted_read_only=is_mounted_read_only(path))
    if exposure is not None:
        raise ConfigurationError(
            f"The file that {setting} names {exposure}.",
            key=setting,
            remedy="Make yourself its owner and close it to others: chmod 600. Others may have read it by now, so make "
            "a new secret.",
        )
    if text is None:
        raise ConfigurationError(
            f"The file that {setting} names is not UTF-8 text.", key=setting, remedy="Write it again as plain text."
        )
    return text


def read_secret_line(path: PurePath, *, setting: str) -> Secret:
    """Return the one line that the file holds, without white space around it; raises as `read_secret_file` does."""
    line = Secret(read_secret_file(path, setting=setting).reveal().strip())
    if not line.reveal() or not line.reveal().isprintable():
        raise ConfigurationError(
            f"The file that {setting} names does not hold one line of text.",
            key=setting,
            remedy="Write the secret alone into it.",
        )
    return line


def _read(path: Path) -> tuple[Secret | None, os.stat_result]:
    # A function of its own, so that the frame that raises has no plain text for a verbose traceback to show.
    content, found = read_shared_file(path, max_bytes=MAX_SECRET_FILE_BYTES)
    try:
        return Secret(content.decode("utf-8")), found
    except UnicodeDecodeError:
        return None, found
