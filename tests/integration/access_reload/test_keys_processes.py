"""`micromegas keys` as processes: what goes where, many at once, and killed in the middle."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from micromegas_jupyter.access import ApiKeyValidator
from micromegas_jupyter.access.api_keys import KeyFile

pytestmark = pytest.mark.integration

CONCURRENT = 6
KILLS = 8
OTHER_ID = 12345


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.json"


def command(path, *words):
    return [sys.executable, "-m", "micromegas_jupyter.cli", "keys", *words, "--file", str(path)]


def run(path, *words):
    return subprocess.run(command(path, *words), capture_output=True, text=True, timeout=60, check=False)


def test_a_key_is_made_used_and_revoked(path):
    made = run(path, "create", "report", "--expires", "1d")
    key = made.stdout.strip()

    assert (made.returncode, re.fullmatch(r"mmk_[A-Za-z0-9_-]{43}\n", made.stdout) is not None) == (0, True)
    assert ApiKeyValidator(KeyFile(path).load()).cached_context(key) is not None

    listed, revoked = run(path, "list"), run(path, "revoke", "report")

    assert key not in made.stderr + listed.stdout + listed.stderr + revoked.stdout + revoked.stderr
    assert (revoked.returncode, revoked.stdout) == (0, "")
    assert ApiKeyValidator(KeyFile(path).load()).cached_context(key) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another account")
def test_what_root_revokes_a_server_of_another_account_refuses(shared_temporary_folder):
    """The file belongs to root and is readable for the server's group, as the guide allows."""
    with tempfile.TemporaryDirectory(dir=shared_temporary_folder) as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "keys.json"
        key = run(path, "create", "report").stdout.strip()
        run(path, "create", "other")
        os.chown(path, 0, OTHER_ID)
        path.chmod(0o640)
        program = (
            "import os, sys, threading\n"
            "from micromegas_jupyter.access import validator_from_environment\n"
            f"os.setgroups([]), os.setgid({OTHER_ID}), os.setuid({OTHER_ID})\n"
            f"validator = validator_from_environment({{'MICROMEGAS_API_KEY_FILE': {str(path)!r}}})\n"
            "key = sys.argv[1]\n"
            "print(validator.cached_context(key) is not None, flush=True)\n"
            "for _ in range(6000):\n"
            "    if validator.cached_context(key) is None: break\n"
            "    threading.Event().wait(0.01)\n"
            "print(validator.cached_context(key) is not None, flush=True)\n"
        )
        server = subprocess.Popen([sys.executable, "-c", program, key], text=True, stdout=subprocess.PIPE)
        before = server.stdout.readline().strip()

        listed, revoked = run(path, "list"), run(path, "revoke", "report")
        after, _ = server.communicate(timeout=60)

        assert (listed.returncode, revoked.returncode) == (0, 0)
        assert (before, after.strip()) == ("True", "False")
        assert (path.stat().st_gid, path.stat().st_mode & 0o777) == (OTHER_ID, 0o640)


def test_processes_at_once_lose_no_key(path):
    names = [f"key-{number}" for number in range(CONCURRENT)]
    running = [
        subprocess.Popen(command(path, "create", name), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for name in names
    ]
    keys = [process.communicate(timeout=100)[0].strip() for process in running]

    validator = ApiKeyValidator(KeyFile(path).load())

    assert [validator.validate_token(key).subject for key in keys] == names


def test_kills_at_any_moment_leave_a_whole_file_with_all_keys_that_were_printed(path):
    """A child makes keys one after the other and prints each; it is killed again and again, and the file checked."""
    program = (
        "import sys\n"
        "from micromegas_jupyter.cli.main import run\n"
        "for number in range(10_000):\n"
        f"    run(['keys', 'create', f'{{sys.argv[1]}}-{{number}}', '--file', {str(path)!r}])\n"
    )
    printed = []
    for round_number in range(KILLS):
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(round_number)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        printed += [child.stdout.readline().strip() for _ in range(3)]
        # Somewhere in the next key or two; the moments differ from round to round.
        threading.Event().wait(0.002 * round_number)
        os.kill(child.pid, signal.SIGKILL)
        printed += [line.strip() for line in child.stdout if line.endswith("\n")]
        child.wait(30)
        child.stdout.close()

        validator = ApiKeyValidator(KeyFile(path).load())
        assert [key for key in printed if validator.cached_context(key) is None] == []

    assert run(path, "create", "last").returncode == 0
    assert not list(path.parent.glob(".*.tmp"))
    assert len(printed) >= 3 * KILLS
