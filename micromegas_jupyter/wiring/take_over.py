"""Hands a running server's ports to its successor, over a Unix socket that only the same user can reach.

Two steps keep the ports served at all times: the successor takes the sockets, and reports when it is ready; only then
does the running server drain. If the successor exits in between, the running server continues with its own descriptors.
"""

import json
import logging
import os
import secrets
import select
import socket
import stat
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

import psutil

from micromegas_jupyter.core.files import FileProblem, ensure_private_folder
from micromegas_jupyter.core.text import JsonError, decode_strict_json
from micromegas_jupyter.errors import ConfigurationError, ServerUnavailable

_VERSION: Final = 1
_FOLDER: Final = "micromegas"
_KEY: Final = "--take-over"
_MAX_PATH_BYTES: Final = 107  # Linux's sun_path, including the terminating zero
_MAX_MESSAGE_BYTES: Final = 64 * 1024
_MAX_SOCKETS: Final = 8
_MAX_CONNECTIONS: Final = 8
_PAUSE_SECONDS: Final = 1.0
_MESSAGE_SECONDS: Final = 5.0
_START_SECONDS: Final = 180.0
_CONFIRM_SECONDS: Final = 30.0
_END_SECONDS: Final = 2.0
_CREDENTIALS_BYTES: Final = 12
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_RESTART: Final = "Stop the running server and start this one without --take-over."

_LOG: Final = logging.getLogger("micromegas_jupyter.server")


def is_take_over_supported() -> bool:
    """Whether several processes can serve one port, pass sockets to each other, and identify each other."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open") and hasattr(socket, "SO_REUSEPORT")


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeOverAddress:
    """How to find the running server on a gRPC port: the port's socket address, and its Unix socket."""

    listening: tuple[object, ...]
    path: Path


def find_take_over_address(host: str, port: int, environ: Mapping[str, str]) -> TakeOverAddress:
    """Return how to find the server that listens on a host and a port (not 0)."""
    listening = resolve_address(host, port)[-1]
    runtime = Path(environ.get("XDG_RUNTIME_DIR") or os.devnull)
    folder = runtime / _FOLDER if _is_private(runtime) else _temporary_folder() / f"{_FOLDER}-{os.geteuid()}"
    return TakeOverAddress(listening=listening, path=folder / f"{listening[0]}-{port}.sock")


def _temporary_folder() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:  # as in a container whose root file system is read-only
        raise ConfigurationError(
            "There is no folder for temporary files that this server may write to.",
            key="XDG_RUNTIME_DIR",
            remedy="Set it to a folder that only this user can enter, for both servers.",
        ) from None


class TakeOverListener:
    """Waits on a daemon thread for a successor to take over the server's sockets.

    It passes `sockets`, which the caller closes, and `state`, which may be secret. `on_taken` is called once, on
    another thread, when the successor serves: the server must stop then, and `is_taken` is True.
    """

    def __init__(
        self,
        path: Path,
        sockets: Mapping[str, socket.socket],
        on_taken: Callable[[], None],
        *,
        state: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._path = path
        self._sockets = dict(sockets)
        self._on_taken = on_taken
        self._state = dict(state)
        self._listening: socket.socket | None = None
        self._made: os.stat_result | None = None
        self._connections = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        self._lock = threading.Lock()
        self._successor: socket.socket | None = None
        self._over = threading.Event()
        self.is_taken = False

    def start(self) -> None:
        """Start waiting. Only for the holder of the port, because an existing socket file is replaced."""
        folder = self._path.parent
        try:
            ensure_private_folder(folder)
        except FileProblem as problem:
            raise _unsafe(folder, str(problem)) from None
        _find_socket(self._path)
        if len(os.fsencode(self._path)) > _MAX_PATH_BYTES:
            raise _unsafe(folder, "has a path that is too long for a socket")
        temporary = folder / f".{secrets.token_hex(4)}"
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            listening.bind(str(temporary))
            temporary.chmod(0o600)
            listening.listen(_MAX_CONNECTIONS)
            self._made = temporary.lstat()
            temporary.rename(self._path)
        except OSError as error:
            listening.close()
            temporary.unlink(missing_ok=True)
            raise _unsafe(folder, f"cannot hold a socket ({os.strerror(error.errno or 0)})") from None
        self._listening = listening
        threading.Thread(target=self._accept, args=(listening,), name="take-over", daemon=True).start()

    def stop(self) -> None:
        """Stop waiting; a successor that has taken the sockets is notified that the server is draining.

        May be called twice. Call it before the port is released, so that the next server's socket file is not removed.
        """
        with self._lock:
            if not self._over.is_set():
                self._over.set()
                if self._successor is not None:
                    with suppress(OSError):
                        _send(self._successor, {"draining": True})
                    _shut(self._successor)
                with suppress(OSError):
                    if self._made is not None and os.path.samestat(self._path.lstat(), self._made):
                        self._path.unlink()
        self._close()

    def _close(self) -> None:
        if self._listening is not None:
            _shut(self._listening)  # unlike closing, this ends the wait for a connection
            self._listening.close()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:  # no descriptors are left, or the listener was stopped
                if self._over.wait(_PAUSE_SECONDS):
                    return
                continue
            if not self._connections.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._serve, args=(connection,), name="take-over-call", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, suppress(OSError):
                connection.settimeout(_MESSAGE_SECONDS)
                pid, uid = _peer(connection)
                if uid != os.geteuid():
                    _LOG.warning("a process of another user asked for the server's sockets and was refused")
                elif _is_own_child(pid):
                    _LOG.error("a process that this server started asked for its sockets and was refused")
                elif _receive(connection).get("do") == "take":
                    self._hand_over(connection)
        finally:
            self._connections.release()

    def _hand_over(self, connection: socket.socket) -> None:
        with self._lock:
            if self._over.is_set() or self._successor is not None:
                _send(connection, {"error": "busy"})
                return
            self._successor = connection
        try:
            offer = {"version": _VERSION, "sockets": list(self._sockets), "state": self._state}
            descriptors = [each.fileno() for each in self._sockets.values()]
            is_serving = False
            with suppress(OSError):  # it has exited, or takes too long
                socket.send_fds(connection, [json.dumps(offer).encode()], descriptors)
                _LOG.info("another process takes this server's sockets over")
                connection.settimeout(_START_SECONDS)
                is_serving = _receive(connection).get("do") == "serving"
            with self._lock:
                if self._over.is_set():  # the server is stopping anyway, and has reported it
                    return
                if is_serving:
                    try:
                        _send(connection, {"draining": True})
                    except OSError:  # it has exited or is no longer waiting
                        is_serving = False
                    else:
                        self._over.set()
        finally:
            with self._lock:
                self._successor = None
        if not is_serving:
            _LOG.warning("the process that took this server's sockets did not serve; this one continues")
            return
        _LOG.info("another process serves on this server's ports; this one drains")
        self.is_taken = True
        self._close()
        self._on_taken()


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The sockets of a running server by name, and its state; the server continues until told to stop."""

    sockets: Mapping[str, socket.socket]
    state: Mapping[str, str] = field(repr=False)
    _connection: socket.socket = field(repr=False)
    _process: int = field(repr=False)
    _resources: ExitStack = field(repr=False)

    def confirm_serving(self) -> None:
        """Report to the running server that this process accepts calls; return when that server drains or exits."""
        answer: Mapping[str, object] = {}
        with suppress(OSError):
            self._connection.settimeout(_CONFIRM_SECONDS)
            with suppress(OSError):
                _send(self._connection, {"do": "serving"})
            answer = _receive(self._connection)
        if not answer:
            # After this, the running server can't report that it drains, but messages that it already sent can be read.
            _shut(self._connection)
            with suppress(OSError):
                answer = _receive(self._connection)
        # The kernel closes a process's resources shortly before it reports the exit.
        drains = answer.get("draining") is True or bool(select.select([self._process], [], [], _END_SECONDS)[0])
        self._resources.close()
        if not drains:
            raise ServerUnavailable("The running server did not release its ports.", remedy=_RESTART)

    def close(self) -> None:
        """Leave the ports to the running server: close the sockets and let it continue. May be called twice."""
        for each in self.sockets.values():
            each.close()
        self._resources.close()


def take_over(address: TakeOverAddress) -> Taken | None:
    """Take over the sockets of the server at an address, or return None."""
    path = address.path
    if not os.path.lexists(path.parent) or not _find_socket(path):
        return None
    with ExitStack() as resources, ExitStack() as sockets:
        connection = resources.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        connection.settimeout(_MESSAGE_SECONDS)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError as error:
            raise _no_answer() from error
        pid, uid = _peer(connection)
        if uid != os.geteuid():
            raise _unsafe(path, "belongs to another user's process")
        try:
            process = os.pidfd_open(pid)
            resources.callback(os.close, process)
            _send(connection, {"do": "take"})
            data, descriptors, flags, _ = socket.recv_fds(connection, _MAX_MESSAGE_BYTES, _MAX_SOCKETS)
        except OSError as error:
            raise _no_answer() from error
        received = [sockets.enter_context(socket.socket(fileno=descriptor)) for descriptor in descriptors]
        for each in received:
            each.set_inheritable(False)  # `recv_fds` doesn't set this
        match _decode(data):
            case {"error": str()}:
                raise ServerUnavailable(
                    "The running server is stopping, or another process is taking it over.",
                    remedy="Try again in a moment.",
                )
            case {"version": 1, "sockets": list(names), "state": dict(state)} if (
                len(names) == len(received) and not flags & socket.MSG_CTRUNC
            ):
                pass
            case _:
                raise ServerUnavailable("The running server has an incompatible version.", remedy=_RESTART)
        if all(each.getsockname() != address.listening for each in received):
            raise ServerUnavailable("The running server uses a different port.", remedy=_RESTART)
        sockets.pop_all()
        return Taken(
            sockets=dict(zip((str(name) for name in names), received, strict=True)),
            state={str(name): str(value) for name, value in state.items()},
            _connection=connection,
            _process=process,
            _resources=resources.pop_all(),
        )


def _no_answer() -> ServerUnavailable:
    return ServerUnavailable("The running server does not respond.", remedy=_RESTART)


def _peer(connection: socket.socket) -> tuple[int, int]:
    """Return the peer's process and user, as recorded by the kernel (unix(7), SO_PEERCRED)."""
    pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS_BYTES))
    return pid, uid


def _is_own_child(pid: int) -> bool:
    """Whether a process is a descendant of this one; True if it may have been one and has exited."""
    try:
        # Not `parents()`, which stops early if a process on the path has just exited.
        while pid > 1:
            pid = psutil.Process(pid).ppid()
            if pid == os.getpid():
                return True
    except psutil.Error:
        return True
    return False


def _send(connection: socket.socket, message: Mapping[str, object]) -> None:
    connection.sendall(json.dumps(message).encode())


def _receive(connection: socket.socket) -> Mapping[str, object]:
    """Return the next message; empty if the peer has exited or sent malformed data."""
    return _decode(connection.recv(_MAX_MESSAGE_BYTES))


def _decode(data: bytes) -> Mapping[str, object]:
    with suppress(UnicodeDecodeError, JsonError):
        message = decode_strict_json(data.decode())
        if isinstance(message, dict):
            return message
    return {}


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _is_private(folder: Path) -> bool:
    try:
        found = folder.stat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & _OTHERS


def _find_socket(path: Path) -> bool:
    """Whether a socket of this user exists; rejects other files, and folders that others can access."""
    folder = path.parent.lstat()
    if not stat.S_ISDIR(folder.st_mode):
        raise _unsafe(path.parent, "is a link or not a folder")
    if folder.st_uid != os.geteuid():
        raise _unsafe(path.parent, "belongs to another user")
    if folder.st_mode & _OTHERS:
        raise _unsafe(path.parent, "is open to other users")
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(found.st_mode):
        raise _unsafe(path, "is not a socket")
    if found.st_uid != os.geteuid():
        raise _unsafe(path, "belongs to another user")
    return True


def _unsafe(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"A running server cannot be taken over: {path} {why}.",
        key=_KEY,
        remedy="Remove it, or set XDG_RUNTIME_DIR to a folder that only this user can enter, for both servers.",
    )


def resolve_address(host: str, port: int) -> tuple[socket.AddressFamily, socket.SocketKind, int, tuple[object, ...]]:
    """Return the family, kind, protocol, and socket address to listen on."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError:
        raise _unusable(host, port) from None
    family, kind, protocol, _, address = found
    return family, kind, protocol, address


class ReservedPort:
    """A port reserved so that only processes of this user that share it (SO_REUSEPORT) may listen on it.

    The socket is bound but never listens. It is first bound without sharing, so that two servers never share a port
    unknowingly. `taken` is the socket of another process's reservation, which is continued here.
    """

    def __init__(self, host: str, port: int, *, taken: socket.socket | None = None) -> None:
        if taken is not None:
            self.socket = taken
            return
        try:
            self.socket = _bind(host, port)
        except OSError:
            # A previous server's connections keep the port busy unless the new socket sets this option.
            try:
                self.socket = _bind(host, port, reuses_address=True)
            except OSError:
                raise _unusable(host, port) from None

    @property
    def number(self) -> int:
        """The port."""
        number: int = self.socket.getsockname()[1]
        return number

    def close(self) -> None:
        """Release the port; safe to call twice."""
        self.socket.close()


def _bind(host: str, port: int, *, reuses_address: bool = False) -> socket.socket:
    family, kind, protocol, address = resolve_address(host, port)
    bound = socket.socket(family, kind, protocol)
    try:
        if reuses_address:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        if hasattr(socket, "SO_REUSEPORT"):
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        bound.close()
        raise
    return bound


def _unusable(host: str, port: int) -> ConfigurationError:
    shown = f"[{host}]" if ":" in host else host
    if not port:
        return ConfigurationError(
            f"Cannot bind to {shown}: the address does not belong to this machine.",
            key="host",
            remedy="Use an address of this machine.",
        )
    return ConfigurationError(
        f"Cannot bind to {shown}:{port}: the port is taken, or the address does not belong to this machine.",
        key="port",
        remedy="Choose another port, or 0 for any free one, or replace the server that is using the "
        "port with --take-over.",
    )
