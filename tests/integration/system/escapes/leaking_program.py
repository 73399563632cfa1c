"""A program that lets one secret escape in every way that the watches are to notice.

The secret comes on standard input. It waits with everything open until it is told to end.
"""

import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import micromegas_jupyter
from micromegas_jupyter.errors import LoginFailed

_IN_THE_PACKAGE = Path(str(micromegas_jupyter.__file__)).parent / "leaking.py"
_CHILD = "import sys; print(flush=True); sys.stdin.readline()"
_SOURCE = """
class Careless:
    def __init__(self, secret):
        self.secret = secret
    def __repr__(self):
        return f"Careless({self.secret})"

def fail(token):
    raise error("It failed.")
"""


def main():
    secret = sys.stdin.readline().strip()
    room = {"__name__": "micromegas_jupyter.leaking", "error": LoginFailed}
    exec(compile(_SOURCE, str(_IN_THE_PACKAGE), "exec"), room)
    careless = room["Careless"](secret)
    logging.getLogger("urllib3.connectionpool").debug("sent %s", secret)
    try:
        room["fail"](secret)
    except LoginFailed as error:
        print(error)
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(secret)
        file.flush()
    Path("left-behind").write_text(secret)
    (Path.home() / ".python_history").write_text(f"login({secret!r})\n")
    command = [sys.executable, "-I", "-c", _CHILD, f"--token={secret}"]
    given = {**os.environ, "TOKEN": secret}
    with (
        tempfile.TemporaryFile("w") as unnamed,
        subprocess.Popen(command, env=given, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child,
    ):
        unnamed.write(secret)
        unnamed.flush()
        child.stdout.readline()
        print(f"ready {secret}", flush=True)
        sys.stdin.readline()
        child.communicate(b"\n", timeout=60)
    assert careless is not None


if __name__ == "__main__":
    main()
