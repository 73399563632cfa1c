"""Starts the demo, then becomes the Jupyter server of the command line: `binder/start` runs it.

    python -m micromegas_jupyter.demo.before_jupyter jupyter lab --ServerApp.base_url=/x/

What runs beside Jupyter is `companion`'s. It ends when Jupyter does: Jupyter holds the other end of its standard input.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import subprocess
import sys
from typing import TYPE_CHECKING

from micromegas_jupyter.errors import ServerUnavailable
from micromegas_jupyter.seams import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_START_TIMEOUT_SECONDS = 120.0
_MAX_LINE_BYTES = 64 * 1024
_BASE_URL_OPTIONS = frozenset({"--ServerApp.base_url", "--NotebookApp.base_url", "--base-url"})
_HUB_PREFIX = "JUPYTERHUB_SERVICE_PREFIX"
_BASE_URL = re.compile(r"/(?:[A-Za-z0-9@._~%+=:-]+/)*", re.ASCII)


def find_base_url(command: Sequence[str], environ: Mapping[str, str]) -> str:
    """Return the path below which a Jupyter server answers, with a slash at both ends.

    Args:
        command: The command that starts it; its options count first, the last of them as with Jupyter.
        environ: Its variables; JupyterHub says it there.
    """
    found = environ.get(_HUB_PREFIX, "")
    for place, word in enumerate(command):
        name, equals, value = word.partition("=")
        if name in _BASE_URL_OPTIONS:
            found = value if equals else "".join(command[place + 1 : place + 2])
    base_url = f"/{found.strip('/')}/".replace("//", "/")
    return base_url if _BASE_URL.fullmatch(base_url) else "/"


def start_demo(base_url: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Start the demo and return the variables that a Jupyter server and its kernels need.

    Args:
        base_url: The path below which that server answers.
        environ: The demo's own variables.

    Raises:
        ServerUnavailable: It did not start.
    """
    ours, theirs = os.pipe()
    command = [sys.executable, "-P", "-m", "micromegas_jupyter.demo.companion", base_url]
    # A session of its own: Ctrl-C at a terminal is Jupyter's, which asks back.
    process = subprocess.Popen(  # noqa: S603 - our own interpreter with fixed options
        command, env=environ, stdin=ours, stdout=subprocess.PIPE, start_new_session=True
    )
    os.close(ours)
    line = b"" if process.stdout is None else _read_line(process.stdout.fileno())
    if not line:
        process.kill()
        process.wait()
        os.close(theirs)
        raise ServerUnavailable("The demo did not start.", remedy="What it said stands above; Jupyter goes on without.")
    # The program that this one becomes inherits it, and none of its children: Python closes other files for them.
    os.set_inheritable(theirs, True)
    variables: dict[str, str] = json.loads(line)
    return variables


def _read_line(descriptor: int) -> bytes:
    """Return what a program says in its first line; empty when it ends, says too much, or nothing in time."""
    deadline = SYSTEM_CLOCK.monotonic() + _START_TIMEOUT_SECONDS
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while len(said) < _MAX_LINE_BYTES and selector.select(max(deadline - SYSTEM_CLOCK.monotonic(), 0)):
            piece = os.read(descriptor, _MAX_LINE_BYTES)
            said += piece
            if said.endswith(b"\n"):
                return said
            if not piece:
                return b""
    return b""


def main() -> None:
    """Start the demo, then become the program of the command line."""
    command = sys.argv[1:]
    if not command:
        sys.exit("usage: python -m micromegas_jupyter.demo.before_jupyter COMMAND [ARGUMENT ...]")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
    own = {name: value for name, value in environ.items() if not name.startswith("JUPYTERHUB_")}
    try:
        environ |= start_demo(find_base_url(command, environ), own)
    except ServerUnavailable as error:
        sys.stderr.write(f"✗ {error.what} {error.remedy}\n")
    try:
        os.execvpe(command[0], command, environ)  # noqa: S606 - the command is what this program was given
    except OSError:
        sys.exit(f"✗ {command[0]} cannot be run.")


if __name__ == "__main__":
    main()
