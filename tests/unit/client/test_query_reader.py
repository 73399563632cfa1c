"""How far batches are read ahead, which statements may be repeated, and when the next attempt is made."""

import threading
from types import SimpleNamespace

import pyarrow as pa
import pytest

from micromegas_jupyter.client.query_reader import BatchPump, is_read
from micromegas_jupyter.client.transport import RETRY_SECONDS, Attempts, CallRecord, Credential, CredentialSource
from micromegas_jupyter.core.system import start_thread
from micromegas_jupyter.errors import QueryCancelled, ServerUnavailable
from tests.fakes.pause import FakePause

_WAIT = 10


class EndlessStream:
    """Gives batches until it is cancelled."""

    def __init__(self, rows=1):
        self._batch = pa.record_batch({"n": pa.array(range(rows), pa.int64())})
        self.schema = self._batch.schema
        self.read_count = 0
        self.cancelled = threading.Event()
        self.closed = threading.Event()
        self.cancel = self.cancelled.set
        self.close = self.closed.set

    def read_batch(self):
        if self.cancelled.is_set():
            raise RuntimeError("cancelled")
        self.read_count += 1
        return self._batch


@pytest.mark.parametrize(("rows", "waiting"), [(1, 4), (300_000, 1)], ids=["small", "large"])
def test_a_slow_reader_holds_the_stream_back(rows, waiting):
    stream = EndlessStream(rows)
    pump = BatchPump(lambda: stream)

    for _ in range(3):
        pump.take()

    assert stream.read_count <= 3 + waiting
    pump.stop()
    assert stream.closed.wait(_WAIT)


def test_a_stream_that_opens_after_the_stop_is_cancelled_then():
    stream, may_open = EndlessStream(), threading.Event()
    pump = BatchPump(lambda: may_open.wait(_WAIT) and stream)
    pump.stop()
    with pytest.raises(QueryCancelled):
        pump.take()
    may_open.set()

    assert stream.closed.wait(_WAIT)
    assert (stream.cancelled.is_set(), stream.read_count) == (True, 0)


def test_an_interrupt_while_the_thread_starts_stops_the_stream(monkeypatch):
    stream = EndlessStream()

    def start_and_be_interrupted(target, *, name):
        start_thread(target, name=name)
        raise KeyboardInterrupt

    monkeypatch.setattr("micromegas_jupyter.client.query_reader.start_thread", start_and_be_interrupted)

    with pytest.raises(KeyboardInterrupt):
        BatchPump(lambda: stream)

    assert stream.cancelled.wait(_WAIT)
    assert stream.closed.wait(_WAIT)


READS = [
    "SELECT 1", "", "/* without an end", "/* a */ SELECT 1 /* b */",
    "  -- a note\n SELECT count(*) FROM log_entries WHERE msg LIKE '%update%' AND level < 3;\n",
    "WITH recent AS (SELECT * FROM log_entries) SELECT * FROM recent",
    "SELECT delete_count, created, set_size, update_time FROM t",
]  # fmt: skip
WRITES = [
    "INSERT INTO t VALUES (1)", "-- a note\n/* and one */ DELETE FROM t", "INSERT/* a */INTO t SELECT 1",
    "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", "CREATE TABLE t AS SELECT 1", "COPY t TO 'file'",
    "SELECT 1; DROP TABLE t", "SELECT time, msg FROM retire_partitions('a', 'b', 'c', 'd')",
    "SELECT * FROM \"retire_partitions\" ('a')", "SELECT * FROM Materialize_Partitions('v', 'a', 'b', 60)",
    "SELECT * FROM deny_queries('sql', 'reason')", "SELECT retire_partitions/**/(1)",
    "SELECT retire_partitions -- now\n (1)", "SELECT '--', retire_partitions(1)", "DO $$ x $$",
]  # fmt: skip


@pytest.mark.parametrize(
    ("sql", "may_be_repeated"), [*((sql, True) for sql in READS), *((sql, False) for sql in WRITES)]
)
def test_a_statement_that_may_write_is_not_repeated(sql, may_be_repeated):
    assert is_read(sql) is may_be_repeated


@pytest.fixture
def pause(clock):
    return FakePause(clock)


@pytest.fixture
def build(clock, pause):
    def build_attempts(**options):
        server = SimpleNamespace(
            has_answered=True, uses=SimpleNamespace(is_closed=False), reconnect=lambda _failed: None
        )
        given = {"may_repeat": True, "server": server, "jitter": lambda: 0.5, **options}
        return Attempts(CredentialSource(None), clock=clock, stopped=pause, **given)

    return build_attempts


def _fail_until_the_end(attempts, *, pushback=None):
    """Let every attempt fail, and return the last error."""
    while True:
        error = ServerUnavailable("No.", remedy="Wait.")
        record = CallRecord()
        record.note({} if pushback is None else {"grpc-retry-pushback-ms": [pushback]})
        if attempts.next_credential(error, Credential(), record) is None:
            return error


@pytest.mark.parametrize(("drawn", "first"), [(0.0, 0.08), (1.0, 0.12)])
def test_pauses_are_drawn(build, pause, drawn, first):
    _fail_until_the_end(build(jitter=lambda: drawn))

    assert pause.waited[0] == pytest.approx(first)
    assert sum(pause.waited) < RETRY_SECONDS


@pytest.mark.parametrize(
    ("pushback", "pauses", "said"),
    [
        (None, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 4.0, 4.0, 4.0], "Wait. Tried 10 times in 18 s."),
        ("6000", [6.0, 6.0, 6.0], "Wait. Tried 4 times in 18 s."),
        *((pushback, [], "Wait.") for pushback in ("-1", "20000", "soon")),
    ],
)
def test_pauses_grow_or_are_the_servers_and_the_last_error_says_how_often_it_was_tried(
    build, pause, pushback, pauses, said
):
    error = _fail_until_the_end(build(), pushback=pushback)

    assert pause.waited == pytest.approx(pauses)
    assert error.remedy == said


def test_the_calls_own_deadline_ends_the_attempts(build, clock, pause):
    attempts = build(timeout_seconds=10.0)
    clock.advance(8.0)

    error = _fail_until_the_end(attempts)

    assert sum(pause.waited) == pytest.approx(1.5)
    assert error.remedy == "Wait. Tried 5 times in 10 s."
    assert attempts.remaining_seconds() == 0.5


def test_a_failure_that_lasts_is_not_tried_again(build, pause):
    error = ServerUnavailable("The certificate has ended.", retryable=False)

    assert build().next_credential(error, Credential(), CallRecord()) is None
    assert pause.waited == []
