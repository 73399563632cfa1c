"""How many modules of the package a query needs; each is a file that somebody has to open who follows it."""

import os
import subprocess
import sys
from contextlib import closing

import pytest

from tests.fakes.flight_server import FakeFlightServer

_LOADED = """
import sys
assert "adbc_driver_manager" not in sys.modules  # which loads pandas and Polars
print(*sorted(name for name in sys.modules if name.startswith("micromegas_jupyter")))
"""
CONNECT = f"""
import micromegas_jupyter
assert micromegas_jupyter.connect().query("SELECT 1")["n"].tolist() == [1, 2, 3]
{_LOADED}
"""
MAGIC = f"""
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.history_manager.enabled = False
shell.run_line_magic("load_ext", "micromegas_jupyter")
shell.run_line_magic("sql", "rows << SELECT 1")
assert shell.user_ns["rows"]["n"].tolist() == [1, 2, 3]
{_LOADED}
"""


@pytest.mark.parametrize(
    ("program", "limit"),
    [pytest.param(CONNECT, 25, id="connect().query()"), pytest.param(MAGIC, 63, id="%load_ext and %sql")],
)
def test_a_query_loads_few_modules(program, limit, capsys):
    command = [sys.executable, "-W", "ignore", "-c", program]
    with closing(FakeFlightServer()) as server:
        environ = {**os.environ, "MICROMEGAS_ANALYTICS_URI": server.uri}
        run = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)

    names = run.stdout.split("\n")[-2].split()
    with capsys.disabled():
        print(f"\n{len(names)} modules, at most {limit}", file=sys.stderr)
    assert "micromegas_jupyter" in names
    assert len(names) <= limit, "\n".join(names)
