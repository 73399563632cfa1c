"""Mixed calls for a while, with faults in between: nothing wrong, nothing left open, memory that stays.

The faults: the provider is down, executors are killed, the disk is full (no file may grow), the provider's clock jumps.
The machine's own clock cannot be set by a test. Half a minute in the normal run, half an hour in the long one.
"""

from __future__ import annotations

import json
import resource
import threading
import time
import urllib.request
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from tests.fakes.clock import FakeClock
from tests.fakes.scripted_provider import ScriptedProvider
from tests.integration.executors.server_process import ServerProcess, wait_until
from tests.integration.system.soak import TABLE, Mixed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import psutil

pytestmark = pytest.mark.integration

KEY = "a-key-for-the-soak-test-only-0123456789"
JUMP = timedelta(hours=1)
LONG_SECONDS = 1800.0
MIB = 1 << 20


@pytest.fixture
def provider() -> Iterator[ScriptedProvider]:
    with ScriptedProvider(clock=FakeClock(SYSTEM_CLOCK.now())) as running:
        yield running


@pytest.fixture
def server(tmp_path: Path, provider: ScriptedProvider) -> Iterator[ServerProcess]:
    issuer = {"issuer": provider.issuer, "audience": provider.client_id}
    variables = {
        "MICROMEGAS_API_KEYS": json.dumps([{"name": "soak", "key": KEY, "scopes": ["read", "ingest"]}]),
        "MICROMEGAS_OIDC_CONFIG": json.dumps({"issuers": [issuer]}),
    }
    options = ("--no-telemetry", "--drain-timeout", "2")
    with ServerProcess(
        tmp_path / "server", lake=tmp_path / "lake", keys={}, options=options, variables=variables
    ) as running:
        yield running


class Faults:
    """What goes wrong, one after the other, each for a while."""

    def __init__(self, server: ServerProcess, provider: ScriptedProvider) -> None:
        self._server = server
        self._provider = provider

    def all(self) -> list[Callable[[float], None]]:
        return [self.provider_down, self.executors_killed, self.disk_full, self.clock_jump]

    def provider_down(self, seconds: float) -> None:
        self._provider.is_down = True
        threading.Event().wait(seconds)
        self._provider.is_down = False

    def executors_killed(self, _seconds: float) -> None:
        for executor in self._server.processes()[2:]:
            executor.kill()

    def disk_full(self, seconds: float) -> None:
        # Executors inherit it from the process that they are forked from.
        before = _limit_files(self._server.processes()[1:], 0)
        threading.Event().wait(seconds)
        _limit_files([process for process in self._server.processes()[1:] if process in before], None)

    def clock_jump(self, seconds: float) -> None:
        clock = self._provider.clock
        assert isinstance(clock, FakeClock)
        clock.advance(JUMP.total_seconds())
        threading.Event().wait(seconds)
        clock.advance(-JUMP.total_seconds())


def _limit_files(processes: list[psutil.Process], size: int | None) -> list[psutil.Process]:
    """Let no file of these processes grow beyond a size, None for any; return those that are still there."""
    found = []
    for process in processes:
        with suppress(ProcessLookupError):
            _soft, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard if size is None else size, hard))
            found.append(process)
    return found


def gauge(server: ServerProcess, name: str) -> float:
    request = urllib.request.Request(f"{server.ready['http']}/metrics")
    request.add_header("Authorization", f"Bearer {KEY}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def test_mixed_calls_with_faults_in_between(
    server: ServerProcess,
    provider: ScriptedProvider,
    pytestconfig: pytest.Config,
    capsys: pytest.CaptureFixture[str],
) -> None:
    is_long = pytestconfig.getoption("--long")
    seconds, fault_seconds = (LONG_SECONDS, 4.5) if is_long else (0.0, 2.0)
    calls = Mixed(server.uri, KEY, mint=provider.mint_id_token)
    faults = Faults(server, provider)
    memory: list[int] = []
    calls.start()
    ends_at = time.monotonic() + seconds
    try:
        while not memory or time.monotonic() < ends_at:
            for fault in faults.all():
                memory.append(server.front.memory_info().rss)
                fault(fault_seconds)
                # Time without a fault, in which everything has to go well again.
                done = calls.outcomes.counts["ingest"] + calls.outcomes.counts["stream"]
                wait_until(
                    lambda done=done: calls.outcomes.counts["ingest"] + calls.outcomes.counts["stream"] > done + 2,
                    "calls go well again",
                )
    finally:
        calls.stop()

    outcomes = calls.outcomes
    with capsys.disabled():
        sizes = [size // MIB for size in memory]
        print(f"\n{sum(outcomes.counts.values())} calls: {dict(sorted(outcomes.counts.items()))}; front {sizes} MiB")
    assert outcomes.wrong == []
    assert all(outcomes.counts[kind] > 0 for kind in ("sum", "stream", "parameters", "leave", "ingest", "count"))
    assert outcomes.counts["sign_in"] > 0
    assert outcomes.counts["be_refused"] > 0
    wait_until(lambda: gauge(server, "micromegas_server_queries_running") == 0, "no query runs")
    # This look at the metrics is itself no call of Flight.
    wait_until(lambda: gauge(server, "micromegas_server_calls_open") == 0, "no call is open")
    with calls.connect(KEY) as client:
        found = client.query_arrow(f"SELECT count(*) AS n, count(DISTINCT id) AS m FROM {TABLE}").to_pylist()
    assert found == [{"n": outcomes.stored_rows, "m": outcomes.stored_rows}]
    if is_long:
        # The front is as large at the end as it became halfway.
        half = memory[len(memory) // 2 :]
        assert half[-1] < 1.2 * max(half[: len(half) // 3]) + 64 * MIB
