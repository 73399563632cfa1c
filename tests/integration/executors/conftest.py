"""A server with several callers, small statements of eight of them, and a watch of the server's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.executors.callers import OTHERS, Caller, SmallStatements, create_table
from tests.integration.executors.server_process import MemoryWatch, ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

ATTACKER, UPLOADER = "attacker", "uploader"
KEYS = {name: f"a-key-for-these-tests-only-of-{name}" for name in (ATTACKER, UPLOADER, *OTHERS)}
MEMORY_MIB = 2048
OPTIONS = ("--no-telemetry",)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    with ServerProcess(folder, lake=folder / "lake", keys=KEYS, options=OPTIONS, memory_mib=MEMORY_MIB) as running:
        create_table(running, KEYS[UPLOADER])
        yield running


@pytest.fixture(scope="module")
def running_others(server: ServerProcess) -> Iterator[SmallStatements]:
    with SmallStatements(server, [KEYS[name] for name in OTHERS]) as running:
        yield running


@pytest.fixture
def others(running_others: SmallStatements) -> SmallStatements:
    """Eight callers who run small statements, all of which succeed."""
    running_others.wait_until_well()
    return running_others


@pytest.fixture
def attacker(server: ServerProcess) -> Iterator[Caller]:
    caller = Caller(server, KEYS[ATTACKER])
    yield caller
    caller.close()


@pytest.fixture
def memory(server: ServerProcess) -> Iterator[MemoryWatch]:
    with MemoryWatch(server) as watch:
        yield watch
