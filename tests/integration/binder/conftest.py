"""A Binder without its container: repo2docker's own entry point runs `binder/start` in a copy of the repository."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.binder.binders import FOLDERS, make_pinned_environment, running_binder
from tests.integration.browser.conftest import browser, chromium

__all__ = ["browser", "chromium"]

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def repository(tmp_path_factory):
    """What repo2docker copies into an image, so that nothing is written into the repository itself."""
    folder = tmp_path_factory.mktemp("image") / "repository"
    folder.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules", ".*"))
    return folder


@pytest.fixture(scope="session")
def programs(request, repository, tmp_path_factory):
    """Where python and jupyter are: this environment; in the long run, one with the versions that repo2docker pins."""
    if not request.config.getoption("--long"):
        return Path(sys.executable).parent
    return make_pinned_environment(tmp_path_factory.mktemp("pinned") / "environment", repository)


@pytest.fixture(scope="session")
def image(repository, programs):
    """The repository after its last step of building."""
    path = os.pathsep.join((str(programs), os.environ["PATH"]))
    subprocess.run([repository / "binder" / "postBuild"], cwd=repository, env={**os.environ, "PATH": path}, check=True)
    return repository


@pytest.fixture(scope="module")
def binder(image, programs, tmp_path_factory):
    """JupyterLab at a base URL, with the variables of a server that JupyterHub started."""
    with running_binder(image, programs, tmp_path_factory.mktemp("binder")) as running:
        yield running
