"""The operating system's keyring, when there is one that can be used without starting a session for it.

What is kept in it is `keyring_store`'s job. Which backends exist is the library `keyring`'s, but it is not left to
choose: it would ask every backend whether it works, and one for KWallet starts a session bus to find out.
"""

import configparser
import os
import stat
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, TypeVar, cast

from micromegas_jupyter.auth.timely_call import CallTookTooLong, TimelyCalls
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.system import process_variables
from micromegas_jupyter.errors import TokenStoreError

SERVICE = "micromegas_jupyter"
RUN_FOLDER = Path("/run/user")  # where systemd puts the session bus of each person

PROBE = "probe"
CALL_SECONDS = 10.0
UNLOCK_SECONDS = 20.0  # a locked keyring asks the person for its password

_BUS_ADDRESS = "DBUS_SESSION_BUS_ADDRESS"
_LINUX_BACKEND = "keyring.backends.SecretService.Keyring"
_BACKENDS = {"darwin": "keyring.backends.macOS.Keyring", "win32": "keyring.backends.Windows.WinVaultKeyring"}
_BUS_MODULES = ("keyring.backends.SecretService", "keyring.backends.libsecret")
_REFUSED_MODULES = {
    "keyring.backends.fail": "keeps nothing",
    "keyring.backends.null": "keeps nothing",
    "keyring.backends.chainer": "asks other backends that may start a session bus",
    "keyring.backends.kwallet": "may start a session bus",
    "keyrings.alt": "keeps secrets in plain files",
}

_FAILURE = "The system's keyring cannot be used: "

_Answer = TypeVar("_Answer")
_calls = TimelyCalls()  # of the process, for a person is asked for one password at a time


class KeyringBackend(Protocol):
    """What the library's backends offer."""

    def get_password(self, service: str, username: str) -> str | None:
        """Return a kept text, None when there is none."""
        ...

    def set_password(self, service: str, username: str, password: str) -> None:
        """Keep a text."""
        ...

    def delete_password(self, service: str, username: str) -> None:
        """Forget a text."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyringUnusable:
    """Why there is no keyring; `reason` goes on after "The system's keyring cannot be used: "."""

    reason: str


class SystemKeyring:
    """Keeps named texts in a keyring; every call has a deadline. Safe to use from several threads.

    Args:
        backend: The library's backend.
        call_seconds: How long one call may take.
    """

    def __init__(self, backend: KeyringBackend, *, call_seconds: float = CALL_SECONDS) -> None:
        self._backend = backend
        self._call_seconds = call_seconds

    def read(self, name: str) -> Secret | None:
        """Return what is kept under `name`, None when nothing is.

        Raises:
            TokenStoreError: The keyring does not answer in time, or refuses.
        """
        text = _in_time(lambda: self._backend.get_password(SERVICE, name), self._call_seconds)
        return None if text is None else Secret(text)

    def write(self, name: str, text: Secret) -> None:
        """Keep `text` under `name`, in place of what was there.

        Raises:
            TokenStoreError: The keyring does not answer in time, or refuses.
        """
        _in_time(lambda: self._backend.set_password(SERVICE, name, text.reveal()), self._call_seconds)

    def delete(self, name: str) -> bool:
        """Forget what is kept under `name`; True when there was something.

        Raises:
            TokenStoreError: The keyring does not answer in time, or refuses.
        """
        if self.read(name) is None:
            return False
        _in_time(lambda: self._backend.delete_password(SERVICE, name), self._call_seconds)
        return True


def usable_keyring(
    environ: Mapping[str, str] | None = None, *, unlock_seconds: float = UNLOCK_SECONDS
) -> SystemKeyring | KeyringUnusable:
    """Return the keyring of this person, or why there is none.

    No session bus is started, and nothing is waited for longer than twice `unlock_seconds`. A
    keyring that was chosen for the library (`keyring.set_keyring`, `PYTHON_KEYRING_BACKEND`, `keyringrc.cfg`) is
    used unless it keeps secrets badly.
    """
    environ = process_variables(environ)
    try:
        import_module("keyring")
    except ImportError:
        return KeyringUnusable(reason="the Python package keyring is not installed")
    backend = _set_backend()
    name = None if backend is not None else _chosen_name(environ) or _BACKENDS.get(sys.platform, _LINUX_BACKEND)
    module = type(backend).__module__ if name is None else name.rpartition(".")[0]
    refusal = _refusal(module, environ)
    if refusal is not None:
        return KeyringUnusable(reason=refusal)
    try:
        backend = backend or _in_time(lambda: _load(name or ""), unlock_seconds)
        keyring = SystemKeyring(backend, call_seconds=unlock_seconds)
        keyring.read(PROBE)
    except TokenStoreError as error:
        return KeyringUnusable(reason=error.what.removeprefix(_FAILURE).rstrip("."))
    return SystemKeyring(backend)


def session_bus_address(environ: Mapping[str, str]) -> str | None:
    """Return the address of the session bus that runs already, None when none is known."""
    address = environ.get(_BUS_ADDRESS)
    if address:
        # Any other kind may tell the library to start a bus: "autolaunch:" does.
        return address if all(each.startswith("unix:") for each in address.split(";")) else None
    if not hasattr(os, "getuid"):
        return None
    path = RUN_FOLDER / str(os.getuid()) / "bus"
    try:
        found = path.lstat()
    except OSError:
        return None
    return f"unix:path={path}" if stat.S_ISSOCK(found.st_mode) and found.st_uid == os.getuid() else None


def _refusal(module: str, environ: Mapping[str, str]) -> str | None:
    for refused, why in _REFUSED_MODULES.items():
        if module == refused or module.startswith(f"{refused}."):
            return f"{module} {why}"
    if not module.startswith(_BUS_MODULES):
        return None
    address = session_bus_address(environ)
    if address is None:
        return "no session bus is running for this session"
    os.environ.setdefault(_BUS_ADDRESS, address)  # the libraries look nowhere else, or start a bus
    return None


def _set_backend() -> KeyringBackend | None:
    """Return the backend that the program set with `keyring.set_keyring`; asking the library would choose one."""
    return cast("KeyringBackend | None", getattr(import_module("keyring.core"), "_keyring_backend", None))


def _chosen_name(environ: Mapping[str, str]) -> str | None:
    """Return the backend that the person chose for the library, None when that is left open."""
    if environ.get("PYTHON_KEYRING_BACKEND"):
        return environ["PYTHON_KEYRING_BACKEND"]
    folder = import_module("keyring.util.platform_").config_root()
    config = configparser.RawConfigParser()
    try:
        config.read(Path(folder) / "keyringrc.cfg", encoding="utf-8")
        return config.get("backend", "default-keyring", fallback="").strip() or None
    except (configparser.Error, UnicodeDecodeError, OSError):
        return None


def _load(name: str) -> KeyringBackend:
    module, _, kind = name.rpartition(".")
    found = getattr(import_module(module), kind)
    if found.priority <= 0:  # asking for it is how the library finds out whether a backend works here
        raise RuntimeError("not recommended")
    return cast("KeyringBackend", found())


def _in_time(call: Callable[[], _Answer], timeout_seconds: float) -> _Answer:
    try:
        return _calls.run(call, timeout_seconds=timeout_seconds)
    except CallTookTooLong:
        what = f"it does not answer in {timeout_seconds:.0f} s; perhaps it waits to be unlocked"
    except Exception as error:  # noqa: BLE001 - backends raise what their platform gives them
        what = type(error).__name__
    # Outside of the handler: the text and the frames of a backend's error may hold what was to be kept.
    raise TokenStoreError(f"{_FAILURE}{what}.")
