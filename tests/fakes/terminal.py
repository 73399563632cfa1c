"""A program on a terminal: what it shows, and what a person types."""

import os
import pty
import re
import select
import signal
import subprocess
import sys

from micromegas_jupyter.core.system import SYSTEM_CLOCK

WAIT_SECONDS = 120

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


_BROWSER = """#!{python} -I
import sys
from micromegas_jupyter.demo.provider.scripted_person import sign_in
sign_in(sys.argv[1], person={person!r})
"""


def make_browser(path, person="alice"):
    """Make a browser of the person's own (`BROWSER`), which signs in by itself."""
    path.write_text(_BROWSER.format(python=sys.executable, person=person))
    path.chmod(0o755)
    return str(path)


class ProgramAtTerminal:
    """Standard input and error are one terminal, as a person's are; so is standard output, unless it is a pipe."""

    def __init__(self, command, *, environ, folder=None, pipes_output=False):
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
    def words(self):
        return _CONTROL.sub("", self.text)

    def wait_for(self, pattern):
        deadline = SYSTEM_CLOCK.monotonic() + WAIT_SECONDS
        while not (found := re.compile(pattern).search(self.words, self._position)):
            assert self._read(deadline - SYSTEM_CLOCK.monotonic()), self.text
        self._position = found.end()
        return found

    def type(self, text):
        os.write(self._terminal, text.encode())

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)

    def finish(self):
        deadline = SYSTEM_CLOCK.monotonic() + WAIT_SECONDS
        while self._read(deadline - SYSTEM_CLOCK.monotonic()):
            pass
        self.process.wait(WAIT_SECONDS)
        self._close_terminal()
        return self.text

    def output(self):
        """Read to the program's end; returns its standard output, which is a pipe, and the exit code."""
        output, _ = self.process.communicate(timeout=WAIT_SECONDS)
        # A browser that it started may hold the terminal for longer.
        while self._read(1):
            pass
        self._close_terminal()
        return output, self.process.returncode

    def close(self):
        self.process.kill()
        self.process.wait(WAIT_SECONDS)
        self._close_terminal()

    def _close_terminal(self):
        if self._is_open:
            self._is_open = False
            os.close(self._terminal)

    def _read(self, timeout_seconds):
        if not select.select([self._terminal], [], [], max(timeout_seconds, 0))[0]:
            return False
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # Linux: nobody holds the other end any more
            return False
        self.text += data.decode(errors="replace")
        return bool(data)
