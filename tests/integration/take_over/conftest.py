"""`micromegas serve` processes that serve one port, one after another."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
END_SECONDS = 60.0


class Server:
    """A `micromegas serve` process."""

    def __init__(self, process):
        self.process = process

    def ready(self):
        """Wait until it serves, and return where."""
        line = self.process.stdout.readline()
        assert line, f"it did not start: {self.process.wait(END_SECONDS)}"
        return json.loads(line)

    def log(self):
        """Yield the lines of its log as they come."""
        return iter(self.process.stderr)


class Servers:
    """Starts servers over one lake; they end with the stack."""

    def __init__(self, folder, runtime_folder, stack):
        self._folder = folder
        self._runtime_folder = runtime_folder
        self._stack = stack

    def start(self, *options, keeps_log=False):
        lake = str(self._folder / "lake")
        command = [sys.executable, "-m", "micromegas_jupyter.cli", "serve", "--lake", lake, "--disable-auth"]
        variables = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
        process = subprocess.Popen(
            [*command, "--no-telemetry", "--ready-json", *options],
            env={**variables, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(self._runtime_folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if keeps_log else subprocess.DEVNULL,
            text=True,
        )
        self._stack.enter_context(process)
        self._stack.callback(process.kill)
        return Server(process)


@pytest.fixture
def servers(tmp_path, runtime_folder):
    with ExitStack() as stack:
        yield Servers(tmp_path, runtime_folder, stack)
