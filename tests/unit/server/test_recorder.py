"""What cannot be stored waits, up to a bound; neither a disk nor a defect stops the application or the recording."""

import logging
import platform
import subprocess
import threading

import psutil
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.lake.lake import Lake, LakeWriter
from micromegas_jupyter.server.recorder import recorder as recording
from micromegas_jupyter.server.recorder.recorder import Recorder
from micromegas_jupyter.telemetry.tables import MeasureRow
from tests.fakes.telemetry_rows import NOON_NS, log_batch, process_info, process_state


@pytest.fixture
def logger():
    logger = logging.getLogger("tests.recorder")
    logger.setLevel(logging.INFO)
    yield logger
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def lake(tmp_path):
    return Lake(tmp_path / "lake")


@pytest.fixture
def recorder(lake, clock, logger):
    recorder = Recorder(lake, exe="test", clock=clock, logger=logger)
    recorder._attach_handler()
    yield recorder
    recorder.stop()


def _rows(lake, table):
    found = next(snapshot for snapshot in lake.snapshot() if snapshot.name == table)
    return [row for file in found.files for row in pq.ParquetFile(file).read().to_pylist()]


def test_rows_wait_while_the_disk_fails_which_is_reported_once_a_minute(recorder, lake, clock, tmp_path, caplog):
    (tmp_path / "lake").write_text("not a folder")
    for number in range(61):
        logging.getLogger("tests.recorder").info("line %d", number)
        recorder._flush()
        clock.advance(1.0)

    (tmp_path / "lake").unlink()
    recorder._flush()

    warnings = [record for record in caplog.records if record.getMessage() == "telemetry could not be stored"]
    assert [record.failed_flushes for record in warnings] == [1, 61]
    assert {f"line {number}" for number in range(61)} <= {row["msg"] for row in _rows(lake, "log_entries")}


def test_what_was_dropped_is_reported_in_the_log(recorder, lake, monkeypatch):
    monkeypatch.setattr("micromegas_jupyter.server.recorder.recorder.MAX_MEASURES", 1)
    recorder._handler.handle(logging.makeLogRecord({"created": float("nan")}))
    recorder.add_measures([MeasureRow(time_ns=1, target="a", name="n", unit="count", value=1.0)] * 3)

    recorder._flush()

    (row,) = _rows(lake, "log_entries")
    assert (row["msg"], row["properties"]) == ("telemetry was dropped", [("log_records", "1"), ("measures", "2")])


class HungLake(Lake):
    """A lake on a disk that does not answer until it may."""

    def __init__(self, root):
        super().__init__(root)
        self.opening, self.answer = threading.Event(), threading.Event()

    def open_writer(self, writer_id):
        self.opening.set()
        assert self.answer.wait(30)
        return super().open_writer(writer_id)


def test_a_disk_that_hangs_stops_neither_the_application_nor_its_end(tmp_path, logger):
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
    assert logger.handlers == []


def test_a_defect_ends_neither_the_recording_nor_the_maintenance(lake, logger, monkeypatch):
    recorder = Recorder(lake, exe="test", logger=logger, flush_interval_seconds=0.01)
    rounds, failing = threading.Semaphore(0), iter([True, True])

    def fail_once(**_):
        if next(failing, False):
            raise ZeroDivisionError
        return []

    def maintain(_writer, _is_stopping):
        rounds.release()
        raise ZeroDivisionError

    monkeypatch.setattr("micromegas_jupyter.server.recorder.recorder.MAINTENANCE_SECONDS", 0.01)
    monkeypatch.setattr(LakeWriter, "maintain", maintain)
    monkeypatch.setattr(recorder._sampler, "sample", fail_once)
    recorder.start()
    for _ in range(2):
        assert rounds.acquire(timeout=30)
    logger.info("still here")

    assert recorder.stop(timeout_seconds=30) is True
    assert "still here" in [row["msg"] for row in _rows(lake, "log_entries")]


def test_warnings_still_reach_stderr(lake, capsys):
    alone = logging.getLogger("tests.recorder_alone")
    alone.propagate = False

    recorder = Recorder(lake, exe="test", logger=alone)
    recorder.start()
    alone.warning("seen by people")
    recorder.stop()

    assert capsys.readouterr().err == "seen by people\n"


def test_a_sign_of_life_is_given_every_few_seconds_and_at_the_end():
    streams = recording.RecordedStreams(process_info("11111111-1111-4111-8111-111111111111"))

    def tables(seconds, *, is_last=False):
        batches = streams.build_batches([], [], now_ns=NOON_NS, monotonic_seconds=seconds, is_last=is_last)
        return [table for table, _ in batches]

    states = ["processes", "streams", "streams"]
    assert [tables(0.0), tables(9.9), tables(10.0), tables(12.0, is_last=True)] == [states, [], states, states]


def test_the_oldest_rows_of_the_fullest_table_go_when_there_are_too_many():
    backlog = recording.Backlog(max_rows=10)
    backlog.add("processes", process_state("p", updated=1))
    for first in (0, 4, 8):
        backlog.add("log_entries", log_batch(range(first, first + 4)))

    assert backlog.waiting_rows == 9
    assert [backlog.take_lost_count(), backlog.take_lost_count()] == [4, 0]


def test_a_counter_is_reported_as_growth_per_second_where_that_means_anything():
    def counter(value, core="0"):
        return recording.Reading("disk_reads", "count/s", value, ("core", core))

    def measure(*previous, seconds=2.0):
        rows = recording.build_measures(list(previous), [counter(150)], elapsed_seconds=seconds, time_ns=NOON_NS)
        return [row.value for row in rows]

    assert measure(counter(100)) == [25.0]
    # No sample before, another core, it ran backwards, no time passed.
    assert measure() == measure(counter(100, "1")) == measure(counter(200)) == measure(counter(100), seconds=0.0) == []


def test_no_program_is_started_that_would_inherit_the_servers_environment(monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **_options: started.append(arguments))
    monkeypatch.setattr(platform, "_uname_cache", None)

    found = recording.describe_process("id", exe="x" * 1000, insert_time_ns=7)

    assert started == []
    assert (found.username, found.computer) == (psutil.Process().username(), platform.node())
    assert len(found.exe.encode()) == 255
