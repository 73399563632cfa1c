"""The exit code of each command and sub-command; docs/cli.md explains each number."""

import argparse
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from micromegas_jupyter.cli.main import build_parser
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.demo.provider.scripted_person import ScriptedPerson
from micromegas_jupyter.wiring import client_side
from micromegas_jupyter.wiring import sign_in as signing_in
from tests.integration.system.conftest import COMMAND_TIMEOUT_SECONDS

pytestmark = [pytest.mark.integration, pytest.mark.slow]

DONE, FAILED, USAGE, NO_SIGN_IN, AWAY, INTERRUPTED = 0, 1, 2, 3, 4, 130
ID = "00000000-0000-0000-0000-000000000000"
# What each command that asks the server is called with; its code for an administrator, and for somebody who may read
# but is neither that nor an owner. For who is not signed in and for a server that is away they have one code each.
AT_SERVER = {
    "whoami": ((), DONE, DONE),
    "doctor": ((), DONE, DONE),
    "query": (("SELECT 1",), DONE, DONE),
    "queries": ((), DONE, DONE),
    "cancel": ((ID,), FAILED, FAILED),  # nothing runs
    "processes": ((), DONE, DONE),
    "process-log": ((ID,), DONE, DONE),
    "process-metrics": ((ID,), DONE, DONE),
    "keys usage": ((), DONE, FAILED),
    "admin who-read": (("log_entries",), DONE, FAILED),
    "admin cut-off": ((), DONE, FAILED),
    "trace": (("f" * 32,), USAGE, USAGE),  # there is no such trace
    "logs": ((), DONE, DONE),
    "telemetry keys": ((), DONE, DONE),
    "telemetry setup": (("--days", "31"), FAILED, FAILED),  # that is too long
    "telemetry revoke": ((ID,), USAGE, USAGE),  # there is no such key
    "tables list": ((), DONE, DONE),
    "tables describe": (("t1",), DONE, DONE),
    "tables history": (("t2",), DONE, FAILED),
    "tables set": (("t2", "undo-hours=48"), DONE, FAILED),
    "tables optimize": (("t3",), DONE, FAILED),
    "tables delete": (("t4", "--where", "n = 0", "--yes"), DONE, FAILED),
    "tables drop": (("t5", "--yes"), DONE, FAILED),
    "tables restore": (("t6", "--to", "2020-01-01T00:00:00Z", "--yes"), USAGE, FAILED),  # there was no table
}
# The code path of the others at a server that is away, and when a process ends.
ONE_OF_EACH_KIND = ("whoami", "doctor", "query", "processes", "admin cut-off", "tables list")
# The others, which run in one folder, the first one before the rest.
HERE = [
    ("keys create", ("ci", "--file", "keys.json"), DONE),
    ("login", (), NO_SIGN_IN),  # nobody is there who could
    ("login", ("--flow", "device", "--issuer", "http://127.0.0.1:1"), AWAY),
    ("logout", (), DONE),
    ("completion", ("bash",), DONE),
    ("mcp", ("--print-config",), DONE),
    ("explain", ("SQL001",), DONE),
    ("explain", ("SQL999",), USAGE),
    ("keys list", ("--file", "keys.json"), DONE),
    ("keys revoke", ("ci", "--file", "keys.json"), DONE),
    ("keys revoke", ("other", "--file", "keys.json"), USAGE),
    ("serve", ("--check-config", "--lake", "lake", "--disable-auth"), DONE),
    ("lake status", ("lake",), USAGE),  # there is none
    ("access explain", ("token", "--api-key-file", "keys.json"), NO_SIGN_IN),  # as a server would answer
    ("demo", ("--host", "192.0.2.1"), USAGE),
]


@pytest.fixture(scope="module")
def environs(stack, tmp_path_factory):
    """The variables of an administrator, of somebody else, of nobody, and for a server that is away."""
    folder = tmp_path_factory.mktemp("people")
    people = {
        name: {**stack.process_environment(), "MICROMEGAS_CONFIG_DIR": str(folder / name)}
        for name in ("alice", "bob", "nobody")
    }
    for name in ("alice", "bob"):
        with ScriptedPerson(person=name) as browser:
            settings = client_side.load_client_settings(environ=people[name])
            signing_in.login(settings, flow=Flow.BROWSER, browser=browser, environ=people[name])
    with client_side.connect(environ=people["alice"]) as client:
        for number in range(1, 7):
            client.bulk_ingest(f"t{number}", pa.table({"n": [1]}), mode="create")
    return {**people, "away": {**people["alice"], "MICROMEGAS_ANALYTICS_URI": "grpc://127.0.0.1:1"}}


def _start(words, environ, **options):
    command = [sys.executable, "-m", "micromegas_jupyter.cli", *words]
    more = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environ = {name: value for name, value in environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(command, env={**environ, "PYTHONPATH": str(Path.cwd())}, **(more | options))


def _end(process):
    """Return the code, and what else there is to see if it is not the right one."""
    output, errors = process.communicate(timeout=COMMAND_TIMEOUT_SECONDS)
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
    return process.returncode, (output or "")[-500:] + errors[-500:]


def _check(expected, run):
    """Run what is expected, by what it is run with, and compare the codes."""
    with ThreadPoolExecutor(4) as several:
        found = dict(zip(expected, several.map(run, expected), strict=True))
    assert {key: code for key, (code, _) in found.items()} == expected, found


@pytest.fixture
def run_here(environs, micromegas_here):
    """Run a command in this process, as a user; return its code and what it printed."""

    def run_as(who, words):
        result = micromegas_here(*words, environ=environs[who])
        printed = result.stdout + result.stderr
        assert "Traceback" not in printed
        return result.returncode, printed[-500:]

    return run_as


def _at_server(names, who):
    codes = {"nobody": NO_SIGN_IN, "away": AWAY}
    return {
        (*name.split(), *words): codes.get(who, code if who == "alice" else code_of_others)
        for name, (words, code, code_of_others) in AT_SERVER.items()
        if name in names
    }


# Alice drops a table, so she comes last, and no process does so again. A server that is away takes seconds each time.
@pytest.mark.parametrize("who", ["bob", "nobody", "away", "alice"])
def test_a_command_at_the_server_returns_its_code(run_here, who, pytestconfig):
    is_short = who == "away" and not pytestconfig.getoption("--long")
    expected = _at_server(ONE_OF_EACH_KIND if is_short else AT_SERVER, who)

    found = {words: run_here(who, words) for words in expected}

    assert {words: code for words, (code, _) in found.items()} == expected, found


def test_a_command_at_the_server_leaves_with_its_code(environs, pytestconfig):
    is_long = pytestconfig.getoption("--long")
    names = AT_SERVER.keys() - {"tables drop"} if is_long else {*ONE_OF_EACH_KIND, "cancel", "tables restore"}

    _check(_at_server(names, "alice"), lambda words: _end(_start(words, environs["alice"])))


def test_other_commands_return_their_codes(run_here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text("no-token")
    expected = {(*name.split(), *words): code for name, words, code in HERE}

    found = {words: run_here("nobody", words) for words in expected}

    assert {words: code for words, (code, _) in found.items()} == expected, found


def test_other_commands_leave_with_their_codes(environs, tmp_path, pytestconfig):
    (tmp_path / "token").write_text("no-token")
    is_long = pytestconfig.getoption("--long")
    here = [(name, words, code) for name, words, code in HERE if is_long or name in {"keys create", "serve", "demo"}]
    (first, *_), *_ = expected = [((*name.split(), *words), code) for name, words, code in here]

    def run_there(words):
        return _end(_start(words, environs["nobody"], cwd=tmp_path))

    assert run_there(first)[0] == DONE
    _check(dict(expected[1:]), run_there)


def test_a_reader_that_has_left_is_0_and_a_full_disk_is_2(environs):
    gone, output = os.pipe()
    os.close(gone)

    unread = {
        words: _end(_start(words, environs["alice"], stdout=output))
        for words in (("--help",), ("explain",), ("query", "--version"), ("whoami",), ("tables", "list"))
    }
    os.close(output)
    with Path("/dev/full").open("w") as full:
        code, said = _end(_start(("explain",), environs["nobody"], stdout=full))

    assert set(unread.values()) == {(DONE, "")}, unread
    assert (code, "No space left on device" in said) == (USAGE, True)


def _leaves(parser, words=()):
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in inner:
        for name, command in action.choices.items():
            yield from _leaves(command, (*words, name))
    if not inner:
        yield words


def test_each_command_refuses_what_it_does_not_know_with_2(run_here):
    commands = list(_leaves(build_parser()))

    assert {" ".join(words) for words in commands} == {*AT_SERVER, *(name for name, *_ in HERE)}
    found = {words: run_here("nobody", (*words, "--no-such-option")) for words in commands}
    assert {words for words, (code, _) in found.items() if code != USAGE} == set(), found


def test_an_interrupt_ends_a_command_that_waits_for_the_server_with_130(environs, pytestconfig):
    def interrupted(words):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent.settimeout(COMMAND_TIMEOUT_SECONDS)
            uri = f"grpc://127.0.0.1:{silent.getsockname()[1]}"
            process = _start(words, {**environs["alice"], "MICROMEGAS_ANALYTICS_URI": uri})
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGINT)
                return _end(process)

    names = AT_SERVER if pytestconfig.getoption("--long") else ("query", "doctor", "admin cut-off")
    waiting = [(*name.split(), *AT_SERVER[name][0]) for name in names]
    _check(dict.fromkeys(waiting, INTERRUPTED), interrupted)
