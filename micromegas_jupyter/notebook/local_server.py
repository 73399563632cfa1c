"""A local server as a child of this kernel: started, told its key's digest through a pipe, ended with the kernel.

What it serves and how is `assembly.local_server`'s job; which connection a cell uses, the session's.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.errors import ServerUnavailable, UsageError
from micromegas_jupyter.seams import SYSTEM_RANDOMNESS, Variables
from micromegas_jupyter.strict_json import JsonError, decode_strict_json

if TYPE_CHECKING:
    from pathlib import Path

_CHILD = "micromegas_jupyter.assembly.local_server_child"
# Settings of the client half, and what a Hub gives this server alone: a child could hand its token on.
_WITHHELD_VARIABLES = ("MICROMEGAS_", "KERNEL_MICROMEGAS_", "JUPYTERHUB_", "JPY_API_TOKEN")
_KEY_BYTES = 32
_START_SECONDS = 60.0
_STOP_SECONDS = 5.0
_MAX_ANSWER_BYTES = 8 * 1024 * 1024
_NOT_STARTED = "The local server did not start."
_TRY_ELSEWHERE = "Run `micromegas serve` in a terminal to see why."


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a local server said when it was ready.

    Attributes:
        uri: Its address.
        tables: The names of its tables.
        problems: What was left out, a sentence for each.
    """

    uri: str
    tables: tuple[str, ...]
    problems: tuple[str, ...]


class LocalServerProcess:
    """A running local server; whoever makes it stops it, and it ends by itself with this process.

    Args:
        folder: What it serves.
        is_lake: Whether that is a folder that `micromegas serve` wrote, and not one of plain Parquet files.
        memory_mib: Memory for its queries, in MiB.

    Raises:
        UsageError: The folder cannot be served.
        ServerUnavailable: The server did not start in time.
    """

    def __init__(self, folder: Path, *, is_lake: bool = False, memory_mib: int = 1024) -> None:
        from micromegas_jupyter.lakehouse import check_servable  # with pyarrow, which loading the extension leaves out

        check_servable(folder)
        self.key = Secret(SYSTEM_RANDOMNESS.token_urlsafe(_KEY_BYTES))
        order = {
            "folder": str(folder.absolute()),
            "is_lake": is_lake,
            "key_sha256": hashlib.sha256(self.key.reveal().encode()).hexdigest(),
            "memory_mib": memory_mib,
            "parent": os.getpid(),
        }
        others = {name: value for name, value in os.environ.items() if not name.startswith(_WITHHELD_VARIABLES)}
        try:
            # Its own session: an interrupt of the kernel reaches the kernel's whole process group.
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter with fixed options
                [sys.executable, "-P", "-m", _CHILD],
                env=Variables(others),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise ServerUnavailable(f"{_NOT_STARTED[:-1]}: {error.strerror}.", remedy=_TRY_ELSEWHERE) from None
        try:
            self.served = self._order(order)
        except BaseException:
            self.stop()
            raise

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it; killed when it does not go. Calling again does nothing."""
        self._close(self._process.stdin)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # Last: until the process has ended, another thread may be reading from it.
        self._close(self._process.stdout)

    @staticmethod
    def _close(pipe: IO[bytes] | None) -> None:
        if pipe is not None:
            with suppress(BrokenPipeError):  # it ended first
                pipe.close()

    def _order(self, order: dict[str, object]) -> Served:
        from micromegas_jupyter.client.threads import run_interruptibly

        line = run_interruptibly(lambda: self._exchange(json.dumps(order).encode() + b"\n"))
        try:
            answer = decode_strict_json(line.decode())
        except (UnicodeDecodeError, JsonError):
            answer = None
        match answer:
            case {"failure": [str(what), str(remedy)]}:
                raise UsageError(what, remedy=remedy)
            case {"uri": str(uri), "tables": list(tables), "problems": list(problems)}:
                return Served(uri=uri, tables=tuple(map(str, tables)), problems=tuple(map(str, problems)))
            case _:
                raise ServerUnavailable(_NOT_STARTED, remedy=_TRY_ELSEWHERE)

    def _exchange(self, order: bytes) -> bytes:
        """Send the order and return the answer; empty when the process ended, or was killed for taking too long."""
        timer = threading.Timer(_START_SECONDS, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            if self._process.stdin is None or self._process.stdout is None:
                return b""
            self._process.stdin.write(order)
            self._process.stdin.flush()
            return self._process.stdout.readline(_MAX_ANSWER_BYTES)
        except (OSError, ValueError):
            return b""
        finally:
            timer.cancel()
