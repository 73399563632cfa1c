"""Renewal in the background of a real process."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.fakes.scripted_provider import Reply, ScriptedProvider, Seen

pytestmark = pytest.mark.integration


def test_a_program_that_ends_during_a_renewal_stores_the_new_tokens_first(tmp_path):
    path = tmp_path / "t.json"
    asked, go_on = threading.Event(), threading.Event()

    class SlowProvider(ScriptedProvider):
        def handle(self, seen: Seen) -> Reply:
            if seen.path == "/token":
                asked.set()
                assert go_on.wait(30)
            return super().handle(seen)

    with SlowProvider() as idp:
        before = idp.stored_token(ends_in_seconds=60)
        path.write_text(json.dumps({"issuer": idp.issuer, "client_id": "notebook", "token": before}))
        program = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "exiting_process.py"), str(path)], stdin=subprocess.PIPE
        )
        assert asked.wait(30)
        threading.Timer(0.3, go_on.set).start()

        program.communicate(b"\n", timeout=60)

        after = json.loads(path.read_text())["token"]
    assert program.returncode == 0
    assert after["refresh_token"] != before["refresh_token"]
