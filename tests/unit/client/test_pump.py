"""A thread of its own reads a stream; whoever takes from the pump can leave at any time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from micromegas_jupyter.client.query_reader import BatchPump, StreamEnd
from micromegas_jupyter.core.threads import start_thread

if TYPE_CHECKING:
    from collections.abc import Callable

_BATCH = pa.record_batch({"n": [1]})
_WAIT = 10


class ScriptedStream:
    """Gives batches until it is cancelled; `limit` None means for ever."""

    schema = _BATCH.schema

    def __init__(
        self, limit: int | None = 2, error: Exception | None = None, *, batch: pa.RecordBatch = _BATCH
    ) -> None:
        self._limit = limit
        self._batch = batch
        self._error = error
        self.read_count = 0
        self.cancelled = threading.Event()
        self.closed = threading.Event()

    def read_batch(self) -> pa.RecordBatch | None:
        if self.cancelled.is_set():
            raise RuntimeError("cancelled")
        if self._limit is not None and self.read_count >= self._limit:
            if self._error is not None:
                raise self._error
            return None
        self.read_count += 1
        return self._batch

    def cancel(self) -> None:
        self.cancelled.set()

    def close(self) -> None:
        self.closed.set()


def test_events_come_in_order() -> None:
    stream = ScriptedStream()
    pump = BatchPump(lambda: stream)

    events = [pump.take() for _ in range(4)]

    assert events == [_BATCH.schema, _BATCH, _BATCH, StreamEnd.ENDED]
    assert stream.closed.wait(_WAIT)
    assert not stream.cancelled.is_set()


def test_a_stream_that_cannot_be_opened_is_a_failure() -> None:
    error = RuntimeError("no")

    def fail() -> ScriptedStream:
        raise error

    assert BatchPump(fail).take() == error


def test_a_stream_that_breaks_is_a_failure_after_its_batches() -> None:
    error = RuntimeError("broke")
    stream = ScriptedStream(limit=1, error=error)
    pump = BatchPump(lambda: stream)

    events = [pump.take() for _ in range(3)]

    assert events == [_BATCH.schema, _BATCH, error]
    assert stream.closed.wait(_WAIT)


def test_a_slow_reader_holds_the_stream_back() -> None:
    stream = ScriptedStream(limit=None)
    pump = BatchPump(lambda: stream)

    for _ in range(3):
        pump.take()

    assert stream.read_count <= 3 + 4
    pump.stop()
    assert stream.closed.wait(_WAIT)


def test_large_batches_hold_the_stream_back_sooner() -> None:
    stream = ScriptedStream(limit=None, batch=pa.record_batch({"n": pa.array(range(300_000), pa.int64())}))
    pump = BatchPump(lambda: stream)

    for _ in range(3):
        pump.take()

    assert stream.read_count <= 3 + 1
    pump.stop()
    assert stream.closed.wait(_WAIT)


def test_stopping_cancels_the_stream_and_frees_a_reader_that_waits() -> None:
    stream = ScriptedStream(limit=None)
    pump = BatchPump(lambda: stream)
    pump.take()

    pump.stop()
    pump.stop()

    assert pump.take() == StreamEnd.STOPPED
    assert stream.cancelled.is_set()
    assert stream.closed.wait(_WAIT)


def test_stopping_after_the_end_cancels_nothing() -> None:
    stream = ScriptedStream(limit=0)
    pump = BatchPump(lambda: stream)
    pump.take()
    pump.take()
    assert stream.closed.wait(_WAIT)

    pump.stop()

    assert not stream.cancelled.is_set()


def test_a_stream_that_opens_after_the_stop_is_cancelled_then() -> None:
    stream, may_open = ScriptedStream(limit=None), threading.Event()

    def open_late() -> ScriptedStream:
        may_open.wait(_WAIT)
        return stream

    pump = BatchPump(open_late)
    pump.stop()
    taken = pump.take()
    may_open.set()

    assert taken == StreamEnd.STOPPED
    assert stream.closed.wait(_WAIT)
    assert stream.cancelled.is_set()
    assert stream.read_count == 0


def test_an_interrupt_while_the_thread_starts_stops_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = ScriptedStream(limit=None)

    def start_and_be_interrupted(target: Callable[[], None], *, name: str) -> None:
        start_thread(target, name=name)
        raise KeyboardInterrupt

    monkeypatch.setattr("micromegas_jupyter.client.query_reader.start_thread", start_and_be_interrupted)

    with pytest.raises(KeyboardInterrupt):
        BatchPump(lambda: stream)

    assert stream.cancelled.wait(_WAIT)
    assert stream.closed.wait(_WAIT)
