"""The extension in a shell: its magics, their help, and what loading it loads."""

import subprocess
import sys

import pytest
from IPython.core.interactiveshell import InteractiveShell

from micromegas_jupyter.notebook.extension import register, unregister
from tests.fakes.notebook_world import FakeWorld

NAMES = [
    "micromegas_connect",
    "micromegas_doctor",
    "micromegas_login",
    "micromegas_logout",
    "micromegas_queries",
    "micromegas_serve",
    "micromegas_sql",
    "micromegas_tables",
    "micromegas_whoami",
    "sql",
]
INTERRUPTED = """
import signal, sys, threading, time
from pathlib import Path
from micromegas_jupyter.core import system as threads
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


@pytest.mark.parametrize("name", NAMES)
def test_help_lists_the_options_of_every_magic_and_does_nothing_else(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    done = shell.run_cell(f"%{name} --traceback --help")

    said = capsys.readouterr().out
    assert done.success
    assert done.result is None
    parser = shell.find_line_magic(name).parser
    assert all(option in said for action in parser._actions for option in action.option_strings)
    assert str(shell.find_line_magic(name).__doc__).splitlines()[-1].strip() in said
    assert (world.profiles, world.opened_for, world.logins, world.logouts) == ([], [], [], [])


def test_a_sql_magic_of_another_extension_stays_and_it_is_said(
    bare_shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    def other(line: str, cell: str | None = None) -> str:
        return "other"

    bare_shell.register_magic_function(other, "line_cell", "sql")

    register(bare_shell, world.dependencies())

    assert capsys.readouterr().out == "Another extension provides %%sql; use %%micromegas_sql for this one.\n"
    assert bare_shell.run_cell_magic("sql", "", "SELECT 1") == "other"
    assert len(bare_shell.run_cell_magic("micromegas_sql", "", "SELECT 1")) == 3
    unregister(bare_shell)
    assert bare_shell.run_line_magic("sql", "") == "other"


def test_load_ext_registers_the_magics_and_loads_no_heavy_library() -> None:
    program = (
        "import sys; from IPython.core.interactiveshell import InteractiveShell; ip = InteractiveShell.instance();"
        "ip.run_line_magic('load_ext', 'micromegas_jupyter'); assert ip.find_cell_magic('sql');"
        "print([n for n in ('pyarrow', 'pandas', 'numpy', 'anywidget', 'grpc', 'requests', 'joserfc', 'authlib')"
        " if n in sys.modules]);"
        "ip.run_line_magic('unload_ext', 'micromegas_jupyter'); assert ip.find_cell_magic('sql') is None"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_an_interrupt_within_a_first_import_leaves_a_library_that_works(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "__init__.py").write_text("import whole.part_a\nimport whole.part_b\n")
    for part in ("part_a", "part_b"):
        (tmp_path / "whole" / f"{part}.py").write_text(f"VALUE = {part!r}\n")

    run = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
    )

    assert (run.stdout.split("\n"), run.stderr) == (["interrupted", "part_a part_b", ""], "")
