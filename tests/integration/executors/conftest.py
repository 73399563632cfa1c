"""A server with several callers, small statements of eight of them, and a watch of the server's memory."""

import pytest

from tests.integration.executors.callers import OTHERS, Caller, SmallStatements, create_table
from tests.integration.executors.server_process import MemoryWatch, ServerProcess

ATTACKER, UPLOADER = "attacker", "uploader"
KEYS = {name: f"a-key-for-these-tests-only-of-{name}" for name in (ATTACKER, UPLOADER, *OTHERS)}
MEMORY_MIB = 2048
OPTIONS = ("--no-telemetry",)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with ServerProcess(folder, lake=folder / "lake", keys=KEYS, options=OPTIONS, memory_mib=MEMORY_MIB) as running:
        create_table(running, KEYS[UPLOADER])
        yield running


@pytest.fixture(scope="module")
def running_others(server):
    with SmallStatements(server, [KEYS[name] for name in OTHERS]) as running:
        yield running


@pytest.fixture
def others(running_others):
    """Eight callers who run small statements, all of which succeed."""
    running_others.wait_until_well()
    return running_others


@pytest.fixture
def attacker(server):
    caller = Caller(server, KEYS[ATTACKER])
    yield caller
    caller.close()


@pytest.fixture
def memory(server):
    with MemoryWatch(server) as watch:
        yield watch
