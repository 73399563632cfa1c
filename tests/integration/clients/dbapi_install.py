"""Installs `flightsql-dbapi` once into a cache folder, with a SQLAlchemy that this environment cannot have.

It needs SQLAlchemy before 2, other packages of the tests need 2; so it runs in a process of its own that finds this
folder first and takes the rest (pyarrow, protobuf, pandas) from the environment of the tests.
"""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import filelock

PACKAGES = ("flightsql-dbapi==0.2.2", "sqlalchemy==1.4.54")
_TIMEOUT_SECONDS = 240


def install_once(cache):
    """Return the folder that holds the packages, filling it when it is not complete yet."""
    folder = cache / "-".join(PACKAGES).replace("==", "-")
    complete = folder / "complete"
    with filelock.FileLock(cache / "install.lock", timeout=_TIMEOUT_SECONDS):
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            _install(folder)
            complete.touch()
    return folder


def _install(folder):
    options = ["--quiet", "--no-deps", "--disable-pip-version-check", "--no-input", "--target", str(folder)]
    command = [sys.executable, *_find_pip(), "install", *options, *PACKAGES]
    pipes = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    done = subprocess.run(command, **pipes, timeout=_TIMEOUT_SECONDS, check=False)
    assert done.returncode == 0, f"pip could not install {' and '.join(PACKAGES)}. {done.stderr[-800:]}"


def _find_pip():
    """Return how Python starts pip: the environment's, else the one that comes with Python for new environments."""
    if importlib.util.find_spec("pip") is not None:
        return ["-m", "pip"]
    import ensurepip

    wheels = sorted(Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl"))
    assert wheels, "There is no pip here. Install it into the environment of the tests."
    return [f"{wheels[-1]}/pip"]
