"""Starts the demo, then becomes a Jupyter server that uses it; `binder/start` runs it.

    python -m micromegas_jupyter.demo.before_jupyter jupyter lab --ServerApp.base_url=/x/

The demo, all of it but JupyterLab, is a child process (`--demo BASE_URL`). It prints one line with the variables that
the server needs, and ends when its standard input closes, whose other end Jupyter holds.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from micromegas_jupyter.errors import MicromegasError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_START_TIMEOUT_SECONDS = 120.0
_BASE_URL_OPTIONS = frozenset({"--ServerApp.base_url", "--NotebookApp.base_url", "--base-url"})
_BASE_URL = re.compile(r"/(?:[A-Za-z0-9@._~%+=:-]+/)*", re.ASCII)
# All of a Binder, Jupyter and kernels included, often has 2 GiB.
_SPARE_EXECUTORS = 1
_MEMORY_MIB = 256


def find_base_url(command: Sequence[str], environ: Mapping[str, str]) -> str:
    """Return the path below which a Jupyter server answers, with a slash at both ends.

    The last option of its command wins, as with Jupyter, then JupyterHub's variable.
    """
    found = environ.get("JUPYTERHUB_SERVICE_PREFIX", "")
    for position, argument in enumerate(command):
        name, equals, value = argument.partition("=")
        if name in _BASE_URL_OPTIONS:
            found = value if equals else "".join(command[position + 1 : position + 2])
    base_url = f"/{found.strip('/')}/".replace("//", "/")
    return base_url if _BASE_URL.fullmatch(base_url) else "/"


def main() -> None:
    """Start the demo, then become the program of the command line."""
    command = sys.argv[1:]
    if not command:
        sys.exit("usage: python -m micromegas_jupyter.demo.before_jupyter COMMAND [ARGUMENT ...]")
    if command[0] == "--demo":
        _run_demo(command[1])
        return
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
    own = {name: value for name, value in environ.items() if not name.startswith("JUPYTERHUB_")}
    variables = _start_demo(find_base_url(command, environ), own)
    if not variables:
        sys.stderr.write("✗ The demo did not start; its output is above. Starting Jupyter without it.\n")
    try:
        os.execvpe(command[0], command, environ | variables)  # noqa: S606 - the command is what this program was given
    except OSError:
        sys.exit(f"✗ {command[0]} cannot be run.")


_started: list[subprocess.Popen[bytes]] = []  # their pipes are open until the program is another one


def _start_demo(base_url: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Start the demo and return the variables that a Jupyter server and its kernels need; none when it fails."""
    command = [sys.executable, "-P", "-m", "micromegas_jupyter.demo.before_jupyter", "--demo", base_url]
    # A session of its own: Ctrl-C at a terminal is Jupyter's, which asks back.
    process = subprocess.Popen(  # noqa: S603 - our own interpreter with fixed options
        command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    _started.append(process)
    timer = threading.Timer(_START_TIMEOUT_SECONDS, process.kill)
    timer.start()
    try:
        line = process.stdout.readline() if process.stdout is not None else b""
    finally:
        timer.cancel()
    if not line.endswith(b"\n") or process.stdin is None:
        process.kill()
        process.wait()
        return {}
    # The program that this one becomes inherits it, and none of its children: Python closes other files for them.
    os.set_inheritable(process.stdin.fileno(), True)
    variables: dict[str, str] = json.loads(line)
    return variables


def _run_demo(base_url: str) -> None:
    from micromegas_jupyter.demo.stack import DemoStack

    signal.signal(signal.SIGTERM, lambda *_received: sys.exit(0))
    try:
        with DemoStack(spare_executors=_SPARE_EXECUTORS, memory_mib=_MEMORY_MIB, jupyter_base_url=base_url) as stack:
            paths = _write_jupyter_files(stack.folder, stack.provider.issuer, stack.job_environment())
            for name, path in paths.items():
                paths[name] = os.pathsep.join(filter(None, (path, os.environ.get(name))))
            sys.stdout.write(json.dumps({**stack.client_environment(), **paths}) + "\n")
            sys.stdout.flush()
            while sys.stdin.buffer.read(4096):
                pass
    except MicromegasError as error:
        sys.exit(f"✗ {error}")


def _write_jupyter_files(folder: Path, issuer: str, job_environment: Mapping[str, str]) -> dict[str, str]:
    """Write what a Jupyter server and its kernels need to find the demo, and return the variables that lead there."""
    from micromegas_jupyter.demo.lab import write_job_kernel, write_page_config
    from micromegas_jupyter.demo.provider.state import PAGES

    config, data = folder / "jupyter" / "config", folder / "jupyter" / "data"
    write_page_config(config)
    write_job_kernel(data, job_environment)
    address = urlsplit(issuer)
    pages: dict[str, object] = {
        "command": [],
        "port": address.port,
        "launcher_entry": {"enabled": False},
        # The provider answers under its own name only, so that no name on the internet can be pointed at it.
        "request_headers_override": {"Host": address.netloc},
    }
    server_config = {
        "ServerProxy": {"servers": {PAGES: pages}},
        # In each Binder there is one person, with a provider of their own that knows made-up people only: there is
        # nobody whose token could be taken (docs/decisions, 0010 and 0018).
        "MicromegasRelay": {"per_user_redirect": True, "provider_paths": {issuer: PAGES}},
    }
    (config / "jupyter_server_config.json").write_text(json.dumps(server_config), encoding="utf-8")
    return {"JUPYTER_CONFIG_PATH": str(config), "JUPYTER_PATH": str(data)}


if __name__ == "__main__":
    main()
