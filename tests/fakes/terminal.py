"""A program on a terminal: what it shows, and what a person types."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
from typing import TYPE_CHECKING

from micromegas_jupyter.core.system import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WAIT_SECONDS = 120

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class ProgramAtTerminal:
    """Standard input and error are one terminal, as a person's are; so is standard output, unless it is a pipe."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        folder: str | None = None,
        pipes_output: bool = False,
    ) -> None:
        self._terminal, program = pty.openpty()
        self.process = subprocess.Popen(
            command,
            env=environ,
            cwd=folder,
            stdin=program,
            stdout=subprocess.PIPE if pipes_output else program,
            stderr=program,
            text=True,
            start_new_session=True,
        )
        os.close(program)
        self.text = ""
        self._position = 0
        self._is_open = True

    @property
    def words(self) -> str:
        return _CONTROL.sub("", self.text)

    def wait_for(self, pattern: str) -> re.Match[str]:
        deadline = SYSTEM_CLOCK.monotonic() + WAIT_SECONDS
        while not (found := re.compile(pattern).search(self.words, self._position)):
            assert self._read(deadline - SYSTEM_CLOCK.monotonic()), self.text
        self._position = found.end()
        return found

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def finish(self) -> str:
        deadline = SYSTEM_CLOCK.monotonic() + WAIT_SECONDS
        while self._read(deadline - SYSTEM_CLOCK.monotonic()):
            pass
        self.process.wait(WAIT_SECONDS)
        self._close_terminal()
        return self.text

    def output(self) -> tuple[str, int]:
        """Read to the program's end; returns its standard output, which is a pipe, and the exit code."""
        output, _ = self.process.communicate(timeout=WAIT_SECONDS)
        # A browser that it started may hold the terminal for longer.
        while self._read(1):
            pass
        self._close_terminal()
        return output, self.process.returncode

    def close(self) -> None:
        self.process.kill()
        self.process.wait(WAIT_SECONDS)
        self._close_terminal()

    def _close_terminal(self) -> None:
        if self._is_open:
            self._is_open = False
            os.close(self._terminal)

    def _read(self, timeout_seconds: float) -> bool:
        if not select.select([self._terminal], [], [], max(timeout_seconds, 0))[0]:
            return False
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # Linux: nobody holds the other end any more
            return False
        self.text += data.decode(errors="replace")
        return bool(data)
