"""The command's entry."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from micromegas_jupyter.cli.main import run

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("command", ["whoami", "login", "logout"])
def test_a_command_loads_no_other_command(command):
    program = (
        "import sys; from micromegas_jupyter.cli.main import build_parser; "
        f"build_parser(only={command!r}).parse_args([{command!r}]); "
        "print([name for name in sys.modules if name.endswith(('_command', '_commands'))])"
    )

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "['micromegas_jupyter.cli.sign_in_commands']"


def test_an_option_before_an_unknown_command_is_told_from_a_command(capsys):
    with pytest.raises(SystemExit) as caught:
        run(["nonsense", "login"])

    assert caught.value.code == 2
    assert "nonsense" not in capsys.readouterr().err


def _run(*words, **environ):
    return subprocess.run(
        [sys.executable, "-m", "micromegas_jupyter.cli", *words],
        env={**os.environ, **environ},
        capture_output=True,
        check=False,
        timeout=60,
    )


def test_a_sentence_is_printed_whatever_the_output_can_hold(tmp_path):
    done = _run("logout", MICROMEGAS_CONFIG_DIR=str(tmp_path), PYTHONIOENCODING="ascii")
    failed = _run("login", MICROMEGAS_CONFIG_DIR=str(tmp_path), PYTHONIOENCODING="ascii", MICROMEGAS_OIDC_ISSUER="")

    assert (done.returncode, failed.returncode) == (0, 2)
    assert b"INT001" not in done.stderr + failed.stderr
    assert failed.stderr.startswith(b"\\u2717 No identity provider is configured")


def test_a_warning_is_a_note_without_its_place(tmp_path):
    (tmp_path / "corporate.py").write_text(
        "class Client:\n    def query(self, *_): raise KeyError\ndef connect(): return Client()\n"
    )

    done = _run(
        "whoami",
        MICROMEGAS_CONFIG_DIR=str(tmp_path),
        MICROMEGAS_PYTHON_MODULE_WRAPPER="corporate",
        PYTHONPATH=str(tmp_path),
    )

    assert b"note: MICROMEGAS_PYTHON_MODULE_WRAPPER is deprecated" in done.stderr
    assert b"FutureWarning" not in done.stderr
    assert str(tmp_path).encode() not in done.stderr
