"""Small files that only their owner may read: written in one step, never through a symbolic link.

What the files hold and who may change them when is `token_store`'s job.
"""

import errno
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from micromegas_jupyter.errors import LoginRequired, TokenStoreError

MAX_FILE_BYTES = 256 * 1024
PRIVATE_FILE_MODE = 0o600
PRIVATE_FOLDER_MODE = 0o700

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_TEMPORARY_SUFFIX = ".tmp"


@dataclass(frozen=True, slots=True)
class FileMark:
    """Tells one state of a file from another without reading it."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


def mark_of(path: Path) -> FileMark | None:
    """Return the file's present mark, None when there is no such file; symbolic links are not followed."""
    try:
        return _mark(os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _store_error(path, "cannot be looked at", error) from error


def read_private_file(path: Path) -> tuple[bytes, FileMark]:
    """Read a file that belongs to this person, and close it to others if it was open to them.

    Raises:
        LoginRequired: There is no such file, or it is larger than `MAX_FILE_BYTES`.
        TokenStoreError: It is a link, a folder, a pipe or another's, or cannot be read.
    """
    try:
        # Without O_NONBLOCK, opening a pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise LoginRequired("No sign-in is stored.") from None
    except OSError as error:
        what = "is a symbolic link" if error.errno == errno.ELOOP else "cannot be opened"
        raise _store_error(path, what, error) from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise TokenStoreError(f"The token file {path.name} is not a regular file.")
        if found.st_uid != os.geteuid():
            raise TokenStoreError(f"The token file {path.name} belongs to another user.")
        if found.st_size > MAX_FILE_BYTES:
            raise LoginRequired(f"The token file {path.name} is too large to be one.")
        if found.st_mode & _OTHERS:
            os.fchmod(descriptor, PRIVATE_FILE_MODE)
            found = os.fstat(descriptor)
        content = _read_all(descriptor)
    except OSError as error:
        raise _store_error(path, "cannot be read", error) from error
    finally:
        os.close(descriptor)
    if len(content) > MAX_FILE_BYTES:
        raise LoginRequired(f"The token file {path.name} is too large to be one.")
    return content, _mark(found)


def write_private_file(path: Path, content: bytes) -> FileMark:
    """Replace the file in one step; a failure, a kill included, leaves the old one whole.

    Raises:
        TokenStoreError: The place is taken by something that is not a regular file, or cannot be written.
    """
    check_replaceable(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_TEMPORARY_SUFFIX}")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, PRIVATE_FILE_MODE)
        try:
            os.fchmod(descriptor, PRIVATE_FILE_MODE)  # a umask may have taken the owner's own rights
            _write_all(descriptor, content)
            os.fsync(descriptor)
            temporary.replace(path)
            mark = _mark(os.fstat(descriptor))  # after the rename, which moves the change time on
        finally:
            os.close(descriptor)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _store_error(path, "cannot be written", error) from error
    _sync_folder(path.parent)
    return mark


def check_replaceable(path: Path) -> None:
    """Check that nothing but a regular file of this person, or nothing at all, stands at `path`.

    Raises:
        TokenStoreError: Something else does.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _store_error(path, "cannot be looked at", error) from error
    if stat.S_ISLNK(found.st_mode):
        raise TokenStoreError(f"The token file {path.name} is a symbolic link.")
    if not stat.S_ISREG(found.st_mode):
        raise TokenStoreError(f"The token file {path.name} is not a regular file.")
    if found.st_uid != os.geteuid():
        raise TokenStoreError(f"The token file {path.name} belongs to another user.")


def ensure_private_folder(folder: Path) -> None:
    """Make the folder and its missing parents, open to their owner only; a folder that exists is left as it is.

    Raises:
        TokenStoreError: It cannot be made.
    """
    missing = []
    current = folder
    try:
        while not current.exists():
            missing.append(current)
            current = current.parent
        for each in reversed(missing):
            try:
                each.mkdir(mode=PRIVATE_FOLDER_MODE)
            except FileExistsError:
                continue  # another process was faster, and it is that one's folder
            each.chmod(PRIVATE_FOLDER_MODE)
    except OSError as error:
        raise _store_error(folder, "is in a folder that cannot be made", error) from error
    if not folder.is_dir():
        raise TokenStoreError(f"{folder.name} is not a folder.")


def remove_file(path: Path) -> bool:
    """Remove the file; True when there was one. A symbolic link is removed, not what it points to.

    Raises:
        TokenStoreError: It cannot be removed.
    """
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _store_error(path, "cannot be removed", error) from error
    _sync_folder(path.parent)
    return True


def remove_leftovers(path: Path) -> None:
    """Remove temporary files that killed writers of `path` left; only for the holder of its lock."""
    for leftover in path.parent.glob(f".{path.name}.*{_TEMPORARY_SUFFIX}"):
        leftover.unlink(missing_ok=True)


def _mark(found: os.stat_result) -> FileMark:
    return FileMark(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _read_all(descriptor: int) -> bytes:
    content = bytearray()
    while len(content) <= MAX_FILE_BYTES:
        chunk = os.read(descriptor, MAX_FILE_BYTES + 1 - len(content))
        if not chunk:
            break
        content += chunk
    return bytes(content)


def _write_all(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def _sync_folder(folder: Path) -> None:
    # Without this the rename itself may not survive a power cut; some file systems cannot do it, and lose no more.
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _store_error(path: Path, what: str, error: OSError) -> TokenStoreError:
    return TokenStoreError(f"The token file {path.name} {what} ({os.strerror(error.errno or 0)}).")
