import logging
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.core.system import SystemRandomness
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.lake import Lake, LakeWriter
from micromegas_jupyter.server.recorder.recorder import Recorder
from micromegas_jupyter.telemetry import MeasureRow
from tests.fakes.clock import FakeClock


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
    recorder = Recorder(lake, exe="test", clock=clock, randomness=SystemRandomness(), logger=logger)
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


def test_a_flush_stores_what_was_logged(recorder: Recorder, lake: Lake, logger: logging.Logger) -> None:
    logger.warning("hello %s", "lake", extra={"n": 1})

    recorder._flush()

    (row,) = _rows(lake, "log_entries")
    assert (row["process_id"], row["exe"], row["target"]) == (recorder.process_id, "test", "tests.recorder")
    assert (row["msg"], row["level"], row["properties"]) == ("hello lake", 3, [("n", "1")])


def test_a_flush_registers_the_process(recorder: Recorder, lake: Lake) -> None:
    recorder._flush()

    (process,) = _rows(lake, "processes")
    assert process["process_id"] == recorder.process_id
    assert str(process["last_update_time"]) == "2026-11-24 12:00:00+00:00"
    assert [row["tags"] for row in _rows(lake, "streams")] == [["log"], ["metrics"]]
    assert uuid.UUID(recorder.process_id).version == 4


def test_a_flush_takes_a_sample_and_the_measures_that_others_hand_in(
    recorder: Recorder, lake: Lake, clock: FakeClock
) -> None:
    recorder.add_measures([MeasureRow(time_ns=1, target="app", name="rows", unit="count", value=2.0)])

    recorder._flush()

    names = [row["name"] for row in _rows(lake, "measures")]
    assert names[0] == "rows"
    assert "total_memory" in names


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


def test_a_failing_disk_is_told_once_a_minute(
    recorder: Recorder, clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _block(tmp_path)

    for _ in range(61):
        recorder._flush()
        clock.advance(1.0)

    told = [record for record in caplog.records if record.getMessage() == "telemetry could not be stored"]
    assert [record.failed_flushes for record in told] == [1, 61]


def test_what_was_dropped_is_told_in_the_log(
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


def test_the_end_says_when_rows_could_not_be_stored(lake: Lake, logger: logging.Logger, tmp_path: Path) -> None:
    _block(tmp_path)
    recorder = Recorder(lake, exe="test", logger=logger)
    recorder.start()

    assert recorder.stop() is False


class HungLake(Lake):
    """A lake on a disk that does not answer until it is told to."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked, self.answer = threading.Event(), threading.Event()

    def open_writer(self, writer_id: str) -> LakeWriter:
        self.asked.set()
        assert self.answer.wait(30)
        return super().open_writer(writer_id)


def test_a_disk_that_hangs_stops_neither_the_application_nor_its_end(tmp_path: Path, logger: logging.Logger) -> None:
    lake = HungLake(tmp_path / "lake")
    recorder = Recorder(lake, exe="test", logger=logger, flush_interval_seconds=0.01)
    recorder.start()
    assert lake.asked.wait(30)
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


def test_files_are_tended_while_it_records(lake: Lake, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_packages_own_log_is_recorded_from_info_on_while_it_lasts(lake: Lake, logger: logging.Logger) -> None:
    package = logging.getLogger("micromegas_jupyter")

    with Recorder(lake, exe="test", logger=logger):
        during = package.level

    assert (during, package.level) == (logging.INFO, logging.NOTSET)


def test_warnings_still_reach_stderr(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    alone = logging.getLogger("tests.recorder_alone")
    alone.propagate = False

    with Recorder(lake, exe="test", logger=alone):
        alone.warning("seen by people")

    assert capsys.readouterr().err == "seen by people\n"
    assert alone.handlers == []
