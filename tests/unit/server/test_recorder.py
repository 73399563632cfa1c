"""What cannot be stored waits, up to a bound; neither a disk nor a defect stops the application or the recording."""

import logging
import platform
import subprocess
import threading
from concurrent.futures import Future

import psutil
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from micromegas_jupyter.core.jsonb import encode
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.lake.writer import LakeWriter
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
def writer(tmp_path):
    writer = LakeWriter(Storage(tmp_path / "lake"))
    yield writer
    writer.close()


@pytest.fixture
def recorder(writer, clock, logger):
    recorder = Recorder(writer, exe="test", clock=clock, logger=logger, commit_interval_seconds=1.0)
    recorder._attach_handler()
    yield recorder
    recorder.stop()


def _rows(folder, table):
    return DeltaTable(folder / "lake" / table).to_pyarrow_table().to_pylist()


def test_rows_wait_while_the_disk_fails_which_is_reported_once_a_minute(recorder, clock, tmp_path, caplog):
    (tmp_path / "lake").write_text("not a folder")
    for number in range(61):
        logging.getLogger("tests.recorder").info("line %d", number)
        recorder._run_once()
        clock.advance(1.0)

    (tmp_path / "lake").unlink()
    recorder._run_once()

    warnings = [record for record in caplog.records if record.getMessage() == "telemetry could not be stored"]
    assert [record.failed_flushes for record in warnings] == [1, 61]
    assert {f"line {number}" for number in range(61)} <= {row["msg"] for row in _rows(tmp_path, "log_entries")}


def test_a_table_that_cannot_be_stored_keeps_no_other_one_waiting(recorder, tmp_path):
    (tmp_path / "lake/log_entries").mkdir(parents=True)
    (tmp_path / "lake/log_entries/_delta_log").write_text("not a folder")
    logging.getLogger("tests.recorder").info("a line")

    recorder._run_once()

    assert _rows(tmp_path, "measures")
    assert recorder._backlog.waiting_rows == 1


def test_what_was_dropped_is_reported_in_the_log(recorder, tmp_path, monkeypatch):
    monkeypatch.setattr("micromegas_jupyter.server.recorder.recorder.MAX_MEASURES", 1)
    recorder._handler.handle(logging.makeLogRecord({"created": float("nan")}))
    recorder.add_measures([MeasureRow(time_ns=1, target="a", name="n", unit="count", value=1.0)] * 3)

    recorder._run_once()

    (row,) = _rows(tmp_path, "log_entries")
    assert (row["msg"], row["properties"]) == ("telemetry was dropped", encode({"log_records": "1", "measures": "2"}))


class HungWriter(LakeWriter):
    """A writer on a disk that does not answer until it may."""

    def __init__(self, storage):
        super().__init__(storage)
        self.opening, self.answer = threading.Event(), threading.Event()

    def append(self, *arguments, **options):
        self.opening.set()
        assert self.answer.wait(30)
        return super().append(*arguments, **options)


def test_a_disk_that_hangs_stops_neither_the_application_nor_its_end(tmp_path, logger):
    writer = HungWriter(Storage(tmp_path / "lake"))
    recorder = Recorder(writer, exe="test", logger=logger, commit_interval_seconds=0.01)
    recorder.start()
    assert writer.opening.wait(30)
    logger.info("the application goes on")

    ended = recorder.stop(timeout_seconds=0.1)

    assert ended is False
    writer.answer.set()
    assert recorder.stop(timeout_seconds=30) is True
    writer.close()
    assert [row["msg"] for row in _rows(tmp_path, "log_entries")] == ["the application goes on"]
    assert logger.handlers == []


def test_a_defect_does_not_end_the_recording(writer, tmp_path, logger, monkeypatch):
    recorder = Recorder(writer, exe="test", logger=logger, commit_interval_seconds=0.01)
    failed, failing = threading.Event(), iter([True, True])

    def fail_twice(**_):
        if next(failing, False):
            raise ZeroDivisionError
        failed.set()
        return []

    monkeypatch.setattr(recorder._sampler, "sample", fail_twice)
    recorder.start()
    assert failed.wait(30)
    logger.info("still here")

    assert recorder.stop(timeout_seconds=30) is True
    assert "still here" in [row["msg"] for row in _rows(tmp_path, "log_entries")]


def test_a_write_whose_outcome_is_not_known_is_repeated_under_its_id(tmp_path, logger, writer, monkeypatch):
    recorder = Recorder(writer, exe="test", logger=logger)
    recorder._attach_handler()
    logger.info("once")
    outcomes = iter([Unavailable("The answer was lost.")])

    def losing_answers(table, rows, *, write_id):
        outcome = LakeWriter.append(writer, table, rows, write_id=write_id)
        if table == "log_entries" and (error := next(outcomes, None)) is not None:
            outcome.result(30)
            outcome = Future()
            outcome.set_exception(error)
        return outcome

    monkeypatch.setattr(writer, "append", losing_answers)
    recorder._run_once(is_last=True)
    recorder._run_once(is_last=True)
    recorder.stop()

    assert [row["msg"] for row in _rows(tmp_path, "log_entries")].count("once") == 1


def test_warnings_still_reach_stderr(writer, capsys):
    alone = logging.getLogger("tests.recorder_alone")
    alone.propagate = False

    recorder = Recorder(writer, exe="test", logger=alone)
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
    assert [tables(0.0), tables(59.9), tables(60.0), tables(62.0, is_last=True)] == [states, [], states, states]


def test_the_oldest_rows_of_the_fullest_table_go_when_there_are_too_many():
    backlog = recording.Backlog(max_rows=10)
    backlog.add("processes", process_state("p", updated=1))
    for first in (0, 4, 8):
        backlog.add("log_entries", log_batch(range(first, first + 4)))

    assert backlog.waiting_rows == 9
    assert [backlog.take_lost_count(), backlog.take_lost_count()] == [4, 0]


class LosingAnswers:
    """A writer that stores what it gets, and does not say so while `loses` is set."""

    def __init__(self, writer):
        self._writer = writer
        self.loses = True

    def append(self, table, rows, *, write_id):
        stored = self._writer.append(table, rows, write_id=write_id)
        if not self.loses:
            return stored
        stored.result()
        lost = Future()
        lost.set_exception(Unavailable("It is not known whether the rows were stored."))
        return lost


@pytest.mark.parametrize(("max_rows", "found", "lost"), [(10, [0, 1, 2, 3, 8, 9, 10, 11], 4), (4, [0, 1, 2, 3], 8)])
def test_a_write_whose_outcome_is_not_known_is_never_stored_twice(writer, tmp_path, max_rows, found, lost):
    backlog, losing = recording.Backlog(max_rows=max_rows), LosingAnswers(writer)
    for first in (0, 2):
        backlog.add("log_entries", log_batch(range(first, first + 2)))
    with pytest.raises(Unavailable):
        backlog.store(losing)
    for first in (4, 8):
        backlog.add("log_entries", log_batch(range(first, first + 4)))
    losing.loses = False

    backlog.store(losing)
    backlog.store(losing)

    stored = [row["msg"] for row in _rows(tmp_path, "log_entries")]
    assert len(stored) == len(set(stored))
    assert sorted(stored) == sorted(pa.table(log_batch(found))["msg"].to_pylist())
    assert (backlog.waiting_rows, backlog.take_lost_count()) == (0, lost)


def test_a_write_of_unknown_outcome_goes_as_a_whole_when_nothing_else_can(writer, tmp_path):
    backlog, losing = recording.Backlog(max_rows=4), LosingAnswers(writer)
    for first in (0, 2):
        backlog.add("log_entries", log_batch(range(first, first + 2)))
    with pytest.raises(Unavailable):
        backlog.store(losing)
    backlog.add("processes", process_state("p", updated=1))
    losing.loses = False

    backlog.store(losing)

    assert (len(_rows(tmp_path, "log_entries")), len(_rows(tmp_path, "processes"))) == (4, 1)
    assert (backlog.waiting_rows, backlog.take_lost_count()) == (0, 4)


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
