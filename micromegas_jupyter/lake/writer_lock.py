"""Who may merge a writer's files: the writer while it lives, anybody once it is dead.

The lock is the operating system's, so it ends with its process, however that ends. A writer without a lock
file is never taken for dead.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.lake.files import make_private_folder, storage_errors

WRITERS_FOLDER = ".writers"
_NAME = re.compile(r"([A-Za-z0-9]{1,64})\.lock", re.ASCII)


def hold_writer(root: Path, writer_id: str) -> FileLock:
    """Take the lock of a new writer; the caller releases it.

    Raises:
        Unavailable: The lock cannot be made, or another process writes under this id.
    """
    with storage_errors("The recording's folder cannot be used."):
        make_private_folder(root / WRITERS_FOLDER)
        lock = _lock(root, writer_id)
        try:
            lock.acquire()
        except Timeout as error:
            raise Unavailable(
                "Another process records under the same id.", remedy="Start the recorder again."
            ) from error
    return lock


def try_adopt_writer(root: Path, writer_id: str) -> FileLock | None:
    """Take the lock of a writer that is dead; None when it lives or cannot be told. The caller releases it."""
    if not (root / WRITERS_FOLDER / f"{writer_id}.lock").exists():
        return None
    lock = _lock(root, writer_id)
    try:
        lock.acquire()
    except (Timeout, OSError):
        return None
    return lock


def list_writers(root: Path, *, modified_before: float) -> Iterator[str]:
    """Yield the writers whose lock file is older than `modified_before`."""
    for path in (root / WRITERS_FOLDER).glob("*.lock"):
        match = _NAME.fullmatch(path.name)
        if match is not None and path.stat().st_mtime < modified_before:
            yield match.group(1)


def forget_writer(root: Path, writer_id: str) -> None:
    """Remove the lock file of a dead writer that has no files left; the caller holds the lock."""
    (root / WRITERS_FOLDER / f"{writer_id}.lock").unlink(missing_ok=True)


def _lock(root: Path, writer_id: str) -> FileLock:
    path = root / WRITERS_FOLDER / f"{writer_id}.lock"
    # Taken on one thread and released on another, so the lock belongs to the process.
    return FileLock(path, timeout=0, mode=0o600, thread_local=False)
