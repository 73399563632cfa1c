"""What the zygote does with what an executor leaves behind, and what executors may set about themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.executors.zygote import _read_tail

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a zygote runs on Linux")

_LIMITED = """
import encodings.ascii, os, resource  # the interpreter may be out of reach for another user
from micromegas_jupyter.executors.settings import WorkerOptions
from micromegas_jupyter.executors.settings import hide_memory, limit_process
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
hide_memory()
limit_process(WorkerOptions(lake=None, denials_file=None, spill_directory="/", data_limit_bytes=None))
print(open("/proc/self/oom_score_adj").read(), os.access("/proc/self/environ", os.R_OK))
"""


def test_the_end_of_what_was_written_is_told(tmp_path: Path) -> None:
    written = tmp_path / "stderr"
    written.write_bytes(b"x" * 5000 + b"the end")

    assert _read_tail(written).endswith("xxthe end")
    assert len(_read_tail(written)) == 2048


def test_a_pipe_in_place_of_the_file_delays_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "stderr")

    assert not _read_tail(tmp_path / "stderr")


def test_a_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a secret", encoding="utf-8")
    (tmp_path / "stderr").symlink_to(tmp_path / "secret")

    assert not _read_tail(tmp_path / "stderr")


def test_executors_of_any_user_end_first_when_the_machine_has_no_memory() -> None:
    done = subprocess.run([sys.executable, "-c", _LIMITED], capture_output=True, text=True, check=True, timeout=120)

    # And their memory is hidden again.
    assert done.stdout.split() == ["500", "False"], done.stderr
