"""What repo2docker pins and brings along, and an environment with that and `binder/requirements.txt` on top of it."""

import platform
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

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


def lock_file(python):
    """Return repo2docker's lock for a version of Python on this kind of machine."""
    machine = "aarch64" if platform.machine() in {"aarch64", "arm64"} else "64"
    return BUILDPACKS / "conda" / f"environment.py-{python}-linux-{machine}.lock"


def pinned_requirements(python):
    """Return what pip installs to have those versions."""
    found = _PACKAGE.findall(lock_file(python).read_text(encoding="utf-8"))
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
