"""Mixed calls for a while, with faults in between: nothing wrong, nothing left open, memory that stays.

The faults: the provider is down, executors are killed, the disk is full (no file may grow), the provider's clock jumps.
The machine's own clock cannot be set by a test. Half a minute in the normal run, half an hour in the long one.
"""

from __future__ import annotations

import base64
import json
import random
import resource
import threading
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

import pyarrow as pa
import pytest

from micromegas_jupyter import FlightSQLClient
from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import AuthenticationError, MicromegasError, ResourcesExhausted
from tests.fakes.clock import FakeClock
from tests.fakes.scripted_provider import ScriptedProvider
from tests.integration.executors.server_process import ServerProcess, wait_until

pytestmark = pytest.mark.integration

KEY = "a-key-for-the-soak-test-only-0123456789"
JUMP = timedelta(hours=1)
LONG_SECONDS = 1800.0
MIB = 1 << 20


@pytest.fixture
def provider():
    with ScriptedProvider(clock=FakeClock(SYSTEM_CLOCK.now())) as running:
        yield running


@pytest.fixture
def server(tmp_path, provider):
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

    def __init__(self, server, provider):
        self._server = server
        self._provider = provider

    def all(self):
        return [self.provider_down, self.executors_killed, self.disk_full, self.clock_jump]

    def provider_down(self, seconds):
        self._provider.is_down = True
        threading.Event().wait(seconds)
        self._provider.is_down = False

    def executors_killed(self, _seconds):
        for executor in self._server.processes()[2:]:
            executor.kill()

    def disk_full(self, seconds):
        # Executors inherit it from the process that they are forked from.
        before = _limit_files(self._server.processes()[1:], 0)
        threading.Event().wait(seconds)
        _limit_files([process for process in self._server.processes()[1:] if process in before], None)

    def clock_jump(self, seconds):
        clock = self._provider.clock
        assert isinstance(clock, FakeClock)
        clock.advance(JUMP.total_seconds())
        threading.Event().wait(seconds)
        clock.advance(-JUMP.total_seconds())


def _limit_files(processes, size):
    """Let no file of these processes grow beyond a size, None for any; return those that are still there."""
    found = []
    for process in processes:
        with suppress(ProcessLookupError):
            _soft, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard if size is None else size, hard))
            found.append(process)
    return found


def gauge(server, name):
    request = urllib.request.Request(f"{server.ready['http']}/metrics")
    request.add_header("Authorization", f"Bearer {KEY}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def test_mixed_calls_with_faults_in_between(
    server,
    provider,
    pytestconfig,
    capsys,
):
    is_long = pytestconfig.getoption("--long")
    seconds, fault_seconds = (LONG_SECONDS, 4.5) if is_long else (0.0, 2.0)
    calls = Mixed(server.uri, KEY, mint=provider.mint_id_token)
    faults = Faults(server, provider)
    memory = []
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


TABLE = "soaked"
WRONG_KEY = "no-such-key-0123456789-0123456789"
ROWS_OF_AN_INGEST = 50
STREAMED_ROWS = 300_000
_DEADLINE_SECONDS = 60.0
_PAUSE_SECONDS = 0.05
_ALLOWED_SECONDS = 600.0


@dataclass
class Outcomes:
    """How calls ended; `wrong` describes each that ended as it must never end."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    stored_rows: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, what):
        with self.lock:
            self.counts[what] += 1

    def add_stored(self, rows):
        with self.lock:
            self.stored_rows += rows

    def expect(self, found, expected, what):
        if found != expected:
            with self.lock:
                self.wrong.append(f"{what}: {found!r} instead of {expected!r}")


class Mixed:
    """Runs each kind of call on a thread and a connection of its own, from `start` to `stop`."""

    def __init__(self, uri, key, *, mint, seed=6):
        self.outcomes = Outcomes()
        self._uri = uri
        self._key = key
        self._mint = mint
        self._stop = threading.Event()
        kinds = (self._sum, self._stream, self._parameters, self._leave, self._ingest, self._count, self._sign_in)
        self._threads = [
            threading.Thread(target=self._repeat, args=(kind, random.Random(seed + number)), daemon=True)
            for number, kind in enumerate((*kinds, self._be_refused))
        ]

    def start(self):
        with self.connect(self._key) as client:
            client.bulk_ingest(TABLE, pa.table({"id": pa.array([], pa.utf8())}), mode="create")
        for thread in self._threads:
            thread.start()

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * _DEADLINE_SECONDS)
            assert not thread.is_alive()

    def connect(self, token):
        return FlightSQLClient(
            self._uri, auth_provider=StaticTokenAuthProvider(token), timeout_seconds=_DEADLINE_SECONDS
        )

    def _repeat(self, kind, chance):
        name = kind.__name__.strip("_")
        with self.connect(WRONG_KEY if kind == self._be_refused else self._key) as client:
            while not self._stop.wait(_PAUSE_SECONDS):
                try:
                    kind(client, chance)
                except MicromegasError as error:
                    # A fault may end a call, but only so that it can be made again, or for want of room.
                    may_come_again = error.retryable or isinstance(error, ResourcesExhausted)
                    self.outcomes.expect(may_come_again, True, f"{name} ended as {error!r}")
                    self.outcomes.add(f"{name} {error.code}")
                else:
                    self.outcomes.add(name)

    def _sum(self, client, chance):
        last = chance.randrange(1, 1_000_000)
        found = client.query_arrow(f"SELECT sum(value) AS s FROM generate_series(1, {last})")
        self.outcomes.expect(found["s"].to_pylist(), [last * (last + 1) // 2], "sum")

    def _stream(self, client, _chance):
        sql = f"SELECT value FROM generate_series(1, {STREAMED_ROWS}) ORDER BY value DESC"
        first, count = None, 0
        for batch in client.query_stream(sql):
            first = batch.column(0)[0].as_py() if first is None else first
            count += batch.num_rows
        self.outcomes.expect((first, count), (STREAMED_ROWS, STREAMED_ROWS), "stream")

    def _parameters(self, client, chance):
        number, text = chance.randrange(1 << 40), f"it's {chance.random()}"
        found = client.query_arrow(
            "SELECT :number + 1 AS n, concat(:text, '!') AS t", params={"number": number, "text": text}
        )
        self.outcomes.expect(found.to_pylist(), [{"n": number + 1, "t": f"{text}!"}], "parameters")

    def _leave(self, client, _chance):
        """Take one batch of an answer without an end, and go."""
        batches = client.query_stream("SELECT value FROM generate_series(1, 1000000000000)")
        self.outcomes.expect(next(batches).num_rows > 0, True, "leave")
        batches.close()  # type: ignore[attr-defined]  # it is a generator

    def _ingest(self, client, chance):
        """Send rows until they are stored, each time under the same id."""
        name = f"{chance.getrandbits(128):032x}"
        rows = pa.table({"id": [f"{name}-{number}" for number in range(ROWS_OF_AN_INGEST)]})
        while True:
            try:
                client.bulk_ingest(TABLE, rows, ingest_id=name)
            except MicromegasError as error:
                may_come_again = error.retryable or isinstance(error, ResourcesExhausted)
                self.outcomes.expect(may_come_again, True, f"ingest ended as {error!r}")
                self.outcomes.add(f"ingest {error.code}")
                if not may_come_again:
                    return
                threading.Event().wait(_PAUSE_SECONDS)
            else:
                self.outcomes.add_stored(ROWS_OF_AN_INGEST)
                return

    def _count(self, client, _chance):
        stored = self.outcomes.stored_rows
        (found,) = client.query_arrow(f"SELECT count(*) AS n, count(DISTINCT id) AS m FROM {TABLE}").to_pylist()
        self.outcomes.expect(found["n"] >= stored, True, f"of {stored} stored rows {found['n']} are seen")
        self.outcomes.expect(found["m"], found["n"], "rows that are there once")

    def _sign_in(self, _client, _chance):
        token = self._mint()
        with self.connect(token) as client:
            try:
                found = client.query_arrow("SELECT current_user() AS who")
            except AuthenticationError:
                self.outcomes.expect(_is_from_the_future(token), True, "a good token is refused")
            else:
                self.outcomes.expect(found.num_rows, 1, "sign-in")

    def _be_refused(self, client, _chance):
        with suppress(AuthenticationError):
            client.query_arrow("SELECT 1 AS one")
            self.outcomes.expect("an answer", "a refusal", "a wrong key")


def _is_from_the_future(token):
    """Whether the provider's clock was ahead when it made the token, by more than servers allow for."""
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return bool(claims["iat"] > SYSTEM_CLOCK.now().timestamp() + _ALLOWED_SECONDS)
