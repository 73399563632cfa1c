"""Mixed calls for a while, with faults in between: nothing wrong, nothing left open, memory that stays.

The faults: the provider is down, executors are killed, the disk is full (no file may grow), the provider's clock jumps.
The machine's own clock cannot be set by a test. Half a minute in the normal run, half an hour in the long one.
"""

import json
import random
import resource
import threading
import time
import urllib.request
from collections import Counter
from contextlib import suppress

import psutil
import pyarrow as pa
import pytest

from micromegas_jupyter import FlightSQLClient
from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import AuthenticationError, MicromegasError, ResourcesExhausted
from tests.fakes.clock import FakeClock
from tests.fakes.raw_client import claims_of
from tests.fakes.scripted_provider import ScriptedProvider
from tests.integration.executors.server_process import ServerProcess, wait_until

pytestmark = pytest.mark.integration

KEY = "a-key-for-the-soak-test-only-0123456789"
WRONG_KEY = "no-such-key-0123456789-0123456789"
JUMP_SECONDS = 3600
LONG_SECONDS = 1800.0
MIB = 1 << 20
TABLE = "soaked"
COUNT = f"SELECT count(*) AS n, count(DISTINCT id) AS m FROM {TABLE}"
ROWS_OF_AN_INGEST = 50
STREAMED_ROWS = 300_000
DEADLINE_SECONDS = 60.0
PAUSE_SECONDS = 0.05
ALLOWED_SECONDS = 600.0


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


def provider_down(_server, provider, seconds):
    provider.is_down = True
    threading.Event().wait(seconds)
    provider.is_down = False


def executors_killed(server, _provider, _seconds):
    for executor in server.processes()[2:]:
        with suppress(psutil.NoSuchProcess):  # executors also end by themselves
            executor.kill()


def disk_full(server, _provider, seconds):
    # Executors inherit it from the process that they are forked from.
    before = _limit_files(server.processes()[1:], 0)
    threading.Event().wait(seconds)
    _limit_files([process for process in server.processes()[1:] if process in before], None)


def clock_jump(_server, provider, seconds):
    provider.clock.advance(JUMP_SECONDS)
    threading.Event().wait(seconds)
    provider.clock.advance(-JUMP_SECONDS)


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


def test_mixed_calls_with_faults_in_between(server, provider, pytestconfig, capsys):
    is_long = pytestconfig.getoption("--long")
    seconds, fault_seconds = (LONG_SECONDS, 4.5) if is_long else (0.0, 2.0)
    calls = Mixed(server.uri, mint=provider.mint_id_token)
    memory = []
    calls.start()
    ends_at = time.monotonic() + seconds
    try:
        while not memory or time.monotonic() < ends_at:
            for fault in (provider_down, executors_killed, disk_full, clock_jump):
                memory.append(server.front.memory_info().rss)
                fault(server, provider, fault_seconds)
                # Time without a fault, in which everything has to go well again.
                done = calls.counts["ingest"] + calls.counts["stream"]
                wait_until(
                    lambda done=done: calls.counts["ingest"] + calls.counts["stream"] > done + 2, "calls go well again"
                )
    finally:
        calls.stop()

    with capsys.disabled():
        sizes = [size // MIB for size in memory]
        print(f"\n{sum(calls.counts.values())} calls: {dict(sorted(calls.counts.items()))}; front {sizes} MiB")
    assert calls.wrong == []
    kinds = ("sum", "stream", "parameters", "leave", "ingest", "count", "sign_in", "be_refused")
    assert [kind for kind in kinds if not calls.counts[kind]] == []
    wait_until(lambda: gauge(server, "micromegas_server_queries_running") == 0, "no query runs")
    # This look at the metrics is itself no call of Flight.
    wait_until(lambda: gauge(server, "micromegas_server_calls_open") == 0, "no call is open")
    with calls.connect(KEY) as client:
        assert client.query_arrow(COUNT).to_pylist() == [{"n": calls.stored_rows, "m": calls.stored_rows}]
    if is_long:
        # The front is as large at the end as it became halfway.
        half = memory[len(memory) // 2 :]
        assert half[-1] < 1.2 * max(half[: len(half) // 3]) + 64 * MIB


class Mixed:
    """Runs each kind of call on a thread and a connection of its own; `wrong` describes what must never be."""

    def __init__(self, uri, *, mint):
        self.counts = Counter()
        self.wrong = []
        self.stored_rows = 0  # one thread writes it
        self._lock = threading.Lock()
        self._uri = uri
        self._mint = mint
        self._stop = threading.Event()
        kinds = (self._sum, self._stream, self._parameters, self._leave, self._ingest, self._count, self._sign_in)
        self._threads = [
            threading.Thread(target=self._repeat, args=(kind, random.Random(number)), daemon=True)
            for number, kind in enumerate((*kinds, self._be_refused))
        ]

    def start(self):
        with self.connect(KEY) as client:
            client.bulk_ingest(TABLE, pa.table({"id": pa.array([], pa.utf8())}), mode="create")
        for thread in self._threads:
            thread.start()

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * DEADLINE_SECONDS)
            assert not thread.is_alive()

    def connect(self, token):
        provider = StaticTokenAuthProvider(token)
        return FlightSQLClient(self._uri, auth_provider=provider, timeout_seconds=DEADLINE_SECONDS)

    def _expect(self, found, expected, what):
        if found != expected:
            self.wrong.append(f"{what}: {found!r} instead of {expected!r}")

    def _repeat(self, kind, chance):
        name = kind.__name__.strip("_")
        with self.connect(WRONG_KEY if kind == self._be_refused else KEY) as client:
            while not self._stop.wait(PAUSE_SECONDS):
                self._try(name, lambda: kind(client, chance))

    def _try(self, name, call):
        """Make a call; return whether it went well or will not if it is made again."""
        try:
            call()
        except MicromegasError as error:
            # A fault may end a call, but only so that it can be made again, or for want of room.
            may_come_again = error.retryable or isinstance(error, ResourcesExhausted)
            self._expect(may_come_again, True, f"{name} ended as {error!r}")
            name = f"{name} {error.code}"
            return not may_come_again
        else:
            return True
        finally:
            with self._lock:
                self.counts[name] += 1

    def _sum(self, client, chance):
        last = chance.randrange(1, 1_000_000)
        found = client.query_arrow(f"SELECT sum(value) AS s FROM generate_series(1, {last})")
        self._expect(found["s"].to_pylist(), [last * (last + 1) // 2], "sum")

    def _stream(self, client, _chance):
        sql = f"SELECT value FROM generate_series(1, {STREAMED_ROWS}) ORDER BY value DESC"
        first, count = None, 0
        for batch in client.query_stream(sql):
            first = batch.column(0)[0].as_py() if first is None else first
            count += batch.num_rows
        self._expect((first, count), (STREAMED_ROWS, STREAMED_ROWS), "stream")

    def _parameters(self, client, chance):
        number, text = chance.randrange(1 << 40), f"it's {chance.random()}"
        sql = "SELECT :number + 1 AS n, concat(:text, '!') AS t"
        found = client.query_arrow(sql, params={"number": number, "text": text})
        self._expect(found.to_pylist(), [{"n": number + 1, "t": f"{text}!"}], "parameters")

    def _leave(self, client, _chance):
        """Take one batch of an answer without an end, and go."""
        batches = client.query_stream("SELECT value FROM generate_series(1, 1000000000000)")
        self._expect(next(batches).num_rows > 0, True, "leave")
        batches.close()

    def _ingest(self, client, chance):
        """Send rows until they are stored, each time under the same id."""
        name = f"{chance.getrandbits(128):032x}"
        rows = pa.table({"id": [f"{name}-{number}" for number in range(ROWS_OF_AN_INGEST)]})
        wrong = len(self.wrong)
        while not self._try("ingest again", lambda: client.bulk_ingest(TABLE, rows, ingest_id=name)):
            threading.Event().wait(PAUSE_SECONDS)
        if len(self.wrong) == wrong:
            self.stored_rows += ROWS_OF_AN_INGEST

    def _count(self, client, _chance):
        stored = self.stored_rows
        (found,) = client.query_arrow(COUNT).to_pylist()
        self._expect(found["n"] >= stored, True, f"of {stored} stored rows {found['n']} are seen")
        self._expect(found["m"], found["n"], "rows that are there once")

    def _sign_in(self, _client, _chance):
        token = self._mint()
        with self.connect(token) as client:
            try:
                found = client.query_arrow("SELECT current_user() AS who")
            except AuthenticationError:
                self._expect(_is_from_the_future(token), True, "a good token is refused")
            else:
                self._expect(found.num_rows, 1, "sign-in")

    def _be_refused(self, client, _chance):
        with suppress(AuthenticationError):
            client.query_arrow("SELECT 1 AS one")
            self._expect("an answer", "a refusal", "a wrong key")


def _is_from_the_future(token):
    """Whether the provider's clock was ahead when it made the token, by more than servers allow for."""
    return claims_of(token)["iat"] > SYSTEM_CLOCK.now().timestamp() + ALLOWED_SECONDS
