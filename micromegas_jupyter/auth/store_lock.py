"""The lock that all programs of a person share before they change a stored sign-in.

What is changed under it is `token_store`'s and `keyring_store`'s job.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from micromegas_jupyter.auth.private_files import (
    PRIVATE_FILE_MODE,
    check_replaceable,
    close_to_others,
    ensure_private_folder,
)
from micromegas_jupyter.errors import TokenStoreError, Unavailable

POLL_SECONDS = 0.02


def lock_path_of(path: Path) -> Path:
    """Return the lock file that belongs to `path`; it stays when the lock is released, for those who wait for it."""
    return path.with_name(path.name + ".lock")


def check_lock_usable(path: Path) -> None:
    """Check that the lock of `path` could be taken.

    Raises:
        TokenStoreError: Its file is a link, a folder, a pipe or another's.
    """
    check_replaceable(lock_path_of(path))


@contextmanager
def held_lock(path: Path, *, wait_seconds: float) -> Iterator[None]:
    """Hold the lock of `path`.

    The lock is the operating system's: it ends with the process that holds it, so a lock file that a dead process
    left stops nobody. A lock file of another person is refused, for its owner could stop everybody.

    Raises:
        Unavailable: Another program holds it for longer than `wait_seconds`.
        TokenStoreError: The lock file cannot be used safely.
    """
    from filelock import FileLock, Timeout  # slow to load, and not needed to read

    ensure_private_folder(path.parent)
    lock_path = lock_path_of(path)
    close_to_others(lock_path)  # whoever may open the file could hold the lock
    lock = FileLock(lock_path, timeout=wait_seconds, mode=PRIVATE_FILE_MODE, poll_interval=POLL_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        raise Unavailable("Another program is busy with the stored sign-in and does not finish.") from None
    except OSError as error:
        raise TokenStoreError(f"The lock file {lock_path.name} cannot be used.") from error
    try:
        yield
    finally:
        lock.release()
