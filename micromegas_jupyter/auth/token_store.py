"""The token file with its lock and the small file beside it: one writer at a time, over all processes.

The file's text is `token_format`'s and safe file handling `private_files`'s; when to renew is `session_keeper`'s.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from micromegas_jupyter.auth.private_files import (
    FileMark,
    check_replaceable,
    ensure_private_folder,
    mark_of,
    read_private_file,
    remove_file,
    remove_leftovers,
    write_private_file,
)
from micromegas_jupyter.auth.sign_in_entry import SignInEntry
from micromegas_jupyter.auth.sign_in_store import LOCK_WAIT_SECONDS
from micromegas_jupyter.auth.store_lock import check_lock_usable, held_lock
from micromegas_jupyter.auth.token_format import (
    Extras,
    StoredLogin,
    build_extras,
    build_token_file,
    extras_of,
    parse_entry,
    parse_extras,
    parse_token_file,
    with_extras,
)
from micromegas_jupyter.core.protocols import HiddenBytes, HiddenText
from micromegas_jupyter.errors import LoginRequired, TokenStoreError

__all__ = ["LOCK_WAIT_SECONDS", "TokenStore"]

EXTRAS_SUFFIX = ".extras.json"

_READ_COUNT = 4
_READ_PAUSE_SECONDS = 0.05

_Read = TypeVar("_Read")


class TokenStore:
    """Keeps one sign-in in a file. Holds nothing open between calls; safe to use from several threads.

    Args:
        path: The token file; `~` is expanded. Beside it lie `<name>.lock` and `<name>.extras.json`.
        entry: The only sign-in that may be read from the file or put into it; None takes any.
    """

    def __init__(self, path: str | os.PathLike[str], *, entry: SignInEntry | None = None) -> None:
        self.path = Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - resolve() would follow a link
        self._entry = entry
        self._extras_path = self.path.with_name(self.path.name + EXTRAS_SUFFIX)

    @property
    def label(self) -> str:
        """Where the sign-in is kept, in a few words for people."""
        return f"the file {home_as_tilde(self.path)}"

    def mark(self) -> FileMark | None:
        """Return the file's present mark, None when nothing is stored; costs one `lstat`."""
        return mark_of(self.path)

    def load(self) -> tuple[StoredLogin, FileMark]:
        """Return the stored sign-in and the mark of the file that it was read from.

        Raises:
            LoginRequired: Nothing is stored, or what is there is damaged or another entry's.
            TokenStoreError: The file cannot be used safely.
        """
        login, mark = self._read(parse_token_file)
        login = with_extras(login, self._extras_of(login.entry))
        if self._entry is not None and not login.entry.answers(self._entry):
            raise LoginRequired("The stored sign-in is for another identity provider, application, audience or scope.")
        return login, mark

    def stored_entry(self) -> SignInEntry | None:
        """Return whose sign-in the file holds, None when nothing readable is there.

        Raises:
            TokenStoreError: The file cannot be used safely.
        """
        try:
            entry, _ = self._read(parse_entry)
        except LoginRequired:
            return None
        extras = self._extras_of(entry)
        return replace(entry, scope=extras.scope, resource=extras.resource)

    def check_usable(self) -> None:
        """Check, before a person is sent to sign in, that the result can be kept.

        Raises:
            TokenStoreError: It cannot.
        """
        ensure_private_folder(self.path.parent)
        check_replaceable(self.path)
        check_lock_usable(self.path)
        check_replaceable(self._extras_path)

    @contextmanager
    def locked(self, *, wait_seconds: float = LOCK_WAIT_SECONDS) -> Iterator[None]:
        """Hold the lock that all writers of this file share; it ends with the process that holds it.

        Raises:
            Unavailable: Another program holds it for longer than `wait_seconds`.
            TokenStoreError: The lock file cannot be used safely.
        """
        with held_lock(self.path, wait_seconds=wait_seconds):
            remove_leftovers(self.path)
            remove_leftovers(self._extras_path)
            yield

    def save(self, login: StoredLogin) -> FileMark:
        """Store a sign-in, replacing any other of the same entry; only for the holder of the lock.

        Raises:
            TokenStoreError: It cannot be written, or the file holds another entry's sign-in; what was stored before
                is still there.
        """
        if self._holds_another():
            raise TokenStoreError(
                f"Another program has stored another sign-in in {self.path.name} meanwhile.", remedy="Sign in again."
            )
        check_replaceable(self.path)
        # The small file first: whoever notices that the token file has changed finds the small one in step.
        if self._extras_of(login.entry) != extras_of(login):
            write_private_file(self._extras_path, build_extras(login).encode())
        return write_private_file(self.path, HiddenBytes(build_token_file(login).encode()))

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

        Another entry's sign-in is left alone.

        Raises:
            TokenStoreError: It cannot be removed.
        """
        if self._holds_another():
            return 0
        return sum(remove_file(path) for path in (self.path, self._extras_path))

    def _read(self, parse: Callable[[str], _Read]) -> tuple[_Read, FileMark]:
        for _ in range(_READ_COUNT - 1):
            text, mark = _read_text(self.path)
            try:
                return parse(text), mark
            except LoginRequired:
                # Upstream's programs write the file in place, so only half of it may be there yet.
                threading.Event().wait(_READ_PAUSE_SECONDS)
        text, mark = _read_text(self.path)
        return parse(text), mark

    def _holds_another(self) -> bool:
        if self._entry is None:
            return False
        try:
            stored = self.stored_entry()
        except TokenStoreError:
            return False  # the caller's own steps say what is wrong with the place
        return stored is not None and not stored.answers(self._entry)

    def _extras_of(self, entry: SignInEntry) -> Extras:
        text = self._extras_text()
        return Extras() if text is None else parse_extras(text, entry=entry)

    def _extras_text(self) -> str | None:
        try:
            return _read_text(self._extras_path)[0]
        except LoginRequired:
            return None


def home_as_tilde(path: Path) -> str:
    """Return a path for people, with `~` for their home folder."""
    try:
        return f"~/{path.relative_to(Path.home())}"
    except (ValueError, RuntimeError):
        return str(path)


def _read_text(path: Path) -> tuple[HiddenText, FileMark]:
    """Return a file's text; empty, which is no sign-in, when it is none."""
    content, mark = read_private_file(path)
    try:
        return HiddenText(content.decode("utf-8")), mark
    except UnicodeDecodeError:
        return HiddenText(), mark
