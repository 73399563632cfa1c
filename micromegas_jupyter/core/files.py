"""Small files that only their owner may read: written in one step, never through a symbolic link.

What the files hold, who may change them when, and the sentence that a person reads are the callers' job.
"""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MAX_FILE_BYTES = 256 * 1024
PRIVATE_FILE_MODE = 0o600
PRIVATE_FOLDER_MODE = 0o700

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_PERMISSIONS = stat.S_IRWXU | _OTHERS
_TEMPORARY_SUFFIX = ".tmp"


class FileProblem(Exception):
    """The file cannot be used safely; `args[0]` goes on after the file's name: "is a symbolic link"."""


class NoSuchFile(FileProblem):
    """There is no file of that name."""


class FileTooLarge(FileProblem):
    """The file is larger than the reader wants to see."""


@dataclass(frozen=True, slots=True)
class FileMark:
    """Tells one state of a file from another without reading it."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


def mark_of(path: Path, *, follows_links: bool = False) -> FileMark | None:
    """Return the file's present mark, None when there is no such file.

    Raises:
        FileProblem: It cannot be looked at.
    """
    # Without the context manager of the others: this is asked for each time a token is used.
    try:
        return _mark(path.stat() if follows_links else path.lstat())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _problem("cannot be looked at", error) from error


def read_private_file(path: Path, *, max_bytes: int = MAX_FILE_BYTES, closes: bool = True) -> tuple[bytes, FileMark]:
    """Read a file that belongs to this person.

    Args:
        path: The file.
        max_bytes: How large it may be.
        closes: Whether it is closed to others if it was open to them.

    Raises:
        NoSuchFile: There is no such file.
        FileTooLarge: It is larger than `max_bytes`.
        FileProblem: It is a link, a folder, a pipe or another's, or cannot be read.
    """
    with _opened(path, follows_links=False) as (descriptor, found):
        _check_mine(found)
        if found.st_size > max_bytes:
            raise FileTooLarge("is too large")
        if closes and found.st_mode & _OTHERS:
            os.fchmod(descriptor, PRIVATE_FILE_MODE)
        return _read_all(descriptor, max_bytes), _mark(os.fstat(descriptor))


def read_shared_file(path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> tuple[bytes, os.stat_result]:
    """Read a regular file, also through a symbolic link, and return what the system says of it.

    Whether its owner and mode are acceptable is for the caller to judge.

    Raises:
        NoSuchFile: There is no such file.
        FileTooLarge: It is larger than `max_bytes`.
        FileProblem: It is a folder or a pipe, or cannot be read.
    """
    with _opened(path, follows_links=True) as (descriptor, found):
        return _read_all(descriptor, max_bytes), found


def write_private_file(path: Path, content: bytes, *, keeps_rights: bool = False) -> FileMark:
    """Replace the file in one step; a failure, a kill included, leaves the old one whole.

    Args:
        path: The file.
        content: What it holds from then on.
        keeps_rights: Whether owner, group and mode stay those of the file that is replaced. A new file, and any
            without this, is open to its owner only.

    Raises:
        FileProblem: The place is taken by something that is not a regular file, or cannot be written, or its owner
            and group cannot be kept.
    """
    replaced = _replaceable(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_TEMPORARY_SUFFIX}")
    with _as_problem("cannot be written"):
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, PRIVATE_FILE_MODE)
            try:
                os.fchmod(descriptor, PRIVATE_FILE_MODE)  # a umask may have taken the owner's own rights
                if keeps_rights and replaced is not None:
                    _give_rights_of(replaced, descriptor)
                _write_all(descriptor, content)
                os.fsync(descriptor)
                temporary.replace(path)
                mark = _mark(os.fstat(descriptor))  # after the rename, which moves the change time on
            finally:
                os.close(descriptor)
        except (OSError, FileProblem):
            temporary.unlink(missing_ok=True)
            raise
    _sync_folder(path.parent)
    return mark


def check_replaceable(path: Path) -> None:
    """Check that nothing but a regular file of this person, or nothing at all, stands at `path`.

    Raises:
        FileProblem: Something else does.
    """
    _replaceable(path)


def close_to_others(path: Path) -> None:
    """Take the rights of others from a file of this person; does nothing when there is no file.

    Raises:
        FileProblem: It is a link, a folder, a pipe or another's, or cannot be opened.
    """
    try:
        with _opened(path, follows_links=False) as (descriptor, found):
            _check_mine(found)
            if found.st_mode & _OTHERS:
                os.fchmod(descriptor, PRIVATE_FILE_MODE)
    except NoSuchFile:
        return


def ensure_private_folder(folder: Path) -> None:
    """Make the folder and its missing parents, open to their owner only; a folder that exists is left as it is.

    Raises:
        FileProblem: It cannot be made.
    """
    missing = []
    current = folder
    with _as_problem("is in a folder that cannot be made"):
        while not current.exists():
            missing.append(current)
            current = current.parent
        for each in reversed(missing):
            try:
                each.mkdir(mode=PRIVATE_FOLDER_MODE)
            except FileExistsError:
                continue  # another process was faster, and it is that one's folder
            each.chmod(PRIVATE_FOLDER_MODE)
    if not folder.is_dir():
        raise FileProblem("is not a folder")


def remove_file(path: Path) -> bool:
    """Remove the file; True when there was one. A symbolic link is removed, not what it points to.

    Raises:
        FileProblem: It cannot be removed.
    """
    with _as_problem("cannot be removed"):
        try:
            path.unlink()
        except FileNotFoundError:
            return False
    _sync_folder(path.parent)
    return True


def remove_leftovers(path: Path) -> None:
    """Remove temporary files that killed writers of `path` left; only for the holder of its lock."""
    for leftover in path.parent.glob(f".{path.name}.*{_TEMPORARY_SUFFIX}"):
        leftover.unlink(missing_ok=True)


@contextmanager
def _as_problem(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _problem(what, error) from error


def _problem(what: str, error: OSError) -> FileProblem:
    return FileProblem(f"{what} ({os.strerror(error.errno or 0)})")


@contextmanager
def _opened(path: Path, *, follows_links: bool) -> Iterator[tuple[int, os.stat_result]]:
    # Without O_NONBLOCK, opening a pipe would wait for a writer.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follows_links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise NoSuchFile("does not exist") from None
    except OSError as error:
        if error.errno == errno.ELOOP and not follows_links:
            raise FileProblem("is a symbolic link") from error
        raise FileProblem(f"cannot be opened ({os.strerror(error.errno or 0)})") from error
    try:
        with _as_problem("cannot be read"):
            found = os.fstat(descriptor)
            _check_regular(found)
            yield descriptor, found
    finally:
        os.close(descriptor)


def _replaceable(path: Path) -> os.stat_result | None:
    """Return what the system says of the file that may be replaced, None when there is none."""
    with _as_problem("cannot be looked at"):
        try:
            found = path.lstat()
        except FileNotFoundError:
            return None
    if stat.S_ISLNK(found.st_mode):
        raise FileProblem("is a symbolic link")
    _check_regular(found)
    _check_mine(found)
    return found


def _give_rights_of(found: os.stat_result, descriptor: int) -> None:
    """Give an open file the owner, group and mode of another; whoever could read that one can read this one."""
    with _as_problem("has an owner, a group or a mode that cannot be kept"):
        present = os.fstat(descriptor)
        if (present.st_uid, present.st_gid) != (found.st_uid, found.st_gid):
            os.fchown(descriptor, found.st_uid, found.st_gid)
        # After the owner, because a change of that takes rights away.
        os.fchmod(descriptor, found.st_mode & _PERMISSIONS)
        kept = os.fstat(descriptor)
        if (kept.st_uid, kept.st_gid) != (found.st_uid, found.st_gid):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def _check_regular(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise FileProblem("is not a regular file")


def _check_mine(found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise FileProblem("belongs to another user")


def _mark(found: os.stat_result) -> FileMark:
    return FileMark(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _read_all(descriptor: int, max_bytes: int) -> bytes:
    content = bytearray()
    while len(content) <= max_bytes:
        chunk = os.read(descriptor, max_bytes + 1 - len(content))
        if not chunk:
            return bytes(content)
        content += chunk
    raise FileTooLarge("is too large")


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
