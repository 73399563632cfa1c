"""What repo2docker makes of `binder/`, which it tells without Docker."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def plan(repository):
    program = Path(sys.executable).parent / "jupyter-repo2docker"
    made = subprocess.run(
        [program, "--no-build", "--no-run", "--debug", repository],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr[-3000:]
    return made.stdout + made.stderr


def test_the_version_of_python_is_ours(plan):
    assert "Building conda environment for python=3.11" in plan
    assert "Python version unspecified" not in plan
    assert "ENV KERNEL_PYTHON_PREFIX=${NB_PYTHON_PREFIX}" in plan  # kernel and server are one environment


def test_the_project_is_installed_then_finished_and_our_program_starts_it(plan):
    steps = (
        r"^COPY .* src/ \$\{REPO_DIR\}/$",
        r'^RUN \$\{KERNEL_PYTHON_PREFIX\}/bin/pip install .*-r "binder/requirements\.txt"',
        r"^RUN \./binder/postBuild$",
        r'^ENV R2D_ENTRYPOINT="\$\{REPO_DIR\}/binder/start"$',
        r'^ENTRYPOINT \["/usr/local/bin/repo2docker-entrypoint"\]$',
    )
    places = [[found.start() for found in re.finditer(step, plan, re.MULTILINE)] for step in steps]

    assert all(len(found) == 1 for found in places), places
    assert places[0] < places[1] < places[2]
