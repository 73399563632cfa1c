"""The token file's own words for what `micromegas_jupyter.core.files` finds.

What the files hold and who may change them when is `token_store`'s job.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from micromegas_jupyter.auth.trusted_files import current_reader, find_foreign_writer
from micromegas_jupyter.core import files as private_files
from micromegas_jupyter.core.files import (
    MAX_FILE_BYTES,
    PRIVATE_FILE_MODE,
    FileMark,
    FileProblem,
    FileTooLarge,
    NoSuchFile,
    remove_leftovers,
)
from micromegas_jupyter.errors import LoginRequired, TokenStoreError

__all__ = [
    "MAX_FILE_BYTES",
    "PRIVATE_FILE_MODE",
    "FileMark",
    "check_replaceable",
    "close_to_others",
    "ensure_private_folder",
    "mark_of",
    "read_private_file",
    "remove_file",
    "remove_leftovers",
    "write_private_file",
]

_FOLDER_REMEDY = (
    "Let it belong to you (chown) and close it to others (chmod go-w), or name another in MICROMEGAS_CONFIG_DIR: one "
    "below it will do. A program that runs as root, under sudo for instance, needs a folder of root's."
)


def mark_of(path: Path) -> FileMark | None:
    """Return the file's present mark, None when there is no such file; symbolic links are not followed.

    Raises:
        TokenStoreError: It cannot be looked at.
    """
    try:
        return private_files.mark_of(path)
    except FileProblem as problem:
        raise _store_error(path, problem) from problem.__cause__


def read_private_file(path: Path) -> tuple[bytes, FileMark]:
    """Read a file that belongs to this person, and close it to others if it was open to them.

    Raises:
        LoginRequired: There is no such file, or it is larger than `MAX_FILE_BYTES`.
        TokenStoreError: It is a link, a folder, a pipe or another's, or cannot be read.
    """
    with _told_of(path):
        return private_files.read_private_file(path)


def write_private_file(path: Path, content: bytes) -> FileMark:
    """Replace the file in one step; a failure, a kill included, leaves the old one whole.

    Raises:
        TokenStoreError: The place is taken by something that is not a regular file, or cannot be written.
    """
    with _told_of(path):
        return private_files.write_private_file(path, content)


def check_replaceable(path: Path) -> None:
    """Check that nothing but a regular file of this person, or nothing at all, stands at `path`.

    Raises:
        TokenStoreError: Something else does.
    """
    with _told_of(path):
        private_files.check_replaceable(path)


def close_to_others(path: Path) -> None:
    """Take the rights of others from a file of this person; does nothing when there is no file.

    Raises:
        TokenStoreError: It is a link, a folder, a pipe or another's, or cannot be opened.
    """
    with _told_of(path):
        private_files.close_to_others(path)


def ensure_private_folder(folder: Path) -> None:
    """Make the folder and its missing parents, open to their owner only; a folder that exists is left as it is.

    Raises:
        TokenStoreError: It cannot be made, or somebody else could exchange what is in it.
    """
    with _told_of(folder):
        private_files.ensure_private_folder(folder)
    try:
        found = folder.stat()
    except OSError as error:
        raise TokenStoreError(f"The folder {folder.name} cannot be looked at.") from error
    writer = find_foreign_writer(found, reader=current_reader())
    if writer is not None:
        raise TokenStoreError(f"The folder {folder.name} {writer}, so no sign-in is kept in it.", remedy=_FOLDER_REMEDY)


def remove_file(path: Path) -> bool:
    """Remove the file; True when there was one. A symbolic link is removed, not what it points to.

    Raises:
        TokenStoreError: It cannot be removed.
    """
    with _told_of(path):
        return private_files.remove_file(path)


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    try:
        yield
    except NoSuchFile:
        raise LoginRequired("No sign-in is stored.") from None
    except FileTooLarge:
        raise LoginRequired(f"The token file {path.name} is too large to be one.") from None
    except FileProblem as problem:
        raise _store_error(path, problem) from problem.__cause__


def _store_error(path: Path, problem: FileProblem) -> TokenStoreError:
    return TokenStoreError(f"The token file {path.name} {problem.args[0]}.")
