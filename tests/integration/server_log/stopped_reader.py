"""A server whose log goes into a pipe that is read only when a test wants it to be."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import psutil
import requests

from tests.integration.executors.server_process import DEADLINE_SECONDS, ROOT

_F_SETPIPE_SZ = 1031
_PIPE_BYTES = 4096


class PipedServer:
    """`micromegas serve` whose standard error is a small pipe; killed with its children at the end of the block."""

    def __init__(self, folder, *options):
        self._reading, writing = os.pipe()
        fcntl.fcntl(self._reading, _F_SETPIPE_SZ, _PIPE_BYTES)
        self._is_read = threading.Event()
        self._is_read.set()
        self._chunks = []
        threading.Thread(target=self._read, daemon=True).start()
        environ = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "micromegas_jupyter.cli", "serve", "--port", "0", "--http-port", "0"),
                *("--ready-json", "--disable-auth", "--lake", str(folder / "lake"), *options),
            ],
            cwd=ROOT,
            env={**environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=writing,
            text=True,
        )
        os.close(writing)
        line = self.process.stdout.readline()
        assert line, self.log()
        ready = json.loads(line)
        self.uri, self.http = ready["uri"], ready["http"]

    @property
    def address(self):
        return self.uri.removeprefix("grpc://")

    def log(self):
        """Return what was read so far."""
        return b"".join(self._chunks).decode("utf-8", "replace")

    def stop_reading(self):
        self._is_read.clear()

    def read_again(self):
        self._is_read.set()

    def get(self, path):
        return requests.get(f"{self.http}{path}", timeout=DEADLINE_SECONDS)

    def metric(self, name):
        """Return the sum of a metric's series."""
        lines = [line for line in self.get("/metrics").text.splitlines() if line.startswith(name)]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def _read(self):
        while True:
            self._is_read.wait()
            with suppress(OSError):
                chunk = os.read(self._reading, _PIPE_BYTES)
                if not chunk:
                    return
                self._chunks.append(chunk)

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                child.kill()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self._is_read.set()
