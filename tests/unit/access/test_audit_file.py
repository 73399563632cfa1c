"""Audit lines in a file: all of them, whole, for its owner only, also across a rotation and a full disk."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.access.audit import AuditFileHandler
from micromegas_jupyter.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE_SECONDS = 60.0

WRITER = """
import logging, sys
from pathlib import Path
from micromegas_jupyter.access.audit import AuditFileHandler
handler = AuditFileHandler(Path(sys.argv[1]))
for number in range(500):
    handler.emit(logging.makeLogRecord({"msg": '{"writer":"%s","number":%d}', "args": (sys.argv[2], number)}))
handler.close()
"""

# A limit of the process stands in for a full disk: Python ignores SIGXFSZ, so that the write fails.
FULL_DISK = """
import logging, resource, sys, threading
from pathlib import Path
from micromegas_jupyter.access.audit import AuditFileHandler
told = threading.Event()
class Teller(logging.StreamHandler):
    def emit(self, record):
        super().emit(record)
        told.set()
logging.getLogger().addHandler(Teller())
path = Path(sys.argv[1])
handler = AuditFileHandler(path)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
handler.emit(logging.makeLogRecord({"msg": "lost"}))
assert told.wait(60)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
handler.emit(logging.makeLogRecord({"msg": "kept"}))
handler.close()
"""


def _emit(handler: logging.Handler, text: str) -> None:
    handler.emit(logging.makeLogRecord({"msg": text}))


def test_lines_are_appended_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.write_text("before\n")
    path.chmod(0o644)

    handler = AuditFileHandler(path)
    _emit(handler, "one")
    _emit(handler, "two")
    handler.close()

    assert path.read_text() == "before\none\ntwo\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_after_a_rotation_lines_go_to_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    handler = AuditFileHandler(path)
    _emit(handler, "one")
    deadline = time.monotonic() + DEADLINE_SECONDS
    while path.read_text() != "one\n":
        assert time.monotonic() < deadline
        time.sleep(0.01)

    path.rename(tmp_path / "audit.log.1")
    _emit(handler, "two")
    handler.close()

    assert (tmp_path / "audit.log.1").read_text() == "one\n"
    assert path.read_text() == "two\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_processes_that_write_to_one_file_do_not_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in ("a", "b")]
    assert [writer.wait(DEADLINE_SECONDS) for writer in writers] == [0, 0]

    lines = [json.loads(line) for line in path.read_text().splitlines()]

    assert len(lines) == 1000
    for name in ("a", "b"):
        assert [line["number"] for line in lines if line["writer"] == name] == list(range(500))


def test_a_full_disk_keeps_nobody_and_what_was_lost_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"

    child = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, timeout=DEADLINE_SECONDS, check=False
    )

    assert child.returncode == 0, child.stderr
    assert child.stderr == b"The audit file cannot be written; lines are being lost.\n"
    assert path.read_text() == '{"event":"audit_left_out","left_out":1}\nkept\n'


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "nowhere"])
def test_what_is_no_file_of_this_account_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "audit.log"
    match kind:
        case "link":
            (tmp_path / "other").touch()
            path.symlink_to(tmp_path / "other")
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case _:
            path = tmp_path / "no" / "audit.log"

    with pytest.raises(ConfigurationError) as caught:
        AuditFileHandler(path)

    assert caught.value.key == "--audit-log"
    assert str(tmp_path) not in str(caught.value)
