"""Jupyter alongside the demo: JupyterLab as a child process, or a Jupyter server that is started with the demo.

`python -m micromegas_jupyter.demo.lab jupyter lab …` starts the demo as its child (`--demo`), then becomes that
server; `binder/start` runs it. The demo, like the JupyterLab of `--lab`, exits when its standard input closes.
"""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

from micromegas_jupyter.core.system import SYSTEM_CLOCK, Variables, keep_pandas_out
from micromegas_jupyter.demo.folder import JOB_KERNEL, JOB_KERNEL_NAME, NOTEBOOK
from micromegas_jupyter.errors import MicromegasError, ServerUnavailable

_START_TIMEOUT_SECONDS = 600.0  # a server that exits is noticed immediately; on a busy machine, imports take minutes
_ANSWER_TIMEOUT_SECONDS = 10.0
_STOP_TIMEOUT_SECONDS = 10.0
_POLL_SECONDS = 0.1
_AUTOSAVE_SECONDS = 10
_DEMO_START_TIMEOUT_SECONDS = 120.0
_PORT, _PORT_RETRIES = 8888, 100
_BASE_URL_OPTIONS = frozenset({"--ServerApp.base_url", "--NotebookApp.base_url", "--base-url"})
_BASE_URL = re.compile(r"/(?:[A-Za-z0-9@._~%+=:-]+/)*", re.ASCII)
# A Binder often has only 2 GiB, including Jupyter and kernels.
_SPARE_EXECUTORS = 1
_MEMORY_MIB = 256


class LabProcess:
    """A JupyterLab for a directory of notebooks; `job_environment` is added to the job kernel's environment.

    Its runtime files are in the temporary `folder`; `settings` stores the user's settings and workspaces.
    """

    def __init__(  # noqa: PLR0913 - the parts of a JupyterLab
        self,
        folder: Path,
        environment: Mapping[str, str],
        *,
        notebooks: Path,
        settings: Path,
        job_environment: Mapping[str, str],
        open_browser: bool,
        base_url: str = "/",
    ) -> None:
        self._runtime = folder / "jupyter" / "runtime"
        data = folder / "jupyter" / "data"
        write_job_kernel(data, job_environment)
        config = folder / "jupyter" / "config"
        write_page_config(config)
        _save_often(config)
        self._log = (folder / "jupyterlab.log").open("wb")
        own = {
            # Only these two parts of a configuration are kept, because they contain no code: the directory may be
            # someone else's.
            "JUPYTERLAB_SETTINGS_DIR": environment.get("JUPYTERLAB_SETTINGS_DIR") or str(settings / "user-settings"),
            "JUPYTERLAB_WORKSPACES_DIR": environment.get("JUPYTERLAB_WORKSPACES_DIR") or str(settings / "workspaces"),
            "JUPYTER_CONFIG_DIR": str(config),
            "JUPYTER_PATH": os.pathsep.join(filter(None, (str(data), environment.get("JUPYTER_PATH")))),
            "JUPYTER_RUNTIME_DIR": str(self._runtime),
            "JUPYTER_TOKEN": secrets.token_urlsafe(24),
        }
        self._command = [
            sys.executable,
            "-m",
            "micromegas_jupyter.demo.lab",
            "--lab",
            f"--ServerApp.root_dir={notebooks}",
            f"--ServerApp.base_url={base_url}",
            f"--LabApp.default_url=/lab/tree/{NOTEBOOK}",
            f"--ServerApp.open_browser={open_browser}",
            "--ServerApp.ip=127.0.0.1",
            "--ServerApp.allow_root=True",
        ]
        self._token = own["JUPYTER_TOKEN"]
        self._environment = {**environment, **own}
        self._process = self._start(f"--ServerApp.port={_PORT}", f"--ServerApp.port_retries={_PORT_RETRIES}")

    def _start(self, *port_options: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - our own interpreter with fixed options
            [*self._command, *port_options],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait_until_ready(self, *, timeout_seconds: float = _START_TIMEOUT_SECONDS) -> str:
        """Return the notebook's URL once JupyterLab responds there."""
        deadline = SYSTEM_CLOCK.monotonic() + timeout_seconds
        if url := self._wait(deadline):
            return url
        if self._process.poll() is not None and SYSTEM_CLOCK.monotonic() < deadline:
            # It exits if another program takes the port that it just found to be free, so let the system assign one.
            self._close_input()
            self._process = self._start("--ServerApp.port=0", "--ServerApp.port_retries=0")
            if url := self._wait(deadline):
                return url
        if self._process.poll() is None:
            from micromegas_jupyter.demo.stack import BUSY_REMEDY

            what = f"JupyterLab did not respond within {timeout_seconds:g} s."
            raise ServerUnavailable(
                what, remedy=f"{BUSY_REMEDY} `micromegas demo --no-lab` starts the demo without JupyterLab."
            )
        raise ServerUnavailable(
            "JupyterLab exited.", remedy="Run `jupyter lab` to see why, or use `micromegas demo --no-lab`."
        )

    def _wait(self, deadline: float) -> str | None:
        """Return the notebook's URL, or None if JupyterLab exits or the deadline passes."""
        pause = threading.Event()
        while SYSTEM_CLOCK.monotonic() < deadline and self._process.poll() is None:
            for path in self._runtime.glob(f"jpserver-{self._process.pid}.json"):
                try:
                    url = json.loads(path.read_text(encoding="utf-8"))["url"]
                except (ValueError, KeyError):
                    continue  # being written
                if self._responds(url):  # the file is written before the server listens
                    return f"{url}lab/tree/{NOTEBOOK}?token={self._token}"
            pause.wait(_POLL_SECONDS)
        return None

    def _responds(self, url: str) -> bool:
        import requests

        with requests.Session() as session, suppress(requests.RequestException):
            session.trust_env = False  # a proxy can't reach this machine
            headers = {"Authorization": f"token {self._token}"}
            response = session.get(f"{url}api/status", headers=headers, timeout=_ANSWER_TIMEOUT_SECONDS)
            return response.status_code == HTTPStatus.OK
        return False

    def stop(self) -> None:
        """Stop JupyterLab and its kernels; kill it if it doesn't exit."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close_input()
        self._log.close()

    def _close_input(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()


def write_job_kernel(data_folder: Path, environment: Mapping[str, str]) -> None:
    """Write the job's kernel spec to one of the directories in `JUPYTER_PATH`."""
    from ipykernel.kernelspec import get_kernel_dict

    folder = data_folder / "kernels" / JOB_KERNEL
    folder.mkdir(parents=True)
    description = {**get_kernel_dict(), "display_name": JOB_KERNEL_NAME, "env": dict(environment)}
    (folder / "kernel.json").write_text(json.dumps(description), encoding="utf-8")


def write_page_config(config: Path) -> None:
    """Stop JupyterLab from offering to fetch news, because the demo only connects to this machine."""
    disabled = {"@jupyterlab/apputils-extension:announcements": True}
    _write_lab_config(config, "page_config", {"disabledExtensions": disabled})


def _save_often(config: Path) -> None:
    """Make JupyterLab save notebooks every few seconds, because the demo may be stopped at any time."""
    manager = {"@jupyterlab/docmanager-extension:plugin": {"autosaveInterval": _AUTOSAVE_SECONDS}}
    _write_lab_config(config, "default_setting_overrides", manager)


def _write_lab_config(config: Path, name: str, content: Mapping[str, object]) -> None:
    folder = config / "labconfig"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 4096):  # unlike `sys.stdin`, doesn't hold a lock when the interpreter exits
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _run_lab(options: list[str]) -> None:
    from jupyterlab.labapp import main as run_lab

    threading.Thread(target=_end_with_parent, daemon=True).start()
    run_lab(options)


def find_base_url(command: Sequence[str], environ: Mapping[str, str]) -> str:
    """Return a Jupyter server's base path, from the last base URL option in its command or from JupyterHub."""
    found = environ.get("JUPYTERHUB_SERVICE_PREFIX", "")
    for position, argument in enumerate(command):
        name, equals, value = argument.partition("=")
        if name in _BASE_URL_OPTIONS:
            found = value if equals else "".join(command[position + 1 : position + 2])
    base_url = f"/{found.strip('/')}/".replace("//", "/")
    return base_url if _BASE_URL.fullmatch(base_url) else "/"


def main() -> None:
    """Start the demo, then replace this process with the given program."""
    command = sys.argv[1:]
    if not command:
        sys.exit("usage: python -m micromegas_jupyter.demo.lab COMMAND [ARGUMENT ...]")
    if command[0] == "--demo":
        return _run_demo(command[1])
    if command[0] == "--lab":
        return _run_lab(command[1:])
    environ = Variables({name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")})
    own = Variables({name: value for name, value in environ.items() if not name.startswith("JUPYTERHUB_")})
    variables = _start_demo(find_base_url(command, environ), own)
    if not variables:
        sys.stderr.write("✗ The demo did not start; its output is above. Starting Jupyter without it.\n")
    try:
        os.execvpe(command[0], command, environ | variables)  # noqa: S606 - the command is what this program was given
    except OSError:
        sys.exit(f"✗ {command[0]} cannot be run.")


_started: list[subprocess.Popen[bytes]] = []  # keeps their pipes open until this process is replaced by another program


def _start_demo(base_url: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Start the demo and return the variables for a Jupyter server and its kernels; empty if it fails."""
    command = [sys.executable, "-P", "-m", "micromegas_jupyter.demo.lab", "--demo", base_url]
    # In a new session, so that Ctrl-C in a terminal only reaches Jupyter, which asks for confirmation.
    process = subprocess.Popen(  # noqa: S603 - our own interpreter with fixed options
        command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    _started.append(process)
    timer = threading.Timer(_DEMO_START_TIMEOUT_SECONDS, process.kill)
    timer.start()
    try:
        line = process.stdout.readline() if process.stdout is not None else b""
    finally:
        timer.cancel()
    if not line.endswith(b"\n") or process.stdin is None:
        process.kill()
        process.wait()
        return {}
    # Inherited by the program that replaces this process, but not by its children: Python closes other files for them.
    os.set_inheritable(process.stdin.fileno(), True)
    variables: dict[str, str] = json.loads(line)
    return variables


def _run_demo(base_url: str) -> None:
    keep_pandas_out()
    from micromegas_jupyter.demo.stack import DemoStack

    signal.signal(signal.SIGTERM, lambda *_received: sys.exit(0))
    try:
        with DemoStack(spare_executors=_SPARE_EXECUTORS, memory_mib=_MEMORY_MIB, jupyter_base_url=base_url) as stack:
            paths = _write_jupyter_files(stack.folder, stack.provider.issuer, stack.job_environment())
            for name, path in paths.items():
                paths[name] = os.pathsep.join(filter(None, (path, os.environ.get(name))))
            sys.stdout.write(json.dumps({**stack.client_environment(), **stack.exporter_environment(), **paths}) + "\n")
            sys.stdout.flush()
            while sys.stdin.buffer.read(4096):
                pass
    except MicromegasError as error:
        sys.exit(f"✗ {error}")


def _write_jupyter_files(folder: Path, issuer: str, job_environment: Mapping[str, str]) -> dict[str, str]:
    """Write the files that Jupyter and its kernels use to find the demo, and return variables with their paths."""
    from micromegas_jupyter.demo.provider.state import PAGES

    config, data = folder / "jupyter" / "config", folder / "jupyter" / "data"
    write_page_config(config)
    write_job_kernel(data, job_environment)
    address = urlsplit(issuer)
    pages: dict[str, object] = {
        "command": [],
        "port": address.port,
        "launcher_entry": {"enabled": False},
        # The provider only responds to requests for its own host name, to prevent DNS rebinding.
        "request_headers_override": {"Host": address.netloc},
    }
    server_config = {
        "ServerProxy": {"servers": {PAGES: pages}},
        # A Binder has one user, with a separate provider that only has made-up users, so there are no tokens to steal
        # (docs/decisions, 0010 and 0018).
        "MicromegasRelay": {"per_user_redirect": True, "provider_paths": {issuer: PAGES}},
    }
    (config / "jupyter_server_config.json").write_text(json.dumps(server_config), encoding="utf-8")
    return {"JUPYTER_CONFIG_PATH": str(config), "JUPYTER_PATH": str(data)}


if __name__ == "__main__":
    main()
