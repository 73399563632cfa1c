"""Several processes share one token file."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from micromegas_jupyter.auth.tokens.store import FileTokenStore
from tests.fakes.scripted_provider import ScriptedProvider

pytestmark = pytest.mark.integration


def start(task, path):
    command = [sys.executable, str(Path(__file__).with_name("child_process.py")), task, str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def read_line(process):
    return process.stdout.readline().strip()


def finish(process):
    process.kill()
    process.communicate(timeout=60)


def test_processes_that_need_a_token_at_once_renew_it_once(idp, tmp_path):
    path = tmp_path / "t.json"
    token = idp.stored_token(ends_in_seconds=-10)
    path.write_text(json.dumps({"issuer": idp.issuer, "client_id": "notebook", "token": token}))
    processes = [start("refresh", path) for _ in range(4)]
    try:
        assert [read_line(process) for process in processes] == ["ready"] * 4

        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        tokens = [read_line(process) for process in processes]
    finally:
        for process in processes:
            finish(process)

    assert set(tokens) == {json.loads(path.read_text())["token"]["id_token"]}
    assert len(idp.refreshes()) == 1


def test_a_writer_that_is_killed_leaves_a_whole_file_and_a_free_lock(tmp_path):
    path = tmp_path / "t.json"
    store = FileTokenStore(path)

    for round_number in range(8):
        process = start("write", path)
        assert read_line(process) == "ready"
        process_deadline = time.monotonic() + 0.02 * round_number
        while time.monotonic() < process_deadline:
            token = store.load()[0].tokens.access_token.reveal()
            assert len(set(token)) == 1
        finish(process)

        token = store.load()[0].tokens.access_token.reveal()
        assert len(set(token)) == 1
        with store.locked(wait_seconds=5):
            names = sorted(entry.name for entry in tmp_path.iterdir())
        assert names == ["t.json", "t.json.lock"]


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
        before = idp.stored_token(ends_in_seconds=60)
        path.write_text(json.dumps({"issuer": idp.issuer, "client_id": "notebook", "token": before}))
        program = start("background", path)
        assert asked.wait(30)
        threading.Timer(0.3, go_on.set).start()

        program.communicate("\n", timeout=60)

        after = json.loads(path.read_text())["token"]
    assert program.returncode == 0
    assert after["refresh_token"] != before["refresh_token"]
