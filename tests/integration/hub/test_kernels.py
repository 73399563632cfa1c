"""Kernels, terminals and runs without a person, in real servers of the Hub: each is its own person, without a click."""

import re

import pytest

# The first test starts the Hub.
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

LOAD = "%load_ext micromegas_jupyter"
ASK = "%%sql me <<\nSELECT current_user() AS me"
BEARER_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{10,}\.")
IN_A_TERMINAL = """
import subprocess, sys
command = [sys.executable, "-m", "micromegas_jupyter.cli", *{words!r}]
done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
print(done.returncode, done.stdout, done.stderr, sep="|", end="")
"""


@pytest.fixture(scope="module")
def of_alice(signed_in):
    """One kernel for the tests that leave it as it was."""
    with signed_in.kernel("alice") as running:
        said(running, LOAD)
        yield running


def said(kernel, source):
    """Run a cell that works and return what it printed."""
    cell = kernel.run(source)
    assert cell.reply["status"] == "ok", cell
    return cell.printed


def who(kernel):
    """Ask the server with `%%sql` and return whom it takes the kernel for."""
    said(kernel, ASK)
    return said(kernel, "print(me['me'][0], end='')")


def in_terminal(kernel, *words):
    """Run a command as in a terminal of the server; returns exit code, output and what it said besides."""
    return said(kernel, IN_A_TERMINAL.format(words=words)).split("|", 2)


@pytest.mark.parametrize("login", ["alice", "bob"])
def test_each_kernels_query_runs_as_its_own_person_without_a_click(signed_in, login):
    with signed_in.kernel(login) as kernel:
        said(kernel, LOAD)

        assert who(kernel) == login

    kept = signed_in.auth_state(login)
    tokens = [str(kept[name]) for name in ("access_token", "refresh_token", "id_token") if kept.get(name)]
    assert not [secret for secret in (signed_in.server_token(login), *tokens) if secret in kernel.saved()]
    assert not BEARER_TOKEN.search(kernel.saved())


def test_a_terminal_of_the_server_is_signed_in(of_alice):
    code, output, error = in_terminal(of_alice, "query", "SELECT current_user() AS me", "--format", "csv")
    assert (code, output.split(), error) == ("0", ["me", "alice"], "")

    code, output, error = in_terminal(of_alice, "whoami")
    assert (code, error) == ("0", "")
    assert "through JupyterHub" in output
    assert "knows you as" in output

    code, output, error = in_terminal(of_alice, "login")
    assert code == "0", error
    assert output.startswith("Signed in through JupyterHub as ")

    code, output, _error = in_terminal(of_alice, "logout")
    assert code == "0"
    assert "through JupyterHub until you log out of the Hub" in output


def test_a_python_program_is_signed_in(of_alice):
    program = """
import micromegas_jupyter
with micromegas_jupyter.connect() as client:
    print(client.query("SELECT current_user() AS me")["me"][0], end="")
"""

    assert said(of_alice, program) == "alice"


def test_signing_out_forgets_the_token_in_this_notebook_until_the_person_comes_back(of_alice):
    assert who(of_alice) == "alice"

    assert said(of_alice, "%micromegas_logout").startswith("This notebook has forgotten the token")
    refused = of_alice.run(ASK)
    assert refused.reply["ename"] == "LoginRequired"
    assert "you signed out here" in "".join(refused.reply["traceback"])
    said(of_alice, "%micromegas_login")

    assert who(of_alice) == "alice"


def test_what_a_local_server_inherits_holds_nothing_of_the_hub(signed_in, of_alice):
    said(of_alice, "import pathlib; pathlib.Path('data').mkdir(exist_ok=True)")
    said(of_alice, "import pandas; pandas.DataFrame({'n': [1]}).to_parquet('data/t.parquet')")
    # The server hides its memory and its environment, so that what it is given is looked at here.
    said(of_alice, "import subprocess; given, start = [], subprocess.Popen.__init__")
    said(of_alice, "subprocess.Popen.__init__ = lambda *a, **o: (given.append(o.get('env')), start(*a, **o))[1]")

    said(of_alice, "%micromegas_serve data")

    look = "print('JUPYTERHUB_API_TOKEN' in given[0], 'PATH' in given[0], len(given), end='')"
    assert said(of_alice, look) == "False True 1"
    said(of_alice, "%micromegas_serve --stop")
