"""The process that executors are forked from: all modules imported, one thread, no secrets.

Forking is safe only with a single thread. numpy's OpenBLAS and the jemalloc of Arrow and deltalake start threads on
import unless `VARIABLES` prevent it; the threads are counted before each fork.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import selectors
import shutil
import signal
import socket
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from micromegas_jupyter.core.system import keep_pandas_out

if TYPE_CHECKING:
    from micromegas_jupyter.executors.settings import WorkerOptions

VARIABLES: Final = {
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "_RJEM_MALLOC_CONF": "background_thread:false",
    # Otherwise, the engine's allocator reserves 2 GiB at startup, which would count against RLIMIT_DATA.
    "MIMALLOC_ARENA_EAGER_COMMIT": "0",
}
FORK: Final = b"F"
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_MAX_ERROR_BYTES: Final = 2048


class Zygote:
    """Forks executors at the front end's request over a SOCK_SEQPACKET socket, and reports how they exit."""

    def __init__(self, front: socket.socket, options: "WorkerOptions") -> None:
        from micromegas_jupyter.executors import worker
        from micromegas_jupyter.executors.settings import hide_memory

        if options.preloaded is not None:
            importlib.import_module(options.preloaded)
        self._front = front
        self._options = options
        self._worker = worker
        self._libc = ctypes.CDLL(None)
        hide_memory()
        # Processes that an executor starts remain descendants of this process, so that `take_over` can find their
        # server.
        self._libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._own_pid = os.getpid()
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for ignored in (signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        self._loop = selectors.DefaultSelector()
        self._loop.register(front, selectors.EVENT_READ)
        self._loop.register(self._woken, selectors.EVENT_READ)

    def serve(self) -> None:
        """Fork and reap until the front end exits; executors are killed with this process."""
        if (threads := _thread_count()) == 1:
            gc.collect()
            gc.freeze()  # so that a child's garbage collector doesn't write to shared pages
        self._report(threads=threads)
        while True:
            for key, _ in self._loop.select():
                if key.fileobj is self._front:
                    request = b""
                    with contextlib.suppress(ConnectionResetError):
                        request = self._front.recv(64)
                    if not request:
                        return
                    self._fork()
                else:
                    os.read(self._woken, 4096)
                    self._reap()

    def _report(self, *descriptors: int, **facts: object) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._front, [json.dumps(facts).encode()], list(descriptors))

    def _fork(self) -> None:
        if (threads := _thread_count()) != 1:
            self._report(threads=threads)
            return
        theirs, ours = socket.socketpair()
        try:
            pid = os.fork()
        except OSError as error:
            self._report(failed=error.errno)
            return
        if pid == 0:
            code = 1
            try:
                theirs.close()
                self._become_executor(ours)
                code = 0
            finally:
                os._exit(code)
        process = os.pidfd_open(pid)
        self._report(theirs.fileno(), process, started=pid)
        os.close(process)
        theirs.close()
        ours.close()

    def _become_executor(self, front: socket.socket) -> None:
        self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self._own_pid:
            return  # the zygote exited before this was set
        os.setpgid(0, 0)  # to set the niceness and send signals for all threads together
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._loop.close()
        self._front.close()
        os.close(self._woken)
        os.close(self._wake)
        self._worker.run(front, self._options)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
                if not pid:
                    return
                folder = Path(self._options.spill_directory) / str(pid)
                self._report(
                    ended=pid,
                    code=os.waitstatus_to_exitcode(status),
                    cpu_seconds=usage.ru_utime + usage.ru_stime,
                    max_resident_bytes=usage.ru_maxrss * 1024,
                    error=read_tail(folder / self._worker.STANDARD_ERROR),
                )
                shutil.rmtree(folder, ignore_errors=True)


def _thread_count() -> int:
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - before each fork: Path allocates more


def read_tail(path: Path) -> str:
    """Return the end of a process's standard error unless the process has replaced the file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    with open(descriptor, "rb") as stream:  # noqa: PTH123 - a descriptor
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            return ""
        stream.seek(max(0, facts.st_size - _MAX_ERROR_BYTES))
        return stream.read(_MAX_ERROR_BYTES).decode("utf-8", "replace")


def main() -> None:
    """Run the zygote, with the options as an argument and the control socket as standard input."""
    front = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    keep_pandas_out()
    from micromegas_jupyter.executors.settings import WorkerOptions

    options = msgspec.convert(json.loads(sys.argv[1]), WorkerOptions)
    Zygote(front, options).serve()


if __name__ == "__main__":
    main()
