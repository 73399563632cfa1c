"""Mixed calls for a while, with faults in between: nothing wrong, nothing left open, memory that stays.

The faults: the provider is down, a worker is killed, the disk is full (no file may grow), the provider's clock jumps.
The machine's own clock cannot be set by a test. Half a minute in the normal run, half an hour in the long one.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import psutil
import pytest

from micromegas_jupyter.seams import SYSTEM_CLOCK
from tests.fakes.clock import FakeClock
from tests.fakes.scripted_provider import ScriptedProvider
from tests.integration.system.soak import TABLE, Mixed
from tests.integration.workers.serving import Serving, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

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
def server(tmp_path: Path, provider: ScriptedProvider) -> Iterator[Serving]:
    issuer = {"issuer": provider.issuer, "audience": provider.client_id}
    environ = {
        "MICROMEGAS_API_KEYS": json.dumps([{"name": "soak", "key": KEY, "scopes": ["read", "ingest"]}]),
        "MICROMEGAS_OIDC_CONFIG": json.dumps({"issuers": [issuer]}),
    }
    with Serving(tmp_path / "lake", "--no-telemetry", "--drain-seconds", "2", environ=environ) as running:
        yield running


class Faults:
    """What goes wrong, one after the other, each for a while."""

    def __init__(self, server: Serving, provider: ScriptedProvider) -> None:
        self._server = server
        self._provider = provider

    def all(self) -> list[Callable[[float], None]]:
        return [self.provider_down, self.worker_killed, self.disk_full, self.clock_jump]

    def provider_down(self, seconds: float) -> None:
        self._provider.is_down = True
        threading.Event().wait(seconds)
        self._provider.is_down = False

    def worker_killed(self, _seconds: float) -> None:
        # The youngest, so that one worker lives through the whole time and its memory can be watched.
        killed = max(self._server.pids(), key=lambda pid: psutil.Process(pid).create_time())
        os.kill(killed, signal.SIGKILL)
        until(lambda: killed not in self._server.pids() and len(self._server.pids()) == 2, "two workers again")

    def disk_full(self, seconds: float) -> None:
        before = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in self._server.pids()}
        for pid, (_soft, hard) in before.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
        threading.Event().wait(seconds)
        for pid, limits in before.items():
            if pid in self._server.pids():
                resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)

    def clock_jump(self, seconds: float) -> None:
        clock = self._provider._clock
        assert isinstance(clock, FakeClock)
        clock.advance(JUMP.total_seconds())
        threading.Event().wait(seconds)
        clock.advance(-JUMP.total_seconds())


def gauge(server: Serving, name: str) -> float:
    lines = server.page("/metrics", KEY).splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{"))


def resident_bytes(server: Serving) -> dict[int, int]:
    found = {}
    for pid in server.pids():
        try:
            found[pid] = psutil.Process(pid).memory_info().rss
        except psutil.Error:  # it has just ended
            continue
    return found


def test_mixed_calls_with_faults_in_between(
    server: Serving,
    provider: ScriptedProvider,
    pytestconfig: pytest.Config,
    capsys: pytest.CaptureFixture[str],
) -> None:
    is_long = pytestconfig.getoption("--long")
    seconds, fault_seconds = (LONG_SECONDS, 4.5) if is_long else (0.0, 2.0)
    calls = Mixed(server.uri, KEY, mint=provider.mint_id_token)
    faults = Faults(server, provider)
    memory: list[dict[int, int]] = []
    calls.start()
    ends_at = time.monotonic() + seconds
    try:
        while not memory or time.monotonic() < ends_at:
            for fault in faults.all():
                memory.append(resident_bytes(server))
                fault(fault_seconds)
                # Time without a fault, in which everything has to go well again.
                done = calls.outcomes.counts["ingest"] + calls.outcomes.counts["stream"]
                until(
                    lambda done=done: calls.outcomes.counts["ingest"] + calls.outcomes.counts["stream"] > done + 2,
                    "calls go well again",
                )
    finally:
        calls.stop()

    outcomes = calls.outcomes
    with capsys.disabled():
        peaks = [max(found.values()) // MIB for found in memory if found]
        print(
            f"\n{sum(outcomes.counts.values())} calls: {dict(sorted(outcomes.counts.items()))}; largest worker {peaks}"
        )
    assert outcomes.wrong == []
    assert all(outcomes.counts[kind] > 0 for kind in ("sum", "stream", "parameters", "leave", "ingest", "count"))
    assert outcomes.counts["sign_in"] > 0
    assert outcomes.counts["be_refused"] > 0
    until(lambda: gauge(server, "micromegas_server_queries_running") == 0, "no query runs")
    # This look at the metrics is itself no call of Flight.
    until(lambda: gauge(server, "micromegas_server_calls_open") == 0, "no call is open")
    with calls.connect(KEY) as client:
        found = client.query_arrow(f"SELECT count(*) AS n, count(DISTINCT id) AS m FROM {TABLE}").to_pylist()
    assert found == [{"n": outcomes.stored_rows, "m": outcomes.stored_rows}]
    if is_long:
        # Workers that live through the second half are as large at its end as they became at its begin.
        half = memory[len(memory) // 2 :]
        lasting = half[0].keys() & half[-1].keys()
        assert lasting
        for pid in lasting:
            sizes = [found[pid] for found in half if pid in found]
            assert sizes[-1] < 1.2 * max(sizes[: len(sizes) // 3]) + 64 * MIB
