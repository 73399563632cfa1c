"""The reader of one query: batches, figures, renewal, cancellation."""

from __future__ import annotations

import gc
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from micromegas_jupyter.client.calls import Call, Credential, CredentialSource
from micromegas_jupyter.client.query_reader import Attempts, QueryReader
from micromegas_jupyter.errors import (
    InvalidStatement,
    LoginRequired,
    MicromegasError,
    QueryCancelled,
    Rejected,
    ServerUnavailable,
    UsageError,
)
from tests.fakes.known_server import KnownServer
from tests.fakes.pause import FakePause

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fakes.clock import FakeClock

_BATCH = pa.record_batch({"n": pa.array([1, 2], pa.int64())})
_WAIT = 10


class _Tokens:
    """Gives a numbered token, until it is told to fail."""

    def __init__(self) -> None:
        self.count = 0
        self.failure: MicromegasError | None = None

    def get_token(self) -> str:
        if self.failure is not None:
            raise self.failure
        return f"t{self.count}"

    def invalidate(self, _token: str) -> None:
        self.count += 1


@dataclass
class _Stream:
    """Gives its answers one after another; an exception is raised, and an Event is waited for."""

    answers: list[object]
    schema: pa.Schema = _BATCH.schema
    cancelled: threading.Event = field(default_factory=threading.Event)

    def read_batch(self) -> pa.RecordBatch | None:
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, threading.Event):
            answer.wait(_WAIT)
            return None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def cancel(self) -> None:
        self.cancelled.set()

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture
def tokens() -> _Tokens:
    return _Tokens()


@pytest.fixture
def pause(clock: FakeClock) -> FakePause:
    return FakePause(clock)


@pytest.fixture
def read(clock: FakeClock, tokens: _Tokens, pause: FakePause) -> Callable[..., QueryReader]:
    """Start a reader whose attempts answer with the given streams, or fail with the given errors."""

    def start(*attempts: _Stream | Exception) -> QueryReader:
        left = list(attempts)

        def build_call(credential: Credential) -> Call:
            return Call(server="s:1", credential=credential, started_at=clock.now())

        def open_stream(call: Call) -> _Stream:
            call.record.query_id = "q-" + (call.credential.token.reveal() if call.credential.token else "")
            attempt = left.pop(0)
            if isinstance(attempt, Exception):
                raise attempt
            return attempt

        attempts = Attempts(CredentialSource(tokens), clock=clock, may_repeat=True, server=KnownServer(), stopped=pause)
        return QueryReader(attempts, build_call, open_stream, clock=clock)

    return start


def test_batches_come_one_after_another_and_are_counted(read: Callable[..., QueryReader]) -> None:
    with read(_Stream([_BATCH, _BATCH])) as reader:
        batches = list(reader)

        assert batches == [_BATCH, _BATCH]
        assert reader.schema == _BATCH.schema
        assert reader.rows == 4
        assert reader.bytes_received == 2 * pa.ipc.get_record_batch_size(_BATCH)
        assert reader.query_id == "q-t0"
        assert list(reader) == []


def test_time_runs_until_the_end(read: Callable[..., QueryReader], clock: FakeClock) -> None:
    with read(_Stream([_BATCH])) as reader:
        clock.advance(2)
        next(reader)
        running = reader.elapsed_seconds
        clock.advance(1)
        list(reader)
        clock.advance(60)

        assert running == 2.0
        assert reader.elapsed_seconds == 3.0


def test_all_batches_make_a_table_and_no_batches_keep_the_schema(read: Callable[..., QueryReader]) -> None:
    table = read(_Stream([_BATCH])).read_all()
    nothing = read(_Stream([])).read_all()

    assert table.to_pydict() == {"n": [1, 2]}
    assert nothing.schema == _BATCH.schema
    assert nothing.num_rows == 0


def test_a_refused_token_is_renewed_once_before_the_schema(read: Callable[..., QueryReader]) -> None:
    reader = read(Rejected(), _Stream([_BATCH]))

    assert list(reader) == [_BATCH]
    assert reader.query_id == "q-t1"


def test_a_refused_token_is_renewed_once_before_the_first_batch(read: Callable[..., QueryReader]) -> None:
    reader = read(_Stream([Rejected()]), _Stream([_BATCH]))

    assert list(reader) == [_BATCH]


def test_a_token_is_not_renewed_twice(read: Callable[..., QueryReader], tokens: _Tokens) -> None:
    with pytest.raises(Rejected):
        read(Rejected(), Rejected(), _Stream([_BATCH]))

    assert tokens.count == 1


def test_a_token_is_not_renewed_after_a_batch(read: Callable[..., QueryReader], tokens: _Tokens) -> None:
    reader = read(_Stream([_BATCH, Rejected()]), _Stream([_BATCH]))
    next(reader)

    with pytest.raises(Rejected):
        next(reader)

    assert tokens.count == 0


def test_another_failure_is_not_repeated(read: Callable[..., QueryReader], tokens: _Tokens) -> None:
    with pytest.raises(InvalidStatement):
        read(InvalidStatement("No."), _Stream([_BATCH]))

    assert tokens.count == 0


@pytest.mark.parametrize("failing", [ServerUnavailable("No."), _Stream([ServerUnavailable("No.")])])
def test_an_unavailable_server_is_asked_again_until_the_first_batch(
    read: Callable[..., QueryReader], failing: _Stream | Exception
) -> None:
    reader = read(failing, ServerUnavailable("No."), _Stream([_BATCH]))

    assert list(reader) == [_BATCH]


def test_an_unavailable_server_is_not_asked_again_after_a_batch(
    read: Callable[..., QueryReader], pause: FakePause
) -> None:
    reader = read(_Stream([_BATCH, ServerUnavailable("No.")]), _Stream([_BATCH]))
    next(reader)

    with pytest.raises(ServerUnavailable):
        next(reader)

    assert pause.waited == []


def test_cancelling_ends_the_pause_before_the_next_attempt(read: Callable[..., QueryReader], pause: FakePause) -> None:
    reader = read(_Stream([ServerUnavailable("No.")]))
    pause.meanwhile[1] = reader.cancel

    with pytest.raises(QueryCancelled):
        next(reader)

    assert len(pause.waited) == 1


def test_without_a_token_nothing_is_opened(read: Callable[..., QueryReader], tokens: _Tokens) -> None:
    tokens.failure = LoginRequired("Signed out.")

    with pytest.raises(LoginRequired):
        read()  # an attempt would find no stream


def test_cancelling_ends_a_wait_and_tells_the_stream(read: Callable[..., QueryReader]) -> None:
    stream = _Stream([_BATCH, threading.Event()])
    reader = read(stream)
    next(reader)

    reader.cancel()

    with pytest.raises(QueryCancelled):
        next(reader)
    with pytest.raises(QueryCancelled):
        next(reader)
    assert stream.cancelled.is_set()


def test_leaving_early_tells_the_stream_and_ends_the_reader(read: Callable[..., QueryReader]) -> None:
    stream = _Stream([_BATCH, threading.Event()])

    with read(stream) as reader:
        next(reader)

    assert stream.cancelled.wait(_WAIT)
    with pytest.raises(UsageError):
        next(reader)


def test_cancelling_after_the_end_changes_nothing(read: Callable[..., QueryReader]) -> None:
    reader = read(_Stream([]))
    list(reader)

    reader.cancel()

    assert list(reader) == []


def test_a_reader_that_nobody_keeps_is_stopped(read: Callable[..., QueryReader]) -> None:
    stream = _Stream([_BATCH, threading.Event()])

    next(read(stream))
    gc.collect()

    assert stream.cancelled.wait(_WAIT)
