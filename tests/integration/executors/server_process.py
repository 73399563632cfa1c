"""`micromegas serve` as a black box, and what the operating system says about its processes."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path

import psutil

from tests.fakes import waiting

ROOT = Path(__file__).parents[3]
MIB = 1 << 20
DEADLINE_SECONDS = 120.0
_MEMORY_POLL_SECONDS = 0.1
_LOG_TAIL = 3000


wait_until = partial(waiting.wait_until, seconds=DEADLINE_SECONDS)


def is_running(process):
    """Return whether a process is there; one that has ended and waits to be reaped is not."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


class ServerProcess:
    """A running server; stopped at the end of its `with` block, with every process that it started.

    `python` is the interpreter of another version.
    """

    def __init__(self, folder, *, lake, keys, options=(), memory_mib=None, variables=None, python=None):
        folder.mkdir(exist_ok=True)
        self.audit_file, self.log_file = folder / "audit.jsonl", folder / "log.txt"
        environ = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
        if python is None:
            environ["PYTHONPATH"] = str(ROOT)
        if memory_mib is not None:
            environ["MICROMEGAS_SERVER_MEMORY_MIB"] = str(memory_mib)
        # An attacker's statements shall all run, and none be refused for what earlier ones did.
        environ["MICROMEGAS_SERVER_MAX_ENDED_PER_CALLER"] = "0"
        access = () if keys or variables else ("--disable-auth",)
        if keys:
            listed = [
                {"name": name, "sha256": sha256(key.encode()).hexdigest(), "scopes": ["read", "ingest"]}
                for name, key in keys.items()
            ]
            environ["MICROMEGAS_API_KEYS"] = json.dumps(listed)
        environ |= variables or {}
        command = [
            python or sys.executable, "-m", "micromegas_jupyter.cli", "serve", "--port", "0", "--ready-json",
            "--audit-log", str(self.audit_file), *(() if lake is None else ("--lake", str(lake))), *access, *options,
        ]  # fmt: skip
        with self.log_file.open("wb") as log:
            self._popen = subprocess.Popen(
                command,
                cwd=ROOT if python is None else folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.front = psutil.Process(self._popen.pid)
        self._seen = {self.front}

    @cached_property
    def ready(self):
        """What it says once it serves."""
        line = self._popen.stdout.readline()
        assert line, self.log()
        return json.loads(line)

    @property
    def uri(self):
        return self.ready["uri"]

    @property
    def address(self):
        return self.uri.removeprefix("grpc://")

    def log(self):
        """Return the end of what it has logged."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL:]

    def audit_lines(self, **fields):
        """Return the audit lines with these values; a line that is being written is left out."""
        if not self.audit_file.exists():
            return []
        text = self.audit_file.read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in lines if all(line.get(name) == value for name, value in fields.items())]

    def processes(self):
        """Return the server's processes, the front first."""
        found = [self.front]
        with suppress(psutil.NoSuchProcess):
            found += self.front.children(recursive=True)
        self._seen.update(found)
        return found

    def cpu_seconds(self):
        """Return the processor time of the server's processes so far, those included that were reaped."""
        while True:
            try:
                return sum(sum(process.cpu_times()[:4]) for process in self.processes())
            except psutil.NoSuchProcess:  # one has just been reaped: its time is its parent's now
                assert is_running(self.front), self.log()

    def busiest_child(self, seconds=0.3):
        """Return a process beside the front that uses processor time, once it has used this much."""
        before = {process: _own_cpu_seconds(process) for process in self.processes()[1:]}
        found = []

        def is_found():
            used = {each: _own_cpu_seconds(each) - before.get(each, 0.0) for each in self.processes()[1:]}
            found[:] = [each for each in used if used[each] > seconds]
            return found

        wait_until(is_found, "a process works")
        return found[0]

    def zygote(self):
        """Return the process that forks the executors: the front's child that has children."""
        children = [child for child in self.front.children() if child.children()]
        assert len(children) == 1, f"the front has {len(children)} children with children of their own"
        return children[0]

    def kill_front(self):
        """Kill the front and return all processes that the server had."""
        found = self.processes()
        self._popen.kill()
        self._popen.wait()
        return found

    def wait(self):
        """Wait until it ends by itself, and return its status."""
        return self._popen.wait(DEADLINE_SECONDS)

    def stop(self):
        """Stop it; kill what is left."""
        with suppress(psutil.NoSuchProcess):
            self.processes()
        self._popen.send_signal(signal.SIGTERM)
        try:
            self.wait()
        except subprocess.TimeoutExpired:
            self._popen.kill()
            raise
        finally:
            for process in self._seen:
                with suppress(psutil.NoSuchProcess):  # psutil refuses when the id is another process's by now
                    process.kill()
            self._popen.communicate()

    def __enter__(self):
        assert self.ready
        return self

    def __exit__(self, *_error):
        self.stop()


def _own_cpu_seconds(process):
    with suppress(psutil.NoSuchProcess):
        return sum(process.cpu_times()[:2])
    return 0.0


class MemoryWatch:
    """Sums the private memory of a server's processes again and again, and keeps the highest sum."""

    def __init__(self, server):
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.peak_bytes = 0

    def _run(self):
        while not self._stop.wait(_MEMORY_POLL_SECONDS):
            self._look()

    def _look(self):
        total = 0
        for process in self._server.processes():
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                total += process.memory_full_info().uss
        self.peak_bytes = max(self.peak_bytes, total)

    def __enter__(self):
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_error):
        self._stop.set()
        self._thread.join()
