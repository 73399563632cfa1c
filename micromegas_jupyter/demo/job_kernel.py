"""A kernel with the environment of a job: in it a notebook signs in as the demo's service account.

The variables are the stack's; which notebooks run in this kernel is JupyterLab's part of the demo.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

JOB_KERNEL = "micromegas-service-account"

_DISPLAY_NAME = "Service account (demo)"


def write_job_kernel(data_folder: Path, environment: Mapping[str, str]) -> None:
    """Write the kernel's description below a folder of Jupyter data.

    Args:
        data_folder: One of the folders in `JUPYTER_PATH`.
        environment: The job's variables.
    """
    from ipykernel.kernelspec import get_kernel_dict

    folder = data_folder / "kernels" / JOB_KERNEL
    folder.mkdir(parents=True)
    description = {**get_kernel_dict(), "display_name": _DISPLAY_NAME, "env": dict(environment)}
    (folder / "kernel.json").write_text(json.dumps(description), encoding="utf-8")


def run_in_job_kernel(notebook: Path) -> None:
    """Let a notebook's file name the job's kernel instead of its own."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    content["metadata"]["kernelspec"] = {"display_name": _DISPLAY_NAME, "language": "python", "name": JOB_KERNEL}
    notebook.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_in_job_kernel(Path(sys.argv[1]))
