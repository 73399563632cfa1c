"""A program on a terminal: what it shows, and what a person types."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
from typing import TYPE_CHECKING

from micromegas_jupyter.seams import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Sequence

WAIT_SECONDS = 60

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class ProgramAtTerminal:
    """Standard input, output and error are one terminal, as a person's are."""

    def __init__(self, command: Sequence[str], *, environ: dict[str, str], folder: str) -> None:
        self._terminal, program = pty.openpty()
        self._process = subprocess.Popen(
            command, env=environ, cwd=folder, stdin=program, stdout=program, stderr=program, start_new_session=True
        )
        os.close(program)
        self.text = ""
        self._position = 0

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Read what is shown until the pattern is there, behind what was waited for before."""
        deadline = SYSTEM_CLOCK.monotonic() + WAIT_SECONDS
        while not (found := re.compile(pattern).search(_CONTROL.sub("", self.text), self._position)):
            assert self._read(deadline - SYSTEM_CLOCK.monotonic()), self.text
        self._position = found.end()
        return found

    def type(self, line: str) -> None:
        """Type a line."""
        os.write(self._terminal, f"{line}\r".encode())

    def finish(self) -> str:
        """Read to the end; returns all that was shown."""
        deadline = SYSTEM_CLOCK.monotonic() + WAIT_SECONDS
        while self._read(deadline - SYSTEM_CLOCK.monotonic()):
            pass
        os.close(self._terminal)
        self._process.wait(WAIT_SECONDS)
        return self.text

    def _read(self, timeout_seconds: float) -> bool:
        if not select.select([self._terminal], [], [], max(timeout_seconds, 0))[0]:
            return False
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # Linux: nobody holds the other end any more
            return False
        self.text += data.decode(errors="replace")
        return bool(data)
