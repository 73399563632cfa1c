"""Storage of a sign-in: the token file and its lock.

Programs of the same user write one at a time: each holds a lease while it reads, refreshes, and saves. A suspended
program loses its lease to the next one that needs it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import threading
from abc import ABC, abstractmethod
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from micromegas_jupyter.core.files import (
    PRIVATE_FILE_MODE,
    FileMark,
    FileProblem,
    FileTooLarge,
    Lease,
    LeaseBusy,
    LeaseFile,
    NoSuchFile,
    check_replaceable,
    ensure_private_folder,
    find_foreign_writer,
    mark_of,
    read_private_file,
    remove_file,
    remove_temporaries,
    restrict_to_owner,
    write_private_file,
)
from micromegas_jupyter.core.system import HiddenBytes, HiddenText, Secret, SecretObject, secret_object
from micromegas_jupyter.core.text import JsonError, decode_strict_json
from micromegas_jupyter.errors import LoginRequired, TokenStoreError, Unavailable
from micromegas_jupyter.oidc.authorization import TokenSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


_MAX_EPOCH_SECONDS = 253_000_000_000  # the year 9987: within a datetime's range, with room for additions


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginKey:
    """The parameters of a sign-in; sign-ins with different keys never replace each other.

    `audience` is the API for providers that require one (Auth0), and `resource` for those that follow RFC 8707. A
    `scope` of None is unknown.
    """

    issuer: str
    client_id: str
    audience: str | None = None
    scope: str | None = None
    resource: str | None = None

    @property
    def digest(self) -> str:
        """Twelve hex digits that identify the key. They are part of file names, so the algorithm must never change."""
        scope = " ".join(sorted((self.scope or "").split()))
        parts = [self.issuer, self.client_id, self.audience or "", scope]
        if self.resource:
            parts.append(self.resource)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]

    def satisfies(self, requested: LoginKey) -> bool:
        """Whether a stored sign-in with this key satisfies a sign-in with the key `requested`.

        An unknown stored scope, as written by upstream, satisfies any scope. The order of a scope's values is
        irrelevant (RFC 6749 section 3.3).
        """
        same = ("issuer", "client_id", "audience")
        if any((getattr(self, name) or None) != (getattr(requested, name) or None) for name in same):
            return False
        if self.scope is None and self.resource is None:
            return True
        if self.resource != (requested.resource or None):
            return False
        return self.scope is None or requested.scope is None or set(self.scope.split()) == set(requested.scope.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLogin:
    """A stored sign-in; its tokens may be sent only to the issuer in its key."""

    key: LoginKey
    tokens: TokenSet


def build_token_file(login: StoredLogin) -> str:
    """Return the token file's content, with upstream's names, a two-space indent, and no client secret.

    Upstream ignores `scope` and `resource` when it reads the file and drops them when it writes it.
    """
    document: dict[str, object] = {
        "issuer": login.key.issuer,
        "client_id": login.key.client_id,
        "token": build_token(login.tokens),
    }
    extra = {name: getattr(login.key, name) for name in ("audience", "scope", "resource")}
    return json.dumps(document | {name: value for name, value in extra.items() if value}, indent=2)


def build_token(tokens: TokenSet) -> dict[str, object]:
    """Return the tokens as upstream's dictionary; times are whole seconds, as Authlib writes them."""
    found: dict[str, object] = {"access_token": tokens.access_token.reveal(), "token_type": tokens.token_type}
    if tokens.id_token is not None:
        found["id_token"] = tokens.id_token.reveal()
    if tokens.refresh_token is not None:
        found["refresh_token"] = tokens.refresh_token.reveal()
    if tokens.scope is not None:
        found["scope"] = tokens.scope
    if tokens.expires_at is not None:
        found["expires_at"] = int(tokens.expires_at.timestamp())
        if tokens.obtained_at is not None:
            found["expires_in"] = int((tokens.expires_at - tokens.obtained_at).total_seconds())
    return found


def parse_token_file(text: str) -> StoredLogin:
    """Parse a token file; unknown members are ignored."""
    document = _object(text)
    key, token = _key(document), secret_object(document.get("token"))
    if token is None:
        raise LoginRequired("The stored sign-in cannot be read.")
    return StoredLogin(key=key, tokens=parse_token(token))


def parse_token(token: Mapping[str, object]) -> TokenSet:
    """Parse upstream's dictionary of tokens."""
    access_token = _secret(token, "access_token")
    if access_token is None:
        raise LoginRequired("The stored sign-in does not contain a token.")
    token_type = token.get("token_type")
    expires_in, expires_at_seconds = _number(token.get("expires_in")), _number(token.get("expires_at"))
    expires_at = obtained_at = None
    if expires_at_seconds is not None:
        expires_at = datetime.fromtimestamp(expires_at_seconds, UTC)
        if expires_in is not None:
            obtained_at = expires_at - timedelta(seconds=min(expires_in, expires_at_seconds))
    return TokenSet(
        access_token=access_token,
        token_type=token_type if isinstance(token_type, str) else "Bearer",
        id_token=_secret(token, "id_token"),
        refresh_token=_secret(token, "refresh_token"),
        obtained_at=obtained_at,
        expires_at=expires_at,
        scope=_text(token.get("scope")),
    )


def build_key(key: LoginKey) -> dict[str, object]:
    """Return a sign-in's key as a document, used instead of the token file if a keyring stores the tokens."""
    return asdict(key)


def parse_key(text: str) -> LoginKey:
    """Parse the key from a token file (even if its tokens are unusable) or from a document of `build_key`."""
    return _key(_object(text))


def _key(document: Mapping[str, object]) -> LoginKey:
    issuer, client_id = document.get("issuer"), document.get("client_id")
    if not isinstance(issuer, str) or not isinstance(client_id, str):
        raise LoginRequired("The stored sign-in cannot be read.")
    return LoginKey(
        issuer=issuer,
        client_id=client_id,
        audience=_text(document.get("audience")),
        scope=_text(document.get("scope")),
        resource=_text(document.get("resource")),
    )


def _object(text: str) -> SecretObject:
    try:
        document = secret_object(decode_strict_json(text))
    except JsonError:
        raise LoginRequired("The stored sign-in is corrupted.") from None
    if document is None:
        raise LoginRequired("The stored sign-in cannot be read.")
    return document


def _secret(token: Mapping[str, object], name: str) -> Secret | None:
    if token.get(name) is None or token[name] == "":
        return None
    if not _is_token(token[name]):
        raise LoginRequired("The stored sign-in contains a corrupted token.")
    return Secret(str(token[name]))


def _is_token(value: object) -> bool:
    return isinstance(value, str) and value.isascii() and value.isprintable()


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and 0 <= number < _MAX_EPOCH_SECONDS else None


LOCK_WAIT_SECONDS = 45.0  # longer than any refresh: three calls of ten seconds each
OLD_EXTRAS_SUFFIX = ".extras.json"  # the previous version stored scope and resource there

_LOCK_POLL_SECONDS = 0.02
_NO_FLOCK = frozenset({errno.ENOSYS, errno.EOPNOTSUPP})
_ROTATES = "rotates"
_READ_COUNT = 4
_READ_PAUSE_SECONDS = 0.05
_FOLDER_REMEDY = (
    "Take ownership of it (chown) and remove write access for others (chmod go-w), or set MICROMEGAS_CONFIG_DIR to a "
    "different directory, such as a subdirectory of this one. A program that runs as root, such as under sudo, needs "
    "a directory owned by root."
)

_Read = TypeVar("_Read")


class TokenStore(ABC):
    """Stores one sign-in for all programs of a user; safe to use from several threads and processes.

    It is based on a file (`~` is expanded) and a lock file next to it, which is never removed because others may wait
    for it. With a `key`, it neither reads nor replaces a sign-in with another key.

    Methods raise `LoginRequired` if no sign-in is stored, or the stored one is damaged or has another key;
    `TokenStoreError` if the store cannot be used safely (its content is then unchanged); and `Unavailable` if another
    program holds the lock for too long.
    """

    def __init__(self, path: str | os.PathLike[str], *, key: LoginKey | None = None) -> None:
        self.path = Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - resolve() would follow a link
        self._lock_path = self.path.with_name(self.path.name + ".lock")
        self._key = key
        self._lease_file = LeaseFile(self._lock_path)
        self._held = threading.local()  # each thread's lease, as `lease`

    @property
    @abstractmethod
    def label(self) -> str:
        """A display name for the storage location."""

    def mark(self) -> FileMark | None:
        """Return a mark that changes whenever the content changes, or None if it is empty. Costs one `lstat`."""
        with store_errors(self.path):
            return mark_of(self.path)

    @abstractmethod
    def load(self) -> tuple[StoredLogin, FileMark]:
        """Return the stored sign-in and its mark."""

    @abstractmethod
    def stored_key(self) -> LoginKey | None:
        """Return the key of the stored sign-in, or None if there is no readable one."""

    @abstractmethod
    def check_usable(self) -> None:
        """Check, before a user signs in, that the result can be stored."""

    @abstractmethod
    def save(self, login: StoredLogin) -> FileMark:
        """Store a sign-in, replacing any other with the same key; only the holder of the lock may call this.

        Raises `LeaseLost`, and stores nothing, if another program has taken the lock over.
        """

    @abstractmethod
    def remove(self) -> int:
        """Remove the stored sign-in unless it has a different key; return the number of removed files or entries."""

    @contextmanager
    def locked(self, *, wait_seconds: float = LOCK_WAIT_SECONDS, interrupts: bool = False) -> Iterator[None]:
        """Hold the lock that all writers share; the operating system releases it when the process exits.

        After ten seconds, the lock of a suspended process is taken over, and that process can no longer store
        anything. If it may have used a refresh token (`note_spending`), the lock is taken over only if the caller
        `interrupts`, because the caller stores another sign-in. Otherwise `Unavailable` is raised. A lock file owned
        by another user is rejected, because its owner could block everyone.
        """
        _ensure_own_folder(self.path.parent)
        with store_errors(self._lock_path):
            restrict_to_owner(self._lock_path)  # a user who can open the file could hold the lock
        with ExitStack() as held:
            held.callback(setattr, self._held, "lease", self._lease)
            try:
                self._held.lease = self._acquire(held, wait_seconds=wait_seconds, interrupts=interrupts)
            except LeaseBusy as busy:
                raise _busy(busy.suspended_process) from None
            except OSError as error:
                raise TokenStoreError(f"The lock file {self._lock_path.name} cannot be used.") from error
            remove_temporaries(self.path)
            yield

    def _acquire(self, held: ExitStack, *, wait_seconds: float, interrupts: bool) -> Lease | None:
        """Acquire the lock until `held` closes, and return its lease, or None if only a plain lock is possible."""
        try:
            lease = self._lease_file.acquire(wait_seconds=wait_seconds, interrupts_critical=interrupts)
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
        else:
            held.callback(lease.release)
            return lease
        from filelock import FileLock, Timeout  # provides locks on other systems

        lock = FileLock(self._lock_path, timeout=wait_seconds, mode=PRIVATE_FILE_MODE, poll_interval=_LOCK_POLL_SECONDS)
        try:
            lock.acquire()
        except Timeout:
            raise LeaseBusy from None
        held.callback(lock.release)
        return None

    @property
    def _lease(self) -> Lease | None:
        """The lease that the current thread holds or has lost."""
        found: Lease | None = getattr(self._held, "lease", None)
        return found

    def check_lock(self) -> None:
        """Raise `LeaseLost` if another program has taken over this thread's lock."""
        if (lease := self._lease) is not None:
            lease.check()

    def note_spending(self) -> None:
        """Record that a refresh token is about to be sent; raises the errors of `check_lock`.

        If the provider is known to rotate refresh tokens, no other program sends this one until the lock is released,
        even while this process is suspended: sending a token twice may end the sign-in (RFC 9700 section 4.14.2).
        """
        if (lease := self._lease) is None:
            return
        if lease.notes.get(_ROTATES) is True:
            lease.enter_critical()
        else:
            lease.check()

    def note_stored(self, *, rotates: bool | None) -> None:
        """Record that new tokens are stored, and whether the provider rotates refresh tokens (None if unknown)."""
        if (lease := self._lease) is not None:
            lease.leave_critical(**{_ROTATES: rotates})

    def _check_paths(self) -> None:
        _ensure_own_folder(self.path.parent)
        for path in (self.path, self._lock_path):
            with store_errors(path):
                check_replaceable(path)

    def _check_key(self, stored: LoginKey) -> None:
        if self._key is not None and not stored.satisfies(self._key):
            raise LoginRequired(
                "The stored sign-in is for a different identity provider, application, audience, or scope."
            )

    def _has_other_key(self) -> bool:
        if self._key is None:
            return False
        try:
            stored = self.stored_key()
        except TokenStoreError:
            return False  # the caller's next steps report the problem with the file
        return stored is not None and not stored.satisfies(self._key)

    def _check_not_replaced(self) -> None:
        if self._has_other_key():
            raise TokenStoreError(
                f"Another program has stored a different sign-in in {self.path.name}.", remedy="Sign in again."
            )


class FileTokenStore(TokenStore):
    """Stores one sign-in in upstream's token file."""

    def __init__(self, path: str | os.PathLike[str], *, key: LoginKey | None = None) -> None:
        super().__init__(path, key=key)
        self._old_extras_path = self.path.with_name(self.path.name + OLD_EXTRAS_SUFFIX)

    @property
    def label(self) -> str:
        """See `TokenStore.label`."""
        return f"the file {_with_tilde(self.path)}"

    def load(self) -> tuple[StoredLogin, FileMark]:
        """See `TokenStore.load`."""
        for _ in range(_READ_COUNT):
            login, mark = self._read(parse_token_file)
            key = self._with_old_extras(login.key)
            # Another program may have stored the sign-in and removed the previous version's file.
            if key.scope is not None or key.resource is not None or self.mark() == mark:
                break
        self._check_key(key)
        return replace(login, key=key), mark

    def stored_key(self) -> LoginKey | None:
        """See `TokenStore.stored_key`."""
        try:
            return self._with_old_extras(self._read(parse_key)[0])
        except LoginRequired:
            return None

    def check_usable(self) -> None:
        """See `TokenStore.check_usable`."""
        self._check_paths()

    def save(self, login: StoredLogin) -> FileMark:
        """See `TokenStore.save`."""
        self._check_not_replaced()
        with store_errors(self.path):
            check_replaceable(self.path)
        mark = write_store_file(self.path, HiddenBytes(build_token_file(login).encode()), check=self.check_lock)
        remove_store_file(self._old_extras_path)
        return mark

    def remove(self) -> int:
        """See `TokenStore.remove`."""
        if self._has_other_key():
            return 0
        return sum(remove_store_file(path) for path in (self.path, self._old_extras_path))

    def _read(self, parse: Callable[[str], _Read]) -> tuple[_Read, FileMark]:
        for tries_left in reversed(range(_READ_COUNT)):
            text, mark = _read_text(self.path)
            try:
                return parse(text), mark
            except LoginRequired:
                if tries_left == 0:
                    raise
                # Upstream's programs write the file in place, so it may be incomplete.
                threading.Event().wait(_READ_PAUSE_SECONDS)
        raise AssertionError

    def _with_old_extras(self, key: LoginKey) -> LoginKey:
        """Return the key with scope and resource from the previous version's file, which the next `save` removes."""
        if key.scope is not None or key.resource is not None or not os.path.lexists(self._old_extras_path):
            return key
        try:
            found = parse_key(_read_text(self._old_extras_path)[0])
        except LoginRequired:
            return key
        return found if replace(found, scope=None, resource=None) == key else key


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Raise `LoginRequired` for a file that is missing or too large, and `TokenStoreError` for any other problem."""
    try:
        yield
    except NoSuchFile:
        raise LoginRequired("No sign-in is stored.") from None
    except FileTooLarge:
        raise LoginRequired(f"The file {path.name} is too large to be a token file.") from None
    except FileProblem as problem:
        raise TokenStoreError(f"The token file {path.name} {problem.args[0]}.") from problem.__cause__


def read_store_file(path: Path) -> tuple[bytes, FileMark]:
    """Read a file of a store; raises the errors of `store_errors`."""
    with store_errors(path):
        return read_private_file(path)


def write_store_file(path: Path, content: bytes, *, check: Callable[[], None] = lambda: None) -> FileMark:
    """Replace a file of a store, unless `check` raises; raises the errors of `store_errors`."""
    with store_errors(path):
        return write_private_file(path, content, check=check)


def remove_store_file(path: Path) -> bool:
    """Remove a file of a store; raises the errors of `store_errors`."""
    with store_errors(path):
        return remove_file(path)


def _busy(suspended_process: int | None) -> Unavailable:
    if suspended_process is None:
        return Unavailable("Another program is blocking access to the stored sign-in.")
    return Unavailable(
        f"Process {suspended_process} is suspended while renewing the stored sign-in.",
        remedy="Resume that process (fg, or kill -CONT), or sign in again.",
    )


def _ensure_own_folder(folder: Path) -> None:
    """Create a missing directory, and reject one in which other users could replace the files."""
    with store_errors(folder):
        ensure_private_folder(folder)
    try:
        writer = find_foreign_writer(folder.stat())
    except OSError as error:
        raise TokenStoreError(f"The directory {folder.name} cannot be accessed.") from error
    if writer is not None:
        raise TokenStoreError(
            f"The directory {folder.name} {writer}, so no sign-in is stored in it.", remedy=_FOLDER_REMEDY
        )


def _with_tilde(path: Path) -> str:
    try:
        return f"~/{path.relative_to(Path.home())}"
    except (ValueError, RuntimeError):
        return str(path)


def _read_text(path: Path) -> tuple[HiddenText, FileMark]:
    """Return a file's text, or an empty string (no sign-in) if it isn't UTF-8."""
    content, mark = read_store_file(path)
    try:
        return HiddenText(content.decode("utf-8")), mark
    except UnicodeDecodeError:
        return HiddenText(), mark
