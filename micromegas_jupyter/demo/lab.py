"""JupyterLab as a child of the demo, with settings of its own.

Run as a program this is the child itself: JupyterLab that also ends when its standard input closes, so that no server
stays behind when the demo is killed.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import ServerUnavailable

NOTEBOOK = "quickstart.ipynb"
JOB_NOTEBOOK = "service-account.ipynb"
# A kernel with the environment of a job: in it a notebook signs in as the demo's service account.
JOB_KERNEL = "micromegas-service-account"

_JOB_KERNEL_NAME = "Service account (demo)"
_START_TIMEOUT_SECONDS = 60.0
_STOP_TIMEOUT_SECONDS = 10.0
_POLL_SECONDS = 0.1


class LabProcess:
    """A JupyterLab whose files, a copy of the notebooks among them, lie in `folder`.

    `environment` holds all of its variables and its kernels'; `job_environment` is what the job's kernel has besides.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        *,
        job_environment: Mapping[str, str],
        open_browser: bool,
        base_url: str = "/",
    ) -> None:
        self._runtime = folder / "jupyter" / "runtime"
        notebooks = folder / "notebooks"
        copy_notebooks(notebooks)
        data = folder / "jupyter" / "data"
        write_job_kernel(data, job_environment)
        run_in_job_kernel(notebooks / JOB_NOTEBOOK)
        config = folder / "jupyter" / "config"
        write_page_config(config)
        self._log = (folder / "jupyterlab.log").open("wb")
        own = {
            "JUPYTER_CONFIG_DIR": str(config),
            "JUPYTER_PATH": os.pathsep.join(filter(None, (str(data), environment.get("JUPYTER_PATH")))),
            "JUPYTER_RUNTIME_DIR": str(self._runtime),
            "JUPYTER_TOKEN": secrets.token_urlsafe(24),
        }
        options = [
            f"--ServerApp.root_dir={notebooks}",
            f"--ServerApp.base_url={base_url}",
            f"--LabApp.default_url=/lab/tree/{NOTEBOOK}",
            f"--ServerApp.open_browser={open_browser}",
            "--ServerApp.ip=127.0.0.1",
            "--ServerApp.port=8888",
            "--ServerApp.port_retries=100",
            "--ServerApp.allow_root=True",
        ]
        self._token = own["JUPYTER_TOKEN"]
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter with fixed options
            [sys.executable, "-m", "micromegas_jupyter.demo.lab", *options],
            env={**environment, **own},
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait_until_ready(self) -> str:
        """Return the notebook's address once JupyterLab listens."""
        deadline = SYSTEM_CLOCK.monotonic() + _START_TIMEOUT_SECONDS
        pause = threading.Event()
        while SYSTEM_CLOCK.monotonic() < deadline and self._process.poll() is None:
            for path in self._runtime.glob(f"jpserver-{self._process.pid}.json"):
                try:
                    url = json.loads(path.read_text(encoding="utf-8"))["url"]
                except (ValueError, KeyError):
                    continue  # being written
                return f"{url}lab/tree/{NOTEBOOK}?token={self._token}"
            pause.wait(_POLL_SECONDS)
        raise ServerUnavailable(
            "JupyterLab did not start.", remedy="Run `jupyter lab` to see why, or `micromegas demo --no-lab`."
        )

    def stop(self) -> None:
        """End JupyterLab and its kernels; killed when it does not go."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._log.close()


def copy_notebooks(target: Path) -> None:
    """Copy the package's notebooks into `target`."""
    packaged = Path(str(resources.files("micromegas_jupyter"))) / "demo" / "notebooks"
    source = packaged if packaged.is_dir() else Path(__file__).parents[2] / "notebooks"
    target.mkdir(parents=True)
    for path in sorted(source.glob("*.ipynb")):
        (target / path.name).write_bytes(path.read_bytes())


def write_job_kernel(data_folder: Path, environment: Mapping[str, str]) -> None:
    """Write the description of the job's kernel below one of the folders in `JUPYTER_PATH`."""
    from ipykernel.kernelspec import get_kernel_dict

    folder = data_folder / "kernels" / JOB_KERNEL
    folder.mkdir(parents=True)
    description = {**get_kernel_dict(), "display_name": _JOB_KERNEL_NAME, "env": dict(environment)}
    (folder / "kernel.json").write_text(json.dumps(description), encoding="utf-8")


def run_in_job_kernel(notebook: Path) -> None:
    """Let a notebook's file name the job's kernel instead of its own."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    content["metadata"]["kernelspec"] = {"display_name": _JOB_KERNEL_NAME, "language": "python", "name": JOB_KERNEL}
    notebook.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_page_config(config: Path) -> None:
    """Have JupyterLab not offer to fetch news: the demo reaches nothing outside this machine."""
    folder = config / "labconfig"
    folder.mkdir(parents=True)
    disabled = {"@jupyterlab/apputils-extension:announcements": True}
    (folder / "page_config.json").write_text(json.dumps({"disabledExtensions": disabled}), encoding="utf-8")


def _end_with_parent() -> None:
    while sys.stdin.buffer.read(4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _main() -> None:
    from jupyterlab.labapp import main as run_lab

    threading.Thread(target=_end_with_parent, daemon=True).start()
    run_lab()


if __name__ == "__main__":
    _main()
