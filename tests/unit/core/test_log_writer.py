"""Lines wait in a bounded queue while their destination accepts nothing, and calls learn whether theirs was written."""

import asyncio
import io
import logging
import os
import threading
from pathlib import Path

import pytest

from micromegas_jupyter.core import log_writer
from micromegas_jupyter.core.log_writer import (
    RECEIPT_FIELD,
    LogWriter,
    LogWriterHandler,
    LogWriterStream,
    StreamDestination,
)
from micromegas_jupyter.errors import ServerUnavailable
from tests.fakes.waiting import DEADLINE_SECONDS, wait_until


class Blocking:
    """A destination that accepts lines once it is open."""

    name = "log"

    def __init__(self, *, is_durable=False):
        self.is_durable = is_durable
        self.is_open, self.was_called = threading.Event(), threading.Event()
        self.lines = []

    def lost_line(self, count):
        return f"{count} lost"

    def report_failure(self, error):
        raise AssertionError(error)

    def write(self, lines):
        self.was_called.set()
        assert self.is_open.wait(DEADLINE_SECONDS)
        self.lines += [line.decode().removesuffix("\n") for line in lines]
        return len(lines)


@pytest.fixture
def blocking():
    destination = Blocking()
    yield destination
    destination.is_open.set()


def put(writer, text, *, size=1, is_required=False):
    return writer.put(lambda: text, size, is_required=is_required)


@pytest.mark.parametrize(("limit", "size"), [("MAX_LINES", 1), ("MAX_BYTES", 1)])
def test_ordinary_lines_are_dropped_first_then_calls_are_rejected_and_running_calls_keep_a_reserve(
    blocking, monkeypatch, clock, limit, size
):
    monkeypatch.setattr(log_writer, limit, 10)
    writer = LogWriter(blocking, clock=clock)

    ordinary = [put(writer, f"ordinary {number}", size=size) for number in range(10)]
    assert (writer.lost_count, writer.problem) == (2, None)
    put(writer, "call 1", is_required=True)
    assert "too many lines" in writer.problem
    with pytest.raises(ServerUnavailable, match="too many lines are waiting for the log"):
        writer.check()
    put(writer, "call 2", is_required=True)
    lost = put(writer, "call 3", is_required=True)

    asyncio.run(ordinary[0].wait())
    with pytest.raises(ServerUnavailable, match="too many lines are waiting for the log"):
        asyncio.run(lost.wait())

    blocking.is_open.set()
    assert writer.close(DEADLINE_SECONDS)
    assert blocking.lines == [*(f"ordinary {number}" for number in range(8)), "call 1", "call 2", "3 lost"]


def test_a_destination_is_a_problem_once_it_has_accepted_nothing_for_two_seconds(blocking, clock):
    writer = LogWriter(blocking, clock=clock)
    clock.advance(3600)
    assert writer.problem is None  # nothing waits

    put(writer, "one")
    clock.advance(1.9)
    assert writer.problem is None
    clock.advance(0.2)
    assert writer.problem == "the log hasn't accepted data for 2 seconds"

    blocking.is_open.set()
    wait_until(lambda: writer.problem is None, "it is written")


def test_a_call_ends_once_its_line_is_written_if_the_destination_is_durable():
    destination = Blocking(is_durable=True)
    writer = LogWriter(destination)

    async def scenario():
        waiting = asyncio.ensure_future(put(writer, "one", is_required=True).wait())
        assert await asyncio.to_thread(destination.was_called.wait, DEADLINE_SECONDS)
        was_done = waiting.done()
        destination.is_open.set()
        await waiting
        return was_done, destination.lines

    assert asyncio.run(scenario()) == (False, ["one"])


def test_a_line_that_a_destructor_adds_while_the_writer_falls_asleep_is_written(blocking):
    blocking.is_open.set()
    writer = LogWriter(blocking)

    class Collecting(threading.Event):
        """The garbage collector may run in any call of the writer's thread."""

        has_added = False

        def is_set(self):
            if threading.current_thread().name == "write-log" and not self.has_added:
                self.has_added = True
                put(writer, "of a destructor")
            return super().is_set()

    writer._closing = Collecting()
    put(writer, "line")

    wait_until(lambda: blocking.lines == ["line", "of a destructor"], "both lines are written")


def test_a_call_does_not_wait_forever_for_a_durable_destination(monkeypatch):
    monkeypatch.setattr(log_writer, "_DELIVERY_SECONDS", 0.01)
    destination = Blocking(is_durable=True)
    writer = LogWriter(destination)

    with pytest.raises(ServerUnavailable, match="hasn't accepted data"):
        asyncio.run(put(writer, "one", is_required=True).wait())

    assert not writer.close(0.01)
    destination.is_open.set()


def test_a_reader_that_is_slow_is_not_one_that_has_stopped(clock):
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        writer = LogWriter(StreamDestination(stream, lost_line=str), clock=clock)
        size = 200_000  # more than a pipe holds
        put(writer, "x" * size)
        for _ in range(size // 4096):
            clock.advance(1.0)
            assert os.read(reading, 4096)
            wait_until(lambda: writer.problem is None, "progress")
        wait_until(lambda: not writer.line_count, "all is written")
    os.close(reading)


def test_a_line_is_continued_where_a_failure_interrupted_it(monkeypatch):
    results = [3, BlockingIOError(), 4]
    written = []

    def write(_file, data):
        result = results.pop(0) if results else len(data)
        if isinstance(result, OSError):
            raise result
        written.append(bytes(data[:result]))
        return result

    with Path(os.devnull).open("w") as stream:
        destination = StreamDestination(stream, lost_line=str)
        monkeypatch.setattr(os, "write", write)
        with pytest.raises(BlockingIOError):
            destination.write([b"abcdef\n"])
        assert destination.write([b"abcdef\n", b"next\n"]) == 2

    assert b"".join(written) == b"abcdef\nnext\n"


class Unprintable:
    def __str__(self):
        raise ValueError


def test_records_are_formatted_on_the_writers_thread_from_a_copy():
    stream, record = io.StringIO(), logging.makeLogRecord({"msg": "%s of %s", "args": ("one", Unprintable())})
    writer = LogWriter(StreamDestination(stream, lost_line=str))
    handler, threads = LogWriterHandler(writer), []

    class Formatter(logging.Formatter):
        def format(self, formatted):
            threads.append(threading.current_thread())
            return super().format(formatted)

    handler.setFormatter(Formatter("%(message)s %(fact)s"))
    facts = ["changes"]
    record.fact = facts
    handler.handle(record)
    facts.clear()
    try:
        {}["why"]
    except KeyError as error:
        failed = logging.makeLogRecord({"msg": "failed", "exc_info": (type(error), error, error.__traceback__)})
    failed.fact = Unprintable()
    handler.handle(failed)
    assert writer.close(DEADLINE_SECONDS)

    first, second, *rest = stream.getvalue().splitlines()
    assert first == "%s of %s ['changes']"
    assert second == "failed (a value that cannot be shown)"
    assert rest[-1] == "KeyError: 'why'"
    assert threading.current_thread() not in threads


def test_a_record_that_reports_a_call_gets_a_receipt():
    writer = LogWriter(StreamDestination(io.StringIO(), lost_line=str))
    handler = LogWriterHandler(writer)
    record, ordinary = logging.makeLogRecord({"msg": "call", RECEIPT_FIELD: None}), logging.makeLogRecord({"msg": "x"})

    handler.handle(record)
    handler.handle(ordinary)

    asyncio.run(getattr(record, RECEIPT_FIELD).wait())
    assert not hasattr(ordinary, RECEIPT_FIELD)
    writer.close(DEADLINE_SECONDS)


def test_what_is_printed_is_queued_by_lines():
    stream = io.StringIO()
    writer = LogWriter(StreamDestination(stream, lost_line=str))
    printed = LogWriterStream(writer)

    print("one", 2, file=printed)
    print("three\nfour", end="", file=printed)
    printed.flush()
    writer.close(DEADLINE_SECONDS)

    assert stream.getvalue() == "one 2\nthree\nfour\n"
