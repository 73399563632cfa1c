"""The magics in an IPython terminal: a real terminal, a real provider."""

import os
import sys
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.demo.provider import DemoProvider
from micromegas_jupyter.demo.provider.scripted_person import sign_in
from tests.fakes.terminal import ProgramAtTerminal

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[[str], ProgramAtTerminal]

pytestmark = pytest.mark.integration

LOAD = "%load_ext micromegas_jupyter"
END_THE_SIGN_IN = """
import pathlib, threading
session = get_ipython()._micromegas_extension.session
def end():
    while not pathlib.Path({gate!r}).exists():
        pause.wait(0.1)
    session.attempt.login.cancel()
pause = threading.Event()
threading.Thread(target=end, daemon=True).start()
"""


@pytest.fixture
def provider():
    with DemoProvider(device_interval_seconds=1) as running:
        yield running


@pytest.fixture
def environ(provider, tmp_path):
    kept = {name: value for name, value in os.environ.items() if name not in {"DISPLAY", "WAYLAND_DISPLAY", "CI"}}
    return {
        **kept,
        "HOME": str(tmp_path),
        "TERM": "xterm",
        "COLUMNS": "400",
        "MICROMEGAS_ANALYTICS_URI": "grpc://127.0.0.1:1",
        "MICROMEGAS_OIDC_ISSUER": provider.issuer,
        "MICROMEGAS_OIDC_CLIENT_ID": provider.client_id,
        "MICROMEGAS_CONFIG_DIR": str(tmp_path / "config"),
    }


@pytest.fixture
def run(environ):
    with ExitStack() as running:

        def run_one(source):
            command = [sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor", "-c", f"{LOAD}\n{source}"]
            return running.enter_context(closing(ProgramAtTerminal(command, environ=environ)))

        yield run_one


def test_without_a_browser_a_code_is_shown_with_its_picture_and_waited_for(run):
    terminal = run("%micromegas_login")

    code, address = terminal.wait_for(r"Go to \S+ and type (\S+)[\s\S]*Open (\S+) to sign in").groups()
    sign_in(f"{address}?user_code={code}")
    terminal.finish()

    assert "█▀▀▀▀▀█" in terminal.words or "█ ▄▄▄▄▄ █" in terminal.words
    assert "Signed in as Alice Martin" in terminal.words
    assert "Traceback" not in terminal.words


def test_a_long_pasted_address_is_taken_whole_and_not_shown(run):
    terminal = run("%micromegas_login --flow paste")

    start_url = terminal.wait_for(r"Open (\S+) to sign in")[1]
    end = sign_in(start_url, visit_callback=False)
    terminal.wait_for("Paste the address")
    terminal.type(f"{end}&session_state={'x' * 6000}\r")
    terminal.finish()

    assert "Signed in as Alice Martin" in terminal.words
    assert "code=" not in terminal.words
    assert "xxxx" not in terminal.words


def test_the_question_ends_with_the_sign_in(run, tmp_path):
    gate = tmp_path / "asked"
    terminal = run(f"{END_THE_SIGN_IN.format(gate=str(gate))}\n%micromegas_login --flow paste")

    terminal.wait_for("Paste the address")
    gate.touch()
    terminal.finish()

    assert "✗ The sign-in was canceled. Start the sign-in again. · AUTH002" in terminal.words
    assert "Traceback" not in terminal.words
