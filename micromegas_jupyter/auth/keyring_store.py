"""A sign-in in the operating system's keyring, and the small file that tells other programs of it.

The file holds no secret: it says which entry of the keyring counts, so that one `lstat` shows whether anything
changed, and so that a new sign-in takes the place of the old one in one step. Upstream's programs know nothing of it.
Calling the keyring is `system_keyring`'s job.
"""

import hashlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from micromegas_jupyter.auth.keyring_marker import MAX_PARTS, KeyringMarker, build_marker, parse_marker
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
from micromegas_jupyter.auth.system_keyring import KeyringUnusable, SystemKeyring
from micromegas_jupyter.auth.token_format import (
    StoredLogin,
    build_extras,
    build_token_file,
    parse_extras,
    parse_token_file,
    with_extras,
)
from micromegas_jupyter.core.json import JsonError, decode_strict_json
from micromegas_jupyter.core.protocols import HiddenText, Secret
from micromegas_jupyter.errors import LoginRequired, TokenStoreError

MARKER_SUFFIX = ".keyring.json"

_READ_COUNT = 3

_log = logging.getLogger(__name__)


def part_characters(platform: str) -> int:
    """Return how long a text the platform's keyring takes: Windows holds 2560 bytes of UTF-16, others have room."""
    return 1200 if platform == "win32" else 16_384


class KeyringTokenStore:
    """Keeps one sign-in in a keyring. Safe to use from several threads and processes.

    The keyring has two places for it, used in turn: a program that is killed while it writes one leaves the other,
    which the marker file still names.

    Args:
        path: The marker file; `~` is expanded. Beside it lies `<name>.lock`.
        keyring: Where the secrets are kept, or why there is no such place: then only `mark` and `remove` do
            something.
        entry: The only sign-in that may be read or kept; None takes any.
        max_part_characters: How long a text the keyring takes; longer ones are kept in parts.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        keyring: SystemKeyring | KeyringUnusable,
        *,
        entry: SignInEntry | None = None,
        max_part_characters: int = part_characters(sys.platform),
    ) -> None:
        self.path = Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - resolve() would follow a link
        self._keyring = keyring
        self._entry = entry
        self._max_part_characters = max_part_characters

    @property
    def label(self) -> str:
        """Where the sign-in is kept, in a few words for people."""
        return "the system's keyring"

    def mark(self) -> FileMark | None:
        """Return the marker file's present mark, None when nothing is stored; costs one `lstat`."""
        return mark_of(self.path)

    def load(self) -> tuple[StoredLogin, FileMark]:
        """Return the stored sign-in and the mark that belongs to it.

        Raises:
            LoginRequired: Nothing is stored, or what is there is damaged or another entry's.
            TokenStoreError: The marker file or the keyring cannot be used.
        """
        for _ in range(_READ_COUNT):
            marker, mark = self._marker()
            login = self._login_at(marker)
            if login is not None:
                return login, mark
            if self.mark() == mark:
                break  # or somebody has replaced the sign-in meanwhile
        raise LoginRequired("The system's keyring does not hold the stored sign-in.")

    def stored_entry(self) -> SignInEntry | None:
        """Return whose sign-in it is, None when nothing readable is there; the keyring is not asked.

        Raises:
            TokenStoreError: The marker file cannot be used safely.
        """
        try:
            return self._any_marker()[0].entry
        except LoginRequired:
            return None

    def check_usable(self) -> None:
        """Check, before a person is sent to sign in, that the result can be kept.

        Raises:
            TokenStoreError: It cannot.
        """
        ensure_private_folder(self.path.parent)
        check_replaceable(self.path)
        check_lock_usable(self.path)
        self._usable_keyring().read(self._name(0, 0))

    @contextmanager
    def locked(self, *, wait_seconds: float = LOCK_WAIT_SECONDS) -> Iterator[None]:
        """Hold the lock that all writers of this sign-in share; it ends with the process that holds it.

        Raises:
            Unavailable: Another program holds it for longer than `wait_seconds`.
            TokenStoreError: The lock file cannot be used safely.
        """
        with held_lock(self.path, wait_seconds=wait_seconds):
            remove_leftovers(self.path)
            yield

    def save(self, login: StoredLogin) -> FileMark:
        """Keep a sign-in in place of any other of the same entry; only for the holder of the lock.

        Raises:
            TokenStoreError: It cannot be kept, or another entry's sign-in is there; what was there before still is.
        """
        keyring = self._usable_keyring()
        stored = self.stored_entry()
        if stored is not None and self._entry is not None and not stored.answers(self._entry):
            raise TokenStoreError(
                f"Another program has stored another sign-in under {self.path.name} meanwhile.", remedy="Sign in again."
            )
        version = self._version() + 1
        parts = self._parts_of(login, version=version)
        if len(parts) > MAX_PARTS:
            raise TokenStoreError("The sign-in is too large for the system's keyring.")
        for number, part in enumerate(parts):
            keyring.write(self._name(version, number), part)
        marker = KeyringMarker(entry=login.entry, version=version, part_count=len(parts))
        mark = write_private_file(self.path, build_marker(marker).encode())
        # What is not named any more: the place before, and what a longer text once left in this one.
        self._forget_leftovers(version + 1)
        self._forget_leftovers(version, first_part=len(parts))
        return mark

    def replace(self, login: StoredLogin, *, known: FileMark | None) -> FileMark | None:
        """Keep the successor of a sign-in, unless it is gone or was changed since `known`; only under the lock.

        Returns:
            The new mark, or None when nothing was written.

        Raises:
            TokenStoreError: It cannot be kept.
        """
        if known is None or self.mark() != known:
            return None
        return self.save(login)

    def remove(self) -> int:
        """Remove marker file and keyring entries; returns how many files and entries there were.

        The marker goes first and in any case, so that the sign-in has ended for every program. Another entry's
        sign-in is left alone.

        Raises:
            TokenStoreError: The marker file cannot be removed, or the keyring cannot be reached and still holds the
                tokens.
        """
        stored = self.stored_entry()
        if stored is not None and self._entry is not None and not stored.answers(self._entry):
            return 0
        count = int(remove_file(self.path))
        if count == 0 and isinstance(self._keyring, KeyringUnusable):
            return 0
        try:
            return count + int(self._forget(0)) + int(self._forget(1))
        except TokenStoreError as error:
            raise TokenStoreError(
                f"{error.what.rstrip('.')}, so the tokens in it were not removed.",
                remedy="Run logout again where the keyring can be used.",
            ) from None

    def _usable_keyring(self) -> SystemKeyring:
        if isinstance(self._keyring, KeyringUnusable):
            raise TokenStoreError(f"The system's keyring cannot be used: {self._keyring.reason}.")
        return self._keyring

    def _marker(self) -> tuple[KeyringMarker, FileMark]:
        marker, mark = self._any_marker()
        if self._entry is not None and not marker.entry.answers(self._entry):
            raise LoginRequired("The stored sign-in is for another identity provider, application, audience or scope.")
        return marker, mark

    def _any_marker(self) -> tuple[KeyringMarker, FileMark]:
        content, mark = read_private_file(self.path)
        return parse_marker(content), mark

    def _version(self) -> int:
        try:
            return self._any_marker()[0].version
        except LoginRequired:
            return 0

    def _login_at(self, marker: KeyringMarker) -> StoredLogin | None:
        keyring = self._usable_keyring()
        text = HiddenText()
        for number in range(marker.part_count):
            part = keyring.read(self._name(marker.version, number))
            if part is None:
                return None
            text = HiddenText(text + part.reveal())
        login = _parse_kept(text, version=marker.version)
        if login is not None and login.entry != marker.entry:
            return None  # another program wrote it: its tokens are not for where the marker says they may go
        return login

    def _parts_of(self, login: StoredLogin, *, version: int) -> list[Secret]:
        text = json.dumps({"version": version, "token_file": build_token_file(login), "extras": build_extras(login)})
        size = self._max_part_characters
        return [Secret(text[start : start + size]) for start in range(0, len(text), size)]

    def _forget(self, version: int, *, first_part: int = 0) -> bool:
        keyring = self._usable_keyring()
        for number in range(first_part, MAX_PARTS):
            if not keyring.delete(self._name(version, number)):
                return number > first_part
        return True

    def _forget_leftovers(self, version: int, *, first_part: int = 0) -> None:
        try:
            self._forget(version, first_part=first_part)
        except TokenStoreError as error:
            _log.warning("An old sign-in could not be removed from the keyring.", extra={"code": error.code})

    def _name(self, version: int, part: int) -> str:
        place = hashlib.sha256(str(self.path).encode()).hexdigest()[:12]
        return f"{self.path.name} {place} {version % 2} {part}"


def _parse_kept(text: str, *, version: int) -> StoredLogin | None:
    """Return the sign-in of that version, None when the text is of another or damaged."""
    try:
        document = decode_strict_json(text)
        if not isinstance(document, dict) or document.get("version") != version:
            return None
        login = parse_token_file(str(document.get("token_file")))
    except (JsonError, LoginRequired):
        return None
    return with_extras(login, parse_extras(str(document.get("extras")), entry=login.entry))
