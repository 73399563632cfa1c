import logging
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.errors import Unavailable, UsageError
from micromegas_jupyter.lake.lake import Lake, LakeWriter
from micromegas_jupyter.server.recorder.recorder import Backlog, RecordedStreams, Recorder
from micromegas_jupyter.telemetry.rows import LogRow, MeasureRow
from tests.fakes.clock import FakeClock
from tests.fakes.telemetry_rows import NOON_NS, log_batch, process_info, process_state


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("tests.recorder")
    logger.setLevel(logging.INFO)
    yield logger
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.fixture
def recorder(lake: Lake, clock: FakeClock, logger: logging.Logger) -> Iterator[Recorder]:
    recorder = Recorder(lake, exe="test", clock=clock, logger=logger)
    recorder._attach_handler()
    yield recorder
    recorder.stop()


def _rows(lake: Lake, table: str) -> list[dict[str, object]]:
    found = next(snapshot for snapshot in lake.snapshot() if snapshot.name == table)
    return [row for file in found.files for row in pq.ParquetFile(file).read().to_pylist()]


def _block(tmp_path: Path) -> Path:
    """Put a file where the lake's folder should be, so that nothing can be stored."""
    (tmp_path / "lake").write_text("not a folder")
    return tmp_path / "lake"


def test_a_flush_that_was_brought_forward_takes_no_sample(recorder: Recorder, lake: Lake, clock: FakeClock) -> None:
    recorder._flush()
    clock.advance(0.1)
    recorder._flush()
    early = [row["name"] for row in _rows(lake, "measures")].count("total_memory")
    clock.advance(0.9)

    recorder._flush()

    late = [row["name"] for row in _rows(lake, "measures")].count("total_memory")
    assert (early, late) == (1, 2)


def test_rows_wait_while_the_disk_fails_and_are_stored_once_it_works(
    recorder: Recorder, lake: Lake, logger: logging.Logger, tmp_path: Path
) -> None:
    blocked = _block(tmp_path)
    logger.info("one")
    recorder._flush()
    logger.info("two")
    recorder._flush()
    assert recorder._failed_flushes == 2

    blocked.unlink()
    recorder._flush()

    assert [row["msg"] for row in _rows(lake, "log_entries")] == ["one", "two"]


def test_a_failing_disk_is_reported_once_a_minute(
    recorder: Recorder, clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _block(tmp_path)

    for _ in range(61):
        recorder._flush()
        clock.advance(1.0)

    warnings = [record for record in caplog.records if record.getMessage() == "telemetry could not be stored"]
    assert [record.failed_flushes for record in warnings] == [1, 61]


def test_what_was_dropped_is_reported_in_the_log(
    recorder: Recorder, lake: Lake, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("micromegas_jupyter.server.recorder.recorder.MAX_MEASURES", 1)
    recorder._handler.handle(logging.makeLogRecord({"created": float("nan")}))
    recorder.add_measures([MeasureRow(time_ns=1, target="a", name="n", unit="count", value=1.0)] * 3)

    recorder._flush()

    (row,) = _rows(lake, "log_entries")
    assert (row["msg"], row["level"]) == ("telemetry was dropped", 3)
    assert row["properties"] == [("log_records", "1"), ("measures", "2")]


def test_a_recorder_is_used_once(lake: Lake, logger: logging.Logger) -> None:
    recorder = Recorder(lake, exe="test", logger=logger)
    with recorder:
        pass

    with pytest.raises(UsageError):
        recorder.start()


def test_the_end_stores_what_is_left_and_lets_go_of_the_logger(lake: Lake, logger: logging.Logger) -> None:
    handlers = list(logger.handlers)
    recorder = Recorder(lake, exe="test", logger=logger, flush_interval_seconds=3600)
    recorder.start()
    logger.info("last words")

    assert recorder.stop() is True
    assert recorder.stop() is True

    assert [row["msg"] for row in _rows(lake, "log_entries")] == ["last words"]
    assert logger.handlers == handlers
    lake.open_writer(uuid.UUID(recorder.process_id).hex).close()


class HungLake(Lake):
    """A lake on a disk that does not answer until it may."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.opening, self.answer = threading.Event(), threading.Event()

    def open_writer(self, writer_id: str) -> LakeWriter:
        self.opening.set()
        assert self.answer.wait(30)
        return super().open_writer(writer_id)


def test_a_disk_that_hangs_stops_neither_the_application_nor_its_end(tmp_path: Path, logger: logging.Logger) -> None:
    lake = HungLake(tmp_path / "lake")
    recorder = Recorder(lake, exe="test", logger=logger, flush_interval_seconds=0.01)
    recorder.start()
    assert lake.opening.wait(30)
    logger.info("the application goes on")

    ended = recorder.stop(timeout_seconds=0.1)

    assert ended is False
    lake.answer.set()
    assert recorder.stop(timeout_seconds=30) is True
    assert [row["msg"] for row in _rows(lake, "log_entries")] == ["the application goes on"]


def test_a_defect_does_not_end_the_recording(
    lake: Lake, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(lake, exe="test", logger=logger, flush_interval_seconds=0.01)
    failed = threading.Event()

    def fail_once(**_: object) -> list[MeasureRow]:
        monkeypatch.undo()
        failed.set()
        raise ZeroDivisionError

    monkeypatch.setattr(recorder._sampler, "sample", fail_once)
    recorder.start()
    assert failed.wait(30)
    logger.info("still here")

    assert recorder.stop(timeout_seconds=30) is True

    assert recorder._failed_flushes == 1
    assert "still here" in [row["msg"] for row in _rows(lake, "log_entries")]


def test_files_are_maintained_while_it_records(
    lake: Lake, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds, failing = threading.Semaphore(0), iter([True])

    def maintain(_writer: LakeWriter, _is_stopping: object) -> None:
        rounds.release()
        if next(failing, False):
            raise ZeroDivisionError

    monkeypatch.setattr(LakeWriter, "maintain", maintain)
    monkeypatch.setattr("micromegas_jupyter.server.recorder.recorder.MAINTENANCE_SECONDS", 0.01)

    with Recorder(lake, exe="test", logger=logger, flush_interval_seconds=0.01):
        # The second round follows one that failed.
        assert rounds.acquire(timeout=30)
        assert rounds.acquire(timeout=30)


def test_warnings_still_reach_stderr(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    alone = logging.getLogger("tests.recorder_alone")
    alone.propagate = False

    with Recorder(lake, exe="test", logger=alone):
        alone.warning("seen by people")

    assert capsys.readouterr().err == "seen by people\n"
    assert alone.handlers == []


class TestRecordedStreams:
    PROCESS_ID = "11111111-1111-4111-8111-111111111111"
    LOG = LogRow(time_ns=NOON_NS, target="app", level=4, msg="hello")
    MEASURE = MeasureRow(time_ns=NOON_NS, target="app", name="n", unit="count", value=1.0)

    @pytest.fixture
    def streams(self) -> RecordedStreams:
        return RecordedStreams(process_info(self.PROCESS_ID), heartbeat_seconds=10.0)

    def test_the_first_flush_registers_process_and_streams_to_which_the_rows_belong(
        self, streams: RecordedStreams
    ) -> None:
        batches = streams.build_batches([self.LOG], [self.MEASURE], now_ns=NOON_NS, monotonic_seconds=0.0)

        rows = [(table, batch.to_pylist()[0]) for table, batch in batches]
        assert [table for table, _ in rows] == ["processes", "streams", "streams", "log_entries", "measures"]
        (_, process), (_, log), (_, metrics), (_, entry), (_, measure) = rows
        assert (log["tags"], metrics["tags"]) == (["log"], ["metrics"])
        assert (entry["stream_id"], measure["stream_id"]) == (log["stream_id"], metrics["stream_id"])
        assert {process["process_id"], entry["process_id"]} == {self.PROCESS_ID}
        assert log["stream_id"] != metrics["stream_id"]
        assert entry["block_id"] != measure["block_id"]

    def test_a_sign_of_life_is_given_every_few_seconds_and_at_the_end(self, streams: RecordedStreams) -> None:
        def tables(seconds: float, *, is_last: bool = False) -> list[str]:
            batches = streams.build_batches([], [], now_ns=NOON_NS, monotonic_seconds=seconds, is_last=is_last)
            return [table for table, _ in batches]

        states = ["processes", "streams", "streams"]
        assert [tables(0.0), tables(9.9), tables(10.0), tables(11.0)] == [states, [], states, []]
        assert tables(12.0, is_last=True) == states


class TestBacklog:
    def test_all_that_waits_for_a_table_goes_into_one_file(self, lake: Lake) -> None:
        backlog, writer = Backlog(), lake.open_writer("a")
        backlog.add("log_entries", log_batch([1]))
        backlog.add("log_entries", log_batch([2]))

        backlog.store(writer)

        writer.close()
        assert backlog.waiting_rows == 0
        assert [row["msg"] for row in _rows(lake, "log_entries")] == ["w:1", "w:2"]

    def test_rows_wait_while_their_table_cannot_be_stored_and_others_do_not(self, lake: Lake, tmp_path: Path) -> None:
        backlog, writer = Backlog(), lake.open_writer("a")
        (tmp_path / "lake" / "processes").write_text("a file in the folder's place")
        backlog.add("processes", process_state("p", updated=1))
        backlog.add("log_entries", log_batch([1]))

        with pytest.raises(Unavailable):
            backlog.store(writer)

        assert backlog.waiting_rows == 1
        (tmp_path / "lake" / "processes").unlink()
        backlog.store(writer)
        assert backlog.waiting_rows == 0
        writer.close()

    def test_the_oldest_rows_of_the_fullest_table_go_when_there_are_too_many(self) -> None:
        backlog = Backlog(max_rows=10)
        backlog.add("processes", process_state("p", updated=1))
        for first in (0, 4, 8):
            backlog.add("log_entries", log_batch(range(first, first + 4)))

        assert backlog.waiting_rows == 9
        assert [backlog.take_lost_count(), backlog.take_lost_count()] == [4, 0]
        backlog.add("measures", log_batch(range(11)))
        assert backlog.take_lost_count() == 11
