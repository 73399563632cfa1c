"""Several processes share one token file; run as a program, this module is one: `refresh|background FILE`."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from micromegas_jupyter.auth import OidcAuthProvider
from micromegas_jupyter.auth.tokens import source
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import MicromegasError
from tests.fakes.scripted_provider import ScriptedProvider
from tests.fakes.stored_sign_in import StoredSignIn

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
# Still referred to when the program ends, as in a notebook.
BACKGROUND = []


def refresh(path):
    """Print the token that it gets after it has read a line, so that several ask at the same moment."""
    provider = OidcAuthProvider.from_file(path)
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        print(provider.get_token(), flush=True)
    except MicromegasError as error:
        print(type(error).__name__, flush=True)


def background(path):
    """Renew in the background until it reads a line."""
    source.STOP_WAIT_SECONDS = 60.0  # for a provider on a busy machine
    provider = OidcAuthProvider.from_file(path)
    renewal = source.BackgroundRenewal(provider, clock=SYSTEM_CLOCK)
    BACKGROUND.extend([provider, renewal])
    renewal.start()
    sys.stdin.readline()


def start(task, path):
    command = [sys.executable, "-m", __name__, task, str(path)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def read_line(process):
    return process.stdout.readline().strip()


def test_processes_that_need_a_token_at_once_renew_it_once(idp, tmp_path):
    path = tmp_path / "t.json"
    StoredSignIn(idp, path, clock=SYSTEM_CLOCK).write(ends_in_seconds=-10)
    processes = [start("refresh", path) for _ in range(4)]
    try:
        assert [read_line(process) for process in processes] == ["ready"] * 4

        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        tokens = [read_line(process) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate(timeout=60)

    assert set(tokens) == {json.loads(path.read_text())["token"]["id_token"]}
    assert len(idp.refreshes()) == 1


def test_a_program_that_ends_during_a_renewal_stores_the_new_tokens_first(tmp_path):
    path = tmp_path / "t.json"
    asked, go_on = threading.Event(), threading.Event()

    class SlowProvider(ScriptedProvider):
        def handle(self, seen):
            if seen.path == "/token":
                asked.set()
                assert go_on.wait(30)
            return super().handle(seen)

    with SlowProvider() as idp:
        stored = StoredSignIn(idp, path, clock=SYSTEM_CLOCK)
        stored.write(ends_in_seconds=60)
        before = stored.token()
        program = start("background", path)
        assert asked.wait(30)
        threading.Timer(0.3, go_on.set).start()

        program.communicate("\n", timeout=60)

    assert program.returncode == 0
    assert stored.token()["refresh_token"] != before["refresh_token"]


if __name__ == "__main__":
    {"refresh": refresh, "background": background}[sys.argv[1]](sys.argv[2])
