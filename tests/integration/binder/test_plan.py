"""What repo2docker makes of `binder/`, which it tells without Docker."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.binder.pinned import pinned_requirements

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def plan(repository: Path) -> str:
    program = Path(sys.executable).parent / "jupyter-repo2docker"
    made = subprocess.run(
        [program, "--no-build", "--no-run", "--debug", repository],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr[-3000:]
    return made.stdout + made.stderr


@pytest.fixture(scope="module")
def place_of(plan: str) -> Callable[[str], int]:
    """Give the place of the one part of the plan that looks like a pattern."""

    def find(pattern: str) -> int:
        (found,) = re.finditer(pattern, plan, re.MULTILINE)
        return found.start()

    return find


def test_the_version_of_python_is_ours(plan: str) -> None:
    assert "Building conda environment for python=3.11" in plan
    assert "Python version unspecified" not in plan


def test_the_project_is_there_when_pip_installs_it_and_the_last_step_comes_after(
    place_of: Callable[[str], int],
) -> None:
    copied = place_of(r"^COPY .* src/ \$\{REPO_DIR\}/$")
    installed = place_of(r'^RUN \$\{KERNEL_PYTHON_PREFIX\}/bin/pip install .*-r "binder/requirements\.txt"')
    finished = place_of(r"^RUN \./binder/postBuild$")

    assert copied < installed < finished


def test_our_program_starts_it(place_of: Callable[[str], int]) -> None:
    assert place_of(r'^ENV R2D_ENTRYPOINT="\$\{REPO_DIR\}/binder/start"$')
    assert place_of(r'^ENTRYPOINT \["/usr/local/bin/repo2docker-entrypoint"\]$')


def test_the_kernel_and_the_server_are_one_environment(plan: str) -> None:
    assert "ENV KERNEL_PYTHON_PREFIX=${NB_PYTHON_PREFIX}" in plan


def test_the_versions_that_the_lock_pins_are_found() -> None:
    pinned = dict(requirement.split("==") for requirement in pinned_requirements("3.11"))

    assert pinned["jupyterlab"].startswith("4.")
    assert pinned["notebook"].startswith("7.")
    assert pinned["jupyter_server"].startswith("2.")
    assert pinned["jupyterhub"].startswith("5.")
