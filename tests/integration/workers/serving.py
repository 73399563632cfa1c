"""`micromegas serve` as a process with its workers, and what the operating system tells of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from typing import TYPE_CHECKING, Self

import psutil

from micromegas_jupyter.seams import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DEADLINE_SECONDS = 120.0
_LOOK_SECONDS = 0.05
# A busy thread gets a share even of a machine that ten others want; an idle server's heartbeat takes next to nothing.
_QUIET_SECONDS = 0.3
_QUIET_LOOKS = 3
_QUIET_SHARE = 0.05
_SEEN: dict[int, float] = {}


def until(holds: Callable[[], bool], what: str, *, seconds: float = DEADLINE_SECONDS) -> None:
    """Wait until something holds."""
    deadline = SYSTEM_CLOCK.monotonic() + seconds
    pause = threading.Event()
    while not holds():
        assert SYSTEM_CLOCK.monotonic() < deadline, f"in {seconds} s it did not come to: {what}"
        pause.wait(_LOOK_SECONDS)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not reaped yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def cpu_seconds(pids: set[int]) -> float:
    """Return the processor time of processes so far; one that has ended counts with what it was last seen to have."""
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.Error:
            continue
        _SEEN[pid] = max(_SEEN.get(pid, 0.0), times.user + times.system)
    return sum(_SEEN.get(pid, 0.0) for pid in pids)


def watch_until_quiet(pids: set[int]) -> float:
    """Return how much processor time the processes used until they hardly used any."""
    started = last = cpu_seconds(pids)
    pause, deadline = threading.Event(), SYSTEM_CLOCK.monotonic() + DEADLINE_SECONDS
    quiet = 0
    while quiet < _QUIET_LOOKS:
        assert SYSTEM_CLOCK.monotonic() < deadline, "it goes on"
        pause.wait(_QUIET_SECONDS)
        now = cpu_seconds(pids)
        quiet = quiet + 1 if now - last < _QUIET_SHARE * _QUIET_SECONDS else 0
        last = now
    return last - started


class Serving:
    """A server of its own; ended with everything that it started."""

    def __init__(self, lake: Path, *options: str, environ: dict[str, str] | None = None) -> None:
        self.log_file = lake.parent / f"{lake.name}.log"
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "micromegas_jupyter.cli", "serve", "--port", "0", "--ready-json",
                 "--lake", str(lake), "--spare-workers", "0", *options],
                stdout=subprocess.PIPE, stderr=log, text=True, stdin=subprocess.DEVNULL,
                env={**os.environ, **(environ or {})},
            )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log()
        self.ready = json.loads(line)
        self.uri: str = self.ready["uri"]
        self.address = self.uri.removeprefix("grpc://")

    def log(self) -> str:
        return self.log_file.read_text()

    def workers(self) -> dict[int, int]:
        """Return the ids of the worker processes that answer, oldest first by number."""
        children = psutil.Process(self.process.pid).children()
        return dict(enumerate(sorted(child.pid for child in children if is_alive(child.pid)), start=1))

    def pids(self) -> set[int]:
        return set(self.workers().values())

    def page(self, path: str, token: str | None = None) -> str:
        request = urllib.request.Request(f"{self.ready['http']}{path}")
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as answer:
            text: str = answer.read().decode()
            return text

    def ready_workers(self) -> int:
        line = next(line for line in self.page("/metrics").splitlines() if line.startswith("micromegas_workers_ready "))
        return int(float(line.split()[1]))

    def stop(self) -> int:
        """End it, with force when it does not go by itself; return its exit code."""
        workers = self.pids() if is_alive(self.process.pid) else set()
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            for pid in workers:
                if is_alive(pid):
                    os.kill(pid, signal.SIGKILL)
            self.process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()
