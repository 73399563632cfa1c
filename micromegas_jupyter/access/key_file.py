"""The file that holds API keys: read, and changed by one writer at a time, over all processes.

The file's text is `settings`'s rule, safe file handling `private_files`'s; the server only reads, in `configuration`.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

from filelock import FileLock, Timeout

from micromegas_jupyter.config.access import ApiKeySetting, parse_api_keys, render_api_keys
from micromegas_jupyter.core import files as private_files
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.core.system import Randomness
from micromegas_jupyter.errors import ConfigurationError, Unavailable, UsageError

API_KEY_PREFIX = "mmk_"
MAX_KEY_FILE_BYTES = 32 * 1024 * 1024
LOCK_WAIT_SECONDS = 20.0

_KEY_BYTES = 32

Keys: TypeAlias = tuple[ApiKeySetting, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewApiKey:
    """A key that was just made: what its bearer gets, and what is kept of it."""

    secret: Secret
    setting: ApiKeySetting


def make_api_key(  # noqa: PLR0913 - what a key may be limited to
    name: str,
    *,
    randomness: Randomness,
    now: datetime,
    scopes: frozenset[str],
    roles: Sequence[str] = (),
    expires_at: datetime | None = None,
) -> NewApiKey:
    """Draw a key of 256 bits; only its digest is in the setting."""
    text = API_KEY_PREFIX + randomness.token_urlsafe(_KEY_BYTES)
    setting = ApiKeySetting(
        name=name,
        sha256=hashlib.sha256(text.encode("ascii")).digest(),
        scopes=scopes,
        roles=tuple(dict.fromkeys(roles)),
        created_at=now,
        expires_at=expires_at,
    )
    return NewApiKey(secret=Secret(text), setting=setting)


class KeyFile:
    """Keys in a file. Holds nothing open between calls; safe to use from several threads and processes.

    A file that cannot be read in full is never written to. One that is there keeps its owner, group and mode, so
    that the server's account can read it as before; a new one is open to its owner only.

    Args:
        path: The file; `~` is expanded. Beside it lies `<name>.lock`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - resolve() would follow a link
        self._lock_path = self._path.with_name(self._path.name + ".lock")

    def load(self) -> Keys:
        """Return the keys in the file.

        Raises:
            UsageError: There is no such file, or it cannot be used safely.
            ConfigurationError: What it holds is no list of keys.
        """
        try:
            content, _ = private_files.read_private_file(self._path, max_bytes=MAX_KEY_FILE_BYTES, closes=False)
        except private_files.FileProblem as problem:
            raise self._unusable(problem) from problem.__cause__
        return _parse(content, self._path.name)

    def change(self, changed: Callable[[Keys], Keys], *, creates: bool = False) -> None:
        """Replace the keys by what `changed` makes of them, with no other writer in between.

        Args:
            changed: Called with the keys that are there, while the lock is held.
            creates: Whether a file that does not exist is made.

        Raises:
            UsageError: The file cannot be used safely, or, without `creates`, does not exist.
            ConfigurationError: What it holds, or would hold, is no list of keys; it is left as it is.
            Unavailable: Another program holds the lock too long.
        """
        if not self._path.parent.is_dir():
            raise UsageError(
                f"The folder of the key file {self._path.name} does not exist.",
                remedy="Make the folder, or correct --file.",
            )
        try:
            private_files.check_replaceable(self._path)
            private_files.check_replaceable(self._lock_path)
            with self._locked():
                private_files.remove_leftovers(self._path)
                is_new = creates and private_files.mark_of(self._path) is None
                text = render_api_keys(changed(() if is_new else self.load()))
                _parse(text.encode(), self._path.name)  # what the server could not read is not written
                private_files.write_private_file(self._path, text.encode(), keeps_rights=True)
        except private_files.FileProblem as problem:
            raise self._unusable(problem) from problem.__cause__

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(self._lock_path, timeout=LOCK_WAIT_SECONDS, mode=private_files.PRIVATE_FILE_MODE)
        try:
            lock.acquire()
        except Timeout:
            raise Unavailable(f"Another program is busy with {self._path.name} and does not finish.") from None
        except OSError as error:
            raise UsageError(f"The lock file {self._lock_path.name} cannot be used.") from error
        try:
            yield
        finally:
            lock.release()

    def _unusable(self, problem: private_files.FileProblem) -> UsageError:
        if isinstance(problem, private_files.NoSuchFile):
            return UsageError(
                f"There is no key file {self._path.name}.",
                remedy="Correct --file, or make the first key with `micromegas keys create NAME --file FILE`.",
            )
        return UsageError(
            f"The key file {self._path.name} {problem.args[0]}.",
            remedy="Name an ordinary file of your own; to change that of another account, run as that account.",
        )


def _parse(content: bytes, name: str) -> Keys:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{name} is not UTF-8 text.", key=name) from None
    return parse_api_keys(text, name)
