"""Tests of `load_libraries`."""

import subprocess
import sys
import threading

from micromegas_jupyter.notebook import shell
from micromegas_jupyter.notebook.shell import load_libraries

INTERRUPTED = """
import signal, sys, threading, time
from pathlib import Path
from micromegas_jupyter.core import threads
from micromegas_jupyter.notebook.shell import load_libraries

started = threading.Event()

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "whole.part_b":  # the first part has been loaded, the whole has not
            signal.raise_signal(signal.SIGINT)
            started.set()

sys.meta_path.insert(0, Interrupting())
sys.path.insert(0, sys.argv[1])
try:
    load_libraries("whole")
except KeyboardInterrupt:
    print("interrupted")
assert started.wait(30)
load_libraries("whole")
import whole
print(whole.part_a.VALUE, whole.part_b.VALUE)
"""


def test_what_is_there_already_is_not_loaded_again(monkeypatch):
    monkeypatch.setattr(shell, "import_module", lambda name: 1 / 0)

    load_libraries("sys", "threading")


def test_a_library_is_loaded_on_another_thread(monkeypatch):
    loaded = []
    monkeypatch.setattr(shell, "import_module", lambda name: loaded.append((name, threading.current_thread())))

    load_libraries("sys", "a_library_that_is_not_there")

    assert [name for name, _ in loaded] == ["a_library_that_is_not_there"]
    assert loaded[0][1] is not threading.current_thread()


def test_an_interrupt_within_a_first_import_leaves_a_library_that_works(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "__init__.py").write_text("import whole.part_a\nimport whole.part_b\n")
    for part in ("part_a", "part_b"):
        (tmp_path / "whole" / f"{part}.py").write_text(f"VALUE = {part!r}\n")

    run = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
    )

    assert (run.stdout.split("\n"), run.stderr) == (["interrupted", "part_a part_b", ""], "")
