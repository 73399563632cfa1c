"""The reader of one query: batches, renewal, repeated attempts, cancellation."""

from __future__ import annotations

import gc
import threading

import pyarrow as pa
import pytest

from micromegas_jupyter.client.query_reader import RETRY_SECONDS, Attempts, BatchPump, QueryReader, is_read
from micromegas_jupyter.client.transport import Call, CallRecord, Credential, CredentialSource
from micromegas_jupyter.core.system import start_thread
from micromegas_jupyter.errors import QueryCancelled, ServerUnavailable
from tests.fakes.pause import FakePause

_BATCH = pa.record_batch({"n": [1]})


class EndlessStream:
    """Gives batches until it is cancelled."""

    schema = _BATCH.schema

    def __init__(self, batch=_BATCH):
        self._batch = batch
        self.read_count = 0
        self.cancelled = threading.Event()
        self.closed = threading.Event()

    def read_batch(self):
        if self.cancelled.is_set():
            raise RuntimeError("cancelled")
        self.read_count += 1
        return self._batch

    def cancel(self):
        self.cancelled.set()

    def close(self):
        self.closed.set()


@pytest.mark.parametrize(("rows", "waiting"), [(1, 4), (300_000, 1)], ids=["small", "large"])
def test_a_slow_reader_holds_the_stream_back(rows, waiting):
    stream = EndlessStream(pa.record_batch({"n": pa.array(range(rows), pa.int64())}))
    pump = BatchPump(lambda: stream)

    for _ in range(3):
        pump.take()

    assert stream.read_count <= 3 + waiting
    pump.stop()
    assert stream.closed.wait(_WAIT)


def test_a_stream_that_opens_after_the_stop_is_cancelled_then():
    stream, may_open = EndlessStream(), threading.Event()

    def open_late():
        may_open.wait(_WAIT)
        return stream

    pump = BatchPump(open_late)
    pump.stop()
    with pytest.raises(QueryCancelled):
        pump.take()
    may_open.set()

    assert stream.closed.wait(_WAIT)
    assert stream.cancelled.is_set()
    assert stream.read_count == 0


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


_PAIR = pa.record_batch({"n": pa.array([1, 2], pa.int64())})
_WAIT = 10


class _Tokens:
    """Gives a numbered token."""

    count = 0

    def get_token(self):
        return f"t{self.count}"

    def invalidate(self, _token):
        self.count += 1


class KnownServer:
    """Stands in for a `Transport` that has answered before."""

    has_answered = True

    def reconnect(self, _failed):
        """Do nothing."""


class ScriptedStream(EndlessStream):
    """Gives its answers one after another; an exception is raised."""

    schema = _PAIR.schema

    def __init__(self, *answers):
        super().__init__()
        self._answers = list(answers)

    def read_batch(self):
        answer = self._answers.pop(0) if self._answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def pause(clock):
    return FakePause(clock)


@pytest.fixture
def read(clock, pause):
    """Start a reader whose attempts answer with the given streams, or fail with the given errors."""

    def start(*attempts):
        left = list(attempts)

        def build_call(credential):
            return Call(server="s:1", credential=credential, started_at=clock.now())

        def open_stream(call):
            call.record.query_id = "q-" + (call.credential.token.reveal() if call.credential.token else "")
            attempt = left.pop(0)
            if isinstance(attempt, Exception):
                raise attempt
            return attempt

        attempts = Attempts(
            CredentialSource(_Tokens()), clock=clock, may_repeat=True, server=KnownServer(), stopped=pause
        )
        return QueryReader(attempts, build_call, open_stream, clock=clock)

    return start


def test_batches_and_time_are_counted(read, clock):
    with read(ScriptedStream(_PAIR, _PAIR)) as reader:
        clock.advance(2)
        batches = list(reader)
        clock.advance(60)

        assert batches == [_PAIR, _PAIR]
        assert reader.schema == _PAIR.schema
        assert reader.rows == 4
        assert reader.bytes_received == 2 * pa.ipc.get_record_batch_size(_PAIR)
        assert reader.query_id == "q-t0"
        assert reader.elapsed_seconds == 2.0
        assert list(reader) == []


def test_cancelling_ends_the_pause_before_the_next_attempt(read, pause):
    reader = read(ScriptedStream(ServerUnavailable("No.")))
    pause.meanwhile[1] = reader.cancel

    with pytest.raises(QueryCancelled):
        next(reader)

    assert len(pause.waited) == 1


def test_a_reader_that_nobody_keeps_is_stopped(read):
    stream = EndlessStream()

    next(read(stream))
    gc.collect()

    assert stream.cancelled.wait(_WAIT)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "  -- a note\n SELECT count(*) FROM log_entries WHERE msg LIKE '%update%' AND level < 3;\n",
        "WITH recent AS (SELECT * FROM log_entries) SELECT * FROM recent",
        "SELECT delete_count, created, set_size, update_time FROM t",
        "",
        "/* without an end",
        "/* a */ SELECT 1 /* b */",
    ],
)
def test_a_statement_that_reads_is_read(sql):
    assert is_read(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (1)",
        "-- a note\n/* and one */ DELETE FROM t",
        "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
        "CREATE TABLE t AS SELECT 1",
        "COPY t TO 'file'",
        "SELECT 1; DROP TABLE t",
        "SELECT time, msg FROM retire_partitions('a', 'b', 'c', 'd')",
        "SELECT * FROM \"retire_partitions\" ('a')",
        "SELECT * FROM Materialize_Partitions('v', 'a', 'b', 60)",
        "SELECT * FROM deny_queries('sql', 'reason')",
        "SELECT retire_partitions/**/(1)",
        "SELECT retire_partitions -- now\n (1)",
        "INSERT/* a */INTO t SELECT 1",
        "SELECT '--', retire_partitions(1)",
        "DO $$ x $$",
    ],
)
def test_a_statement_that_writes_may_not_be_repeated(sql):
    assert not is_read(sql)


@pytest.fixture
def build(clock, pause):
    def build_attempts(**options):
        given = {"may_repeat": True, "server": KnownServer(), "jitter": lambda: 0.5, **options}
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


def test_pauses_grow_and_the_last_error_says_how_often_it_was_tried(build, pause):
    error = _fail_until_the_end(build())

    assert pause.waited == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 4.0, 4.0, 4.0])
    assert error.remedy == "Wait. Tried 10 times in 18 s."


def test_the_calls_own_deadline_ends_the_attempts(build, clock, pause):
    attempts = build(timeout_seconds=10.0)
    clock.advance(8.0)

    error = _fail_until_the_end(attempts)

    assert sum(pause.waited) == pytest.approx(1.5)
    assert error.remedy == "Wait. Tried 5 times in 10 s."
    assert attempts.remaining_seconds() == 0.5


def test_the_servers_own_pause_is_kept(build, pause):
    _fail_until_the_end(build(), pushback="6000")

    assert pause.waited == [6.0, 6.0, 6.0]


@pytest.mark.parametrize("pushback", ["-1", "20000", "soon"])
def test_a_pause_beyond_the_deadline_or_none_at_all_ends_the_attempts(build, pause, pushback):
    error = _fail_until_the_end(build(), pushback=pushback)

    assert pause.waited == []
    assert error.remedy == "Wait."


def test_a_write_is_tried_once(build, pause):
    assert build(may_repeat=False).next_credential(ServerUnavailable("No."), Credential(), CallRecord()) is None
    assert pause.waited == []


def test_a_failure_that_lasts_is_not_tried_again(build, pause):
    error = ServerUnavailable("The certificate has ended.")
    error.retryable = False

    assert build().next_credential(error, Credential(), CallRecord()) is None
    assert pause.waited == []
