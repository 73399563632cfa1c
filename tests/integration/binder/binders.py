"""Starts what a Binder starts, the way it does: the entry point of repo2docker's images, `binder/start`, Jupyter."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from tests.integration.relay.servers import wait_for_address

# Its place only: loading it warns of what it uses itself.
BUILDPACKS = Path(str(getattr(find_spec("repo2docker"), "origin", ""))).parent / "buildpacks"
ENTRY_POINT = BUILDPACKS / "repo2docker-entrypoint"
# Conda's names of packages that have another name for pip, and what an environment of pip's has anyway.
_NAMES = {
    "brotli-python": "brotli", "jupyterhub-base": "jupyterhub", "nbconvert-core": "nbconvert",
    "python-fastjsonschema": "fastjsonschema",
}  # fmt: skip
_OWN = frozenset({"pip", "python", "python_abi", "setuptools", "wheel"})
# A package's file ends with its name, version and build, which begins with py where it is one for Python.
_PACKAGE = re.compile(r"/([a-z0-9_-]+)-([0-9][^-/]*)-py[^-/]+\.(?:conda|tar\.bz2)")
FOLDERS = ("binder", "docs", "micromegas_jupyter", "notebooks")
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
        running.url = wait_for_address(folder / "runtime", process, repository / ".jupyter-server-log.txt")
        yield running
    finally:
        left = running.programs()
        process.terminate()
        _gone, alive = psutil.wait_procs(left, timeout=30)
        for program in alive:
            program.kill()
        process.wait()


def pinned_requirements(python):
    """Return what pip installs to have the versions of repo2docker's lock for this version of Python and machine."""
    machine = "aarch64" if platform.machine() in {"aarch64", "arm64"} else "64"
    lock = BUILDPACKS / "conda" / f"environment.py-{python}-linux-{machine}.lock"
    found = _PACKAGE.findall(lock.read_text(encoding="utf-8"))
    return [f"{_NAMES.get(name, name)}=={version}" for name, version in found if name not in _OWN]


def make_pinned_environment(folder, repository):
    """Make the environment in the two steps of repo2docker's plan and return where its programs are."""
    python = (repository / "binder" / "runtime.txt").read_text().strip().removeprefix("python-")
    subprocess.run([f"python{python}", "-m", "venv", folder], check=True)
    own = folder / "bin" / "python"
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    install = [uv, "pip", "install", "-q", "--python", own] if uv else [own, "-m", "pip", "install", "-q"]
    subprocess.run([*install, *pinned_requirements(python)], check=True)
    subprocess.run([*install, "-r", "binder/requirements.txt"], cwd=repository, check=True)
    return own.parent
