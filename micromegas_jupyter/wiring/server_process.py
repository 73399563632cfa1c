"""A server for one kernel: `micromegas serve` as a child process on a free loopback port, with one key.

The child exits with the process that started it. It receives only the key's digest, not secrets, and records no
telemetry.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from micromegas_jupyter.core.files import TemporaryFolder, remove_abandoned, write_private_file
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.core.system import SYSTEM_RANDOMNESS, Secret, Variables, run_interruptibly
from micromegas_jupyter.core.text import JsonError, cut, decode_strict_json, printable
from micromegas_jupyter.errors import ServerUnavailable, UsageError
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.lake import is_lake as is_lake_folder
from micromegas_jupyter.lake.served_folder import ServedFolder, check_servable

# Client settings, and variables that a Hub sets only for this process, because a child could leak its token.
_WITHHELD_VARIABLES: Final = ("MICROMEGAS_", "KERNEL_MICROMEGAS_", "JUPYTERHUB_", "JPY_API_TOKEN")
_PREFIX: Final = "micromegas-kernel-"
_KEY_BYTES: Final = 32
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 5.0
_MAX_LINE_BYTES: Final = 64 * 1024
_OPTIONS: Final = ("--port=0", "--no-http", "--no-telemetry", "--ready-json", "--exit-with-parent", "--drain-timeout=0")


class ServerProcess:
    """A running server; its creator stops it, and it exits with this process.

    It accepts `key` at `uri`. `is_lake` means that `micromegas serve` wrote the folder, not another program; `problems`
    explains which tables were skipped.
    """

    def __init__(self, location: str, *, is_lake: bool = False, memory_mib: int = 1024) -> None:
        storage = Storage(os.path.expanduser(location))  # noqa: PTH111 - it may be the address of a bucket
        self.tables, self.problems = _find_tables(storage, is_lake=is_lake)
        self.key = Secret(SYSTEM_RANDOMNESS.token_urlsafe(_KEY_BYTES))
        remove_abandoned(_PREFIX)
        self._folder = TemporaryFolder(_PREFIX)
        digest = hashlib.sha256(self.key.reveal().encode()).hexdigest()
        keys = [{"name": "local", "sha256": digest, "roles": ["owner"]}]
        access = {"api_keys": keys, "roles": {"owner": {"tables": ["*"]}}}
        access_config = self._folder.path / "access.json"
        write_private_file(access_config, json.dumps(access).encode())
        command = (
            *(sys.executable, "-P", "-m", "micromegas_jupyter.cli", "serve", *_OPTIONS, "--log-level=error"),
            *(f"--lake={storage.uri}", f"--access-config={access_config}", f"--memory-mib={memory_mib}"),
        )
        others = Variables(
            {name: value for name, value in os.environ.items() if not name.startswith(_WITHHELD_VARIABLES)}
        )
        try:
            # A separate session, because an interrupt of the kernel reaches the kernel's whole process group.
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter with fixed options
                command,
                env=others,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            self._folder.close()
            raise _not_started(error.strerror) from None
        try:
            self.uri = self._await_ready()
        except BaseException:
            self.stop()
            raise

    @property
    def is_running(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Stop the process, and kill it if necessary. Calling this again does nothing."""
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):  # it exited first
                self._process.stdin.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # Last, because another thread may read from it until the process has exited.
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._folder.close()

    def _await_ready(self) -> str:
        try:
            answer = decode_strict_json(run_interruptibly(self._read_line).decode())
        except (UnicodeDecodeError, JsonError):
            answer = None
        if not isinstance(answer, dict) or not isinstance(answer.get("uri"), str):
            raise _not_started()
        return str(answer["uri"])

    def _read_line(self) -> bytes:
        """Return the first line; empty if the process exited, or was killed because it took too long."""
        timer = threading.Timer(_START_SECONDS, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            return b"" if self._process.stdout is None else self._process.stdout.readline(_MAX_LINE_BYTES)
        except (OSError, ValueError):
            return b""
        finally:
            timer.cancel()


def _find_tables(storage: Storage, *, is_lake: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the tables and of the skipped ones, or raise an error if there is nothing to serve."""
    if is_lake:
        if (storage.is_local and not Path(storage.uri).is_dir()) or not is_lake_folder(storage):
            what = f"There is no lake in {cut(printable(storage.uri), 200)}."
            raise UsageError(what, remedy="Use a folder that micromegas serve has written to.")
        return tuple(table.name for table in Lake(storage).snapshot() if table.problem is None), ()
    check_servable(storage)
    served = ServedFolder(storage)
    if not (tables := [table for table in served.snapshot() if table.problem is None]):
        found = f" {served.problems[0]}" if served.problems else ""
        raise UsageError(
            f"The folder does not contain a readable table.{found}",
            remedy="Use a folder of Delta tables, or of Parquet, CSV, JSON lines, or Arrow files.",
        )
    return tuple(table.name for table in tables), served.problems


def _not_started(why: str | None = None) -> ServerUnavailable:
    return ServerUnavailable(
        f"The local server did not start{': ' + why if why else ''}.",
        remedy="Run `micromegas serve` in a terminal to see why.",
    )
