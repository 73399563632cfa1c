"""The demo as a companion of a Jupyter server that somebody else runs, as in a Binder: everything but JupyterLab.

Run as a program it says in one line on standard output what that server needs, and ends when its standard input does,
which is when the server has ended. Starting it is `before_jupyter`'s job.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from micromegas_jupyter.demo.job_kernel import write_job_kernel
from micromegas_jupyter.demo.lab import write_page_config
from micromegas_jupyter.demo.provider.registrations import PAGES, BehindJupyter
from micromegas_jupyter.demo.stack import DemoStack
from micromegas_jupyter.errors import MicromegasError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# All of a Binder, Jupyter and kernels included, often has 2 GiB.
_SPARE_EXECUTORS = 1
_MEMORY_MIB = 256
_CONFIG_PATH = "JUPYTER_CONFIG_PATH"
_DATA_PATH = "JUPYTER_PATH"


def write_jupyter_files(folder: Path, *, issuer: str, job_environment: Mapping[str, str]) -> dict[str, str]:
    """Write what a Jupyter server and its kernels need to find the demo, and return the variables that lead there.

    Args:
        folder: Where the files go.
        issuer: The provider's address on loopback.
        job_environment: The variables of the kernel that is a job's.
    """
    config, data = folder / "jupyter" / "config", folder / "jupyter" / "data"
    write_page_config(config)
    (config / "jupyter_server_config.json").write_text(json.dumps(_server_config(issuer)), encoding="utf-8")
    write_job_kernel(data, job_environment)
    return {_CONFIG_PATH: str(config), _DATA_PATH: str(data)}


def _server_config(issuer: str) -> dict[str, object]:
    address = urlsplit(issuer)
    pages: dict[str, object] = {
        "command": [],
        "port": address.port,
        "launcher_entry": {"enabled": False},
        # The provider answers under its own name only, so that no name on the internet can be pointed at it.
        "request_headers_override": {"Host": address.netloc},
    }
    return {
        "ServerProxy": {"servers": {PAGES: pages}},
        # In each Binder there is one person, with a provider of their own that knows made-up people only: there is
        # nobody whose token could be taken (docs/decisions, 0010 and 0018).
        "MicromegasRelay": {"per_user_redirect": True, "provider_paths": {issuer: PAGES}},
    }


def main() -> None:
    """Run the demo for a server below the base URL that is the only argument."""
    signal.signal(signal.SIGTERM, lambda *_received: sys.exit(0))
    try:
        _run(BehindJupyter(base_url=sys.argv[1]))
    except MicromegasError as error:
        sys.exit(f"✗ {error}")


def _run(behind: BehindJupyter) -> None:
    with DemoStack(spare_executors=_SPARE_EXECUTORS, memory_mib=_MEMORY_MIB, behind=behind) as stack:
        paths = write_jupyter_files(stack.folder, issuer=stack.provider.issuer, job_environment=stack.job_environment())
        inherited = {name: os.pathsep.join(filter(None, (path, os.environ.get(name)))) for name, path in paths.items()}
        sys.stdout.write(json.dumps({**stack.client_environment(), **inherited}) + "\n")
        sys.stdout.flush()
        while sys.stdin.buffer.read(4096):
            pass


if __name__ == "__main__":
    main()
