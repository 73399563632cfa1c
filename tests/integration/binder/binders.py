"""Starts what a Binder starts, the way it does: the entry point of repo2docker's images, `binder/start`, Jupyter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from tests.integration.binder.pinned import ENTRY_POINT

if TYPE_CHECKING:
    from pathlib import Path

FOLDERS = ("binder", "docs", "micromegas_jupyter", "notebooks")
START_SECONDS = 240
BASE_URL = "/user/ada/"
TOKEN = "a-token-of-this-binder"
HUB_TOKEN = "a-token-of-the-hub"


@dataclass(kw_only=True)
class Binder:
    """A running Binder."""

    url: str
    process: psutil.Popen
    repository: Path
    temporary: Path

    @property
    def log(self):
        """What the entry point has written down of all that its programs said."""
        return (self.repository / ".jupyter-server-log.txt").read_text(encoding="utf-8", errors="replace")

    @property
    def demo_folder(self):
        (folder,) = self.temporary.glob("micromegas-demo-*")
        return folder

    def programs(self):
        """Return everything that runs in it, the entry point included."""
        return [self.process, *self.process.children(recursive=True)]


def environment(programs, folder):
    """Return the variables of a user's container that JupyterHub started."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MICROMEGAS_", "KERNEL_"))}
    (folder / "tmp").mkdir()
    return {
        **kept,
        "PATH": os.pathsep.join((str(programs), kept["PATH"])),
        "HOME": str(folder),
        "TMPDIR": str(folder / "tmp"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTER_TOKEN": TOKEN,
        "JUPYTERHUB_API_TOKEN": HUB_TOKEN,
        "JUPYTERHUB_SERVICE_PREFIX": BASE_URL,
    }


@contextmanager
def running_binder(repository, programs, folder):
    """Run JupyterLab in a copy of the repository, as an image of repo2docker runs it."""
    environ = environment(programs, folder)
    command = [
        sys.executable, str(ENTRY_POINT), "jupyter", "lab", "--ip=127.0.0.1", "--port=0", "--no-browser",
        "--allow-root", f"--ServerApp.base_url={BASE_URL}",
    ]  # fmt: skip
    environ |= {"REPO_DIR": str(repository), "R2D_ENTRYPOINT": str(repository / "binder" / "start")}
    process = psutil.Popen(command, cwd=repository, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    running = Binder(url="", process=process, repository=repository, temporary=folder / "tmp")
    try:
        running.url = _wait_for_address(folder / "runtime", running)
        yield running
    finally:
        left = running.programs()
        process.terminate()
        _gone, alive = psutil.wait_procs(left, timeout=30)
        for program in alive:
            program.kill()
        process.wait()


def _wait_for_address(runtime, binder):
    deadline = time.monotonic() + START_SECONDS
    pause = threading.Event()
    while time.monotonic() < deadline and binder.process.is_running():
        for path in runtime.glob("jpserver-*.json"):
            with suppress(ValueError):  # being written
                return str(json.loads(path.read_text())["url"]).replace("localhost", "127.0.0.1")
        pause.wait(0.05)
    raise AssertionError(binder.log[-3000:])
