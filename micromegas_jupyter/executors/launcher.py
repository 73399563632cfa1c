"""Starts executors and reports how they exit: forks them from a zygote, or starts interpreters if that is unsafe."""

import asyncio
import ctypes
import json
import logging
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from micromegas_jupyter.core.system import Variables
from micromegas_jupyter.errors import InternalError, MicromegasError
from micromegas_jupyter.executors import protocol
from micromegas_jupyter.executors.protocol import Statement
from micromegas_jupyter.executors.settings import WorkerOptions
from micromegas_jupyter.executors.zygote import FORK, VARIABLES, read_tail

if TYPE_CHECKING:
    from micromegas_jupyter.core.protocols import TableSnapshot

_T = TypeVar("_T")
_LOG: Final = logging.getLogger("micromegas_jupyter.executors")
_START_SECONDS: Final = 60.0
_RESTART_SECONDS: Final = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
_MAX_CONTROL_BYTES: Final = 16 * 1024
_CLOSE_SECONDS: Final = 5.0
_MAX_ERROR_BYTES: Final = 64 * 1024
_ERROR_FLAGS: Final = (
    os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
)
_MAX_JOINED_BYTES: Final = 64 * 1024
_MAX_IDLE_THREADS: Final = 4
_CPU_CLOCK: Final = 2  # the clock type in the ID that clock_getcpuclockid(3) derives from a process's ID
_RECEIVE_BYTES: Final = 64 * 1024
_LARGE_RECEIVE_BYTES: Final = 1024 * 1024
_PYBUF_WRITE: Final = 0x200
_make_bytes: Final = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_char_p, ctypes.c_ssize_t)(
    ("PyBytes_FromStringAndSize", ctypes.pythonapi)
)
_address_of: Final = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object)(("PyBytes_AsString", ctypes.pythonapi))
_view: Final = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)(
    ("PyMemoryView_FromMemory", ctypes.pythonapi)
)
_SIGKILL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)

#: Variables for executors that the interpreter, its libraries, and temporary files need. No secrets.
_PASSED_ON: Final = frozenset({
    "PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "LD_LIBRARY_PATH",
    "VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX",
    "TOKIO_WORKER_THREADS", "RUST_MIN_STACK", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a process exited, and its total resource usage; None for unknown values."""

    code: int | None = None  # negative for a signal
    cpu_seconds: float | None = None
    max_resident_bytes: int | None = None
    error: str = ""  # the last part of its standard error


class ForkedProcess:
    """A child of the zygote, identified by its descriptor, because its ID could be reused for another process."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._descriptor = descriptor

    def send_signal(self, number: int) -> None:
        """Send a signal; do nothing if the process has exited."""
        if self._descriptor >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def close(self) -> None:
        """Close the descriptor."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


Process = ForkedProcess | subprocess.Popen[bytes]
OnStarted = Callable[[Process, socket.socket], None]
OnEnded = Callable[[int, Ended], None]
OnFailed = Callable[[], None]


def executor_variables(options: WorkerOptions) -> Variables:
    """Return the environment for executors, including bucket settings for those that read a bucket."""
    kept = ("LC_", "AWS_", "SSL_CERT_") if options.uses_bucket else ("LC_",)
    passed = {name: value for name, value in os.environ.items() if name in _PASSED_ON or name.startswith(kept)}
    return Variables({**passed, **VARIABLES})


_idle_threads: Final[list[SimpleQueue[Callable[[], None]]]] = []


async def run_in_thread(function: Callable[[], _T], *, name: str) -> _T:
    """Run a function that may hang on a dedicated daemon thread, because the loop's pool has only a few threads.

    It continues even if the caller stops waiting.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def run() -> None:
        threading.current_thread().name = name
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - whoever waits gets it
            settle = partial(future.set_exception, error)
        else:
            settle = partial(future.set_result, result)
        threading.current_thread().name = "idle"
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(lambda: None if future.done() else settle())

    if _idle_threads:
        jobs = _idle_threads.pop()
    else:
        jobs = SimpleQueue()
        threading.Thread(target=_run_jobs, args=(jobs,), daemon=True).start()
    jobs.put(run)
    return await future


def _run_jobs(jobs: SimpleQueue[Callable[[], None]]) -> None:
    while True:
        jobs.get()()
        if len(_idle_threads) >= _MAX_IDLE_THREADS:
            return
        _idle_threads.append(jobs)


async def await_shared(task: asyncio.Task[_T]) -> _T:
    """Return the result of a task that several callers are waiting for; canceling a caller doesn't cancel the task.

    Each caller gets its own copy of the task's error, because callers add their own facts to it.
    """
    try:
        return await asyncio.shield(task)
    except MicromegasError as error:
        own = error.copy()
    raise own


def can_fork() -> bool:
    """Whether executors can be forked from a zygote on this system."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open")


class ZygoteLauncher:
    """Forks executors from a zygote, and replaces the zygote if it exits; the constructor starts its imports."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._processes: dict[int, ForkedProcess] = {}
        self._requested = 0
        self._failures = 0
        self._is_closed = self._is_ready = False
        self._can_fork = True
        self._fallback = SpawnLauncher(options)
        self._restart: asyncio.Task[None] | None = None
        self._zygote, self._control = self._spawn_zygote()

    async def open(self, on_started: OnStarted, on_ended: OnEnded, on_failed: OnFailed) -> None:
        """Wait until the zygote can fork; raise InternalError if it does not start."""
        self._on_started, self._on_ended, self._on_failed = on_started, on_ended, on_failed
        await self._fallback.open(on_started, on_ended, on_failed)
        await self._await_zygote()

    def start_one(self) -> None:
        """Request an executor."""
        if not self._can_fork:
            self._fallback.start_one()
            return
        self._requested += 1
        if self._is_ready:  # otherwise, it is requested once the zygote is ready
            with suppress(OSError):  # the reader notices its exit
                self._control.send(FORK)

    async def close(self) -> None:
        """Stop the zygote and all of its executors."""
        self._is_closed = True
        if self._restart is not None:
            self._restart.cancel()
        await self._fallback.close()
        if self._control.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()
        await asyncio.to_thread(self._end_zygote)
        for process in self._processes.values():
            process.close()

    def abandon(self) -> None:
        """Stop the zygote of a server that was never opened, which has not forked any process."""
        self._control.close()
        self._zygote.kill()
        self._zygote.wait()

    def _end_zygote(self) -> None:
        try:
            self._zygote.wait(2.0)
        except subprocess.TimeoutExpired:
            self._zygote.kill()
            self._zygote.wait()

    def _spawn_zygote(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            return _start("zygote", self._options, stdin=theirs.fileno()), ours

    async def _await_zygote(self) -> None:
        loop = asyncio.get_running_loop()
        self._control.setblocking(False)
        try:
            async with asyncio.timeout(_START_SECONDS):
                facts = json.loads(await loop.sock_recv(self._control, _MAX_CONTROL_BYTES) or b"{}")
        except (OSError, TimeoutError, ValueError):
            facts = {}
        if "threads" not in facts:
            stderr = read_tail(_standard_error(self._options))
            _LOG.error("The process that executors are forked from did not start.", extra={"stderr": stderr})
            raise InternalError("The process that executors are forked from did not start.")
        if facts["threads"] != 1:
            self._fall_back(facts["threads"])
        loop.add_reader(self._control, self._read_control)
        self._is_ready = True
        requested, self._requested = self._requested, 0
        for _ in range(requested):
            self.start_one()

    def _fall_back(self, threads: int) -> None:
        if self._can_fork:
            self._can_fork = False
            _LOG.warning(
                "A library started a thread in the process that executors are forked from, so each executor is a new "
                "interpreter; starting one takes seconds.",
                extra={"threads": threads},
            )

    def _read_control(self) -> None:
        while not self._is_closed:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._control, _MAX_CONTROL_BYTES, 2)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self._handle_zygote_end()
                return
            self._handle(json.loads(data), descriptors)

    def _handle(self, facts: dict[str, Any], descriptors: list[int]) -> None:
        match facts:
            case {"started": int(pid)}:
                self._requested -= 1
                self._failures = 0
                if len(descriptors) != 2:  # noqa: PLR2004 - its socket and its process; this process has none left
                    for descriptor in descriptors:
                        os.close(descriptor)
                    _LOG.error("An executor was started, but this process may open no more files.")
                    self._on_failed()
                    return
                process = self._processes[pid] = ForkedProcess(pid, descriptors[1])
                self._on_started(process, socket.socket(fileno=descriptors[0]))
            case {"ended": int(pid), **how}:
                self._forget(pid, Ended(**how))
            case {"threads": int(threads)}:  # it received a fork request but can no longer fork
                self._requested -= 1
                self._fall_back(threads)
                self.start_one()
            case {"failed": int(number)}:
                self._requested -= 1
                _LOG.error("An executor could not be started: %s.", os.strerror(number))
                self._on_failed()

    def _forget(self, pid: int, ended: Ended) -> None:
        process = self._processes.pop(pid, None)
        if process is not None:
            process.close()
            self._on_ended(pid, ended)

    def _handle_zygote_end(self) -> None:
        """Handle the exit of the zygote, and thus of all executors, by starting another zygote."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._control)
        self._control.close()
        self._is_ready = False
        pids = list(self._processes)
        for pid in pids:
            self._forget(pid, Ended())
        self._restart = loop.create_task(self._restart_zygote(pids))

    async def _restart_zygote(self, pids: Sequence[int]) -> None:
        def clean_up() -> str:
            for pid in pids:
                _remove_folder(self._options, pid)
            return read_tail(_standard_error(self._options))

        stderr = await run_in_thread(clean_up, name="executor-files")
        _LOG.error(
            "The process that executors are forked from has ended; starting a new one.", extra={"stderr": stderr}
        )
        while True:
            await asyncio.sleep(_RESTART_SECONDS[min(self._failures, len(_RESTART_SECONDS) - 1)])
            self._failures += 1
            await asyncio.to_thread(self._end_zygote)
            try:
                self._zygote, self._control = await run_in_thread(self._spawn_zygote, name="zygote-start")
                await self._await_zygote()
            except (InternalError, OSError) as error:
                self._zygote.kill()
                _LOG.error("The process that executors are forked from could not be started: %s", error)
            else:
                return


class SpawnLauncher:
    """Starts each executor as a new interpreter."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._tasks: set[asyncio.Task[None]] = set()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._is_closed = False

    async def open(self, on_started: OnStarted, on_ended: OnEnded, on_failed: OnFailed) -> None:
        """Set the callbacks for processes that have started, have exited, or failed to start."""
        self._on_started, self._on_ended, self._on_failed = on_started, on_ended, on_failed

    def start_one(self) -> None:
        """Start an interpreter."""
        task = asyncio.get_running_loop().create_task(self._run_one())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Kill all interpreters."""
        self._is_closed = True
        for process in self._processes:
            process.kill()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_SECONDS)

    def abandon(self) -> None:
        """Do nothing, because no process was started."""

    async def _run_one(self) -> None:
        try:
            process, connection = await asyncio.to_thread(self._spawn)
        except OSError as error:
            _LOG.error("An executor could not be started: %s.", error.strerror)
            self._on_failed()
            return
        if self._is_closed:
            connection.close()
            process.kill()
            await run_in_thread(process.wait, name="executor-wait")
            return
        self._processes.add(process)
        self._on_started(process, connection)
        code = await run_in_thread(process.wait, name="executor-wait")
        self._processes.discard(process)
        self._on_ended(process.pid, Ended(code=code))
        await run_in_thread(lambda: _remove_folder(self._options, process.pid), name="executor-files")

    def _spawn(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair()
        with theirs:
            if sys.platform == "win32":
                process = _start("worker", self._options, stdin=subprocess.PIPE)
                if process.stdin is not None:
                    with process.stdin as pipe:
                        pipe.write(theirs.share(process.pid))
            else:
                process = _start("worker", self._options, stdin=theirs.fileno())
        return process, ours


def _start(module: str, options: WorkerOptions, *, stdin: int) -> subprocess.Popen[bytes]:
    argument = json.dumps(msgspec.to_builtins(options))  # as ASCII, even for paths that are not UTF-8
    # The server's own standard error may be an unread pipe, which would block a child.
    with open(_open_standard_error(options), "ab") as stderr:
        return subprocess.Popen(  # noqa: S603 - this interpreter with fixed options
            [sys.executable, "-P", "-m", f"micromegas_jupyter.executors.{module}", argument],
            env=executor_variables(options),
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            # Use a separate process group, because a terminal interrupt is meant only for the front end.
            process_group=None if sys.platform == "win32" else 0,
        )


def _remove_folder(options: WorkerOptions, pid: int) -> None:
    """Remove the files of an executor that has exited, which may include gigabytes of spilled data."""
    shutil.rmtree(Path(options.spill_directory) / str(pid), ignore_errors=True)


def _standard_error(options: WorkerOptions) -> Path:
    """Return the file for processes' standard error before they become executors."""
    return Path(options.spill_directory) / "stderr"


def _open_standard_error(options: WorkerOptions) -> int:
    """Open that file, or the null device if an executor replaced the file or the disk is full."""
    with suppress(OSError):
        descriptor = os.open(_standard_error(options), _ERROR_FLAGS, 0o600)
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode):
            if found.st_size > _MAX_ERROR_BYTES:
                os.truncate(descriptor, 0)
            return descriptor
        os.close(descriptor)
    return os.open(os.devnull, os.O_WRONLY)


def open_launcher(options: WorkerOptions) -> ZygoteLauncher | SpawnLauncher:
    """Return the launcher for this system; a zygote starts immediately."""
    return ZygoteLauncher(options) if can_fork() else SpawnLauncher(options)


class ExecutorEnded(Exception):
    """The executor's process has exited, or sent malformed data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedPlan:
    """A plan cached in an executor for a single run."""

    statement: Statement
    version: int  # the tables' version
    plan_id: int
    expires_at: float  # monotonic seconds


class Channel:
    """The front end's side of a socket to an executor: sends requests and receives responses.

    Belongs to one event loop.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray(_RECEIVE_BYTES))
        self._received = b""
        self._waiting: asyncio.Future[int] | None = None
        self._target = self._buffer
        self._is_watched = False
        self._descriptor = connection.fileno()  # a descriptor, because asyncio is slower with a socket
        connection.setblocking(False)

    @property
    def has_unread(self) -> bool:
        """Whether the executor has sent unread data or has closed its end."""
        try:
            self._connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return bool(self._received)
        except OSError:
            pass
        return True

    async def read(self, admit: Callable[[int], Awaitable[None]] | None = None) -> tuple[bytes, bytes]:
        """Return the kind and body of the next response; raise ExecutorEnded if there isn't one.

        Waits for `admit`, which is called with the length of the body, before receiving the body.
        """
        head = protocol.HEAD
        while len(self._received) < head.size:
            count = await self._receive(self._buffer)
            self._received += self._buffer[:count]
        kind, length = head.unpack_from(self._received)
        if length > (protocol.MAX_FRAME_BYTES if kind == protocol.FRAME else protocol.MAX_ANSWER_BYTES):
            raise ExecutorEnded
        if admit is not None:
            await admit(length)
        end = head.size + length
        begun, self._received = self._received[head.size : end], self._received[end:]
        return kind, begun if len(begun) == length else await self._receive_rest(begun, length)

    async def _receive_rest(self, begun: bytes, length: int) -> bytes:
        # gRPC accepts only bytes, and new bytes objects may be filled (C API, PyBytes_FromStringAndSize).
        body: bytes = _make_bytes(None, length)
        view = _view(_address_of(body), length, _PYBUF_WRITE)
        view[: len(begun)] = begun
        view = view[len(begun) :]
        while view:
            view = view[await self._receive(view[:_LARGE_RECEIVE_BYTES]) :]
            if view:
                await asyncio.sleep(0)  # regardless of its size
        return body

    async def send(self, kind: bytes, body: bytes) -> None:
        """Send a request; raise ExecutorEnded on failure."""
        head = protocol.HEAD.pack(kind, len(body))
        try:
            if len(body) <= _MAX_JOINED_BYTES:
                await self._loop.sock_sendall(self._connection, head + body)
            else:  # copying it would take milliseconds
                await self._loop.sock_sendall(self._connection, head)
                await self._loop.sock_sendall(self._connection, body)
        except OSError:
            raise ExecutorEnded from None

    async def await_end(self) -> None:
        """Stop sending, and wait until the executor closes its end; drop any later output."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
        with suppress(ExecutorEnded):
            while True:
                await self._receive(self._buffer)
                await asyncio.sleep(0)  # there may be more

    def close(self) -> None:
        """Close the socket."""
        if self._is_watched:
            self._loop.remove_reader(self._descriptor)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(0)
        self._connection.close()

    async def _receive(self, target: memoryview) -> int:
        """Receive available data into `target`, and return its size."""
        try:
            count = self._connection.recv_into(target)
        except BlockingIOError:
            self._waiting, self._target = self._loop.create_future(), target
            if not self._is_watched:
                self._is_watched = True
                self._loop.add_reader(self._descriptor, self._note_readable)
            try:
                count = await self._waiting
            finally:
                self._waiting, self._target = None, self._buffer
        except OSError:
            count = 0
        if not count:
            raise ExecutorEnded
        return count

    def _note_readable(self) -> None:
        """Receive immediately; otherwise, the event loop would report the socket again before the waiting task runs."""
        waiting = self._waiting
        if waiting is None:
            # If there is no reader, the executor blocks until there is one.
            self._loop.remove_reader(self._descriptor)
            self._is_watched = False
        elif not waiting.done():
            try:
                waiting.set_result(self._connection.recv_into(self._target))
            except BlockingIOError:
                pass
            except OSError:
                waiting.set_result(0)


class Executor(Channel):
    """One process and its socket. Belongs to one event loop."""

    def __init__(self, process: Process, connection: socket.socket) -> None:
        super().__init__(connection)
        self.process = process
        self.ended: asyncio.Future[Ended] = self._loop.create_future()
        self.is_ready = False
        self.is_gone = False  # or about to exit
        self.niceness = 0
        self._measured_cpu_seconds = 0.0
        self.tables: Sequence[TableSnapshot] = ()  # the tables that it has
        self.cpu_seconds = 0.0  # total up to the end of its last statement
        # Measured when it became ready; it shares most of its anonymous memory with the zygote.
        self.baseline_bytes = self.baseline_private_bytes = 0
        self.plan: CachedPlan | None = None

    def open_channel(self) -> Channel:
        """Return another channel to the process, which must serve ingest; raise ExecutorEnded on failure."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._connection, [protocol.CHANNEL], [theirs.fileno()])
            except OSError:
                ours.close()
                raise ExecutorEnded from None
        return Channel(ours)

    def kill(self) -> None:
        """Kill the process immediately, even if it is suspended."""
        self.is_gone = True
        self.process.send_signal(_SIGKILL)

    def renice(self, niceness: int) -> None:
        """Lower the process's priority; this cannot be undone."""
        if niceness > self.niceness:
            self.niceness = niceness
            if hasattr(os, "setpriority"):
                with suppress(OSError):
                    os.setpriority(os.PRIO_PGRP, self.process.pid, niceness)

    def measure_cpu(self) -> float:
        """Return the CPU time used since the last call, in seconds; 0 if unknown.

        The operating system measures it, because a compromised executor could report any number.
        """
        if self.is_gone or sys.platform != "linux":
            return 0.0
        before = self._measured_cpu_seconds
        with suppress(OSError):
            self._measured_cpu_seconds = time.clock_gettime(~self.process.pid << 3 | _CPU_CLOCK)
        return self._measured_cpu_seconds - before
