"""A demo on which the notebooks ask their questions, and the two ways in which they run without a front end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.demo.stack import DemoStack, wait_for_rows
from micromegas_jupyter.wiring.client_side import load_client_settings, open_client, service_account_provider

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    Run: TypeAlias = subprocess.CompletedProcess[str]
    # Takes a notebook and the variables of its run.
    RunNotebook: TypeAlias = Callable[[Path, Mapping[str, str]], Run]

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
RUN_TIMEOUT_SECONDS = 580


@pytest.fixture(scope="module")
def stack():
    """`micromegas demo --no-lab` in this process, with its first rows recorded."""
    with DemoStack(spare_executors=1) as running:
        settings = load_client_settings(environ=running.service_environment())
        with open_client(settings, service_account_provider(settings)) as client:
            wait_for_rows(client)
        yield running


@pytest.fixture
def run_with_nbval(tmp_path):
    """Run each cell of a copy as one test of a pytest of its own; live values are not compared."""
    # Without a file of settings pytest would look for one in the folders above.
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")

    def run(notebook, variables):
        copy = shutil.copy(notebook, tmp_path)
        plugins = ("-p", "nbval.plugin", "-p", "no:cacheprovider")
        options = ("--nbval-lax", "--nbval-cell-timeout=120", "--nbval-kernel-startup-timeout=120")
        without_others = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        return _run(tmp_path, {**variables, **without_others}, "pytest", *plugins, *options, str(copy))

    return run


@pytest.fixture
def run_with_nbconvert(tmp_path):
    """Execute a notebook as a scheduled job does; the result is `report.ipynb` in the test's folder."""

    def run(notebook, variables):
        options = ("--to", "notebook", "--execute", "--output", "report.ipynb", "--output-dir", str(tmp_path))
        return _run(tmp_path, variables, "jupyter", "nbconvert", *options, str(notebook))

    return run


def _run(folder, variables, *words):
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_SECONDS,
        check=False,
    )
