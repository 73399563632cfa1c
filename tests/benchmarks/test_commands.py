"""The CPU time of whole `micromegas` processes, beside a bare interpreter; printed, never judged."""

import os
import sys
from pathlib import Path

import pytest

from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.demo.provider.scripted_person import ScriptedPerson
from micromegas_jupyter.demo.stack import DemoStack
from micromegas_jupyter.wiring import client_side
from micromegas_jupyter.wiring import sign_in as signing_in

pytestmark = pytest.mark.slow

RUNS = 7
PROGRAM = str(Path(sys.executable).with_name("micromegas"))
COMMANDS = {
    "python -c pass": ([sys.executable, "-c", "pass"], None),
    "micromegas --help": ([PROGRAM, "--help"], 0.08),
    "micromegas whoami": ([PROGRAM, "whoami"], 0.2),
    "micromegas query 'SELECT 1'": ([PROGRAM, "query", "SELECT 1"], 0.35),
}


def cpu_seconds(command, environ):
    actions = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    _, status, usage = os.wait4(os.posix_spawn(command[0], command, environ, file_actions=actions), 0)
    assert status == 0, command
    return usage.ru_utime + usage.ru_stime


def test_what_whole_processes_take(tmp_path, say):
    with DemoStack(spare_executors=1) as stack:
        # As installed: with bytecode.
        environ = {**stack.process_environment(), "PYTHONPYCACHEPREFIX": str(tmp_path / "bytecode")}
        environ |= {"MICROMEGAS_CONFIG_DIR": str(tmp_path / "config"), "PYTHONDONTWRITEBYTECODE": ""}
        with ScriptedPerson(person="alice") as browser:
            settings = client_side.load_client_settings(environ=environ)
            signing_in.login(settings, flow=Flow.BROWSER, browser=browser, environ=environ)
        for name, (command, goal) in COMMANDS.items():
            best = min(cpu_seconds(command, environ) for _ in range(RUNS))
            say(f"{name}: {best:.3f} s of CPU{'' if goal is None else f', the goal is {goal}'}")
