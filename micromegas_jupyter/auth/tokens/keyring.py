"""A sign-in stored in the operating system's keyring, with a small file that informs other programs about it.

The file contains no secret, and upstream's programs don't use it. This module chooses the backend of the `keyring`
library, because the library would probe every backend, and the KWallet one starts a session bus to do so.
"""

import configparser
import hashlib
import json
import logging
import os
import stat
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from micromegas_jupyter.auth.tokens.store import (
    LoginKey,
    StoredLogin,
    TokenStore,
    build_key,
    build_token_file,
    parse_key,
    parse_token_file,
    read_store_file,
    remove_store_file,
    write_store_file,
)
from micromegas_jupyter.core.files import FileMark
from micromegas_jupyter.core.system import HiddenText, Secret, process_variables
from micromegas_jupyter.core.text import JsonError, decode_strict_json
from micromegas_jupyter.errors import LoginRequired, TokenStoreError

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

SERVICE = "micromegas_jupyter"
MARKER_SUFFIX = ".keyring.json"
MAX_PARTS = 64
# Windows limits an entry to 2560 bytes of UTF-16; other platforms allow more.
MAX_PART_CHARACTERS = 1200 if sys.platform == "win32" else 65_536
CALL_SECONDS = 10.0
UNLOCK_SECONDS = 20.0  # a locked keyring prompts the user for its password
RUN_FOLDER = Path("/run/user")  # systemd puts each user's session bus there

_PROBE = "probe"
_READ_COUNT = 3
_READ_PAUSE_SECONDS = 0.05
_DIGEST_CHARACTERS = 16
_HEADER_CHARACTERS = 2 + _DIGEST_CHARACTERS
_BUS_ADDRESS = "DBUS_SESSION_BUS_ADDRESS"
_LINUX_BACKEND = "keyring.backends.SecretService.Keyring"
_BACKENDS = {"darwin": "keyring.backends.macOS.Keyring", "win32": "keyring.backends.Windows.WinVaultKeyring"}
_BUS_MODULES = ("keyring.backends.SecretService", "keyring.backends.libsecret")
_REFUSED_MODULES = {
    "keyring.backends.fail": "stores nothing",
    "keyring.backends.null": "stores nothing",
    "keyring.backends.chainer": "uses other backends, which may start a session bus",
    "keyring.backends.kwallet": "may start a session bus",
    "keyrings.alt": "stores secrets in plain files",
}

_FAILURE = "The system's keyring cannot be used: "
_FILE_REMEDY = (
    "Unlock or install a keyring, or set MICROMEGAS_TOKEN_STORAGE=file to store the sign-in in a file that only you "
    "can read."
)

_Answer = TypeVar("_Answer")

_log = logging.getLogger(__name__)


class SystemKeyring:
    """Stores named strings in a keyring; every call has a deadline. Safe to use from several threads.

    Each method raises `TokenStoreError` if the keyring does not respond in time or fails.
    """

    def __init__(self, backend: "KeyringBackend", *, call_seconds: float = CALL_SECONDS) -> None:
        self._backend = backend
        self._call_seconds = call_seconds

    def read(self, name: str) -> Secret | None:
        """Return the string stored under that name, or None."""
        text = _in_time(lambda: self._backend.get_password(SERVICE, name), self._call_seconds)
        return None if text is None else Secret(text)

    def write(self, name: str, text: Secret) -> None:
        """Store `text` under `name`, replacing any previous value."""
        _in_time(lambda: self._backend.set_password(SERVICE, name, text.reveal()), self._call_seconds)

    def delete(self, name: str) -> bool:
        """Delete the string stored under that name; return whether it existed."""
        if self.read(name) is None:
            return False
        _in_time(lambda: self._backend.delete_password(SERVICE, name), self._call_seconds)
        return True


def open_keyring(environ: Mapping[str, str] | None = None, *, unlock_seconds: float = UNLOCK_SECONDS) -> SystemKeyring:
    """Return the user's keyring within twice `unlock_seconds`; never starts a session bus.

    A keyring configured for the library (`keyring.set_keyring`, `PYTHON_KEYRING_BACKEND`, `keyringrc.cfg`) is used
    unless its storage is insecure.
    """
    environ = process_variables(environ)
    try:
        import_module("keyring")
    except ImportError:
        raise _unusable("the Python package keyring is not installed") from None
    # Read the attribute directly, because the library's getter (`keyring.get_keyring`) would choose a backend if the
    # program hasn't set one.
    backend = cast("KeyringBackend | None", getattr(import_module("keyring.core"), "_keyring_backend", None))
    name = None if backend is not None else _chosen_name(environ) or _BACKENDS.get(sys.platform, _LINUX_BACKEND)
    _check_allowed(type(backend).__module__ if name is None else name.rpartition(".")[0], environ)
    if backend is None:
        backend = _in_time(lambda: _load_backend(name or ""), unlock_seconds)
    SystemKeyring(backend, call_seconds=unlock_seconds).read(_PROBE)
    return SystemKeyring(backend)


def session_bus_address(environ: Mapping[str, str]) -> str | None:
    """Return the address of the running session bus, or None if unknown."""
    address = environ.get(_BUS_ADDRESS)
    if address:
        # Other kinds of addresses, such as "autolaunch:", may make the library start a bus.
        return address if all(each.startswith("unix:") for each in address.split(";")) else None
    if not hasattr(os, "getuid"):
        return None
    path = RUN_FOLDER / str(os.getuid()) / "bus"
    try:
        found = path.lstat()
    except OSError:
        return None
    return f"unix:path={path}" if stat.S_ISSOCK(found.st_mode) and found.st_uid == os.getuid() else None


class KeyringTokenStore(TokenStore):
    """Stores one sign-in in a keyring: in one entry, or in several if the platform limits their length.

    If a program is killed between two parts, the text does not match its digest, and the sign-in is ignored. The file
    at `path` identifies the sign-in in the keyring. The keyring is opened only once, and not just to read the file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        open_keyring: Callable[[], SystemKeyring],
        *,
        key: LoginKey | None = None,
        max_part_characters: int = MAX_PART_CHARACTERS,
    ) -> None:
        super().__init__(path, key=key)
        self._open_keyring = open_keyring
        self._opened: SystemKeyring | None = None
        self._max_part_characters = max_part_characters
        self._name = f"{self.path.name} {hashlib.sha256(str(self.path).encode()).hexdigest()[:12]}"

    @property
    def label(self) -> str:
        """See `TokenStore.label`."""
        return "the system's keyring"

    def load(self) -> tuple[StoredLogin, FileMark]:
        """See `TokenStore.load`."""
        content, mark = read_store_file(self.path)
        key = _parse_marker(content)
        self._check_key(key)
        for tries_left in reversed(range(_READ_COUNT)):
            login = self._stored()
            # Another program may have written the entry, and its tokens may not be for the issuer in the file.
            if login is not None and login.key == key:
                return login, mark
            if tries_left:
                threading.Event().wait(_READ_PAUSE_SECONDS)  # some parts may not be written yet
        raise LoginRequired("The system's keyring does not contain the stored sign-in.")

    def stored_key(self) -> LoginKey | None:
        """See `TokenStore.stored_key`; does not access the keyring."""
        try:
            return _parse_marker(read_store_file(self.path)[0])
        except LoginRequired:
            return None

    def check_usable(self) -> None:
        """See `TokenStore.check_usable`."""
        self._check_paths()
        self._keyring().read(self._part_name(0))

    def save(self, login: StoredLogin) -> FileMark:
        """See `TokenStore.save`."""
        self._check_not_replaced()
        keyring = self._keyring()
        parts = self._parts(login)
        if len(parts) > MAX_PARTS:
            raise TokenStoreError("The sign-in is too large for the system's keyring.")
        self.check_lock()
        for number, part in enumerate(parts):
            keyring.write(self._part_name(number), part)
        mark = write_store_file(self.path, json.dumps({**build_key(login.key), "stored_in": "keyring"}).encode())
        try:
            self._delete_parts(keyring, first=len(parts))
        except TokenStoreError as error:
            _log.warning("Part of an old sign-in is still in the keyring.", extra={"code": error.code})
        return mark

    def remove(self) -> int:
        """See `TokenStore.remove`. The file is removed first, so that the sign-in ends for every program."""
        if self._has_other_key():
            return 0
        count = int(remove_store_file(self.path))
        try:
            return count + int(self._delete_parts(self._keyring()))
        except TokenStoreError as error:
            if count == 0 and self._opened is None:
                return 0
            raise TokenStoreError(
                f"{error.what.rstrip('.')}, so the tokens in it were not removed.",
                remedy="Run logout again when the keyring is available.",
            ) from None

    def _keyring(self) -> SystemKeyring:
        if self._opened is None:
            self._opened = self._open_keyring()
        return self._opened

    def _stored(self) -> StoredLogin | None:
        keyring = self._keyring()
        first = keyring.read(self._part_name(0))
        if first is None:
            return None
        text = HiddenText(first.reveal())
        count = int(text[:2]) if text[:2].isdigit() and text[:2].isascii() else 1
        digest, text = text[2:_HEADER_CHARACTERS], HiddenText(text[_HEADER_CHARACTERS:])
        for number in range(1, count):
            part = keyring.read(self._part_name(number))
            if part is None:
                return None
            text = HiddenText(text + part.reveal())
        return _parse_entry(text) if _digest(text) == digest else None

    def _parts(self, login: StoredLogin) -> list[Secret]:
        entry = {"token_file": build_token_file(login), "extras": json.dumps(build_key(login.key))}
        text = HiddenText(json.dumps(entry))
        size = self._max_part_characters
        count = -(-(len(text) + _HEADER_CHARACTERS) // size)
        text = HiddenText(f"{count:02d}{_digest(text)}{text}")
        return [Secret(text[start : start + size]) for start in range(0, len(text), size)]

    def _delete_parts(self, keyring: SystemKeyring, *, first: int = 0) -> bool:
        """Delete the parts starting with `first`; return whether there were any."""
        for number in range(first, MAX_PARTS):
            if not keyring.delete(self._part_name(number)):
                return number > first
        return True

    def _part_name(self, number: int) -> str:
        return f"{self._name} {number}" if number else self._name


def _parse_marker(content: bytes) -> LoginKey:
    try:
        return parse_key(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise LoginRequired("The stored sign-in is corrupted.") from None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_CHARACTERS]


def _parse_entry(text: str) -> StoredLogin | None:
    try:
        document = decode_strict_json(text)
        if not isinstance(document, dict):
            return None
        # The previous version's token file contains neither scope nor resource.
        key, login = parse_key(str(document.get("extras"))), parse_token_file(str(document.get("token_file")))
    except (JsonError, LoginRequired):
        return None
    return StoredLogin(key=key, tokens=login.tokens)


def _unusable(reason: str) -> TokenStoreError:
    return TokenStoreError(f"{_FAILURE}{reason}.", remedy=_FILE_REMEDY)


def _check_allowed(module: str, environ: Mapping[str, str]) -> None:
    for refused, why in _REFUSED_MODULES.items():
        if module == refused or module.startswith(f"{refused}."):
            raise _unusable(f"{module} {why}")
    if module.startswith(_BUS_MODULES):
        address = session_bus_address(environ)
        if address is None:
            raise _unusable("no session bus is running for this session")
        os.environ.setdefault(_BUS_ADDRESS, address)  # otherwise the libraries look elsewhere or start a bus


def _chosen_name(environ: Mapping[str, str]) -> str | None:
    """Return the backend that the user configured for the library, or None."""
    if environ.get("PYTHON_KEYRING_BACKEND"):
        return environ["PYTHON_KEYRING_BACKEND"]
    folder = import_module("keyring.util.platform_").config_root()
    config = configparser.RawConfigParser()
    try:
        config.read(Path(folder) / "keyringrc.cfg", encoding="utf-8")
        return config.get("backend", "default-keyring", fallback="").strip() or None
    except (configparser.Error, UnicodeDecodeError, OSError):
        return None


def _load_backend(name: str) -> "KeyringBackend":
    module, _, kind = name.rpartition(".")
    found = getattr(import_module(module), kind)
    if found.priority <= 0:  # reading `priority` is how the library tests whether a backend works here
        raise RuntimeError("not recommended")
    return cast("KeyringBackend", found())


class _Calls:
    """Makes each call on a separate thread, because the library has no deadlines and may prompt for a password.

    A call that doesn't return occupies its thread. Until it returns, further calls fail immediately, so threads do not
    pile up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._overdue: threading.Thread | None = None

    def run(self, call: Callable[[], _Answer], timeout_seconds: float) -> _Answer:
        """Return the call's result, or raise `TokenStoreError`."""
        with self._lock:
            is_blocked = self._overdue is not None and self._overdue.is_alive()
        future: Future[_Answer] = Future()
        thread = threading.Thread(target=_resolve, args=(future, call), name="keyring-call", daemon=True)
        if not is_blocked:
            thread.start()
        try:
            return future.result(0 if is_blocked else timeout_seconds)
        except TimeoutError:
            if not is_blocked:
                with self._lock:
                    self._overdue = thread
            reason = f"it does not answer in {timeout_seconds:.0f} s; perhaps it waits to be unlocked"
        except Exception as error:  # noqa: BLE001 - backends raise what their platform gives them
            reason = type(error).__name__
        # Outside the handler, because the text and frames of a backend's error may contain the stored secret.
        raise _unusable(reason)


_in_time = _Calls().run  # one per process, because a user enters one password at a time


def _resolve(future: Future[_Answer], call: Callable[[], _Answer]) -> None:
    try:
        future.set_result(call())
    except Exception as error:  # noqa: BLE001 - raised in the thread that waits
        future.set_exception(error)
