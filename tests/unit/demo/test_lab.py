"""The kernel of a job, and the notebook that runs in it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import nbformat
from jupyter_client.kernelspec import KernelSpecManager

from micromegas_jupyter.demo.lab import JOB_KERNEL, JOB_NOTEBOOK, copy_notebooks, run_in_job_kernel, write_job_kernel

if TYPE_CHECKING:
    from pathlib import Path


def test_jupyter_finds_the_kernel_with_its_variables(tmp_path: Path) -> None:
    write_job_kernel(tmp_path, {"MICROMEGAS_OIDC_CLIENT_ID": "nightly"})

    found = KernelSpecManager(kernel_dirs=[str(tmp_path / "kernels")]).get_kernel_spec(JOB_KERNEL)

    assert found.env == {"MICROMEGAS_OIDC_CLIENT_ID": "nightly"}
    assert found.argv[0] == sys.executable
    assert found.language == "python"


def test_only_the_kernel_of_the_notebook_changes(tmp_path: Path) -> None:
    copy_notebooks(tmp_path / "notebooks")
    path = tmp_path / "notebooks" / JOB_NOTEBOOK
    before = json.loads(path.read_text(encoding="utf-8"))

    run_in_job_kernel(path)

    after = nbformat.read(path, as_version=4)
    nbformat.validate(after)
    assert after.metadata.pop("kernelspec").name == JOB_KERNEL
    assert before["metadata"].pop("kernelspec")["name"] == "python3"
    assert json.loads(nbformat.writes(after)) == before
