"""Files that other users must not read or change. `FileProblem` completes a sentence that begins with the file."""

import errno
import json
import os
import re
import secrets
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path, PurePath
from typing import IO, Final

from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock, Secret, start_thread
from micromegas_jupyter.errors import ConfigurationError

MAX_FILE_BYTES = 256 * 1024
PRIVATE_FILE_MODE = 0o600
PRIVATE_FOLDER_MODE = 0o700

_ROOT = 0
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_PERMISSIONS = stat.S_IRWXU | _OTHERS
_TEMPORARY_SUFFIX = ".tmp"
_MAX_SCANNED_ENTRIES = 100_000
_MAX_FOLDER_TRIES = 8


class FileProblem(Exception):
    """The file cannot be used safely; `args[0]` completes a sentence that begins with the file's name."""


class NoSuchFile(FileProblem):
    """The file does not exist."""


class FileTooLarge(FileProblem):
    """The file is larger than the reader allows."""


@dataclass(frozen=True, slots=True)
class FileMark:
    """Identifies the state of a file without reading it."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


def mark_of(path: Path, *, follows_links: bool = False) -> FileMark | None:
    """Return the file's current mark, or None if it does not exist."""
    # Doesn't use `_translated`, because this runs each time a token is used, and a context manager is slow.
    try:
        return _mark(path.stat() if follows_links else path.lstat())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _problem("cannot be accessed", error) from error


def read_private_file(path: Path, *, max_bytes: int = MAX_FILE_BYTES, closes: bool = True) -> tuple[bytes, FileMark]:
    """Read a file that belongs to the current user; `closes` removes other users' permissions."""
    with _opened(path, follows_links=False) as (descriptor, found):
        _check_mine(found)
        if found.st_size > max_bytes:
            raise FileTooLarge("is too large")
        if closes and found.st_mode & _OTHERS:
            os.fchmod(descriptor, PRIVATE_FILE_MODE)
        return _read_all(descriptor, max_bytes), _mark(os.fstat(descriptor))


def read_shared_file(path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> tuple[bytes, os.stat_result]:
    """Read a regular file, following symbolic links; the caller must check the returned status."""
    with _opened(path, follows_links=True) as (descriptor, found):
        return _read_all(descriptor, max_bytes), found


def write_private_file(
    path: Path, content: bytes, *, keeps_rights: bool = False, check: Callable[[], None] = lambda: None
) -> FileMark:
    """Replace the file atomically, with mode 0600; `keeps_rights` keeps the replaced file's owner, group, and mode.

    Calls `check` right before the replacement, which does not happen if `check` raises.
    """
    replaced = check_replaceable(path)
    with _translated("cannot be written"), ExitStack() as stack:
        with file_beside(path, mode=PRIVATE_FILE_MODE, is_synced=True, check=check) as file:
            descriptor = os.dup(file.fileno())
            stack.callback(os.close, descriptor)
            os.fchmod(descriptor, PRIVATE_FILE_MODE)  # a umask may have removed the owner's own permissions
            if keeps_rights and replaced is not None:
                _copy_rights(replaced, descriptor)
            file.write(content)
        mark = _mark(os.fstat(descriptor))  # after the rename, which updates the change time
    with suppress(OSError):  # some file systems don't support it
        sync_folder(path.parent)
    return mark


@contextmanager
def file_beside(
    path: Path,
    *,
    mode: int = 0o666,
    is_synced: bool = False,
    is_exclusive: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Iterator[IO[bytes]]:
    """Yield a new file next to `path`, and rename it to `path` at the end; an unfinished file is removed.

    With `is_exclusive`, an existing file is never replaced (FileExistsError). `sync_folder` makes the name durable.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_TEMPORARY_SUFFIX}")
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            yield file
            if is_synced:
                file.flush()
                os.fsync(file.fileno())
        check()
        if is_exclusive:
            path.hardlink_to(temporary)  # unlike a rename
        else:
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file that gets its name only at the end and never replaces an existing file (FileExistsError).

    On Linux, it has no name before that, so no file is left if the process is killed.
    """
    with ExitStack() as stack:
        try:
            folder = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, folder)
            descriptor = os.open(path.parent, os.O_TMPFILE | os.O_RDWR, 0o666)
        except (AttributeError, OSError):  # another system, or a file system without unnamed files
            yield stack.enter_context(file_beside(path, is_exclusive=True))
            return
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.link(str(descriptor), path, src_dir_fd=folder)


def sync_folder(folder: Path) -> None:
    """Sync the folder's entries to disk; does nothing on systems that don't support it."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def restrict_to_owner(path: Path) -> None:
    """Remove other users' permissions from a file, if it exists."""
    with suppress(NoSuchFile), _opened(path, follows_links=False) as (descriptor, found):
        _check_mine(found)
        if found.st_mode & _OTHERS:
            os.fchmod(descriptor, PRIVATE_FILE_MODE)


def ensure_private_folder(folder: Path) -> None:
    """Create the folder and its missing parents with mode 0700; an existing folder keeps its mode."""
    missing = []
    current = folder
    with _translated("is in a folder that cannot be made"):
        while not current.exists():
            missing.append(current)
            current = current.parent
        for each in reversed(missing):
            try:
                each.mkdir(mode=PRIVATE_FOLDER_MODE)
            except FileExistsError:
                continue  # another process was faster and chose the mode
            each.chmod(PRIVATE_FOLDER_MODE)
    if not folder.is_dir():
        raise FileProblem("is not a folder")


def remove_file(path: Path) -> bool:
    """Remove a file or a symbolic link (not its target); return whether it existed."""
    with _translated("cannot be removed"):
        try:
            path.unlink()
        except FileNotFoundError:
            return False
    with suppress(OSError):
        sync_folder(path.parent)
    return True


def remove_temporaries(path: Path) -> None:
    """Remove temporary files that killed writers of `path` left behind; call this only while holding its lock."""
    for leftover in path.parent.glob(f".{path.name}.*{_TEMPORARY_SUFFIX}"):
        leftover.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """The user that a program runs as, and the user's group."""

    user_id: int
    group_id: int

    def has_own_group(self, group_id: int) -> bool:
        """Whether this user is a group's only member: many systems create a group with the same ID for each user."""
        return group_id == self.group_id == self.user_id


def current_reader() -> Reader | None:
    """Return the current user, or None on Windows, where neither owners nor modes are checked."""
    return None if os.name == "nt" else Reader(user_id=os.geteuid(), group_id=os.getegid())


def find_foreign_writer(found: os.stat_result, *, reader: Reader | None = None) -> str | None:
    """Return how other users can change a file or folder, as the end of a sentence, or None."""
    reader = reader or current_reader()
    if reader is None:
        return None
    if found.st_uid not in {reader.user_id, _ROOT}:
        return "belongs to another user"
    if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX:
        return None
    if found.st_mode & stat.S_IWOTH:
        return "can be changed by any user of this machine"
    if found.st_mode & stat.S_IWGRP and not reader.has_own_group(found.st_gid):
        return "can be changed by its group"
    return None


def is_readable_by_others(found: os.stat_result, *, is_mounted_read_only: bool, reader: Reader | None = None) -> bool:
    """Whether anyone but the reader and root can read a file; `find_exposure` explains the exceptions."""
    reader = reader or current_reader()
    is_roots = found.st_uid == _ROOT
    if reader is None or (is_roots and is_mounted_read_only):
        return False
    if found.st_mode & stat.S_IROTH:
        return True
    is_for_a_group = bool(found.st_mode & stat.S_IRGRP) and not reader.has_own_group(found.st_gid)
    return is_for_a_group and (not is_roots or reader.user_id == _ROOT)


def find_exposure(found: os.stat_result, *, is_mounted_read_only: bool, user_id: int | None = None) -> str | None:
    """Return how the secret in a file is exposed, as the end of a sentence, or None.

    Orchestrators mount secrets that belong to root and are readable for everyone (0444, 0644). On a read-only mount,
    where files can't be changed, this mode is accepted. Other files that belong to root may be readable for a group.
    """
    user_id = os.geteuid() if user_id is None else user_id
    if found.st_uid not in {user_id, _ROOT}:
        return "belongs to another user"
    if found.st_uid == _ROOT and is_mounted_read_only:
        return None
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be changed by others"
    closed_to = _OTHERS if found.st_uid == user_id else stat.S_IRWXO
    return "can be read by others" if found.st_mode & closed_to else None


def is_mounted_read_only(path: Path) -> bool:
    """Whether the file is on a read-only file system; False if unknown."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except (OSError, AttributeError):  # Windows doesn't have such a call
        return False


class TemporaryFolder:
    """A folder that only this process's user can read; removed by `close` or when the interpreter exits.

    It is locked while its process runs, so that `remove_abandoned` recognizes the folders of killed processes.
    """

    def __init__(self, prefix: str, *, parent: str | None = None) -> None:
        from tempfile import TemporaryDirectory  # slow to load, and most programs don't need it

        for _ in range(_MAX_FOLDER_TRIES):
            self._folder = TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True)
            self.path = Path(self._folder.name)
            with suppress(FileNotFoundError, BlockingIOError):
                self._lock = lock_folder(self.path)
                return
            # `remove_abandoned` in another process ran after the folder was created but before it was locked.
            self._folder.cleanup()
        raise OSError(f"folders created in {self.path.parent} keep being removed")

    @property
    def locks(self) -> tuple[int, ...]:
        """The descriptors to keep open in a child process that also uses the folder (`pass_fds`)."""
        return () if self._lock is None else (self._lock,)

    def close(self) -> None:
        """Remove the folder and its contents; safe to call twice, and never raises."""
        self._folder.cleanup()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def remove_abandoned(prefix: str, *, parent: str | None = None) -> int:
    """Remove folders that exited processes left behind; skip those that are locked or not this user's. Never raises."""
    if sys.platform == "win32":
        return 0
    from shutil import rmtree
    from tempfile import gettempdir

    name = re.compile(re.escape(prefix) + r"[a-z0-9_]{8}", re.ASCII)
    removed = 0
    with suppress(OSError), os.scandir(parent or gettempdir()) as entries:
        found = [Path(entry.path) for entry in islice(entries, _MAX_SCANNED_ENTRIES) if name.fullmatch(entry.name)]
        for folder in found:
            with suppress(OSError):
                status = folder.lstat()
                is_own = status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == PRIVATE_FOLDER_MODE
                # Other users can't replace a folder that belongs to this user.
                lock = lock_folder(folder) if is_own and stat.S_ISDIR(status.st_mode) else None
                if lock is not None:
                    try:
                        rmtree(folder)
                        removed += 1
                    finally:
                        os.close(lock)
    return removed


if sys.platform == "win32":

    def lock_folder(_path: Path) -> int | None:
        """Return None, because this system doesn't support folder locks."""
        return None

    def _lock_now(_descriptor: int) -> bool:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    def _unlock(descriptor: int) -> None:
        os.close(descriptor)

else:
    import fcntl

    def lock_folder(path: Path) -> int | None:
        """Return the open folder, locked until it is closed or this process exits, or None if it can't be locked.

        Raises BlockingIOError if another process holds it.
        """
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        is_held = False
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_held = os.path.samestat(os.fstat(folder), path.lstat())
        except (FileNotFoundError, BlockingIOError):
            raise
        except OSError:  # on some network file systems
            return None
        finally:
            if not is_held:
                os.close(folder)
        if not is_held:
            raise FileNotFoundError(path)
        return folder

    def _lock_now(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _CONTENTION:
                return False
            raise
        return True

    def _unlock(descriptor: int) -> None:
        """Unlock a file before closing it, because a forked process may also have it open."""
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


@contextmanager
def _translated(what: str) -> Iterator[None]:
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
        raise _problem("cannot be opened", error) from error
    try:
        with _translated("cannot be read"):
            found = os.fstat(descriptor)
            _check_regular(found)
            yield descriptor, found
    finally:
        os.close(descriptor)


def check_replaceable(path: Path) -> os.stat_result | None:
    """Check that `path` is a regular file owned by the current user; return its status, or None if it doesn't exist."""
    with _translated("cannot be accessed"):
        try:
            found = path.lstat()
        except FileNotFoundError:
            return None
    if stat.S_ISLNK(found.st_mode):
        raise FileProblem("is a symbolic link")
    _check_regular(found)
    _check_mine(found)
    return found


def _copy_rights(found: os.stat_result, descriptor: int) -> None:
    """Copy another file's owner, group, and mode to an open file, so that its readers keep their access."""
    with _translated("has an owner, a group or a mode that cannot be kept"):
        owner = (found.st_uid, found.st_gid)
        if owner != (os.fstat(descriptor).st_uid, os.fstat(descriptor).st_gid):
            os.fchown(descriptor, *owner)
        # After changing the owner, because that clears mode bits.
        os.fchmod(descriptor, found.st_mode & _PERMISSIONS)


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


# File times advance with the kernel's tick, so two successive changes may leave the same mark.
_YOUNG = timedelta(seconds=1)


class FileWatch:
    """Detects file changes since the last call; recent changes are always reported. For one thread at a time."""

    def __init__(self, paths: Iterable[Path], *, clock: Clock = SYSTEM_CLOCK, follows_links: bool = False) -> None:
        self._paths = tuple(paths)
        self._clock = clock
        self._follows_links = follows_links
        self.marks = self._read_marks()

    def has_changed(self) -> bool:
        """Check the files, and return whether their contents may have changed since the last check."""
        before, self.marks = self.marks, self._read_marks()
        oldest_young_ns = (self._clock.now() - _YOUNG).timestamp() * 1e9
        is_young = any(mark is not None and mark.changed_ns > oldest_young_ns for mark in self.marks)
        return is_young or self.marks != before

    def _read_marks(self) -> tuple[FileMark | None, ...]:
        marks: list[FileMark | None] = []
        for path in self._paths:
            try:
                marks.append(mark_of(path, follows_links=self._follows_links))
            except FileProblem:
                marks.append(None)
        return tuple(marks)


BROKEN_AFTER_SECONDS: Final = 10.0
#: For a lock without a current record, because its holder may be a slow program without lease support.
UNRECORDED_BROKEN_AFTER_SECONDS: Final = 40.0
_RECORD_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.02
# If this process itself was suspended, the elapsed time doesn't prove anything about the holder.
_MAX_COUNTED_SECONDS: Final = 1.0
_RECORD_BYTES: Final = 256
_CONTENTION: Final = frozenset({errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK})


# A lease is an advisory lock (`flock`) on a lock file, so programs without lease support can also wait for and hold it.
# Its holder also writes a record to the lock file every two seconds. A waiter that has seen no new record for ten
# seconds replaces the lock file with its own. The current lock file represents the lease's generation: if it was
# replaced, `Lease.check` detects that.


class LeaseBusy(Exception):
    """Another program holds the lease. `suspended_process` has its process ID if it must not be interrupted."""

    def __init__(self, suspended_process: int | None = None) -> None:
        super().__init__("another program holds the lease")
        self.suspended_process = suspended_process


class LeaseLost(Exception):
    """Another program has taken over the lease; nothing may be written under it."""


@dataclass(frozen=True, slots=True)
class _Record:
    """The record of a lease's holder in the lock file; `count` makes each record unique."""

    process: int | None = None
    count: int = 0
    is_critical: bool = False
    notes: Mapping[str, object] | None = None

    def encode(self) -> bytes:
        text = json.dumps([self.process, self.count, self.is_critical, dict(self.notes or {})])
        return text.encode().ljust(_RECORD_BYTES)

    @classmethod
    def decode(cls, content: bytes) -> "_Record":
        """Parse a record; return an empty one if it is missing, or if a program without lease support truncated it."""
        try:
            process, count, is_critical, notes = json.loads(content)
            return cls(None if process is None else int(process), int(count), bool(is_critical), dict(notes))
        except (ValueError, TypeError):
            return cls()

    @property
    def is_of_living_process(self) -> bool:
        if self.process is None:
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return False
        except (OSError, OverflowError):
            pass
        return True


class Lease:
    """A lease that is held until `release`, or until another program takes it over."""

    def __init__(self, path: Path, descriptor: int, notes: Mapping[str, object]) -> None:
        self._path = path
        self._descriptor = descriptor
        self._lock = threading.Lock()
        # A random start, so that waiters don't confuse this lease's records with those of an earlier lease of this
        # process.
        self._record = _Record(os.getpid(), secrets.randbits(32), notes=notes)
        self._released = threading.Event()
        self._write()
        with suppress(RuntimeError):  # without the thread, the lease may be lost after ten seconds
            start_thread(self._keep, name="micromegas-lease")

    @property
    def notes(self) -> Mapping[str, object]:
        """Notes that holders of this lease leave for the next holder."""
        return self._record.notes or {}

    def check(self) -> None:
        """Raise `LeaseLost` if another program has taken over the lease."""
        # The open descriptor prevents the file's inode number from being reused.
        with suppress(OSError):
            if os.path.samestat(os.fstat(self._descriptor), self._path.lstat()):
                return
        raise LeaseLost

    def enter_critical(self) -> None:
        """Request that the lease not be taken over while this process is suspended; may raise `LeaseLost`."""
        self._write(is_critical=True)
        self.check()

    def leave_critical(self, **notes: object) -> None:
        """End the critical section, and leave notes for the next holders; None removes a note."""
        merged = {**self.notes, **notes}
        self._write(is_critical=False, notes={name: value for name, value in merged.items() if value is not None})

    def release(self) -> None:
        """Release the lease, even if it was lost."""
        self._released.set()
        self._write(process=None, is_critical=False)
        with self._lock:
            _unlock(self._descriptor)
            self._descriptor = -1

    def _keep(self) -> None:
        while not self._released.wait(_RECORD_SECONDS):
            self._write()

    def _write(self, **changes: object) -> None:
        with self._lock:
            if self._descriptor == -1:
                return
            old = self._record
            values = {name: getattr(old, name) for name in _Record.__slots__}
            self._record = _Record(**{**values, "count": old.count + 1, **changes})
            with suppress(OSError):  # a full disk must not prevent sign-in
                os.pwrite(self._descriptor, self._record.encode(), 0)


@dataclass(frozen=True, slots=True)
class _ObservedRecord:
    """A state of the lock file, when it was last seen, and for how long it has been observed in total."""

    state: tuple[int, int, bytes]
    at: float
    seconds: float = 0.0


class LeaseFile:
    """The lock file of a lease; safe to use from several threads.

    `OSError` is raised if the lock file cannot be used.
    """

    def __init__(self, path: Path, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._observed: _ObservedRecord | None = None

    def acquire(self, *, wait_seconds: float, interrupts_critical: bool = False) -> Lease:
        """Wait for the lease and return it; raises `LeaseBusy` if that takes too long.

        If the holder is suspended in its critical section, raises `LeaseBusy` immediately, unless `interrupts_critical`
        is set.
        """
        ends_at = self._clock.monotonic() + wait_seconds
        while True:
            descriptor = _try_lock(self._path)
            if descriptor is None and (seen := self._look()) is not None:
                record = _Record.decode(seen[2])
                if record.is_critical and record.is_of_living_process and not interrupts_critical:
                    raise LeaseBusy(record.process)
                descriptor = self._replace(seen)
            if descriptor is not None:
                return Lease(self._path, descriptor, _Record.decode(_read(descriptor)[2]).notes or {})
            left_seconds = ends_at - self._clock.monotonic()
            if left_seconds <= 0:
                raise LeaseBusy
            threading.Event().wait(min(_POLL_SECONDS, left_seconds))

    def _look(self) -> tuple[int, int, bytes] | None:
        """Return the state of the lock file if it has been unchanged for so long that its holder may be suspended."""
        state, now = _read_path(self._path), self._clock.monotonic()
        if state is None:
            return None
        with self._lock:
            known = self._observed
            if known is None or known.state != state:
                self._observed = _ObservedRecord(state, now)
                return None
            seconds = known.seconds + min(now - known.at, _MAX_COUNTED_SECONDS)
            self._observed = _ObservedRecord(state, now, seconds)
        is_recorded = _Record.decode(state[2]).is_of_living_process
        limit = BROKEN_AFTER_SECONDS if is_recorded else UNRECORDED_BROKEN_AFTER_SECONDS
        return state if seconds >= limit else None

    def _replace(self, seen: tuple[int, int, bytes]) -> int | None:
        """Replace the lock file with a new, locked one; return None if it changed or another waiter replaces it."""
        claim = self._path.with_name(f"{self._path.name}.claim")
        new, kept = (self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}.tmp") for _ in range(2))
        claimed = _try_lock(claim)
        if claimed is None:
            return None
        try:
            if _read_path(self._path) != seen:
                return None
            descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE_MODE)
            try:
                _lock_now(descriptor)
                os.pwrite(descriptor, _Record(notes=_Record.decode(seen[2]).notes).encode(), 0)
                with suppress(OSError):  # some file systems don't support hard links
                    kept.hardlink_to(self._path)
                new.replace(self._path)
                if _read_path(kept) in {None, seen}:
                    return descriptor
                kept.replace(self._path)  # the holder resumed at that moment and may not have noticed
            except BaseException:
                new.unlink(missing_ok=True)
                os.close(descriptor)
                raise
            os.close(descriptor)
            return None
        finally:
            kept.unlink(missing_ok=True)
            claim.unlink(missing_ok=True)
            _unlock(claimed)


def _try_lock(path: Path) -> int | None:
    """Return the open, locked file, or None if another program has locked or replaced it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, PRIVATE_FILE_MODE)
    is_held = False
    try:
        if _lock_now(descriptor):
            with suppress(FileNotFoundError):
                is_held = os.path.samestat(os.fstat(descriptor), path.lstat())
    finally:
        if not is_held:
            os.close(descriptor)
    return descriptor if is_held else None


def _read(descriptor: int) -> tuple[int, int, bytes]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino, os.pread(descriptor, _RECORD_BYTES, 0)


def _read_path(path: Path) -> tuple[int, int, bytes] | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        return _read(descriptor)
    finally:
        os.close(descriptor)


MAX_SECRET_FILE_BYTES = 64 * 1024


def read_secret_file(path: PurePath, *, setting: str) -> Secret:
    """Return a file's text unless other users of the machine can read or change it; errors include the `setting`.

    Unlike the token file, such a file often comes from an administrator or an orchestrator. It may be a symbolic link
    and may belong to root; it is never changed here.
    """
    path = Path(path).expanduser()
    try:
        text, found = _read_secret(path)
    except FileProblem as problem:
        raise ConfigurationError(
            f"The file specified by {setting} {problem.args[0]}.", key=setting, remedy="Correct the path or the file."
        ) from None
    exposure = find_exposure(found, is_mounted_read_only=is_mounted_read_only(path))
    if exposure is not None:
        raise ConfigurationError(
            f"The file specified by {setting} {exposure}.",
            key=setting,
            remedy="Take ownership of the file, and restrict its permissions with chmod 600. "
            "Other users may have read it, so create a new secret.",
        )
    if text is None:
        raise ConfigurationError(
            f"The file specified by {setting} is not UTF-8 text.", key=setting, remedy="Save it as UTF-8 text."
        )
    return text


def read_secret_line(path: PurePath, *, setting: str) -> Secret:
    """Return the only line in the file without surrounding whitespace; raises the same errors as `read_secret_file`."""
    line = Secret(read_secret_file(path, setting=setting).reveal().strip())
    if not line.reveal() or not line.reveal().isprintable():
        raise ConfigurationError(
            f"The file specified by {setting} does not contain exactly one line of text.",
            key=setting,
            remedy="Write only the secret to the file.",
        )
    return line


def _read_secret(path: Path) -> tuple[Secret | None, os.stat_result]:
    # A separate function, so that a verbose traceback of the raising frame doesn't contain the plain text.
    content, found = read_shared_file(path, max_bytes=MAX_SECRET_FILE_BYTES)
    try:
        return Secret(content.decode("utf-8")), found
    except UnicodeDecodeError:
        return None, found
