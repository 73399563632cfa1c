"""A real Jupyter Kernel Gateway as a child process: kernels run there, a Jupyter server in front of it shows them."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import requests

from tests.integration.relay.servers import START_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

AUTH_TOKEN = "a-token-of-the-gateway"


@contextmanager
def kernel_gateway(folder: Path, *, environ: Mapping[str, str], port: int) -> Iterator[str]:
    """Run a gateway with a token and return its address; its log lies in `folder`."""
    own = {
        **environ,
        "HOME": str(folder),
        "JUPYTER_RUNTIME_DIR": str(folder / "gateway-runtime"),
        "JUPYTER_CONFIG_DIR": str(folder / "gateway-config"),
        "KG_AUTH_TOKEN": AUTH_TOKEN,
    }
    command = [
        sys.executable, "-m", "kernel_gateway", "--KernelGatewayApp.ip=127.0.0.1", f"--KernelGatewayApp.port={port}",
        "--KernelGatewayApp.port_retries=0", "--JupyterWebsocketPersonality.list_kernels=True", "--debug",
    ]  # fmt: skip
    # A gateway gives its kernels no more of its variables than these, and those that begin with KERNEL_ of a server.
    command += [f"--KernelGatewayApp.env_process_whitelist={name}" for name in own]
    url = f"http://127.0.0.1:{port}"
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen(command, env=own, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait(url, process, folder)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait(url: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    pause = threading.Event()
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(requests.ConnectionError):
            requests.get(f"{url}/api", timeout=30)
            return
        pause.wait(0.05)
    raise AssertionError((folder / "gateway.log").read_text()[-3000:])
