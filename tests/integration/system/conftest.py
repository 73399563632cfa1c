"""The demo's stack, once for all tests of the whole system: real provider, real server, real telemetry."""

import io
import logging
import os
import socket
import subprocess
import sys
import warnings

import pytest

from micromegas_jupyter.cli.main import run as run_command
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.demo.provider.scripted_person import ScriptedPerson
from micromegas_jupyter.demo.stack import DemoStack, wait_for_rows
from micromegas_jupyter.wiring import client_side
from micromegas_jupyter.wiring import sign_in as signing_in

COMMAND_TIMEOUT_SECONDS = 120


@pytest.fixture(scope="package")
def stack():
    """A running demo without JupyterLab that has recorded something."""
    with DemoStack(spare_executors=1) as running:
        with client_side.connect(environ={**running.process_environment(), **running.service_environment()}) as client:
            wait_for_rows(client)
        yield running


@pytest.fixture
def person(stack, tmp_path):
    """The environment of a person with a configuration folder of their own, not signed in."""
    return {**stack.process_environment(), "MICROMEGAS_CONFIG_DIR": str(tmp_path / "config")}


@pytest.fixture
def nobody(person):
    """The environment of a person for whom nothing is configured."""
    kept = {name: value for name, value in person.items() if not name.startswith("MICROMEGAS_")}
    return {**kept, "MICROMEGAS_CONFIG_DIR": person["MICROMEGAS_CONFIG_DIR"]}


@pytest.fixture
def service(stack, person):
    """The environment of the demo's service account."""
    return {**person, **stack.service_environment(), "MICROMEGAS_CONFIG_DIR": person["MICROMEGAS_CONFIG_DIR"]}


@pytest.fixture
def unused_address():
    """A loopback address that refuses connections: bound, but nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def micromegas():
    """Run the `micromegas` command as a process of its own."""

    def run(*arguments, environ, text=None):
        return subprocess.run(
            [sys.executable, "-m", "micromegas_jupyter.cli", *arguments], env=environ, input=text, capture_output=True,
            text=True, check=False, timeout=COMMAND_TIMEOUT_SECONDS,
        )  # fmt: skip

    return run


@pytest.fixture
def micromegas_here(monkeypatch):
    """Run the `micromegas` command in this process: the same code and result, without loading modules each time."""

    def run(*arguments, environ, text=""):
        stdin = io.TextIOWrapper(io.BytesIO(text.encode()))
        streams = {name: io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for name in ("stdout", "stderr")}
        handlers = logging.root.handlers.copy()
        with monkeypatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("default")  # in pytest, warnings are errors
            for name in os.environ.keys() - environ.keys():
                patch.delenv(name)
            for name, value in environ.items():
                patch.setenv(name, value)
            for name, stream in {"stdin": stdin, **streams}.items():
                patch.setattr(sys, name, stream)
            try:
                code = run_command(arguments)
            except SystemExit as left:
                code = left.code
            finally:
                logging.root.handlers[:] = handlers
        for stream in streams.values():
            stream.flush()
        printed = {name: stream.buffer.getvalue().decode() for name, stream in streams.items()}
        return subprocess.CompletedProcess(arguments, code, **printed)

    return run


@pytest.fixture
def sign_in():
    """Sign somebody in at the demo's provider in the environment of a person."""

    def run(environ, name="alice"):
        settings = client_side.load_client_settings(environ=environ)
        with ScriptedPerson(person=name) as browser:
            return signing_in.login(settings, flow=Flow.BROWSER, browser=browser, environ=environ)

    return run
