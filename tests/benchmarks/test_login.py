"""How long sign-ins, renewals and commands take beside the provider and the bare libraries; printed, never judged."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from micromegas_jupyter.auth import OidcAuthProvider, OidcClientCredentialsProvider
from micromegas_jupyter.auth.tokens.keyring import KeyringTokenStore, SystemKeyring
from micromegas_jupyter.auth.tokens.store import FileTokenStore
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.demo.provider.scripted_person import ScriptedPerson, sign_in
from micromegas_jupyter.demo.stack import DemoStack
from micromegas_jupyter.wiring import client_side
from micromegas_jupyter.wiring import sign_in as signing_in
from tests.fakes.keyring_backend import MemoryKeyring

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROUNDS, LONG_ROUNDS = 2, 10
PROCESS_SECONDS = 120
FLOOR = """
import sys, grpc
with grpc.insecure_channel(sys.argv[1]) as channel:
    assert list(channel.unary_stream("/grpc.health.v1.Health/Check")(b"", timeout=60))
"""
FIRST_TOKEN = """
import time
started = time.perf_counter()
from micromegas_jupyter.wiring import client_side, sign_in as signing_in
assert client_side.stored_provider(client_side.load_client_settings()).get_token()
print(time.perf_counter() - started)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How long one process took."""

    seconds: float
    cpu_seconds: float
    output: str


@pytest.fixture(scope="module")
def stack():
    with DemoStack(spare_executors=1) as running:
        yield running


@pytest.fixture
def rounds(request):
    return LONG_ROUNDS if request.config.getoption("--long") else ROUNDS


@pytest.fixture
def say(capsys):
    def show(line):
        with capsys.disabled():
            print(f"\n{line}", end="", file=sys.stderr)

    return show


def seconds_of(call):
    started = SYSTEM_CLOCK.monotonic()
    call()
    return SYSTEM_CLOCK.monotonic() - started


def in_milliseconds(found):
    return f"{statistics.median(found) * 1e3:.1f} ms (shortest {min(found) * 1e3:.1f})"


def stored_at(store, stack):
    provider = stack.provider
    pending = OidcAuthProvider.begin_login(provider.issuer, provider.client_id, store=store)
    sign_in(pending.start_url or "")
    return pending.result(timeout_seconds=30)


@pytest.mark.parametrize("kind", ["file", "keyring", "service account"])
def test_a_fresh_token(kind, stack, tmp_path, say):
    provider: OidcAuthProvider | OidcClientCredentialsProvider
    if kind == "service account":
        provider = OidcClientCredentialsProvider.from_env(stack.service_environment())
    else:
        path = tmp_path / "tokens.json"
        in_keyring = KeyringTokenStore(path, lambda: SystemKeyring(MemoryKeyring()))
        provider = stored_at(FileTokenStore(path) if kind == "file" else in_keyring, stack)
    token = provider.get_token()
    calls = 2_000

    def many():
        for _ in range(calls):
            provider.get_token()

    found = [seconds_of(many) / calls * 1e6 for _ in range(7)]

    assert provider.get_token() == token
    say(f"get_token(), fresh, {kind}: {statistics.median(found):.1f} us (shortest {min(found):.1f})")


@pytest.fixture
def environ(stack, tmp_path):
    """The environment of a person who is signed in, in which compiled modules are kept from run to run."""
    own = stack.process_environment()
    own |= {"MICROMEGAS_CONFIG_DIR": str(tmp_path / "config"), "PYTHONPYCACHEPREFIX": str(tmp_path / "compiled")}
    own.pop("PYTHONDONTWRITEBYTECODE", None)
    with ScriptedPerson() as browser:
        signing_in.login(client_side.load_client_settings(environ=own), browser=browser, environ=own)
    return own


def run(command, environ):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = SYSTEM_CLOCK.monotonic()
    result = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=PROCESS_SECONDS)
    seconds = SYSTEM_CLOCK.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0, result.stdout + result.stderr
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(seconds=seconds, cpu_seconds=cpu_seconds, output=result.stdout)


def test_whole_processes_beside_what_python_and_grpc_take(stack, environ, rounds, say):
    micromegas = [str(Path(sys.executable).with_name("micromegas"))]
    programs = {
        "python, nothing else": [sys.executable, "-c", "pass"],
        "python with grpc and one call": [sys.executable, "-c", FLOOR, stack.server.uri.removeprefix("grpc://")],
        "python, first get_token()": [sys.executable, "-c", FIRST_TOKEN],
        "micromegas whoami": [*micromegas, "whoami"],
        "micromegas doctor": [*micromegas, "doctor"],
        'micromegas query "SELECT 1"': [*micromegas, "query", "SELECT 1"],
    }
    for command in programs.values():
        run(command, environ)  # so that all is compiled
    runs = {name: [] for name in programs}
    load_before = os.getloadavg()[0]

    for _ in range(rounds):
        for name, command in programs.items():
            runs[name].append(run(command, environ))

    assert "knows you as alice@example.com" in runs["micromegas whoami"][0].output
    say(f"whole processes, {rounds} rounds, load {load_before:.1f} to {os.getloadavg()[0]:.1f}:")
    for name, found in runs.items():
        wall = in_milliseconds([each.seconds for each in found])
        say(f"  {name}: {wall}, processor {statistics.median(each.cpu_seconds for each in found) * 1e3:.0f} ms")
    inside = [float(each.output) for each in runs["python, first get_token()"]]
    say(f"  the first get_token() itself, with what it imports: {in_milliseconds(inside)}")
