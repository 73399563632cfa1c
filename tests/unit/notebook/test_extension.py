"""The extension in a shell: its magics, their help, and what loading it loads."""

import subprocess
import sys

import pytest

from micromegas_jupyter.notebook.extension import register, unregister


@pytest.mark.parametrize("magic", ["%sql", "%%sql", "%%micromegas_sql rows <<", "%micromegas_login"])
def test_help_lists_the_options_of_a_magic_and_does_nothing_else(shell, world, capsys, magic):
    assert shell.run_cell(f"{magic} --traceback --help").result is None

    said = capsys.readouterr().out
    name = magic.split()[0].strip("%")
    options = [option for action in shell.find_line_magic(name).parser._actions for option in action.option_strings]
    assert all(option in said for option in options)
    assert (world.opened_for, world.logins) == ([], [])


def test_a_sql_magic_of_another_extension_stays_and_it_is_said(bare_shell, world, capsys):
    def other(line, cell=None):
        return "other"

    bare_shell.register_magic_function(other, "line_cell", "sql")

    register(bare_shell, world.dependencies())

    assert capsys.readouterr().out == "Another extension provides %%sql; use %%micromegas_sql for this one.\n"
    assert bare_shell.run_cell_magic("sql", "", "SELECT 1") == "other"
    assert len(bare_shell.run_cell_magic("micromegas_sql", "", "SELECT 1")) == 3
    unregister(bare_shell)
    assert bare_shell.run_line_magic("sql", "") == "other"


def test_load_ext_registers_the_magics_and_loads_no_heavy_library():
    program = (
        "import sys; from IPython.core.interactiveshell import InteractiveShell; ip = InteractiveShell.instance();"
        "ip.run_line_magic('load_ext', 'micromegas_jupyter'); assert ip.find_cell_magic('sql');"
        "print([n for n in ('pyarrow', 'pandas', 'numpy', 'anywidget', 'grpc', 'requests', 'joserfc', 'authlib')"
        " if n in sys.modules]);"
        "ip.run_line_magic('unload_ext', 'micromegas_jupyter'); assert ip.find_cell_magic('sql') is None"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
