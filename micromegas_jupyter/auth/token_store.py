"""The token file with its lock and the small file beside it: one writer at a time, over all processes.

The file's text is `token_format`'s and safe file handling `private_files`'s; when to renew is `session_keeper`'s.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from micromegas_jupyter.auth.private_files import (
    PRIVATE_FILE_MODE,
    FileMark,
    check_replaceable,
    ensure_private_folder,
    mark_of,
    read_private_file,
    remove_file,
    remove_leftovers,
    write_private_file,
)
from micromegas_jupyter.auth.token_format import (
    StoredLogin,
    build_extras,
    build_token_file,
    parse_extras_scope,
    parse_token_file,
)
from micromegas_jupyter.errors import LoginRequired, TokenStoreError, Unavailable

LOCK_WAIT_SECONDS = 45.0  # longer than one renewal can take: three calls of ten seconds


class TokenStore:
    """Keeps one sign-in in a file. Holds nothing open between calls; safe to use from several threads.

    Args:
        path: The token file; `~` is expanded. Beside it lie `<name>.lock` and `<name>.extras.json`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - resolve() would follow a link
        self._lock_path = self.path.with_name(self.path.name + ".lock")
        self._extras_path = self.path.with_name(self.path.name + ".extras.json")

    def mark(self) -> FileMark | None:
        """Return the file's present mark, None when nothing is stored; costs one `lstat`."""
        return mark_of(self.path)

    def load(self) -> tuple[StoredLogin, FileMark]:
        """Return the stored sign-in and the mark of the file that it was read from.

        Raises:
            LoginRequired: Nothing is stored, or what is there is damaged.
            TokenStoreError: The file cannot be used safely.
        """
        content, mark = read_private_file(self.path)
        login = parse_token_file(_decoded(content))
        return _with_scope(login, self._stored_scope(login)), mark

    def check_usable(self) -> None:
        """Check, before a person is sent to sign in, that the result can be kept.

        Raises:
            TokenStoreError: It cannot.
        """
        ensure_private_folder(self.path.parent)
        check_replaceable(self.path)
        check_replaceable(self._lock_path)
        check_replaceable(self._extras_path)

    @contextmanager
    def locked(self, *, wait_seconds: float = LOCK_WAIT_SECONDS) -> Iterator[None]:
        """Hold the lock that all writers of this file share; it ends with the process that holds it.

        Raises:
            Unavailable: Another program holds it for longer than `wait_seconds`.
            TokenStoreError: The lock file cannot be used safely.
        """
        ensure_private_folder(self.path.parent)
        check_replaceable(self._lock_path)
        lock = FileLock(self._lock_path, timeout=wait_seconds, mode=PRIVATE_FILE_MODE)
        try:
            lock.acquire()
        except Timeout:
            raise Unavailable("Another program is busy with the stored sign-in and does not finish.") from None
        except OSError as error:
            raise TokenStoreError(f"The lock file {self._lock_path.name} cannot be used.") from error
        try:
            remove_leftovers(self.path)
            yield
        finally:
            lock.release()

    def save(self, login: StoredLogin) -> FileMark:
        """Store a sign-in, replacing any other; only for the holder of the lock.

        Raises:
            TokenStoreError: It cannot be written; what was stored before is still there.
        """
        if login.scope != self._stored_scope(login):
            write_private_file(self._extras_path, build_extras(login).encode())
        return write_private_file(self.path, build_token_file(login).encode())

    def replace(self, login: StoredLogin, *, known: FileMark | None) -> FileMark | None:
        """Store the successor of a sign-in, unless the file is gone or was changed since `known`.

        Only for the holder of the lock. A file that was removed was removed on purpose and is not written again.

        Returns:
            The new mark, or None when nothing was written.

        Raises:
            TokenStoreError: It cannot be written.
        """
        if known is None or self.mark() != known:
            return None
        return self.save(login)

    def remove(self) -> int:
        """Remove what is stored; returns how many files there were. The lock file stays for those who wait for it.

        Raises:
            TokenStoreError: It cannot be removed.
        """
        return sum(remove_file(path) for path in (self.path, self._extras_path))

    def _stored_scope(self, login: StoredLogin) -> str | None:
        try:
            content, _ = read_private_file(self._extras_path)
            return parse_extras_scope(_decoded(content), login=login)
        except LoginRequired:
            return None


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise LoginRequired("The stored sign-in is damaged.") from None


def _with_scope(login: StoredLogin, scope: str | None) -> StoredLogin:
    return StoredLogin(
        issuer=login.issuer, client_id=login.client_id, tokens=login.tokens, audience=login.audience, scope=scope
    )
