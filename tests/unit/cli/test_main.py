"""The command's entry."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from micromegas_jupyter.cli.main import build_parser, run

ROOT = Path(__file__).parents[3]


def _options(parser, command):
    return {
        option for action in parser._subparsers._group_actions[0].choices[command]._actions
        for option in action.option_strings
    }  # fmt: skip


def test_only_the_named_command_gets_its_arguments():
    parser = build_parser(only="login")

    assert "--flow" in _options(parser, "login")
    assert "--file" not in _options(parser, "query")


def test_all_commands_have_theirs_when_none_is_named():
    parser = build_parser()

    assert "--flow" in _options(parser, "login")
    assert "--file" in _options(parser, "query")


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


def test_the_version_needs_no_command(capsys):
    with pytest.raises(SystemExit) as caught:
        run(["--version"])

    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("micromegas_jupyter ")


def test_the_older_name_of_logout_is_the_same_command(tmp_path):
    program = "from micromegas_jupyter.cli.main import logout_main; logout_main()"
    environ = {"MICROMEGAS_CONFIG_DIR": str(tmp_path), "HOME": str(tmp_path)}

    result = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Nobody was signed in")


def test_the_older_name_of_logout_is_installed():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]

    assert scripts["micromegas_logout"] == "micromegas_jupyter.cli.main:logout_main"


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
